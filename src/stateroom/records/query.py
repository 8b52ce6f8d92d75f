"""Queries: they page through an index, in the order of ids or newest change first."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from .. import keys
from ..core.namespace import Reader, Rows
from ..core.transaction import PENDING
from ..engine import Row
from ..errors import Damaged
from ..limits import INT64_MAX
from .kind import Kind, Record, Stored
from .pages import BY_NAME, BY_TIME, Page, check_limit, read_cursor, write_cursor
from .reading import open_current

T = TypeVar("T", bound=Record)

_NEWER = 1 << 63  # own uncommitted rows count as the latest commit


class Found:
    """A place in a query's order, and the row if it was read already."""

    __slots__ = ("position", "row", "tail")

    def __init__(self, position: Any, tail: bytes, row: Row | None) -> None:
        self.position = position
        self.tail = tail
        self.row = row


async def _range(
    rows_in: Reader | Rows, start: bytes, stop: bytes, size: int, *, reverse: bool = False
) -> AsyncIterator[Row]:
    """All rows of a range, read `size` at a time."""
    while True:
        rows = await rows_in.scan(start, stop, limit=size, reverse=reverse)
        for row in rows:
            yield row
        if len(rows) < size:
            return
        if reverse:
            stop = rows[-1].key
        else:
            start = rows[-1].key + b"\0"


async def merge(sources: Sequence[AsyncIterator[Found]], *, reverse: bool = False) -> AsyncIterator[Found]:
    """Several sources that are each in order, as one."""
    if len(sources) == 1:
        async for found in sources[0]:
            yield found
        return
    heads: list[tuple[Found, AsyncIterator[Found]]] = []
    for source in sources:
        async for found in source:
            heads.append((found, source))
            break
    last: Any = None
    while heads:
        at = _first([found.position for found, _ in heads], reverse)
        found, source = heads.pop(at)
        if found.position != last:  # a record that moved between the sources meanwhile comes from both
            yield found
        last = found.position
        async for more in source:
            heads.append((more, source))
            break


def _first(positions: list[Any], reverse: bool) -> int:
    wanted = max(positions) if reverse else min(positions)
    return positions.index(wanted)


async def by_id(
    reader: Reader,
    prefix: bytes,
    after: bytes | None,
    size: int,
    *,
    records: bool = False,
    root: str | None = None,
    within: bytes = b"",
) -> AsyncIterator[Found]:
    """Places under a prefix in the order of ids, which begin with `within`; `records`: the rows are the records."""
    start = prefix + within if after is None else prefix + after + b"\0"
    async for row in _range(reader if root is None else reader.at(root), start, prefix + within + keys.END, size):
        tail = row.key[len(prefix) :]
        yield Found(tail, tail, row if records else None)


async def newest(
    reader: Reader, prefix: bytes, after: Any, size: int, *, least: int = 0, most: int = INT64_MAX - 1
) -> AsyncIterator[Found]:
    """Places under a prefix, newest change first; rows of the same microsecond by commit, then id."""
    if after is not None:
        most = min(most, after[0])
    start, stop = prefix + keys.number(least), prefix + keys.number(most + 1)
    group: list[Found] = []
    async for row in _range(reader, start, stop, size, reverse=True):
        at = len(prefix) + 8
        updated, tail = int.from_bytes(row.key[len(prefix) : at], "big"), row.key[at:]
        version = _NEWER if row.version == PENDING else row.version
        if group and group[0].position[0] != updated:
            for found in _ordered(group, after):
                yield found
            group = []
        group.append(Found((updated, version, tail), tail, None))
    for found in _ordered(group, after):
        yield found


def _ordered(group: list[Found], after: Any) -> Iterable[Found]:
    group.sort(key=lambda found: found.position, reverse=True)
    return group if after is None else (found for found in group if found.position < after)


async def _one(tail: bytes, after: Any) -> AsyncIterator[Found]:
    if after is None:
        yield Found((0, 0, tail), tail, None)


