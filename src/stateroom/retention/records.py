"""Which records may go, and taking them away with everything that hangs on them."""

import heapq
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from .. import keys
from ..clock import to_micros
from ..core.namespace import Reader, Rows, Scope
from ..core.transaction import Transaction, transact
from ..engine import Row
from ..errors import Damaged, InvalidArgument
from ..families.leases import live_holders
from ..records.audit import Problem, rows_of
from ..records.kind import KINDS, Stored
from ..records.places import fetch_rows, newest
from ..records.reading import load, open_row
from ..records.saving import remove
from .policy import Policy, micros

log = logging.getLogger("stateroom.retention")

BATCH = 50
"""Records that go in one commit: some hundred rows, so that no writer waits long for its turn."""

_RUN = 500

Path = tuple[str | int, ...]


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
        self.kind = KINDS[policy.family]
        self._aging = self.kind.aging
        self.batch = self._aging.batch
        self._keep = policy.keep_latest
        now = to_micros(scope.clock.now())
        ended, changed = micros(policy.terminal_older_than), micros(policy.older_than)
        self._ended_by = None if ended is None else now - ended
        self._changed_by = None if changed is None else now - changed
        self._only_ended = ended is not None or (changed is None and self._aging.ends)
        self._thresholds: dict[bytes, tuple[int, int, bytes] | None] = {}
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
        index, values = sources
        prefixes = [(self.kind.index_prefix(scope, index, value, newest=True), most) for value in values]
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
            low = lane.prefix + after + b"\0"
            ranges = [(low, lane.stop), (lane.prefix, min(low, lane.stop))]
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
        """Say whether all that the policy says is true of a record."""
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
        return await self.kind.ended_since(reader.at(self.kind.owner(self.kind.path(stored.record))), stored)

    def _rank(self, stored: Stored[Any]) -> tuple[int, int, bytes]:
        path = self.kind.path(stored.record)
        if self._aging.newest_by_key:
            return int(path[-1]), 0, b""
        return stored.updated, stored.row.version, keys.path(*path)

    async def _threshold(self, record: Any) -> tuple[int, int, bytes] | None:
        """Return where the oldest stands of those in a record's group that are kept; None where there are not so
        many.
        """
        assert self._keep is not None
        index = self._aging.group
        if index is not None:
            group = self.kind.index_prefix(self._scope, index, next(iter(index.values(record))), newest=True)
            if group not in self._thresholds:
                self._thresholds[group] = await self._find_threshold(group, self._keep)
            return self._thresholds[group]
        path = self.kind.path(record)
        steps, owner = path[: self._aging.group_steps], self.kind.owner(path)
        group = keys.path(*steps)
        rows = self._scope.reader.at(owner) if owner in steps else self._scope.reader
        if self._aging.newest_by_key:
            return await self._oldest_by_key(rows, group, self._keep)
        if group not in self._thresholds:
            self._thresholds[group] = await self._look_through(rows, group, self._keep)
        return self._thresholds[group]

    async def _oldest_by_key(self, rows: Rows | Reader, group: bytes, keep: int) -> tuple[int, int, bytes] | None:
        prefix = self.kind.prefix(self._scope) + group
        newest = await rows.scan(prefix, prefix + keys.END * 9, limit=keep, reverse=True)
        return (int.from_bytes(newest[-1].key[-8:], "big"), 0, b"") if len(newest) == keep else None

    async def _find_threshold(self, prefix: bytes, keep: int) -> tuple[int, int, bytes] | None:
        reader, kind = self._scope.reader, self.kind
        places = []
        count = 0
        async for place in newest(reader, prefix, None, 256):
            places.append(place)
            if len(places) < min(256, keep - count):
                continue
            await fetch_rows(reader, kind, places)
            for item in places:
                stored = await self._open(reader, item.tail, item.row)
                if stored is not None and (not self._only_ended or kind.ended(stored.record)):
                    count += 1
                    if count == keep:
                        return self._rank(stored)
            places = []
        return None

    async def _look_through(self, group_rows: Rows | Reader, group: bytes, keep: int) -> tuple[int, int, bytes] | None:
        """The threshold of a group that no rows give by time: all of it is read, once in a run."""
        reader, prefix = self._scope.reader, self.kind.prefix(self._scope)
        start, stop = prefix + group, prefix + group + keys.END
        newest: list[tuple[int, int, bytes]] = []
        while True:
            rows = await group_rows.scan(start, stop, limit=_RUN)
            for row in rows:
                stored = await self._open(reader, row.key[len(prefix) :], row)
                if stored is None or (self._only_ended and await self._since(reader, stored) is None):
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
        """Return those that may go now, whatever the types of their values. An unreadable one stays: see `check`."""
        reader, kind = self._scope.reader, self.kind
        tails = [keys.path(*path) for path in paths]
        rows = await reader.in_part(part).peek([kind.prefix(self._scope) + tail for tail in tails])
        expired = []
        for path, tail, row in zip(paths, tails, rows, strict=True):
            stored = await self._open(reader, tail, row)
            if stored is not None and await self.may_go(reader, stored):
                expired.append(path)
        if not self._aging.leased or not expired:
            return expired
        holders = await live_holders(reader, part, [kind.owner(path) for path in expired])
        return [path for path, live in zip(expired, holders, strict=True) if not live]

    async def take(self, part: int, paths: Sequence[Path]) -> int:
        """Remove records of a part in one commit, each with everything; gives how many there still were to remove."""

        async def body(tx: Transaction) -> int:
            removed = 0
            for path in paths:
                stored = await load(tx, self.kind, path, raw=True)
                if stored is not None and await self.may_go(tx, stored):
                    await self.kind.release(tx, stored)
                    await remove(tx, self.kind, stored)
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
