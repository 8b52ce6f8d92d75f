"""Records, run by run: each can be read, its index rows are there and no others, it is counted, and its entry is in
the feed.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from .. import keys
from ..clock import to_micros
from ..core.namespace import Reader
from ..engine import Row, read_counter, stamped
from ..errors import Damaged, Undecodable
from ..feed.feed import floor_key, place_in
from ..records.audit import Problem
from ..records.entry import decode, feed_prefix
from ..records.kind import Kind, Stored
from ..records.layout import index_rows
from ..records.reading import open_row
from ..values import wrapper
from .breathing import breathe

RUN = 250
"""Rows that are read at once; each may have 64 KiB."""

SHARE = 50_000
"""Records, keys or entries that are held at once."""


class Look:
    """One look at a part: what reads it, and what was found out on the way."""

    def __init__(self, reader: Reader, part: int, tell: Callable[[str, int], None]) -> None:
        self.reader = reader
        self.scope = reader.scope
        self.part = part
        self.references: Counter[bytes] = Counter()
        """How often records and entries refer to each object of chunks."""
        self.records = 0
        """Records that were looked at."""
        self._tell = tell
        self._rows = 0

    def refer(self, wrappers: Iterable[bytes]) -> None:
        """Count what some wrappers refer to."""
        self.references.update(ref for wrapped in wrappers if (ref := wrapper.reference(wrapped)) is not None)

    async def runs(self, what: str, prefix: bytes, run: int = RUN) -> AsyncIterator[list[Row]]:
        """All rows under a prefix, some at a time."""
        rows_of_part = self.reader.in_part(self.part)
        start, stop = prefix, prefix + keys.END
        while rows := await rows_of_part.scan_committed(start, stop, limit=run):
            yield rows
            self._rows += len(rows)
            self._tell(what, self._rows)
            await breathe(self.scope)
            if len(rows) < run:
                return
            start = rows[-1].key + b"\0"

    async def floor(self) -> tuple[int, int]:
        """Return, up to where the part's feed was pruned."""
        (row,) = await self.reader.in_part(self.part).peek([floor_key(self.scope)])
        return (0, 0) if row is None else place_in(row.value)


class _Keys:
    """A set of keys of any size, told from another by a sum over them."""

    def __init__(self) -> None:
        self.count = self.sum = self.mixed = 0

    def add(self, key: bytes) -> None:
        number = hash(key)
        self.count += 1
        self.sum += number
        self.mixed ^= number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keys) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


async def audit_records(look: Look, kind: Kind[Any]) -> list[Problem]:
    """Problems of all records of a kind."""
    problems: list[Problem] = []
    expected, counters = _Keys(), Counter[bytes]()
    damaged = False
    async for records, unreadable in opened(look, kind):
        problems += unreadable
        damaged = damaged or any(problem.code == "damaged" for problem in unreadable)
        for tail, stored in records.items():
            for key in index_rows(look.scope, kind, stored.record, tail, stored.updated):
                expected.add(key)
            counters.update(kind.counter(look.scope, tail) for tail in kind.counters(stored.record))
            look.refer([stored.wrapped, *kind.held(stored.record)])
        look.records += len(records)
        problems += await _check_entries(look, kind, records)
    if not damaged:  # what an unreadable record needs cannot be known
        problems += await _check_indexes(look, kind, expected)
        problems += await _check_counters(look, kind, counters)
    return problems


async def opened(
    look: Look, kind: Kind[Any], has_root: Callable[[str], bool] | None = None
) -> AsyncIterator[tuple[dict[bytes, Stored[Any]], list[Problem]]]:
    """Records in runs, by the tail of their keys, and problems of those that cannot be read here.

    A record of which only values cannot be rebuilt is there all the same. `has_root`: of which roots.
    """
    prefix = kind.prefix(look.scope)
    async for rows in look.runs(kind.name, prefix):
        records: dict[bytes, Stored[Any]] = {}
        problems: list[Problem] = []
        for row in rows:
            tail = row.key[len(prefix) :]
            try:
                path = keys.parse(tail, kind.shape)
                if has_root is not None and not has_root(keys.root(kind.owner(path))):
                    continue
                try:
                    records[tail] = await open_row(look.reader, kind, path, row.key, row)
                except Undecodable as error:
                    problems.append(_problem("undecodable", error.message, kind, path, look.part))
                    records[tail] = await open_row(look.reader, kind, path, row.key, row, raw=True)
            except Undecodable:
                continue  # reported already
            except Damaged as error:
                problems.append(Problem("damaged", error.message, kind.name, readable(tail), look.part))
        yield records, problems