class Query(Generic[T]):
    """One query of a family: where it looks, what it keeps, where it goes on."""

    def __init__(self, kind: Kind[T], reader: Reader, fingerprint: int, matches: Callable[[T], bool]) -> None:
        self.kind = kind
        self.reader = reader
        self.fingerprint = fingerprint
        self.matches = matches
        self.prefixes: list[bytes] | None = None
        """Prefixes of index rows; None: the records themselves."""
        self.only: bytes | None = None
        """The one record that can match."""
        self.newest = False
        self.least, self.most = 0, INT64_MAX - 1
        self.root: str | None = None
        self.within = b""
        """What the keys of all that can match begin with; for the order of ids."""

    async def page(self, limit: int, cursor: str | None) -> Page[T]:
        """One page. Raises `InvalidArgument` for a limit or cursor that is not allowed."""
        check_limit(limit)
        after: Any = None
        if cursor is not None and (self.newest or self.only is not None):
            after = read_cursor(cursor, self.fingerprint, BY_TIME)
        elif cursor is not None:
            after = read_cursor(cursor, self.fingerprint, BY_NAME)
        found, undecodable = await self.fill(limit + 1, after)
        more = len(found) > limit
        items = tuple(self.kind.shown(stored.record) for stored, _ in found[:limit])
        return Page(items, write_cursor(self.fingerprint, found[limit - 1][1]) if more else None, undecodable)

    async def fill(self, wanted: int, after: Any) -> tuple[list[tuple[Stored[T], Any]], int]:
        """Up to `wanted` matching records with their positions, and how many could not be decoded."""
        found: list[tuple[Stored[T], Any]] = []
        undecodable = 0
        places: list[Found] = []
        async for place in self._places(after, min(max(wanted, 16), 256)):
            places.append(place)
            if len(places) >= wanted - len(found):
                undecodable += await self._open(places, found)
                places = []
                if len(found) >= wanted:
                    return found, undecodable
        undecodable += await self._open(places, found)
        return found, undecodable

    async def every(self) -> AsyncIterator[T]:
        """All of it, as the twin `scan` of a query gives it."""
        after: Any = None
        while True:
            found, _ = await self.fill(256, after)
            for stored, position in found:
                yield self.kind.shown(stored.record)
                after = position
            if len(found) < 256:
                return

    def _places(self, after: Any, size: int) -> AsyncIterator[Found]:
        if self.only is not None:
            return _one(self.only, after)
        if self.prefixes is None:
            prefix = self.kind.prefix(self.reader.scope)
            return by_id(self.reader, prefix, after, size, records=True, root=self.root, within=self.within)
        if self.newest:
            options = {"least": self.least, "most": self.most}
            return merge([newest(self.reader, one, after, size, **options) for one in self.prefixes], reverse=True)
        narrow: dict[str, Any] = {"root": self.root, "within": self.within}
        return merge([by_id(self.reader, one, after, size, **narrow) for one in self.prefixes])

    async def _open(self, places: list[Found], found: list[tuple[Stored[T], Any]]) -> int:
        """Read the records of some places, keep those that match; gives how many could not be decoded."""
        reader, kind = self.reader, self.kind
        prefix = kind.prefix(reader.scope)
        undecodable = 0
        await fetch_rows(reader, kind, places)
        for place in places:
            if place.row is None:  # removed since its index row was read
                continue
            try:
                path = keys.parse(place.tail, kind.shape)
                stored = await open_current(reader, kind, path, prefix + place.tail, place.row)
            except Damaged:
                undecodable += 1
                continue
            if stored is not None and self.matches(stored.record):
                found.append((stored, place.position))
        return undecodable


async def fetch_rows(reader: Reader, kind: Kind[Any], places: Sequence[Found]) -> None:
    """Read the records' rows of some places, one read for each part."""
    prefix = kind.prefix(reader.scope)
    parts: dict[int, list[Found]] = {}
    for place in places:
        if place.row is None:
            owner = kind.owner(keys.parse(place.tail, kind.shape))
            parts.setdefault(reader.scope.part(keys.root(owner)), []).append(place)
    found = await reader.read_many([(part, [prefix + one.tail for one in here]) for part, here in parts.items()])
    for here, rows in zip(parts.values(), found, strict=True):
        for place, row in zip(here, rows, strict=True):
            place.row = row
