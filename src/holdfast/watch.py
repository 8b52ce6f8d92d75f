"""Watchers: a handler that is given every change, at least once, from where it stopped before."""

import asyncio
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable, Collection
from datetime import datetime
from typing import Any

import msgspec

from . import keys, positions
from .bridge import run_now
from .errors import AlreadyExists, Closed, Compacted, InvalidArgument, LostLease, StoreError, Timeout
from .families.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from .families.dead_letters import DeadLetter, delete_letter, letters, make_letter, retry_key, write_letter
from .families.lease import Lease, acquire, fence, release, renew
from .feed import Change, Feed, Filter, make_filter, read_changes
from .limits import PAGE_ITEMS
from .operation import M, iteration
from .positions import BEGINNING, LATEST
from .transaction import Reader, Scope, Transaction, transact

log = logging.getLogger("holdfast.watch")

LEASE_SECONDS = 15.0
"""How long a watcher's lease lasts after the process that holds it has died."""

POLL_SECONDS = 0.25
"""How long a watcher waits for a change before it looks whether it was stopped."""

FOLLOW_SECONDS = 30.0
"""How long a follower waits in one read; only a match, or the store's end, wakes it."""

_UNSEEN = -1

Handler = Callable[[Change], Any]


class WatcherStats(msgspec.Struct, frozen=True):
    """What a watcher has done since it was made."""

    name: str
    state: str
    """"idle", "waiting" (for the lease), "running", "stopping" or "stopped"."""
    position: str
    """After the last change that was handled or passed over."""
    checkpoint: str | None
    handled: int
    skipped: int
    """Changes given up on, now dead letters."""
    retries: int
    last_handled_at: datetime | None
    error: BaseException | None
    """What the last handler call raised, or what ended the watcher."""


class Options(msgspec.Struct, frozen=True):
    """How a watcher goes about it, checked."""

    filter: Filter
    start: str
    batch: int
    skip: bool
    max_retries: int
    backoff: tuple[float, float]
    ephemeral: bool
    checkpoint_every: int


def make_options(
    *,
    families: Collection[str] | None,
    ops: Collection[str] | None,
    start: str,
    batch: int,
    on_error: str,
    max_retries: int,
    backoff: tuple[float, float],
    ephemeral: bool,
    checkpoint_every: int,
) -> Options:
    """Checked options. Raises `InvalidArgument`."""
    keys.check_number(batch, "batch", least=1, most=PAGE_ITEMS)
    keys.check_number(max_retries, "max_retries")
    keys.check_number(checkpoint_every, "checkpoint_every")
    if on_error not in ("block", "skip"):
        raise InvalidArgument(f"on_error is {on_error!r}; block or skip", what="on_error", value=on_error)
    try:
        least, most = backoff
        allowed = 0 <= least <= most < 1e6
    except (TypeError, ValueError):
        allowed = False
    if not allowed:
        raise InvalidArgument(f"backoff is {backoff!r}; use (least, most) seconds", what="backoff", value=backoff)
    if not isinstance(start, str):
        raise InvalidArgument(f"start is {start!r}; use a position", what="start", value=start)
    return Options(
        make_filter(families, ops, None), start, batch, on_error == "skip", max_retries, (least, most), ephemeral,
        checkpoint_every,
    )  # fmt: skip


def _lease_key(name: str) -> str:
    return f"{name}/\x01watch"  # in the root of the name, where its checkpoint is