def readable(tail: bytes) -> str:
    """The end of a key for people: names with slashes between."""
    return "/".join(tail.decode(errors="replace").rstrip("\0").split("\0"))


def _problem(code: str, message: str, kind: Kind[Any], path: Iterable[Any], part: int) -> Problem:
    return Problem(code, message, kind.name, "/".join(map(str, path)), part)


async def _check_entries(look: Look, kind: Kind[Any], records: dict[bytes, Stored[Any]]) -> list[Problem]:
    """The entry that each record points to must say what its row says, unless it was pruned."""
    prefix = feed_prefix(look.scope)
    places = [stamped(prefix, *stored.pointer) for stored in records.values()]
    rows = await look.reader.in_part(look.part).peek(places) if places else []
    missing = any(row is None for row in rows)
    floor = await look.floor() if missing else (0, 0)
    problems: list[Problem] = []
    for stored, row in zip(records.values(), rows, strict=True):
        path = tuple(kind.path(stored.record))
        if row is None:
            if stored.pointer > floor:
                problems.append(_problem("feed-missing", f"the feed has no entry for {path}", kind, path, look.part))
        else:
            try:
                entry = decode(look.scope, row.value)
                same = (entry.family, entry.path) == (kind.name, path)
                differs = not same or entry.op == "delete" or entry.wrapped != stored.wrapped
            except Damaged:
                differs = False  # it is reported with the feed
            if differs:
                text = f"the feed's last entry for {path} is not its record"
                problems.append(_problem("feed-differs", text, kind, path, look.part))
        if stored.record.updated_at is None or to_micros(stored.record.updated_at) != stored.updated:
            problems.append(_problem("time", f"{path} has no time of change", kind, path, look.part))
    return problems


async def _check_indexes(look: Look, kind: Kind[Any], expected: _Keys) -> list[Problem]:
    prefix = look.scope.key(keys.INDEX, kind.letter)
    actual = _Keys()
    async for rows in look.runs(f"indexes of {kind.name}", prefix, 1000):
        for row in rows:
            actual.add(row.key)
    if actual == expected:
        return []
    problems: list[Problem] = []
    shares = 1 + max(actual.count, expected.count) // SHARE
    for share in range(shares):  # which they are: for as many at a time as may be held
        index_keys: set[bytes] = set()
        async for records, _ in opened(look, kind):
            for tail, stored in records.items():
                index = index_rows(look.scope, kind, stored.record, tail, stored.updated)
                index_keys.update(key for key in index if hash(key) % shares == share)
        present: set[bytes] = set()
        async for rows in look.runs(f"indexes of {kind.name}", prefix, 1000):
            present.update(row.key for row in rows if hash(row.key) % shares == share)
        problems += [
            *(
                Problem("index-missing", f"{key!r} is missing", kind.name, part=look.part)
                for key in index_keys - present
            ),
            *(
                Problem("index-stale", f"{key!r} has no record", kind.name, part=look.part)
                for key in present - index_keys
            ),
        ]
    return problems


async def _check_counters(look: Look, kind: Kind[Any], expected: Counter[bytes]) -> list[Problem]:
    actual: dict[bytes, int] = {}
    async for rows in look.runs(f"counters of {kind.name}", look.scope.key(keys.COUNTER, kind.letter), 1000):
        actual.update((row.key, read_counter(row.value)) for row in rows)
    return [
        Problem("counter", f"counter {key!r} says {actual.get(key, 0)}, not {expected[key]}", kind.name, part=look.part)
        for key in expected.keys() | actual.keys()
        if expected[key] != actual.get(key, 0)
    ]
