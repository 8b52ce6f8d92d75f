"""Commits to one part that come together share a transaction: its lock, its round trip and its flush.

The first goes at once and alone. Those that come while it is under way would wait on the server for the lock of the
part; they wait here instead and then go together. Each is checked for itself, and if the server certainly refused what
they sent together, each goes alone: none suffers from another.

Who leads is only a matter of speed, not of safety: the server keeps the commits of a part apart. So a line whose leader
vanished (an interrupt may hit between any two steps) is led on by whoever notices.
"""

import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from stateroom.engine import Batch, Outcome
from stateroom.errors import OutcomeUnknown, StoreError

from ..interrupts import Lock
from .carriers import LOOK_SECONDS, Carrier, Signal

MOST, MOST_BYTES = 32, 1 << 20
"""Batches, and bytes of values, that share a transaction."""

PATIENCE = 30.0
"""Seconds until a line that does not move is led by somebody else, whatever its leader does."""


def _bytes(batch: Batch) -> int:
    return sum(len(value) for value in batch.write.values() if value) + sum(len(value) for _, value in batch.append)


class _Lead:
    """The right to commit for a part. It ends with the call that has it, however that ends."""

    __slots__ = ("__weakref__", "caller")

    def __init__(self, caller: int | None) -> None:
        self.caller = caller
        """The thread that leads, where its calls may be nested."""


class _Entry:
    """A batch that waits for others, and what became of it."""

    __slots__ = ("alone", "batch", "group", "lead", "outcome", "own", "signal")

    def __init__(self, batch: Batch, signal: Signal, own: _Lead) -> None:
        self.batch, self.signal, self.own = batch, signal, own
        self.lead: _Lead | None = None
        """Set to its own for the one who is to lead."""
        self.group: _Group | None = None
        """Set once somebody is about to carry it out."""
        self.outcome: Outcome | None = None
        self.alone = False
        """True where it is to be carried out alone."""

    def settle(self, outcome: Outcome | None) -> None:
        self.outcome, self.alone, self.group = outcome, outcome is None, None
        self.signal.set()

    @property
    def settled(self) -> bool:
        return self.alone or self.outcome is not None


class _Group:
    """Batches that share a transaction, and how far that has come."""

    __slots__ = ("begun", "entries", "leader", "over")

    def __init__(self, lead: _Lead, first: _Entry) -> None:
        self.leader = weakref.ref(lead)
        self.entries = [first]
        self.begun = False
        """True from when the server may know of it."""
        self.over = False
        """True once all have been settled, or will be by nobody."""

    def settle(self, outcomes: "Sequence[Outcome | None]") -> None:
        """Tell each its outcome, with the lock held; None: to go alone."""
        self.over = True
        for entry, outcome in zip(self.entries, outcomes, strict=True):
            entry.settle(outcome)


class _Line:
    """The entries that wait for one part, and who leads."""

    __slots__ = ("leader", "waiting")

    def __init__(self, lead: _Lead) -> None:
        self.leader = weakref.ref(lead)
        self.waiting: deque[_Entry] = deque()