class Loop:
    """The work of a watcher, whichever face drives it."""

    def __init__(self, scope: Scope, name: str, handler: Handler, options: Options) -> None:
        self.scope = scope
        self.name = name
        self.handler = handler
        self.options = options
        self.state = "idle"
        self.position = options.start
        self.checkpoint: str | None = None
        self.handled = self.skipped = self.retries = 0
        self.last_handled_at: datetime | None = None
        self.error: BaseException | None = None
        self.stopping = threading.Event()
        self._since = 0
        self._lease: Lease | None = None
        self._retry_version = _UNSEEN

    def stats(self) -> WatcherStats:
        return WatcherStats(
            self.name, self.state, self.position, self.checkpoint, self.handled, self.skipped, self.retries,
            self.last_handled_at, self.error,
        )  # fmt: skip

    async def prepare(self) -> None:
        """Fix where to begin: the checkpoint beats `start`; what comes after this call is seen."""
        self.stopping.clear()
        self.error = None
        stored = None if self.options.ephemeral else await read_checkpoint(self.scope.reader, self.name)
        if stored is not None:
            self.position = self.checkpoint = stored.position
        self.position = await self._within_the_end(self.position)
        self.state = "running" if self.options.ephemeral else "waiting"

    async def _within_the_end(self, position: str) -> str:
        """LATEST as what it is now; a position beyond the end (of a restored database, say) as the end."""
        scope = self.scope
        if position == BEGINNING:
            return position
        latest = await positions.latest(scope.reader)
        if position == LATEST:
            return await positions.write(scope, latest)
        vector = await positions.read(scope, position)
        if all(at <= end for at, end in zip(vector, latest, strict=True)):
            return position
        log.warning("watcher %r stood beyond the end of the feed; it goes on from the end", self.name)
        return await positions.write(scope, [min(at, end) for at, end in zip(vector, latest, strict=True)])

    async def run(self) -> None:
        """Follow the feed until it is stopped, or something ends it for good."""
        try:
            while not self.stopping.is_set():
                if not self.options.ephemeral and not await self._hold():
                    continue
                self.state = "running"
                await self._step()
        except (Closed, Compacted) as error:
            if not (isinstance(error, Closed) and self.stopping.is_set()):
                self.error = error
                log.error("watcher %r ended: %s", self.name, error)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.state = "stopped"
            await self._let_go()

    async def _hold(self) -> bool:
        """Whether we hold the lease: one watcher of a name is active, in whatever process."""
        key = _lease_key(self.name)
        try:
            if self._lease is None:
                lease = await transact(self.scope, lambda tx: acquire(tx, key, self._owner(), LEASE_SECONDS))
                self._lease = lease
                stored = await read_checkpoint(self.scope.reader, self.name)
                if stored is not None:  # another process may have moved it while we waited
                    self.position = self.checkpoint = stored.position
            else:
                left = (self._lease.expires_at - self.scope.clock.now()).total_seconds()
                if left < LEASE_SECONDS * 2 / 3:
                    held = self._lease
                    self._lease = await transact(self.scope, lambda tx: renew(tx, held, LEASE_SECONDS))
        except LostLease:
            self._lease = None
            self.state = "waiting"
            await self._pause(POLL_SECONDS)
            return False
        return True

    def _owner(self) -> str:
        return f"watcher-{id(self):x}-{threading.get_native_id()}"

    async def _let_go(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            try:
                await transact(self.scope, lambda tx: release(tx, lease))
            except StoreError as error:  # it runs out by itself
                log.debug("watcher %r could not release its lease: %s", self.name, error)

    async def _step(self) -> None:
        """One read of the feed and what it gave."""
        try:
            await self._handed_back()
            changes = await read_changes(
                self.scope.reader, self.position, self.options.filter, self.options.batch, POLL_SECONDS
            )
        except StoreError as error:
            if not error.retry:
                raise
            self.error = error  # the database is away for a while: the position stays
            await self._pause(self.options.backoff[0])
            return
        for change in changes.items:
            if self.stopping.is_set() or not await self._deliver(change):
                return
        if changes.next != self.position:
            self.position = changes.next
            if not changes.items and self.options.checkpoint_every:
                await self._keep()  # what is passed over must not hold the feed back

    async def _deliver(self, change: Change) -> bool:
        """Handle one change; False when it must be seen again, as the watcher was stopped or lost its lease."""
        error = await self._try(change)
        if error is not None:
            if not self.options.skip or self.stopping.is_set():
                return False
            letter = make_letter(self.scope, self.name, change, error, 1 + self.options.max_retries)
            self.skipped += 1
            self.position = change.position
            return await self._keep(letter)
        self.handled += 1
        self.last_handled_at = self.scope.clock.now()
        self.position = change.position
        self._since += 1
        if self.options.checkpoint_every and self._since >= self.options.checkpoint_every:
            return await self._keep()
        return True

    async def _try(self, change: Change) -> BaseException | None:
        """Call the handler, again after an error: for ever, or 1 + max_retries times when it may be skipped."""
        delay = self.options.backoff[0]
        attempt = 0
        while True:
            try:
                result = self.handler(change)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is kept, and shown by stats()
                self.error = error
                if self.options.skip and attempt >= self.options.max_retries:
                    return error
                attempt += 1
                self.retries += 1
                await self._pause(delay)
                delay = min(max(delay * 2, 0.001), self.options.backoff[1])
                if self.stopping.is_set():
                    return error
                if not self.options.ephemeral and self._lease is not None and not await self._hold():
                    return error
            else:
                return None

    async def _keep(self, letter: DeadLetter | None = None) -> bool:
        """Write the checkpoint (and a dead letter) while we hold the lease; False when we do not."""
        lease = self._lease
        save = not self.options.ephemeral and (letter is None or self.options.checkpoint_every > 0)

        async def body(tx: Transaction) -> None:
            if lease is not None:
                await fence(tx, lease)
            if letter is not None:
                write_letter(tx, letter)
            if save:
                write_checkpoint(tx, self.name, self.position)

        try:
            await transact(self.scope, body)
        except LostLease:
            self._lease = None
            return False
        if save:
            self.checkpoint = self.position
            self._since = 0
        return True

    async def _handed_back(self) -> None:
        """Handle dead letters that were handed back."""
        part, key = self.scope.part(keys.root(self.name)), retry_key(self.scope, self.name)
        row = (await self.scope.reader.peek(part, [key]))[0]
        version = 0 if row is None else row.version
        if version == self._retry_version:
            return
        self._retry_version = version
        found = [letter async for letter in letters(self.scope.reader, self.name) if letter.retry] if row else []
        for letter in found:
            await self._redo(letter)

    async def _redo(self, letter: DeadLetter) -> None:
        try:
            again = await read_changes(self.scope.reader, letter.before, Filter(), 1, 0.0)
        except Compacted as error:
            kept = msgspec.structs.replace(letter, retry=False, error=f"Compacted: {error}")
            await transact(self.scope, lambda tx: _put_letter(tx, kept))
            return
        refused = await self._try(again.items[0]) if again.items else None
        if refused is None:
            self.handled += 1
            await transact(self.scope, lambda tx: _drop_letter(tx, letter))
        else:
            kept = msgspec.structs.replace(
                letter,
                retry=False,
                attempts=letter.attempts + 1 + self.options.max_retries,
                error=f"{type(refused).__name__}: {refused}"[:4000],
            )
            await transact(self.scope, lambda tx: _put_letter(tx, kept))

    async def move(self, position: str) -> None:
        """Stand somewhere else; the watcher must not be running."""
        if position not in (BEGINNING, LATEST):
            await positions.read(self.scope, position)
        self.position = await self._within_the_end(position)
        if not self.options.ephemeral:
            await self.save(self.position)

    async def save(self, position: str | None) -> Checkpoint:
        """Write the checkpoint. Raises `InvalidArgument` for an ephemeral watcher."""
        if self.options.ephemeral:
            raise InvalidArgument(f"watcher {self.name!r} is ephemeral and keeps no checkpoint", what="checkpoint")
        where = self.position if position is None else await self._within_the_end(position)

        async def body(tx: Transaction) -> None:
            write_checkpoint(tx, self.name, where)

        await transact(self.scope, body)
        self.checkpoint = where
        self._since = 0
        return Checkpoint(self.name, where, self.scope.clock.now())

    async def _pause(self, seconds: float) -> None:
        if not self.scope.suspends:
            self.stopping.wait(seconds)
        elif not self.stopping.is_set():
            await asyncio.sleep(seconds)


async def _put_letter(tx: Transaction, letter: DeadLetter) -> None:
    write_letter(tx, letter)


async def _drop_letter(tx: Transaction, letter: DeadLetter) -> None:
    delete_letter(tx, letter)


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
        one in hand is seen again after a crash. Raises `Compacted`, `InvalidArgument`, `Closed`.
        """
        keys.check_number(batch, "batch", least=1, most=PAGE_ITEMS)
        if isinstance(tx, Transaction):
            raise InvalidArgument("the feed cannot be followed inside a transaction", what="follow")
        scope, wanted = self._scope, make_filter(families, ops, ids)
        stored = None if name is None else await read_checkpoint(scope.reader, keys.name(name, "name").decode())
        position = start if stored is None else stored.position
        while True:
            changes = await read_changes(scope.reader, position, wanted, batch, FOLLOW_SECONDS)
            for change in changes.items:
                yield change
                if name is not None:
                    await _move(scope, name, change.position)
            if name is not None and not changes.items and changes.next != position:
                await _move(scope, name, changes.next)
            position = changes.next


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
            target=lambda: run_now(self._loop.run()), name=f"holdfast-watch-{self.name}", daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float | None = None) -> None:
        """Stop after the change in hand, waiting up to `timeout` seconds. Raises `Timeout`; may be called again."""
        self._loop.stopping.set()
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
        self._task = asyncio.get_running_loop().create_task(self._loop.run(), name=f"holdfast-watch-{self.name}")

    async def stop(self, timeout: float | None = None) -> None:
        """As `Watcher.stop`."""
        self._loop.stopping.set()
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
