"""The work of a watcher, whichever face drives it: lease, feed, handler, checkpoint, dead letters."""

import asyncio
import contextlib
import inspect
import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from .. import keys
from ..clock import new_id
from ..codec.shown import Shown
from ..core.namespace import Scope
from ..core.outage import Outage, passes
from ..core.transaction import Transaction, transact
from ..engines.read_only import AsyncReadOnlyEngine, ReadOnlyEngine
from ..errors import Closed, Compacted, InvalidArgument, LostLease, ReadOnly, StoreError
from ..families.leases import Lease, fence
from ..families.renewal import Renewal
from ..feed import positions
from ..feed.feed import Change, Filter, Follower, make_filter, read_changes
from ..feed.positions import BEGINNING, LATEST
from .checkpoints import Checkpoint, begin_checkpoint, read_checkpoint, write_checkpoint
from .complaints import Complaints
from .dead_letters import DeadLetter, delete_letter, letters, make_letter, retry_key, write_letter
from .options import WatchOptions

log = logging.getLogger("stateroom.watch")

LEASE_SECONDS = 15.0
"""How long a watcher's lease lasts after the process that holds it has died."""

POLL_SECONDS = 0.25
"""How long a watcher waits for a change before it looks whether it was stopped."""

_SLICE_SECONDS = LEASE_SECONDS / 5
"""The longest a pause lasts before the lease is looked at again."""

_UNSEEN = -1

Handler = Callable[[Change], Any]


class WatcherStats(Shown, frozen=True):
    """The work of a watcher since it was made."""

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


def _lease_key(name: str) -> str:
    return f"{name}/\x01watch"  # in the root of the name, where its checkpoint is


class _GiveWay(Exception):
    """Unwinds a turn: the watcher was stopped or has lost its lease, so the change in hand is not given up on."""