class CommitQueue:
    """Serves threads and the tasks of any number of event loops."""

    def __init__(
        self,
        carrier: Carrier,
        alone: Callable[[int, Batch], Awaitable[int]],
        together: Callable[[int, Sequence[Batch]], Awaitable[list[Outcome]]],
    ) -> None:
        self._carrier, self._alone, self._together = carrier, alone, together
        self.reset()

    def reset(self) -> None:
        """Begin anew: in a forked child."""
        self.lock = Lock()
        self._lines: dict[int, _Line] = {}

    async def commit(self, part: int, batch: Batch) -> int:
        """Return the version. Raises what the batch alone would have raised."""
        lead = _Lead(self._carrier.caller())
        try:
            try:
                joined = self._join(part, batch, lead)
                if isinstance(joined, _Lead):
                    return await self._alone(part, batch)
                await self._wait(part, joined)
                if joined.lead is not None:
                    await self._lead(part, joined, lead)
            finally:
                self._pass_on(part, lead)
        except BaseException:
            self._leave(part, lead)  # also where an interrupt came before the line above
            raise
        if joined.outcome is None:
            return await self._alone(part, batch)
        if isinstance(joined.outcome, BaseException):
            raise joined.outcome
        return joined.outcome

    def _join(self, part: int, batch: Batch, lead: _Lead) -> "_Lead | _Entry":
        """Begin a line and lead it, or wait in the one there is."""
        with self.lock:
            line = self._lines.get(part)
            if line is None:
                self._lines[part] = _Line(lead)
                return lead
            leader = line.leader()
            if leader is None:  # it was interrupted
                line.leader = weakref.ref(lead)
                return lead
            if lead.caller is not None and leader.caller == lead.caller:
                return lead  # a signal's handler, in the middle of a commit: it cannot wait for that
            entry = _Entry(batch, self._carrier.signal(), lead)
            line.waiting.append(entry)
            return entry

    async def _wait(self, part: int, entry: _Entry) -> None:
        """Return when the entry is settled, or is to lead."""
        end = time.monotonic() + PATIENCE
        while not await entry.signal.wait(LOOK_SECONDS):
            with self.lock:
                if entry.settled or entry.lead is not None:
                    return
                if (group := entry.group) is not None:
                    if group.over or group.leader() is None:  # interrupted in the middle of our transaction
                        entry.settle(_shared_outcome(None) if group.begun else None)
                        return
                elif (line := self._lines.get(part)) is None or entry not in line.waiting:
                    entry.alone = True
                    return
                elif line.leader() is None or time.monotonic() >= end:
                    line.waiting.remove(entry)
                    self._appoint(line, entry)
                    return

    def _appoint(self, line: _Line, entry: _Entry) -> bool:
        """Make an entry, which waits no more, lead its line; False where nobody waits for it any more."""
        entry.lead = entry.own
        line.leader = weakref.ref(entry.own)
        return entry.signal.set()

    def _pass_on(self, part: int, lead: _Lead) -> None:
        """Let the next one lead, where `lead` still did."""
        with self.lock:
            line = self._lines.get(part)
            if line is None or line.leader() is not lead:
                return
            while line.waiting:
                if self._appoint(line, line.waiting.popleft()):
                    return
            del self._lines[part]

    def _leave(self, part: int, lead: _Lead) -> None:
        """Interrupted: what it was to do for others, another does; its own was not begun, or goes on."""
        with self.lock:
            line = self._lines.get(part)
            for entry in list(line.waiting) if line is not None else ():
                if line is not None and entry.own is lead:
                    line.waiting.remove(entry)
            self._pass_on(part, lead)

    async def _lead(self, part: int, entry: _Entry, lead: _Lead) -> None:
        """Carry out a batch and those that wait behind it; alone where nobody does."""
        group = _Group(lead, entry)
        try:
            self._gather(part, group)
            if len(group.entries) == 1:
                entry.outcome = await self._alone(part, entry.batch)
            else:
                # Whoever is cancelled here changes nothing for the others: they are carried out.
                await self._carrier.apart(partial(self._carry_out, part, group, lead))
        except BaseException:
            with self.lock:
                if not group.begun and len(group.entries) > 1:
                    group.settle([None] * len(group.entries))
            raise

    def _gather(self, part: int, group: _Group) -> None:
        with self.lock:
            line = self._lines.get(part)
            waiting = line.waiting if line is not None and line.leader() is group.leader() else deque()
            size = 0
            while waiting and len(group.entries) < MOST and (size := size + _bytes(waiting[0].batch)) <= MOST_BYTES:
                waiting[0].group = group
                group.entries.append(waiting.popleft())

    async def _carry_out(self, part: int, group: _Group, lead: _Lead) -> None:
        with self.lock:
            if group.over:  # whoever led was interrupted before this began, and each goes alone
                return
            group.begun = True
        outcomes: Sequence[Outcome | None] = [None] * len(group.entries)
        try:
            outcomes = await self._together(part, [entry.batch for entry in group.entries])
        except BaseException as error:
            outcomes = [_shared_outcome(error) for _ in group.entries]
            if not isinstance(error, StoreError):
                raise
        finally:
            with self.lock:
                group.settle(outcomes)
            del lead  # held until here: it is led as long as this runs


def _shared_outcome(error: BaseException | None) -> OutcomeUnknown | None:
    """Return what one of a group gets for an error of all: that nobody knows; None, to go alone, where it is certain
    that nothing was done.
    """
    if isinstance(error, StoreError) and not isinstance(error, OutcomeUnknown):
        return None
    unknown = OutcomeUnknown(  # one for each: a traceback belongs to one thread
        "the transaction that this commit shared with others was interrupted: the change may be there or not;"
        " look before trying again, or use `once`"
    )
    unknown.__cause__ = error
    return unknown
