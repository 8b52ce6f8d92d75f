"""Work that is taken: the oldest record that nobody holds, with a lease on it, in one commit of one part.

Parts are tried from a random one on, so that workers spread over them. Workers of one process leave to each other what
one of them is taking right now; workers of others that met at a record look further on from there.
"""

import random
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from .. import keys
from ..codec.shown import Shown
from ..core.namespace import Scope
from ..core.transaction import Transaction, TransactionRows, transact
from ..engine import Range, Row
from ..errors import Conflict, Damaged
from ..limits import BATCH_BYTES
from ..records.kind import Kind, Record, Stored
from ..records.pages import left_out
from ..records.reading import open_row
from .leases.record import Lease, decode, floor_keys, grant, mark_key, read_mark, release, remaining
from .leases.record import rows as lease_rows
from .waiting import Look, undone_if_cancelled, until

T = TypeVar("T", bound=Record)

_FIRST, _MORE = 16, 256
"""Places of each index that are looked at first, and then at a time: most often the first is free."""

_MOST = 500
"""Records taken in one commit at most: each may touch twenty keys."""

_SAME_TIME = 4096
"""Places of one microsecond that are put in the order of commits."""

_SPREAD = 6
"""After so many conflicts a worker chooses among 64 records."""


class Claim(Shown, Generic[T], frozen=True):
    """A record, and the lease on its id that was taken with it."""

    record: T
    lease: Lease


class Plan(NamedTuple, Generic[T]):
    """A claim as it is looked for, and what taking it changes."""

    kind: Kind[T]
    lanes: Sequence[bytes]
    """Prefixes of the index rows that lead to it, by the time of its last change."""
    matches: Callable[[T, bool], bool]
    """Whether a record may be taken; the flag says that it was taken before."""
    take: Callable[[Transaction, Stored[T]], Awaitable[T]]
    """Writes what a claim changes of the record, and gives it."""
    give_back: Callable[[Transaction, T, T], Awaitable[None]]
    """Undoes `take`, from the record that it gave and the one before it."""
    lapsed: bytes | None = None
    """Where those are that were taken before; they count once the lease they were taken with has run out."""


class _Free(NamedTuple, Generic[T]):
    """A record that nobody holds, as it was read, with the rows that say so."""

    stored: Stored[T]
    id: str
    rows: list[tuple[bytes, Row | None]]
    """They must be the same at commit."""
    token: int
    """What its lease will have."""


class _Found(NamedTuple, Generic[T]):
    """The outcome of a look at a part."""

    free: list[_Free[T]]
    ends: float | None
    """Seconds until the first lease ends that is in the way."""


_LOOK_AGAIN = 1.0
"""Seconds after which claims that other processes made since are looked at for having run out."""

_lapses: "WeakKeyDictionary[Scope, dict[bytes, float]]" = WeakKeyDictionary()
"""When the first of the claims in a state runs out, by the monotonic clock, as far as a store has seen."""

_taking: "WeakKeyDictionary[Scope, set[tuple[str, str]]]" = WeakKeyDictionary()
_lock = threading.Lock()


async def claim(scope: Scope, plan: Plan[T], owner: str, ttl: int, limit: int, wait: float) -> tuple[Claim[T], ...]:
    """Take up to `limit` records for `ttl` microseconds; waits up to `wait` seconds for one."""
    claimer = _Claimer(scope, plan, owner, ttl, min(limit, _MOST))

    async def give_back(claims: tuple[Claim[T], ...]) -> None:
        for item in claims:
            await transact(scope, lambda tx, item=item: claimer.give_back(tx, item))  # type: ignore[misc]

    work = until(scope, None, claimer.look, wait)
    claims: tuple[Claim[T], ...] = await undone_if_cancelled(scope, work, give_back)
    return claims