class Loop:
    """The work of a watcher, whichever face drives it."""

    def __init__(self, scope: Scope, name: str, handler: Handler, options: WatchOptions) -> None:
        self.scope = scope
        self.name = name
        self.handler = handler
        self.options = options = options.checked()
        self.filter = make_filter(options.families, options.ops, None)
        self.state = "idle"
        self.position = options.start
        self.checkpoint: str | None = None
        self.handled = self.skipped = self.retries = 0
        self.last_handled_at: datetime | None = None
        self.error: BaseException | None = None
        self.stopping = threading.Event()
        self._halted = asyncio.Event()
        self._since = 0
        self._owner = ""
        self._renewal: Renewal | None = None
        self._token = 0
        self._begun = options.start
        """Where it stood when it was started."""
        self._unsaved = False
        """Whether a checkpoint that is due could not be written yet."""
        self._letter: tuple[DeadLetter, str] | None = None
        """A change that was given up on, and the position after it: not written yet."""
        self._retry_version = self._looked_at = _UNSEEN
        self._follower: Follower | None = None
        self._outage = Outage(log, f"watcher {name!r}", scope.clock)
        self._complaints = Complaints(name, scope.clock)

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
        """Fix where to begin: the checkpoint beats `start`; what comes after this call is seen. Raises `ReadOnly`."""
        engine = self.scope.engine if self.scope.direct is None else self.scope.direct
        if isinstance(engine, ReadOnlyEngine | AsyncReadOnlyEngine) and not self.options.ephemeral:
            raise ReadOnly(
                f"watcher {self.name!r} keeps a checkpoint and a lease, and this store only reads;"
                " make it ephemeral, or open the store to write"
            )
        self.stopping.clear()
        self._halted = asyncio.Event()
        self.error = None
        self._owner, self._token = f"watcher-{new_id()}", 0
        self._unsaved, self._letter = False, None
        stored = None if self.options.ephemeral else await read_checkpoint(self.scope.reader, self.name)
        from_end = self.position == LATEST
        if stored is not None:
            self.position = self.checkpoint = stored.position
        self.position = await self._within_the_end(self.position)
        if stored is None and from_end and not self.options.ephemeral:
            # Else the end would be another one at the next start, and what came between would be missed.
            first = self.position
            stored = await transact(self.scope, lambda tx: begin_checkpoint(tx, self.name, first))
            self.position = self.checkpoint = stored.position
        self._begun = self.position
        self.state = "running" if self.options.ephemeral else "waiting"

    async def _within_the_end(self, position: str) -> str:
        """LATEST as what it is now; a position beyond the end (of a restored database, say) as the end."""
        scope = self.scope
        if position == BEGINNING:
            return position
        latest = await positions.latest(scope.reader)
        if position == LATEST:
            return await positions.write(scope, latest)
        vector = await positions.read(scope, position, nearest=True)
        with contextlib.suppress(InvalidArgument):  # from after the backup that this database is: its end is that one's
            exact = await positions.read(scope, position)
            if all(at <= end for at, end in zip(exact, latest, strict=True)):
                return position
        log.warning("watcher %r stood beyond the end of the feed; it goes on from the end", self.name)
        return await positions.write(scope, [min(at, end) for at, end in zip(vector, latest, strict=True)])

    async def run(self) -> None:
        """Follow the feed until it is stopped, or something ends it for good; an outage does not, however long."""
        try:
            while not self.stopping.is_set():
                try:
                    await self._turn()
                except _GiveWay:
                    continue
                except StoreError as error:
                    if not passes(error):
                        raise
                    self.error = error
                    await self._pause(self._outage.failed(error))
                else:
                    self._outage.over()
        except (Closed, Compacted) as error:
            if not (isinstance(error, Closed) and self.stopping.is_set()):
                self.error = error
                log.error("watcher %r ended: %s", self.name, error)
        except BaseException as error:
            self.error = error
            log.error("watcher %r ended: %r", self.name, error)
            raise
        finally:
            self.state = "stopped"
            await self._let_go()

    async def _turn(self) -> None:
        """Take or keep the lease, write what is still to be written, and go on in the feed."""
        if not self.options.ephemeral:
            await self._hold()
        self.state = "running"
        if self._unsaved or self._letter is not None:
            await self._keep()
        await self._step()

    async def _hold(self) -> None:
        """Be the one active watcher of this name, in whatever process; else wait a moment and give way."""
        if self._renewal is not None:
            await self._renew()
            return
        try:
            self._renewal = await Renewal.acquire(self.scope, _lease_key(self.name), self._owner, LEASE_SECONDS)
        except LostLease:
            self.state = "waiting"
            await self._pause(POLL_SECONDS)
            raise _GiveWay from None
        token, self._token = self._token, self._renewal.lease.token
        if self._token != token + 1 or not token:  # another may have had it, and have moved the checkpoint
            stored = await read_checkpoint(self.scope.reader, self.name)
            self.position = self._begun if stored is None else stored.position
            self.checkpoint = None if stored is None else stored.position

    async def _renew(self) -> None:
        """Renew the lease where that is due; give way where it is lost."""
        if self._renewal is None:
            return
        try:
            await self._renewal.keep()
        except LostLease:
            self._lose()

    def _lose(self) -> None:
        """Give way to who has the lease now. What is not written is theirs to do again."""
        self._renewal = None
        self._letter, self._unsaved = None, False
        self.state = "waiting"
        raise _GiveWay

    async def _let_go(self) -> None:
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            try:
                await renewal.release()
            except StoreError as error:  # it runs out by itself
                log.debug("watcher %r could not release its lease: %s", self.name, error)

    async def _step(self) -> None:
        """One read of the feed and what it gave."""
        if self._follower is None or self._follower.position != self.position:
            self._follower = Follower(self.scope, self.position, self.filter)
        await self._handed_back(self._follower.versions)
        changes = await self._follower.read(self.options.batch, POLL_SECONDS)
        for change in changes.items:
            if self.stopping.is_set():
                return
            await self._deliver(change)
        if changes.next != self.position:
            self.position = changes.next
            if not changes.items and self.options.checkpoint_every:
                await self._keep()  # what is passed over must not hold the feed back

    async def _deliver(self, change: Change) -> None:
        """Handle one change, or give it up where it may be skipped."""
        error = await self._try(change)
        if error is not None:
            letter = make_letter(self.scope, self.name, change, error, 1 + self.options.max_retries)
            self._letter = letter, change.position
            await self._keep()
            return
        self.handled += 1
        self.last_handled_at = self.scope.clock.now()
        self.position = change.position
        self._since += 1
        if self.options.checkpoint_every and self._since >= self.options.checkpoint_every:
            await self._keep()

    async def _try(self, change: Change) -> BaseException | None:
        """Call the handler, again after an error: for ever, or 1 + max_retries times when it may be skipped.

        Gives the last error where it is to be given up; gives way where it was stopped or has lost its lease.
        """
        delay = self.options.backoff[0]
        calls = 0
        while True:
            calls += 1
            try:
                result = self.handler(change)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is kept, and shown by stats()
                self.error = error
                self._complaints.handler_raised(change, error, calls)
                await self._renew()
                if self.options.skip and calls > self.options.max_retries:
                    return error
                self.retries += 1
                await self._stay(delay)
                delay = min(max(delay * 2, 0.001), self.options.backoff[1])
            else:
                return None

    async def _stay(self, seconds: float) -> None:
        """Pause before the handler is called again, and keep the lease meanwhile, through an outage too."""
        while True:
            slice_seconds = min(seconds, _SLICE_SECONDS)
            await self._pause(slice_seconds)
            if self.stopping.is_set():
                raise _GiveWay
            seconds -= slice_seconds
            try:
                await self._renew()
            except StoreError as error:
                if not passes(error):
                    raise
                self.error = error
                seconds = max(seconds, self._outage.failed(error))  # who may not hold the lease calls no handler
            else:
                self._outage.over()
                if seconds <= 0:
                    return

    async def _keep(self) -> None:
        """Write the checkpoint, or a dead letter and the checkpoint behind it, while the lease is ours."""
        lease = self._current_lease()
        letter, position = self._letter or (None, self.position)
        save = not self.options.ephemeral and (letter is None or self.options.checkpoint_every > 0)

        async def body(tx: Transaction) -> None:
            if lease is not None:
                await fence(tx, lease)
            if letter is not None:
                write_letter(tx, letter)
            if save:
                write_checkpoint(tx, self.name, position)

        self._unsaved = letter is None
        await self._fenced(body)
        self._unsaved = False
        if letter is not None:
            self._letter = None
            self.position = position
            self.skipped += 1
        if save:
            self.checkpoint = position
            self._since = 0

    def _current_lease(self) -> Lease | None:
        """The lease under which this watcher writes; None for an ephemeral one, which has none."""
        if self._renewal is None and not self.options.ephemeral:
            self._lose()
        return None if self._renewal is None else self._renewal.lease

    async def _fenced(self, body: Callable[[Transaction], Any]) -> None:
        """Commit what expects the lease; give way where that is lost."""
        try:
            await transact(self.scope, body)
        except LostLease:
            self._lose()

    async def _handed_back(self, versions: list[int]) -> None:
        """Handle dead letters that were handed back; `versions`: those that the last read saw, if there was one."""
        part, key = self.scope.part(keys.root(self.name)), retry_key(self.scope, self.name)
        if versions and versions[part] == self._looked_at:
            return
        row = (await self.scope.reader.in_part(part).peek([key]))[0]
        version = 0 if row is None else row.version
        if version != self._retry_version:
            retries = [letter async for letter in letters(self.scope.reader, self.name) if letter.retry] if row else []
            for letter in retries:
                await self._redo(letter)
        self._retry_version = version
        self._looked_at = versions[part] if versions else _UNSEEN

    async def _redo(self, letter: DeadLetter) -> None:
        """Handle the change of a letter again, and drop the letter, or keep it with what came of it."""
        remaining: DeadLetter | None = None
        try:
            changes = await read_changes(self.scope.reader, letter.before, Filter(), 1, 0.0)
        except Compacted as error:
            remaining = msgspec.structs.replace(letter, retry=False, error=f"Compacted: {error}")
        else:
            refused = await self._try(changes.items[0]) if changes.items else None
            if refused is not None:
                remaining = msgspec.structs.replace(
                    letter,
                    retry=False,
                    attempts=letter.attempts + 1 + self.options.max_retries,
                    error=f"{type(refused).__name__}: {refused}"[:4000],
                )
        lease = self._current_lease()

        async def body(tx: Transaction) -> None:
            if lease is not None:
                await fence(tx, lease)
            if remaining is None:
                delete_letter(tx, letter)
            else:
                write_letter(tx, remaining)

        await self._fenced(body)
        self.handled += remaining is None

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

        async def body(tx: Transaction) -> Checkpoint:
            return write_checkpoint(tx, self.name, where)

        checkpoint = await transact(self.scope, body)
        self.checkpoint = where
        self._since = 0
        return checkpoint

    async def _pause(self, seconds: float) -> None:
        if not self.scope.suspends:
            self.stopping.wait(seconds)
        elif not self.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._halted.wait(), seconds)
