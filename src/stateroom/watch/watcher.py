"""Watchers: a handler that is given every change, at least once, from where it stopped before."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, TypeVar

from .. import arguments
from ..core.bridge import run_now
from ..core.namespace import Reader, Scope
from ..core.operation import M, iteration
from ..core.outage import Outage, passes
from ..core.transaction import Transaction, transact
from ..errors import AlreadyExists, InvalidArgument, StoreError, Timeout
from ..feed import positions
from ..feed.feed import Change, Changes, Feed, Filter, Follower, make_filter
from ..feed.positions import BEGINNING, LATEST
from ..limits import PAGE_ITEMS
from .checkpoints import Checkpoint, begin_checkpoint, read_checkpoint, write_checkpoint
from .loop import Loop, WatcherStats

log = logging.getLogger("stateroom.watch")

R = TypeVar("R")

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
        follower = await _Consumer.of(self._scope, name, start, make_filter(families, ops, ids))
        while True:
            position = follower.position
            changes = await follower.read(batch)
            for change in changes.items:
                yield change
                await follower.move(change.position)
            if not changes.items and changes.next != position:
                await follower.move(changes.next)


class _Consumer:
    """The place of an iterator over the feed. Its steps are made again while the database is away."""

    def __init__(self, scope: Scope, name: str | None, follower: Follower) -> None:
        self._scope = scope
        self._name = name
        self._follower = follower
        self._outage = Outage(log, f"follower {name!r}" if name else "a follower", scope.clock)

    @classmethod
    async def of(cls, scope: Scope, name: str | None, start: str, filter: Filter) -> "_Consumer":
        """Begin where the checkpoint is, or at `start`; the end of now is kept as a checkpoint, as it moves."""
        if name is not None:
            name = arguments.name(name, "name")
            stored = await read_checkpoint(scope.reader, name)
            if stored is None and start == LATEST:
                first = await positions.write(scope, await positions.latest(scope.reader))
                stored = await transact(scope, lambda tx: begin_checkpoint(tx, name, first))
            start = start if stored is None else stored.position
        return cls(scope, name, Follower(scope, start, filter))

    @property
    def position(self) -> str:
        return self._follower.position

    async def read(self, limit: int) -> Changes:
        """The next changes, whenever they come."""
        return await self._lasting(lambda: self._follower.read(limit, FOLLOW_SECONDS))

    async def move(self, position: str) -> None:
        """Move the checkpoint, where there is one."""
        name = self._name
        if name is None:
            return

        async def body(tx: Transaction) -> None:
            write_checkpoint(tx, name, position)

        await self._lasting(lambda: transact(self._scope, body))

    async def _lasting(self, step: Callable[[], Awaitable[R]]) -> R:
        while True:
            try:
                result = await step()
            except StoreError as error:
                if not passes(error):
                    raise
                await self._scope.pause(self._outage.failed(error))
            else:
                self._outage.over()
                return result


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
        """Say whether it has its name: from when it is made until it is stopped."""
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
        """Return what it has done."""
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
        """Say whether it has its name: from when it is made until it is stopped."""
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
        finished, _ = await asyncio.wait([task], timeout=timeout)
        if not finished:
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
        """Return what it has done."""
        return self._loop.stats()
