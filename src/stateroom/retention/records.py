"""Which records may go, and taking them away with everything that hangs on them."""

import heapq
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple

from .. import keys
from ..clock import to_micros
from ..core.namespace import Reader, Scope
from ..core.transaction import Transaction, transact
from ..engine import Row
from ..errors import Damaged, InvalidArgument
from ..families.executions.record import EXECUTIONS, STATES
from ..families.executions.record import TERMINAL as ENDED_STATES
from ..families.instances.record import BY_STATUS, BY_TIME, BY_WORKFLOW, INSTANCES
from ..families.instances.record import TERMINAL as ENDED_STATUSES
from ..families.instances.unique import mark_active
from ..families.leases import forget, live_holders
from ..families.machines import rules as machine_rules
from ..families.machines.record import MACHINES, drop_failure, drop_history
from ..families.results.record import RESULTS
from ..families.results.record import drop as drop_result
from ..families.savepoints.record import SAVEPOINTS, find_run, manifest_ref, touch_run
from ..records import dependents
from ..records.audit import Problem, rows_of
from ..records.kind import KINDS, Kind, Stored
from ..records.places import fetch_rows, newest
from ..records.reading import load, open_row
from ..records.saving import remove
from ..values import objects
from .policy import Policy, micros

log = logging.getLogger("stateroom.retention")

BATCH = 50
"""Records that go in one commit: some hundred rows, so that no writer waits long for its turn."""

_RUN = 500

Path = tuple[str | int, ...]


class Aging(NamedTuple):
    """What retention needs to know of a family."""

    kind: Kind[Any]
    drop: Callable[[Transaction, Any], Awaitable[None]]
    """Removes a record with what hangs on it."""
    ended: Callable[[Scope], list[bytes]] | None = None
    """Prefixes of the rows that give terminal records by time; None: all records are looked at."""
    every: Callable[[Scope], list[bytes]] | None = None
    """Prefixes of the rows that give all records by time."""
    group: Callable[[Scope, Any], bytes] | None = None
    """Prefix of the rows that give a record's group, by time."""
    within: Callable[[Any], tuple[str | None, bytes]] | None = None
    """Where there are none: the root of a record's group (None: of any), and what the keys of the group begin with."""
    ends: bool = False
    """Whether there are records that are terminal."""
    leased: bool = False
    """Whether a lease on its id says that somebody still works on it."""
    batch: int = BATCH
    """Records that go in one commit."""


async def _drop_instance(tx: Transaction, stored: Stored[Any]) -> None:
    if stored.record.active:
        await mark_active(tx, stored.record, None)
    await forget(tx, stored.record.id)
    await remove(tx, INSTANCES, stored)


async def _drop_execution(tx: Transaction, stored: Stored[Any]) -> None:
    await dependents.drop(tx, EXECUTIONS, stored)
    await forget(tx, stored.record.id)
    await remove(tx, EXECUTIONS, stored)


async def _drop_machine(tx: Transaction, stored: Stored[Any]) -> None:
    await drop_failure(tx, stored.record.machine, stored.record.name)
    await drop_history(tx, stored)
    await remove(tx, MACHINES, stored)


def _prefixes(kind: Kind[Any], index: Any, values: Sequence[bytes]) -> Callable[[Scope], list[bytes]]:
    return lambda scope: [kind.index_prefix(scope, index, value, newest=True) for value in values]


async def _drop_result(tx: Transaction, stored: Stored[Any]) -> None:
    await drop_result(tx, stored)


async def _drop_savepoint(tx: Transaction, stored: Stored[Any]) -> None:
    run = stored.record.run
    head = await find_run(tx, run)
    await remove(tx, SAVEPOINTS, stored)
    await objects.release(tx.at(run), {manifest_ref(stored.record): 1})
    if head is not None:
        touch_run(tx, run, head)


_BY_STATE, _BY_JOB, _ = EXECUTIONS.indexes

