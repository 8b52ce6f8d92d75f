"""Queries: they page through an index, in the order of ids or newest change first.

Each call gives every record that matched all the time exactly once, whatever other writers move meanwhile.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from .. import keys
from ..core.namespace import Reader
from ..core.transaction import chunks
from ..errors import Damaged
from ..limits import INT64_MAX
from .changed import ChangedSince, PrunedError
from .kind import Kind, Record, Stored
from .pages import BY_NAME, BY_TIME, Page, check_limit, left_out, read_cursor, write_cursor
from .places import Place, by_id, commit_of, fetch_rows, merge, newest, one
from .reading import open_current

T = TypeVar("T", bound=Record)

_RESTARTS = 10
"""Times that a query begins again because the feed was pruned while it read."""

_BATCH = 256


class Match(NamedTuple, Generic[T]):
    """A record that matches, and its place in the query's order; without the record: it cannot be opened."""

    stored: Stored[T] | None
    position: Any


class Query(Generic[T]):
    """One query of a family: where it looks, what it keeps, where it goes on."""

    def __init__(self, kind: Kind[T], reader: Reader, fingerprint: int, matches: Callable[[T], bool]) -> None:
        self.kind = kind
        self.reader = reader
        self.fingerprint = fingerprint
        self.matches = matches
        self.prefixes: list[bytes] | None = None
        """Prefixes of index rows; None: the records themselves."""
        self.find_prefixes: Callable[[], Awaitable[list[bytes]]] | None = None
        """Instead of `prefixes`, where they have to be looked for."""
        self.only: bytes | None = None
        """The one record that can match."""
        self.newest = False
        self.least, self.most = 0, INT64_MAX - 1
        self.order: Callable[[Reader, list[Place]], list[Place]] | None = None
        """For `first`: another order of the places than by time."""
        self.root: str | None = None
        self.within = b""
        """What the keys of all that can match begin with; for the order of ids."""

    def narrow(self, prefix: str | None) -> None:
        """Look only at ids that begin so."""
        if prefix and not self.newest:
            self.within = prefix.encode()
            self.root = keys.root(prefix) if "/" in prefix else None

    async def page(self, limit: int, cursor: str | None) -> Page[T]:
        """One page. Raises `InvalidArgument` for a limit or cursor that is not allowed."""
        check_limit(limit)
        after: Any = None
        if cursor is not None and (self.newest or self.only is not None):
            after = read_cursor(cursor, self.fingerprint, BY_TIME)
        elif cursor is not None:
            after = read_cursor(cursor, self.fingerprint, BY_NAME)
        items: list[T] = []
        last: Any = None
        undecodable = pending = 0
        for match in await self.fill(limit + 1, after):
            if match.stored is None:
                pending += 1
            elif len(items) == limit:  # what stands between the last item and this one belongs to the next page
                return Page(tuple(items), write_cursor(self.fingerprint, last), undecodable)
            else:
                items.append(self.kind.shown(match.stored.record))
                undecodable, pending, last = undecodable + pending, 0, match.position
        return Page(tuple(items), None, undecodable + pending)

    async def first(self, limit: int | None) -> tuple[T, ...]:
        """The first records of it, or all, at once."""
        if self.order is None:
            matches = await self.fill(limit, None)
        else:
            matches = await self._in_order(limit)
        records = [self.kind.shown(match.stored.record) for match in matches if match.stored is not None]
        return tuple(records if limit is None else records[:limit])

    async def _in_order(self, limit: int | None) -> list[Match[T]]:
        """The first matches in an order of the caller's, for which every place must be known."""
        moved, unmoved = await self._keep_places()
        matches = await self._open([Place(None, tail, None) for tail in moved])
        current = {match.stored.row.key: match for match in matches if match.stored is not None}
        places = [*unmoved, *(Place(match.position, match.position[2], None) for match in current.values())]
        assert self.order is not None
        result: list[Match[T]] = []
        for run in chunks(self.order(self.reader, places), _BATCH):
            result += await self._open(run)
            if limit is not None and sum(match.stored is not None for match in result) >= limit:
                break
        return result

    async def read(self, ids: Sequence[str]) -> list[T | None]:
        """The records under some ids; None for each that is not there, or cannot be opened."""
        matches = await self._open_each([Place(None, keys.path(id), None) for id in ids])
        return [None if match is None or match.stored is None else match.stored.record for match in matches]

    async def every(self) -> AsyncIterator[T]:
        """All of it, as the twin `scan` of a query gives it; some at a time."""
        source = self._in_one_lap() if self.newest and self.only is None else self._by_pages()
        async for match in source:
            if match.stored is not None:
                yield self.kind.shown(match.stored.record)

    async def fill(self, limit: int | None, after: Any) -> list[Match[T]]:
        """The first matches after a position, in order; with at least `limit` that can be opened, or all there are."""
        for _ in range(_RESTARTS):
            try:
                return await self._fill(limit, after)
            except PrunedError:
                continue
        return await self._fill(limit, after, proven=False)

    async def _by_pages(self) -> AsyncIterator[Match[T]]:
        after: Any = None
        while True:
            matches = await self.fill(_BATCH, after)
            for match in matches:
                yield match
                after = match.position
            if sum(match.stored is not None for match in matches) < _BATCH:
                return

    async def _in_one_lap(self) -> AsyncIterator[Match[T]]:
        """Newest first: records move to the front all the time, so where each was when it began is kept."""
        moved, unmoved = await self._keep_places()
        for match in sorted(await self._open([Place(None, tail, None) for tail in moved]), key=_position, reverse=True):
            yield match
        for at in range(0, len(unmoved), _BATCH):
            for match in await self._open(unmoved[at : at + _BATCH]):
                yield match

    async def _keep_places(self) -> tuple[set[bytes], list[Place]]:
        """Return what moved while all places were read, and the places of the others."""
        places: dict[bytes, Place] = {}
        moved: set[bytes] = set()
        for _ in range(_RESTARTS):
            watch = await self._watch()
            places = {}
            async for place in await self._places(None, _BATCH):
                places.setdefault(place.tail, place)
            try:
                moved = await watch.next(self.kind) if watch is not None else set()
            except PrunedError:
                continue
            break
        return moved, [place for tail, place in places.items() if tail not in moved]

    async def _fill(self, limit: int | None, after: Any, *, proven: bool = True) -> list[Match[T]]:
        matches: dict[bytes, Match[T]] = {}
        watch = await self._watch() if proven else None
        size = _BATCH if limit is None else min(max(limit, 16), _BATCH)
        places = await self._places(after, size)
        while True:
            last = await self._collect(places, matches, limit)
            moved = await watch.next(self.kind) if watch is not None else set()
            if moved:
                await self._look_again(moved, matches, after, last)
            if last is None or not _missing(matches, limit):
                return sorted(matches.values(), key=_position, reverse=self.newest)

    async def _collect(
        self, places: AsyncIterator[Place], matches: dict[bytes, Match[T]], limit: int | None
    ) -> Any | None:
        """Go on through the places until enough match; gives the last position looked at, None at the end."""
        run: list[Place] = []
        size = _missing(matches, limit)
        async for place in places:
            if place.tail not in matches:
                run.append(place)
            if len(run) >= size:
                await self._keep(run, matches)
                run, size = [], _missing(matches, limit)
                if not size:
                    return place.position
        await self._keep(run, matches)
        return None

    async def _keep(self, places: list[Place], matches: dict[bytes, Match[T]]) -> None:
        for place, match in zip(places, await self._open_each(places), strict=True):
            if match is not None:
                matches[place.tail] = match

    async def _look_again(self, moved: set[bytes], matches: dict[bytes, Match[T]], after: Any, last: Any) -> None:
        """Put what changed meanwhile where it belongs now: in this run of places, or not."""
        for tail in moved:
            matches.pop(tail, None)
        places = [Place(None if self.newest else tail, tail, None) for tail in moved]
        for place, match in zip(places, await self._open_each(places), strict=True):
            if match is not None and self._between(match.position, after, last):
                matches[place.tail] = match

    def _between(self, position: Any, after: Any, last: Any) -> bool:
        if self.newest:
            return (after is None or position < after) and (last is None or position >= last)
        begins: bool = position.startswith(self.within)
        return begins and (after is None or position > after) and (last is None or position <= last)

    async def _watch(self) -> ChangedSince | None:
        """Return what notices changes, where reads could meet a record twice or not at all; begun."""
        lanes = 2 if self.find_prefixes is not None else len(self.prefixes or ())
        if self.only is not None or not lanes or (lanes == 1 and not self.newest):
            return None
        scope = self.reader.scope
        parts = range(scope.parts) if self.root is None else (scope.part(self.root),)
        watch = ChangedSince(scope, parts)
        await watch.begin()
        return watch

    async def _places(self, after: Any, size: int) -> AsyncIterator[Place]:
        if self.only is not None:
            return one(self.only, after)
        prefixes = self.prefixes if self.find_prefixes is None else await self.find_prefixes()
        if prefixes is None:
            prefix = self.kind.prefix(self.reader.scope)
            return by_id(self.reader, prefix, after, size, records=True, root=self.root, within=self.within)
        if self.newest:
            options = {"least": self.least, "most": self.most}
            return merge([newest(self.reader, head, after, size, **options) for head in prefixes], reverse=True)
        narrow: dict[str, Any] = {"root": self.root, "within": self.within}
        return merge([by_id(self.reader, head, after, size, **narrow) for head in prefixes])

    async def _open(self, places: Sequence[Place]) -> list[Match[T]]:
        return [match for match in await self._open_each(places) if match is not None]

    async def _open_each(self, places: Sequence[Place]) -> list[Match[T] | None]:
        """The record of each place, if it is there and matches."""
        await fetch_rows(self.reader, self.kind, places)
        return [await self._match(place) for place in places]

    async def _match(self, place: Place) -> Match[T] | None:
        reader, kind = self.reader, self.kind
        row = place.row
        if row is None:  # removed since its index row was read
            return None
        path = keys.parse(place.tail, kind.shape)
        try:
            stored = await open_current(reader, kind, path, row.key, row, raw=True)
        except Damaged as error:
            left_out(reader.scope, kind.name, "/".join(map(str, path)), error)
            return Match(None, place.position or (0, 0, place.tail))
        if stored is None or not self.matches(stored.record):
            return None
        position = place.position
        if position is None:
            position = (stored.updated, commit_of(stored.row), place.tail)
        return Match(stored, position)


def _missing(matches: dict[bytes, Match[Any]], limit: int | None) -> int:
    """How many matches to look for at once; 0: there are enough."""
    if limit is None:
        return _BATCH
    return max(0, limit - sum(match.stored is not None for match in matches.values()))


def _position(match: Match[Any]) -> Any:
    return match.position
