"""Whether a store holds together: indexes, counters, dependents and feed agree with the records.

The command line, every test's teardown and `copy` ask the same function.
"""

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any

from .. import keys
from ..clock import to_micros
from ..core.namespace import Reader, Rows, Scope
from ..engine import Row, Verifying, read_counter
from ..errors import Damaged, Undecodable
from ..feed.feed import floor_key, place_in
from ..records.audit import Problem, rows_of
from ..records.entry import Entry, decode, feed_prefix
from ..records.kind import KINDS, Kind, Stored
from ..records.layout import index_rows
from ..records.reading import open_row
from . import references

_TRIES = 5
_FEW = 500
"""Rows of a part that are read at once, beside those of chunks; each may have 64 KiB."""

Records = dict[bytes, Stored[Any]]

_CHUNKS = b"B"  # every chunk, count and upload: they are large, and `references` reads them in runs


async def check(scope: Scope) -> list[Problem]:
    """Every problem of a namespace; none: empty. Other clients may write meanwhile."""
    problems: list[Problem] = []
    for part in range(scope.parts):
        found: list[Problem] = []
        for _ in range(_TRIES):
            before = await _version(scope.reader, part)
            found = await _check_part(scope, part)
            # What looks wrong while others write may only be a commit between two scans: look again.
            if not found or await _version(scope.reader, part) == before:
                break
        problems += found
    if isinstance(scope.direct, Verifying):
        problems += [Problem("engine", line) for line in scope.direct.verify()]
    return problems