AGING: dict[str, Aging] = {
    "instances": Aging(
        INSTANCES,
        _drop_instance,
        _prefixes(INSTANCES, BY_STATUS, [keys.path(status) for status in ENDED_STATUSES]),
        _prefixes(INSTANCES, BY_TIME, [b""]),
        lambda scope, one: INSTANCES.index_prefix(scope, BY_WORKFLOW, keys.path(one.workflow), newest=True),
        ends=True,
        leased=True,
    ),
    "executions": Aging(
        EXECUTIONS,
        _drop_execution,
        _prefixes(EXECUTIONS, _BY_STATE, [keys.path(state) for state in sorted(ENDED_STATES)]),
        _prefixes(EXECUTIONS, _BY_STATE, [keys.path(state) for state in sorted(STATES)]),
        lambda scope, one: EXECUTIONS.index_prefix(scope, _BY_JOB, keys.path(one.job_id), newest=True),
        ends=True,
        leased=True,
    ),
    "machines": Aging(
        MACHINES,
        _drop_machine,
        within=lambda one: (None, keys.path(one.machine)),
        ends=True,
        batch=BATCH // 10,  # each has a history
    ),
    "results": Aging(
        RESULTS, _drop_result, within=lambda one: (keys.root(one.dag), keys.path(one.dag)), batch=BATCH // 10
    ),
    "savepoints": Aging(SAVEPOINTS, _drop_savepoint, batch=1),  # many chunks may go with each
}
"""Every record family that ages by time."""


class Lane(NamedTuple):
    """Some rows of a part that name records: all of a family, or those of a status by time."""

    part: int
    prefix: bytes
    stop: bytes
    cut: int
    """Where in what follows the prefix the record's key begins."""


