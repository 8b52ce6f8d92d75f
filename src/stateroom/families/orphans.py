"""Records that somebody should work on and nobody does: no live lease holds them."""

from typing import TypeVar

from .. import keys
from ..core.namespace import Reader
from ..records.kind import Record, Stored
from ..records.pages import BY_NAME, Page, check_limit, read_cursor, write_cursor
from ..records.query import Query
from .leases import live_holders

T = TypeVar("T", bound=Record)

_BATCH = 256


async def page(query: Query[T], limit: int, cursor: str | None) -> Page[T]:
    """A page of a query's records, by id, without those whose id is the key of a live lease."""
    check_limit(limit)
    after = None if cursor is None else read_cursor(cursor, query.fingerprint, BY_NAME)
    items: list[T] = []
    undecodable = pending = 0
    last = b""
    while True:
        matches = await query.fill(_BATCH, after)
        free = await _without_lease(query, [match.stored for match in matches if match.stored is not None])
        for match in matches:
            after = match.position
            if match.stored is None:
                pending += 1
            elif match.position in free:
                if len(items) == limit:
                    return Page(tuple(items), write_cursor(query.fingerprint, last), undecodable)
                items.append(query.kind.shown(match.stored.record))
                undecodable, pending, last = undecodable + pending, 0, match.position
        if sum(match.stored is not None for match in matches) < _BATCH:
            return Page(tuple(items), None, undecodable + pending)


async def _without_lease(query: Query[T], records: list[Stored[T]]) -> set[bytes]:
    reader: Reader = query.reader
    parts: dict[int, list[str]] = {}
    for stored in records:
        id = query.kind.owner(query.kind.path(stored.record))
        parts.setdefault(reader.scope.part(keys.root(id)), []).append(id)
    free: set[bytes] = set()
    for part, ids in parts.items():
        held = await live_holders(reader, part, ids)
        free |= {keys.path(id) for id, live in zip(ids, held, strict=True) if not live}
    return free
