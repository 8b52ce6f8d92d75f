"""Places: where the records are that an index leads to, in the order of ids or newest change first."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from .. import keys
from ..core.namespace import Reader, Rows
from ..core.transaction import PENDING
from ..engine import Row
from ..limits import INT64_MAX
from .kind import Kind

_NEWER = 1 << 63  # own uncommitted rows count as the latest commit


class Place:
    """A place in a query's order, and the row if it was read already."""

    __slots__ = ("position", "row", "tail")

    def __init__(self, position: Any, tail: bytes, row: Row | None) -> None:
        self.position = position
        self.tail = tail
        self.row = row


def commit_of(row: Row) -> int:
    """The version of a row as a place in the order of commits."""
    return _NEWER if row.version == PENDING else row.version


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


async def merge(sources: Sequence[AsyncIterator[Place]], *, reverse: bool = False) -> AsyncIterator[Place]:
    """Several sources that are each in order, as one."""
    if len(sources) == 1:
        async for place in sources[0]:
            yield place
        return
    heads: list[tuple[Place, AsyncIterator[Place]]] = []
    for source in sources:
        async for place in source:
            heads.append((place, source))
            break
    while heads:
        at = _first([place.position for place, _ in heads], reverse)
        place, source = heads.pop(at)
        yield place
        async for following in source:
            heads.append((following, source))
            break


def _first(positions: list[Any], reverse: bool) -> int:
    return positions.index(max(positions) if reverse else min(positions))


async def by_id(
    reader: Reader,
    prefix: bytes,
    after: bytes | None,
    size: int,
    *,
    records: bool = False,
    root: str | None = None,
    within: bytes = b"",
) -> AsyncIterator[Place]:
    """Places under a prefix in the order of ids, which begin with `within`; `records`: the rows are the records."""
    start = prefix + within if after is None else prefix + after + b"\0"
    where = reader if root is None else reader.look_at(root)
    async for row in _range(where, start, prefix + within + keys.END, size):
        tail = row.key[len(prefix) :]
        yield Place(tail, tail, row if records else None)


async def newest(
    reader: Reader, prefix: bytes, after: Any, size: int, *, least: int = 0, most: int = INT64_MAX - 1
) -> AsyncIterator[Place]:
    """Places under a prefix, newest change first; rows of the same microsecond by commit, then id."""
    if after is not None:
        most = min(most, after[0])
    start, stop = prefix + keys.number(least), prefix + keys.number(most + 1)
    group: list[Place] = []
    async for row in _range(reader, start, stop, size, reverse=True):
        at = len(prefix) + 8
        updated, tail = int.from_bytes(row.key[len(prefix) : at], "big"), row.key[at:]
        if group and group[0].position[0] != updated:
            for place in _ordered(group, after):
                yield place
            group = []
        group.append(Place((updated, commit_of(row), tail), tail, None))
    for place in _ordered(group, after):
        yield place


def _ordered(group: list[Place], after: Any) -> Iterable[Place]:
    group.sort(key=lambda place: place.position, reverse=True)
    return group if after is None else (place for place in group if place.position < after)


async def one(tail: bytes, after: Any) -> AsyncIterator[Place]:
    """The place of a record whose id is known."""
    if after is None:
        yield Place((0, 0, tail), tail, None)


async def fetch_rows(reader: Reader, kind: Kind[Any], places: Sequence[Place]) -> None:
    """Read the records' rows of some places, one read for each part."""
    prefix = kind.prefix(reader.scope)
    parts: dict[int, list[Place]] = {}
    for place in places:
        if place.row is None:
            owner = kind.owner(keys.parse(place.tail, kind.shape))
            parts.setdefault(reader.scope.part(keys.root(owner)), []).append(place)
    if not parts:
        return
    answers = await reader.read_many([(part, [prefix + item.tail for item in group]) for part, group in parts.items()])
    for group, rows in zip(parts.values(), answers, strict=True):
        for place, row in zip(group, rows, strict=True):
            place.row = row