class Going:
    """One policy for records, applied at one moment."""

    def __init__(self, scope: Scope, policy: Policy) -> None:
        self._scope = scope
        self._aging = AGING[policy.family]
        self.kind = self._aging.kind
        self.batch = self._aging.batch
        self._keep = policy.keep_latest
        now = to_micros(scope.clock.now())
        ended, changed = micros(policy.terminal_older_than), micros(policy.older_than)
        self._ended_by = None if ended is None else now - ended
        self._changed_by = None if changed is None else now - changed
        self._only_ended = ended is not None or (changed is None and self._aging.ends)
        self._thresholds: dict[bytes, tuple[int, int, bytes] | None] = {}
        self._final: dict[str, Collection[str]] = {}
        self.unreadable = 0
        """Records that could not be read, and so stay."""
        self.lanes = [Lane(part, *rows) for part in range(scope.parts) for rows in self._rows(now)]
        """Where records are found that may have to go; each of them has its turn."""

    def _rows(self, now: int) -> list[tuple[bytes, bytes, int]]:
        """Prefix, end and cut of the lanes of any part."""
        scope, aging = self._scope, self._aging
        sources = aging.ended if self._only_ended else aging.every
        if sources is None:
            prefix = self.kind.prefix(scope)
            return [(prefix, prefix + keys.END, 0)]
        most = min(by for by in (self._ended_by, self._changed_by, now) if by is not None)
        prefixes = [(prefix, most) for prefix in sources(scope)]
        if self._only_ended and self._ended_by is not None:  # ended long ago, and rewritten since
            prefixes.append((scope.key(keys.ENDED, self.kind.letter), self._ended_by))
        return [(prefix, prefix + keys.number(max(0, by + 1)), 8) for prefix, by in prefixes]

    async def batches(self, number: int, after: bytes = b"") -> AsyncIterator[tuple[bytes, list[Path]]]:
        """Keys of a lane's records, at most `BATCH` at a time, and behind what the next ones are.

        Those that are not behind `after` come last.
        """
        lane = self.lanes[number]
        ranges = [(lane.prefix, lane.stop)]
        if after:
            here = lane.prefix + after + b"\0"
            ranges = [(here, lane.stop), (lane.prefix, min(here, lane.stop))]
        for start, stop in ranges:
            paths: list[Path] = []
            tail = b""
            async for row in _rows(self._scope, lane.part, start, stop):
                tail = row.key[len(lane.prefix) :]
                paths.append(keys.parse(tail[lane.cut :], self.kind.shape))
                if len(paths) == BATCH:
                    yield tail, paths
                    paths = []
            if paths:
                yield tail, paths

    async def may_go(self, reader: Reader, stored: Stored[Any]) -> bool:
        """Whether all that the policy says is true of a record."""
        if self._changed_by is not None and stored.updated > self._changed_by:
            return False
        if self._only_ended:
            since = await self._since(reader, stored)
            if since is None or (self._ended_by is not None and since > self._ended_by):
                return False
        if self._keep is None:
            return True
        threshold = await self._threshold(stored.record)
        return threshold is not None and self._rank(stored) < threshold

    async def _since(self, reader: Reader, stored: Stored[Any]) -> int | None:
        """Since when a record has been terminal; None where it is not."""
        path = self.kind.path(stored.record)
        rows = reader.at(self.kind.owner(path))
        if self.kind is MACHINES:
            rules = await machine_rules.load(rows, stored.record.machine)
            return stored.updated if rules is not None and stored.record.state in rules.final else None
        if not self.kind.ended(stored.record):
            return None
        key = self._scope.key(keys.ENDED_SINCE, self.kind.letter + keys.path(*path))
        row = await rows.get(key)
        return stored.updated if row is None else int.from_bytes(row.value, "big")

    def _rank(self, stored: Stored[Any]) -> tuple[int, int, bytes]:
        if self.kind is SAVEPOINTS:  # of these the newest is the one with the highest timestamp
            return stored.record.timestamp, 0, b""
        return stored.updated, stored.row.version, keys.path(*self.kind.path(stored.record))

    async def _threshold(self, record: Any) -> tuple[int, int, bytes] | None:
        """Where the oldest stands of those in a record's group that are kept; None where there are not so many."""
        assert self._keep is not None
        if self.kind is SAVEPOINTS:
            return await self._oldest_savepoint(record.run, self._keep)
        if self._aging.within is not None:
            root, group = self._aging.within(record)
            if group not in self._thresholds:
                self._thresholds[group] = await self._look_through(root, group, self._keep)
            return self._thresholds[group]
        assert self._aging.group is not None
        group = self._aging.group(self._scope, record)
        if group not in self._thresholds:
            self._thresholds[group] = await self._find_threshold(group, self._keep)
        return self._thresholds[group]

    async def _oldest_savepoint(self, run: str, keep: int) -> tuple[int, int, bytes] | None:
        prefix = SAVEPOINTS.prefix(self._scope) + keys.path(run)
        stop = prefix + keys.END * 9
        rows = await self._scope.reader.at(run).scan(prefix, stop, limit=keep, reverse=True)
        return (int.from_bytes(rows[-1].key[-8:], "big"), 0, b"") if len(rows) == keep else None

    async def _find_threshold(self, prefix: bytes, keep: int) -> tuple[int, int, bytes] | None:
        reader, kind = self._scope.reader, self.kind
        places = []
        count = 0
        async for place in newest(reader, prefix, None, 256):
            places.append(place)
            if len(places) < min(256, keep - count):
                continue
            await fetch_rows(reader, kind, places)
            for one in places:
                stored = await self._open(reader, one.tail, one.row)
                if stored is not None and (not self._only_ended or kind.ended(stored.record)):
                    count += 1
                    if count == keep:
                        return self._rank(stored)
            places = []
        return None

    async def _is_final(self, snapshot: Any) -> bool:
        """Whether a machine has come to an end; its definition is read once in a run."""
        if snapshot.machine not in self._final:
            rules = await machine_rules.newest(self._scope.reader, snapshot.machine)
            self._final[snapshot.machine] = frozenset() if rules is None else rules.final
        return snapshot.state in self._final[snapshot.machine]

    async def _look_through(self, root: str | None, group: bytes, keep: int) -> tuple[int, int, bytes] | None:
        """The threshold of a group that no rows give by time: all of it is read, once in a run."""
        reader, prefix = self._scope.reader, self.kind.prefix(self._scope)
        start, stop = prefix + group, prefix + group + keys.END
        newest: list[tuple[int, int, bytes]] = []
        while True:
            rows = await (reader if root is None else reader.at(root)).scan(start, stop, limit=_RUN)
            for row in rows:
                stored = await self._open(reader, row.key[len(prefix) :], row)
                if stored is None or (self._only_ended and not await self._is_final(stored.record)):
                    continue
                if len(newest) < keep:
                    heapq.heappush(newest, self._rank(stored))
                else:
                    heapq.heappushpop(newest, self._rank(stored))
            if len(rows) < _RUN:
                return newest[0] if len(newest) == keep else None
            start = rows[-1].key + b"\0"

    async def _open(self, reader: Reader, tail: bytes, row: Row | None) -> Stored[Any] | None:
        if row is None:
            return None
        try:
            return await open_row(reader, self.kind, keys.parse(tail, self.kind.shape), row.key, row, raw=True)
        except Damaged as error:
            self.unreadable += 1
            log.warning("retention leaves a record that cannot be read: %s", error)
            return None

    async def due(self, part: int, paths: Sequence[Path]) -> list[Path]:
        """Those that may go now, whatever the types of their values. What cannot be read at all stays: see `check`."""
        reader, kind = self._scope.reader, self.kind
        tails = [keys.path(*path) for path in paths]
        rows = await reader.in_part(part).peek([kind.prefix(self._scope) + tail for tail in tails])
        found = []
        for path, tail, row in zip(paths, tails, rows, strict=True):
            stored = await self._open(reader, tail, row)
            if stored is not None and await self.may_go(reader, stored):
                found.append(path)
        if not self._aging.leased or not found:
            return found
        held = await live_holders(reader, part, [kind.owner(path) for path in found])
        return [path for path, live in zip(found, held, strict=True) if not live]

    async def take(self, part: int, paths: Sequence[Path]) -> int:
        """Remove records of a part in one commit, each with everything; gives how many there still were to remove."""

        async def body(tx: Transaction) -> int:
            removed = 0
            for path in paths:
                stored = await load(tx, self.kind, path, raw=True)
                if stored is not None and await self.may_go(tx, stored):
                    await self._aging.drop(tx, stored)
                    removed += 1
            return removed

        try:
            return await transact(self._scope, body, part=part)
        except InvalidArgument as error:
            if error.what != "batch" or len(paths) == 1:
                raise  # else too much hangs on them for one commit
        except Damaged as error:  # of one of them, or of what hangs on it: the others go
            if len(paths) == 1:
                self.unreadable += 1
                log.warning("retention leaves a record that cannot be removed: %s", error)
                return 0
        half = len(paths) // 2
        return await self.take(part, paths[:half]) + await self.take(part, paths[half:])


