"""Watchers: a handler that is given every change, at least once, from where it stopped before."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Collection
from typing import Any

from .. import arguments
from ..core.bridge import run_now
from ..core.operation import M, iteration
from ..core.transaction import Reader, Scope, Transaction, transact
from ..errors import AlreadyExists, InvalidArgument, Timeout
from ..feed.feed import Change, Feed, Follower, make_filter
from ..feed.positions import BEGINNING
from ..limits import PAGE_ITEMS
from .checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from .loop import Loop, WatcherStats

log = logging.getLogger("stateroom.watch.watcher")

FOLLOW_SECONDS = 30.0
"""How long a follower waits in one read; only a match, or the store's end, wakes it."""


class WatchedFeed(Feed[M]):
    """``store.feed``, with iterators that follow it."""

    @iteration
    async def follow(
        self,
        tx: Reader,
        name: str | None = None,
        *,
        start: str = BEGINNING,
        families: Collection[str] | None = None,
        ops: Collection[str] | None = None,
        ids: Collection[Any] | None = None,
        batch: int = 100,
    ) -> AsyncIterator[Change]:
        """Every change that matches, for ever: on an `AsyncStore` with ``async for``, and without a thread.

        `name`: a checkpoint of that name is where it begins, and is moved when the next change is asked for, so that
        one in hand is seen again after a crash. LATEST is the end of the feed when the first change is asked for, as
        an iterator begins then: take `latest()` where it must be the end as of now. Raises `Compacted`,
        `InvalidArgument`, `Closed`.
        """
        batch = arguments.number(batch, "batch", least=1, most=PAGE_ITEMS)
        if isinstance(tx, Transaction):
            raise InvalidArgument("the feed cannot be followed inside a transaction", what="follow")
        scope, wanted = self._scope, make_filter(families, ops, ids)
        stored = None if name is None else await read_checkpoint(scope.reader, arguments.name(name, "name"))
        follower = Follower(scope, start if stored is None else stored.position, wanted)
        while True:
            position = follower.position
            changes = await follower.read(batch, FOLLOW_SECONDS)
            for change in changes.items:
                yield change
                if name is not None:
                    await _move(scope, name, change.position)
            if name is not None and not changes.items and changes.next != position:
                await _move(scope, name, changes.next)


async def _move(scope: Scope, name: str, position: str) -> None:
    async def body(tx: Transaction) -> None:
        write_checkpoint(tx, name, position)

    await transact(scope, body)


class Watcher:
    """A watcher of a `Store`: its handler runs in a thread of its own."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        """Its name, and that of its checkpoint."""
        return self._loop.name

    @property
    def live(self) -> bool:
        """Whether it has its name: from when it is made until it is stopped."""
        return self._loop.state != "stopped"

    def start(self) -> None:
        """Begin to deliver changes; changes committed after this call returns are delivered whatever `start` is.

        Raises `AlreadyExists` when it runs already.
        """
        if self._thread is not None and self._thread.is_alive():
            raise AlreadyExists(f"watcher {self.name!r} is running", kind="watchers", id=self.name)
        run_now(self._loop.prepare())
        self._thread = threading.Thread(
            target=lambda: run_now(self._loop.run()), name=f"stateroom-watch-{self.name}", daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float | None = None) -> None:
        """Stop after the change in hand, waiting up to `timeout` seconds. Raises `Timeout`; may be called again."""
        self._loop.halt()
        thread = self._thread
        if thread is None:
            self._loop.state = "stopped"
            return
        if thread is threading.current_thread():
            self._loop.state = "stopping"
            return
        if thread.is_alive():
            self._loop.state = "stopping"
        thread.join(timeout)
        if thread.is_alive():
            raise Timeout(f"watcher {self.name!r} is still in its handler after {timeout} s")

    def seek(self, position: str) -> None:
        """Go on from another position: stop, set the checkpoint, start again if it was running."""
        running = self._thread is not None and self._thread.is_alive()
        if running:
            self.stop()
        run_now(self._loop.move(position))
        if running:
            self.start()

    def checkpoint(self, position: str | None = None) -> Checkpoint:
        """Write the checkpoint: after the last handled change, or at a position."""
        return run_now(self._loop.save(position))

    def stats(self) -> WatcherStats:
        """What it has done."""
        return self._loop.stats()


class AsyncWatcher:
    """A watcher of an `AsyncStore`: its handler, a coroutine function or a plain one, runs in a task."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """Its name, and that of its checkpoint."""
        return self._loop.name

    @property
    def live(self) -> bool:
        """Whether it has its name: from when it is made until it is stopped."""
        return self._loop.state != "stopped"

    async def start(self) -> None:
        """As `Watcher.start`."""
        if self._task is not None and not self._task.done():
            raise AlreadyExists(f"watcher {self.name!r} is running", kind="watchers", id=self.name)
        await self._loop.prepare()
        self._task = asyncio.get_running_loop().create_task(self._loop.run(), name=f"stateroom-watch-{self.name}")

    async def stop(self, timeout: float | None = None) -> None:
        """As `Watcher.stop`."""
        self._loop.halt()
        task = self._task
        if task is None:
            self._loop.state = "stopped"
            return
        if not task.done():
            self._loop.state = "stopping"
        if task is asyncio.current_task():
            return
        done, _ = await asyncio.wait([task], timeout=timeout)
        if not done:
            raise Timeout(f"watcher {self.name!r} is still in its handler after {timeout} s")
        if not task.cancelled() and task.exception() is not None:
            log.error("watcher %r ended: %r", self.name, task.exception())

    async def seek(self, position: str) -> None:
        """As `Watcher.seek`."""
        running = self._task is not None and not self._task.done()
        if running:
            await self.stop()
        await self._loop.move(position)
        if running:
            await self.start()

    async def checkpoint(self, position: str | None = None) -> Checkpoint:
        """As `Watcher.checkpoint`."""
        return await self._loop.save(position)

    def stats(self) -> WatcherStats:
        """What it has done."""
        return self._loop.stats()
