"""The work of a watcher, whichever face drives it: lease, feed, handler, checkpoint, dead letters."""

import asyncio
import contextlib
import inspect
import logging
import threading
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

import msgspec

from .. import arguments, keys
from ..core.transaction import Scope, Transaction, transact
from ..errors import Closed, Compacted, InvalidArgument, LostLease, StoreError
from ..families.leases import Lease, acquire, fence, release, renew
from ..feed import positions
from ..feed.feed import Change, Filter, Follower, make_filter, read_changes
from ..feed.positions import BEGINNING, LATEST
from ..limits import PAGE_ITEMS
from .checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from .dead_letters import DeadLetter, delete_letter, letters, make_letter, retry_key, write_letter

log = logging.getLogger("stateroom.watch.watcher")

LEASE_SECONDS = 15.0
"""How long a watcher's lease lasts after the process that holds it has died."""

POLL_SECONDS = 0.25
"""How long a watcher waits for a change before it looks whether it was stopped."""

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
    batch = arguments.number(batch, "batch", least=1, most=PAGE_ITEMS)
    max_retries = arguments.number(max_retries, "max_retries")
    checkpoint_every = arguments.number(checkpoint_every, "checkpoint_every")
    on_error = arguments.choice(on_error, "on_error", ("block", "skip"))
    least, most = 0.0, 0.0
    try:
        least, most = backoff
        allowed = 0 <= least <= most < 1e6
    except (TypeError, ValueError):
        allowed = False
    if not allowed:
        raise InvalidArgument(f"backoff is {backoff!r}; use (least, most) seconds", what="backoff", value=backoff)
    start = arguments.text(start, "start")
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
        self._halted = asyncio.Event()
        self._since = 0
        self._lease: Lease | None = None
        self._retry_version = self._looked_at = _UNSEEN
        self._follower: Follower | None = None

    def stats(self) -> WatcherStats:
        return WatcherStats(
            self.name, self.state, self.position, self.checkpoint, self.handled, self.skipped, self.retries,
            self.last_handled_at, self.error,
        )  # fmt: skip

    def halt(self) -> None:
        """Ask it to stop; called on the event loop where it runs on one."""
        self.stopping.set()
        self._halted.set()

    async def prepare(self) -> None:
        """Fix where to begin: the checkpoint beats `start`; what comes after this call is seen."""
        self.stopping.clear()
        self._halted = asyncio.Event()
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
            if self._follower is None or self._follower.position != self.position:
                self._follower = Follower(self.scope, self.position, self.options.filter)
            await self._handed_back(self._follower.versions)
            changes = await self._follower.read(self.options.batch, POLL_SECONDS)
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

    async def _handed_back(self, versions: list[int]) -> None:
        """Handle dead letters that were handed back; `versions`: those that the last read saw, if there was one."""
        part, key = self.scope.part(keys.root(self.name)), retry_key(self.scope, self.name)
        if versions and versions[part] == self._looked_at:
            return
        self._looked_at = versions[part] if versions else _UNSEEN
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
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._halted.wait(), seconds)


async def _put_letter(tx: Transaction, letter: DeadLetter) -> None:
    write_letter(tx, letter)


async def _drop_letter(tx: Transaction, letter: DeadLetter) -> None:
    delete_letter(tx, letter)