async def _rows(scope: Scope, part: int, start: bytes, stop: bytes) -> AsyncIterator[Row]:
    while True:
        rows = await scope.reader.in_part(part).scan(start, stop, limit=_RUN)
        for row in rows:
            yield row
        if len(rows) < _RUN:
            return
        start = rows[-1].key + b"\0"


async def audit(reader: Reader, part: int) -> list[Problem]:
    """Rows that say since when something is over, which must agree with each other and with what they are about."""
    scope = reader.scope
    since = {
        row.key[len(scope.key(keys.ENDED_SINCE)) :]: row.value for row in await _under(reader, part, keys.ENDED_SINCE)
    }
    expected = {tail[:1] + value + tail[1:] for tail, value in since.items()}
    ordered = {row.key[len(scope.key(keys.ENDED)) :] for row in await _under(reader, part, keys.ENDED)}
    problems = [Problem("index-stale", f"the times of {tail!r} differ", part=part) for tail in expected ^ ordered]
    for tail in since:
        kind = next(kind for kind in KINDS.values() if kind.letter == tail[:1])
        (row,) = await reader.in_part(part).peek([kind.prefix(scope) + tail[1:]])
        if row is None:
            problems.append(Problem("index-stale", f"the time of {tail!r} has no record", kind.name, part=part))
    used = {row.key[len(scope.key(keys.ONCE)) :] for row in await _under(reader, part, keys.ONCE)}
    times = {row.key[len(scope.key(keys.ONCE_AT)) + 8 :] for row in await _under(reader, part, keys.ONCE_AT)}
    return problems + [
        Problem("index-stale", f"key {tail!r} has no time, or none is there", part=part) for tail in used ^ times
    ]


async def _under(reader: Reader, part: int, tag: bytes) -> list[Row]:
    return await rows_of(reader, part, reader.scope.key(tag))