class _Claimer(Generic[T]):
    """One call of `claim`."""

    def __init__(self, scope: Scope, plan: Plan[T], owner: str, ttl: int, limit: int) -> None:
        self._scope = scope
        self._plan = plan
        self._owner = owner
        self._ttl = ttl
        self._limit = limit
        self._conflicts = 0
        self._ends: float | None = None
        self._shallow = False
        self._before: dict[str, T] = {}

    async def give_back(self, tx: Transaction, claim: Claim[T]) -> None:
        """Undo a claim whose caller went away while it was made."""
        if await release(tx, claim.lease):
            await self._plan.give_back(tx, claim.record, self._before[claim.lease.key])

    async def look(self) -> Look:
        """Try every part once, from a random one on."""
        parts = self._scope.parts
        first = random.randrange(parts)
        self._ends = None
        looks: list[tuple[Sequence[bytes], bool, bool]] = [(self._plan.lanes, False, False)]
        if self._plan.lapsed is not None:
            # What is new comes first, but not for ever: one look in sixteen begins with what dead workers left.
            if random.randrange(16) == 0:
                looks.insert(0, ([self._plan.lapsed], True, True))
            if self._may_have_lapsed(self._plan.lapsed):
                looks.append(([self._plan.lapsed], True, False))
        for lanes, lapsed, self._shallow in looks:
            claims = await self._in_parts([first], lanes, lapsed=lapsed)
            if not claims and parts > 1:
                further_parts = [(first + step) % parts for step in range(1, parts)]
                claims = await self._in_parts(further_parts, lanes, lapsed=lapsed)
            if claims:
                self._expect_end(self._ttl / 1_000_000)
                return Look(claims)
        if looks[-1][1]:
            self._looked_at_all()
        return Look((), self._ends)

    def _may_have_lapsed(self, lane: bytes) -> bool:
        """Whether a claim may have run out since all were looked at: they may be many, and workers ask often."""
        due = _lapses.get(self._scope, {}).get(lane)
        seconds = 0.0 if due is None else due - self._scope.clock.monotonic()
        if seconds > 0:
            self._ends = seconds
        return seconds <= 0

    def _looked_at_all(self) -> None:
        soonest = min(self._ends, _LOOK_AGAIN) if self._ends is not None else _LOOK_AGAIN
        assert self._plan.lapsed is not None
        _lapses.setdefault(self._scope, {})[self._plan.lapsed] = self._scope.clock.monotonic() + soonest

    def _expect_end(self, seconds: float) -> None:
        """Look again when a claim of this process may have run out."""
        lane, due = self._plan.lapsed, _lapses.get(self._scope, {})
        if lane in due:
            due[lane] = min(due[lane], self._scope.clock.monotonic() + seconds)

    async def _in_parts(self, parts: list[int], lanes: Sequence[bytes], *, lapsed: bool) -> tuple[Claim[T], ...]:
        """Take from the first of some parts that has anything; all of them are looked at in one call."""
        lookers = [_Looker(self._scope, self._plan, part, lanes, lapsed=lapsed) for part in parts]
        await _read_places(self._scope, lookers, _FIRST)
        for looker in lookers:
            claims = await self._in_part(looker)
            if claims:
                return claims
        return ()

    async def _in_part(self, looker: "_Looker[T]") -> tuple[Claim[T], ...]:
        while True:
            further = random.randrange(1 << min(self._conflicts, _SPREAD))
            candidates = await looker.find(self._limit + further, shallow=self._shallow)
            if candidates.ends is not None:
                self._ends = candidates.ends if self._ends is None else min(self._ends, candidates.ends)
            start = max(0, min(further, len(candidates.free) - self._limit))
            chosen = self._reserve(candidates.free[start:])
            if not chosen:
                return ()
            try:
                return await self._take(looker.part, chosen)
            except Conflict:
                self._conflicts += 1
                looker.restart()
            finally:
                self._forget(chosen)

    def _reserve(self, free: list[_Free[T]]) -> list[_Free[T]]:
        """Choose what no other worker of this process is taking now."""
        chosen: list[_Free[T]] = []
        size = 0
        with _lock:
            taking = _taking.setdefault(self._scope, set())
            for candidate in free:
                size += 2 * len(candidate.stored.row.value)
                if len(chosen) == self._limit or (chosen and size > BATCH_BYTES // 4):
                    break
                if (self._plan.kind.name, candidate.id) not in taking:
                    taking.add((self._plan.kind.name, candidate.id))
                    chosen.append(candidate)
        return chosen

    def _forget(self, chosen: list[_Free[T]]) -> None:
        with _lock:
            _taking[self._scope].difference_update({(self._plan.kind.name, candidate.id) for candidate in chosen})

    async def _take(self, part: int, chosen: list[_Free[T]]) -> tuple[Claim[T], ...]:
        async def body(tx: Transaction) -> tuple[Claim[T], ...]:
            claims = []
            for candidate in chosen:
                rows: TransactionRows = tx.at(candidate.id)
                for key, row in candidate.rows:
                    rows.expect(key, row)
                lease = grant(tx, candidate.id, self._owner, candidate.token, self._ttl)
                self._before[candidate.id] = candidate.stored.record
                claims.append(Claim(await self._plan.take(tx, candidate.stored), lease))
            return tuple(claims)

        return await transact(self._scope, body, part=part, tries=1)


class _Looker(Generic[T]):
    """Looks through the places of one part, the oldest change first."""

    def __init__(self, scope: Scope, plan: Plan[T], part: int, lanes: Sequence[bytes], *, lapsed: bool) -> None:
        self._scope = scope
        self._plan = plan
        self.part = part
        self._lanes = lanes
        self._lapsed = lapsed
        self.restart()

    def restart(self) -> None:
        """Begin at the oldest again."""
        self._starts = {lane: lane for lane in self._lanes}
        self._waiting: list[tuple[int, int, bytes]] = []

    def ranges(self, size: int) -> list[Range]:
        """The next rows of each index."""
        return [Range(self.part, start, lane + keys.END, size) for lane, start in self._starts.items()]

    def add(self, rows: list[list[Row]], size: int) -> None:
        """Take the rows of `ranges`."""
        for lane, tails in zip(list(self._starts), rows, strict=True):
            cut = len(lane) + 8
            self._waiting += [
                (int.from_bytes(row.key[len(lane) : cut], "big"), row.version, row.key[cut:]) for row in tails
            ]
            if len(tails) < size:
                del self._starts[lane]
            else:
                self._starts[lane] = tails[-1].key + b"\0"
        self._waiting.sort()

    async def find(self, count: int, *, shallow: bool = False) -> _Found[T]:
        """The first records that nobody holds, `count` of them if there are so many; `shallow`: near the oldest."""
        free: list[_Free[T]] = []
        ends: float | None = None
        size = max(4, count)
        while len(free) < count:
            run = self._next_run(size)
            if not run and (shallow or not self._starts):
                break
            if not run:
                await _read_places(self._scope, [self], _MORE)
                continue
            size = min(2 * size, _MORE)  # most often the first is free; where it is not, many may be held
            candidates, ends_here = await self._open([tail for _, _, tail in run])
            free += candidates
            if ends_here is not None:
                ends = ends_here if ends is None else min(ends, ends_here)
        return _Found(free, ends)

    def _next_run(self, size: int) -> list[tuple[int, int, bytes]]:
        """Places that nothing still unread comes before."""
        horizons = [int.from_bytes(start[len(lane) : len(lane) + 8], "big") for lane, start in self._starts.items()]
        run = self._waiting
        # Those of one microsecond are in the order of commits once all of them are read; of very many any is first.
        if horizons and len(run) < _SAME_TIME:
            horizon = min(horizons)
            run = [place for place in run if place[0] < horizon]
        run = run[:size]
        del self._waiting[: len(run)]
        return run

    async def _open(self, tails: list[bytes]) -> tuple[list[_Free[T]], float | None]:
        """The records at some places that nobody holds or is taking now, and when the first lease there ends."""
        scope, prefix = self._scope, self._plan.kind.prefix(self._scope)
        taking = _taking.get(scope, ())
        places = [(tail, str(keys.parse(tail, (str,))[0])) for tail in tails]
        places = [(tail, id) for tail, id in places if (self._plan.kind.name, id) not in taking]
        if not places:
            return [], None
        row_keys = [key for tail, id in places for key in (prefix + tail, *lease_rows(scope, id), mark_key(scope, id))]
        low = floor_keys(scope)
        *answers, everywhere, here = await scope.reader.in_part(self.part).peek([*row_keys, *low])
        floors = [*zip(low, (everywhere, here), strict=True)]
        floor = max(read_mark(everywhere), read_mark(here))
        free: list[_Free[T]] = []
        ends: float | None = None
        for at, (_, id) in zip(range(0, len(row_keys), 4), places, strict=True):
            record, token, last, mark = answers[at : at + 4]
            if record is None:
                continue
            try:
                current = decode(row_keys[at + 1], token, row_keys[at + 2], last)
                micros = remaining(scope, id, current)
                if micros > 0:
                    ends = micros / 1_000_000 if ends is None else min(ends, micros / 1_000_000)
                    continue
                if self._lapsed and current.owner is None:  # never taken, or let go of: whoever set its state has it
                    continue
                stored = await open_row(scope.reader, self._plan.kind, (id,), row_keys[at], record, raw=True)
            except Damaged as error:
                left_out(scope, self._plan.kind.name, id, error)
                continue
            if self._plan.matches(stored.record, self._lapsed):
                rows = [*zip(row_keys[at : at + 4], answers[at : at + 4], strict=True), *floors]
                free.append(_Free(stored, id, rows, 1 + max(current.token, read_mark(mark), floor)))
        return free, ends


async def _read_places(scope: Scope, lookers: Sequence[_Looker[Any]], size: int) -> None:
    """Read the next places of several parts in one call."""
    ranges = [looker.ranges(size) for looker in lookers]
    rows = await scope.reader.scan_many([span for spans in ranges for span in spans])
    for looker, spans in zip(lookers, ranges, strict=True):
        looker.add(rows[: len(spans)], size)
        rows = rows[len(spans) :]