class _FewRows(Rows):
    """The rows of a part, of which most are in memory."""

    def __init__(self, few: "_Few", part: int, root: str = "") -> None:
        super().__init__(few.scope, part, root)
        self._few = few

    def at(self, name: str) -> Rows:
        return self._few.at(name)

    async def committed(self, wanted: Sequence[bytes]) -> list[Row | None]:
        if not all(self._few.kept(self.part, key) for key in wanted):
            return await super().committed(wanted)
        return self._few.read(wanted)

    async def get(self, key: bytes) -> Row | None:
        return (await self.committed([key]))[0]

    async def scan_committed(self, start: bytes, stop: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        if not self._few.kept(self.part, start):
            return await super().scan_committed(start, stop, limit=limit, reverse=reverse)
        return self._few.between(start, stop, limit, reverse)


class _Few(Reader):
    """The few rows of a part, read at once and looked at in memory; what they are not is read where it is.

    A look at a part is some forty scans, each a round trip to a server.
    """

    def __init__(self, scope: Scope, part: int, rows: Sequence[Row]) -> None:
        super().__init__(scope)
        self._part = part
        self._rows = rows
        self._keys = [row.key for row in rows]
        self._elsewhere = scope.key(_CHUNKS)

    @classmethod
    async def of(cls, scope: Scope, part: int) -> Reader:
        """The reader of a part; where it has more rows, one that reads them as they are asked for."""
        rows: list[Row] = []
        for start, stop in ((b"", _CHUNKS), (_CHUNKS + keys.END, keys.END)):
            found = await scope.reader.in_part(part).scan(scope.key(start), scope.key(stop), limit=_FEW)
            if len(found) == _FEW:
                return scope.reader
            rows += found
        return cls(scope, part, rows)

    def kept(self, part: int, start: bytes) -> bool:
        return part == self._part and start.startswith(self.scope.prefix) and not start.startswith(self._elsewhere)

    def at(self, name: str) -> Rows:
        root = keys.root(name)
        return _FewRows(self, self.scope.part(root), root)

    def in_part(self, part: int) -> Rows:
        return _FewRows(self, part)

    def read(self, wanted: Sequence[bytes]) -> list[Row | None]:
        """Rows under several keys, from memory."""
        places = [(key, bisect_left(self._keys, key)) for key in wanted]
        return [self._rows[at] if self._keys[at : at + 1] == [key] else None for key, at in places]

    def between(self, start: bytes, stop: bytes, limit: int, reverse: bool) -> list[Row]:
        """Rows of a range, from memory."""
        rows = self._rows[bisect_left(self._keys, start) : bisect_left(self._keys, stop)]
        return list(rows[::-1] if reverse else rows)[:limit]


async def _version(reader: Reader, part: int) -> int:
    row = (await reader.in_part(part).peek([b""]))[0]
    return 0 if row is None else row.version


async def _floor(reader: Reader, part: int) -> tuple[int, int]:
    """Up to where the part's feed was pruned."""
    (row,) = await reader.in_part(part).peek([floor_key(reader.scope)])
    return (0, 0) if row is None else place_in(row.value)


async def _check_part(scope: Scope, part: int) -> list[Problem]:
    reader = await _Few.of(scope, part)
    problems: list[Problem] = []
    floor = await _floor(reader, part)
    feed, wrappers, feed_problems = await _feed(reader, part)
    problems += feed_problems
    for kind in KINDS.values():
        records: Records = {}
        prefix = kind.prefix(scope)
        for row in await rows_of(reader, part, prefix):
            tail = row.key[len(prefix) :]
            try:
                path = keys.parse(tail, kind.shape)
                records[tail] = await open_row(reader, kind, path, row.key, row)
            except Damaged as error:
                code = "undecodable" if isinstance(error, Undecodable) else "damaged"
                problems.append(Problem(code, error.message, kind.name, tail.decode(errors="replace"), part))
        damaged = any(problem.family == kind.name for problem in problems)
        if not damaged:  # what an unreadable record needs cannot be known
            problems += await _check_indexes(reader, part, kind, records)
            problems += await _check_counters(reader, part, kind, records)
        problems += _check_feed(part, kind, records, feed, floor)
        problems += await kind.audit(reader, part, records)
        for stored in records.values():
            wrappers += [stored.wrapped, *kind.held(stored.record)]
    for audit in _auditors():
        problems += await audit(reader, part)
    return problems + await references.audit(reader, part, wrappers, complete=not problems)


Audit = Callable[[Reader, int], Awaitable[list[Problem]]]


def _auditors() -> list[Audit]:
    """The functions that look at rows which belong to no record, as the table of row kinds names them."""
    package = __package__.rpartition(".")[0]
    modules = dict.fromkeys(kind.auditor for kind in keys.ROWS.values() if kind.auditor)
    return [import_module(f"{package}.{module}").audit for module in modules]


Last = dict[tuple[str, tuple[Any, ...]], tuple[tuple[int, int], Entry]]


async def _feed(reader: Reader, part: int) -> tuple[Last, list[bytes], list[Problem]]:
    """The last entry of every record in a part's feed, and the wrappers of all entries."""
    last: Last = {}
    wrappers: list[bytes] = []
    problems: list[Problem] = []
    for row in await rows_of(reader, part, feed_prefix(reader.scope)):
        at = (int.from_bytes(row.key[-10:-2], "big"), int.from_bytes(row.key[-2:], "big"))
        try:
            entry = decode(reader.scope, row.value)
        except Damaged as error:
            problems.append(Problem("damaged", f"the feed's entry {at}: {error.message}", "feed", str(at), part))
            continue
        last[entry.family, entry.path] = (at, entry)
        wrappers += entry.wrappers
    return last, wrappers, problems


async def _check_indexes(reader: Reader, part: int, kind: Kind[Any], records: Records) -> list[Problem]:
    scope = reader.scope
    expected: set[bytes] = set()
    for tail, stored in records.items():
        expected |= index_rows(scope, kind, stored.record, tail, stored.updated).keys()
    actual = {row.key for row in await rows_of(reader, part, scope.prefix + b"X" + kind.letter)}
    return [
        *(Problem("index-missing", f"index row {key!r} is missing", kind.name, part=part) for key in expected - actual),
        *(
            Problem("index-stale", f"index row {key!r} has no record", kind.name, part=part)
            for key in actual - expected
        ),
    ]


async def _check_counters(reader: Reader, part: int, kind: Kind[Any], records: Records) -> list[Problem]:
    scope = reader.scope
    expected: dict[bytes, int] = {}
    for stored in records.values():
        for tail in kind.counters(stored.record):
            key = kind.counter(scope, tail)
            expected[key] = expected.get(key, 0) + 1
    rows = await rows_of(reader, part, scope.prefix + b"C" + kind.letter)
    actual = {row.key: read_counter(row.value) for row in rows}
    return [
        Problem(
            "counter", f"counter {key!r} says {actual.get(key, 0)}, not {expected.get(key, 0)}", kind.name, part=part
        )
        for key in expected.keys() | actual.keys()
        if expected.get(key, 0) != actual.get(key, 0)
    ]


def _check_feed(part: int, kind: Kind[Any], records: Records, feed: Last, floor: tuple[int, int]) -> list[Problem]:
    """The last entry of each record must be what its row says, unless it was pruned."""
    problems: list[Problem] = []

    def problem(code: str, message: str, path: tuple[Any, ...]) -> None:
        problems.append(Problem(code, message, kind.name, "/".join(map(str, path)), part))

    for stored in records.values():
        path = tuple(kind.path(stored.record))
        at, entry = feed.get((kind.name, path), ((0, 0), None))
        if entry is None:
            if stored.pointer > floor:
                problem("feed-missing", f"the feed has no entry for {path}", path)
        elif at != stored.pointer or entry.op == "delete" or entry.wrapped != stored.wrapped:
            problem("feed-differs", f"the feed's last entry for {path} is not its record", path)
        if stored.record.updated_at is None or to_micros(stored.record.updated_at) != stored.updated:
            problem("time", f"{path} has no time of change", path)

    def cleared(path: tuple[Any, ...], at: tuple[int, int]) -> bool:
        """Whether one later deletion took everything whose key begins like this one's."""
        starts = ((kind.name, path[:cut]) for cut in range(1, len(path)))
        return any(feed[start][0] > at for start in starts if start in feed)

    present = {tuple(kind.path(stored.record)) for stored in records.values()}
    for (family, path), (at, entry) in feed.items():
        if family == kind.name and entry.op in ("create", "update") and path not in present and not cleared(path, at):
            problem("record-missing", f"the feed says {path} is there, and it is not", path)
    return problems
