"""The feed: every change of every family, in commit order, with no gap.

After etcd's watch: ordered, unique, atomic, reliable, resumable; what is gone is said aloud (`Compacted`).
"""

import logging
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from .. import arguments
from ..clock import to_micros
from ..codec.shown import Shown
from ..core.namespace import Reader, Scope
from ..core.operation import Family, M, joining, reading
from ..core.outage import Outage, passes
from ..core.transaction import Transaction, TransactionRows, transact
from ..engine import Reporting
from ..errors import Compacted, InvalidArgument, StoreError
from ..records.entry import NO_POINTER, ChangeOp, Entry, encode, feed_prefix, floor_key
from ..records.kind import changed_families
from ..records.pages import check_limit
from ..values import wrapper
from . import positions
from .changes import Change, before_of, changes_of, entry_bound, place_in, plain_bound, record_of
from .positions import BEGINNING, LATEST, Place, Vector
from .reading import LOOKED_AT, Filter, find_entries, make_filter

__all__ = [
    "Change",
    "Changes",
    "Feed",
    "Filter",
    "Follower",
    "append_plain",
    "before_of",
    "check_floors",
    "entry_bound",
    "floor_key",
    "floors",
    "make_filter",
    "place_in",
    "read_changes",
    "record_of",
    "survey",
]

log = logging.getLogger("stateroom.feed")

_LAST = 0xFFFF


class Changes(Shown, frozen=True):
    """Some changes, and where to go on: after the last change that was looked at."""

    items: tuple[Change, ...]
    next: str


async def floors(reader: Reader) -> Vector:
    """Return the floor of each part: the place up to which it was pruned."""
    return [place_in(floor) for floor in (await survey(reader)).floors]


class Survey(NamedTuple):
    """How far each part has come, and up to where it was pruned."""

    versions: list[int]
    floors: list[bytes]


async def survey(reader: Reader) -> Survey:
    """Look at every part, with one read each, or one call of an engine that can."""
    row_keys = (b"", floor_key(reader.scope))
    answers = await reader.read_many([(part, row_keys) for part in range(reader.scope.parts)])
    versions = [0 if head is None else head.version for head, _ in answers]
    return Survey(versions, [bytes(10) if floor is None else floor.value for _, floor in answers])


async def check_floors(reader: Reader, place: Place, low: Sequence[bytes]) -> None:
    """Raise `Compacted` where something after a place is no longer retained."""
    if any(place.at(part) < floor for part, floor in enumerate(low)):
        raise Compacted(
            "changes after this position are no longer retained; read the records, then the feed from `first`",
            first=await positions.write(reader.scope, [place_in(floor) for floor in low]),
        )


class Follower:
    """A reader of the feed that goes on where it stopped, and remembers what it need not look at again."""

    def __init__(self, scope: Scope, after: str, filter: Filter) -> None:
        self.scope = scope
        self._reader = scope.reader
        self._after = after
        self._filter = filter
        self._place: Place | None = None
        self._read_to = [-1] * scope.parts
        """The version of each part at which nothing was left to look at."""
        self.versions: list[int] = []
        """Those of the last look."""
        self._idle = False
        """Whether that found nothing."""

    @property
    def position(self) -> str:
        """After the last change looked at."""
        return self._after if self._place is None else self._place.text

    async def read(self, limit: int, wait: float) -> Changes:
        """One read; see `Feed.read`."""
        scope = self.scope
        deadline = scope.clock.monotonic() + wait
        first = at_once = True
        # A wait returns at once where something has moved since the last look.
        if self._idle and wait > 0 and not await _moved(scope, sum(self.versions), wait):
            return Changes((), self._after)
        while True:
            now = await survey(self._reader)
            self.versions = now.versions
            if self._place is None:
                at_once = self._after in (BEGINNING, LATEST)
                self._place = await self._begin(now)
            elif first:
                at_once = False
            await check_floors(self._reader, self._place, now.floors)
            changes, entries = await self._look(self._place, now.versions, limit)
            if changes is None:
                continue
            remaining = deadline - scope.clock.monotonic()
            if changes or (first and (entries or at_once)) or remaining <= 0 or wait <= 0:
                self._after = self._place.text
                self._idle = not entries
                return Changes(changes, self._after)
            first = False
            if entries < LOOKED_AT:
                await scope.engine.wait(None, sum(now.versions), remaining)

    async def _begin(self, now: Survey) -> Place:
        """Return where a position stands. Raises `InvalidArgument`."""
        scope = self.scope
        if self._after == LATEST:
            vector = [(version, _LAST) for version in now.versions]
            self._read_to = list(now.versions)
        elif self._after == BEGINNING:
            vector = [place_in(floor) for floor in now.floors]
        else:
            vector = await positions.read(scope, self._after)
        return positions.place_of(scope, await positions.identity(scope), vector)

    async def _look(self, place: Place, versions: list[int], limit: int) -> tuple[tuple[Change, ...] | None, int]:
        """Look at entries in order until `limit` match, `LOOKED_AT` were seen or there are no more.

        Gives the changes and how many entries were looked at; None: look again, the oldest that is retained moved on.
        """
        parts = [part for part, version in enumerate(versions) if version > self._read_to[part]]
        if not parts:
            return (), 0
        start = {part: place.at(part) for part in parts}
        key = floor_key(self.scope)
        try:
            selection = await find_entries(self._reader, place, parts, limit, self._filter)
            changes = await changes_of(self._reader, selection.matches, selection.passed) if selection.total else ()
            # Only now: what was pruned since we began is missing in what we found, or all that we should have found.
            rows = [row for (row,) in await self._reader.read_many([(part, [key]) for part in parts])]
        except BaseException:
            for part in parts:  # what was not given to anybody is looked at again
                place.move(part, start[part])
            raise
        low = {part: bytes(10) if row is None else row.value for part, row in zip(parts, rows, strict=True)}
        if any(start[part] < low[part] for part in parts):
            for part in parts:
                place.move(part, start[part])
            if self._after != BEGINNING:
                await check_floors(self._reader, place, (await survey(self._reader)).floors)
            for part in parts:
                place.move(part, max(start[part], low[part]))
            return None, 0
        if selection.ended:
            for part in parts:
                self._read_to[part] = versions[part]
        return changes, selection.total


async def _read_within(follower: Follower, limit: int, wait: float) -> Changes:
    """One read, made again while the database is away and `wait` is not over; then the last error comes through."""
    scope = follower.scope
    deadline = scope.clock.monotonic() + wait
    away = Outage(log, "a read of the feed", scope.clock)
    while True:
        try:
            return await follower.read(limit, max(0.0, deadline - scope.clock.monotonic()) if wait else 0.0)
        except StoreError as error:
            remaining = deadline - scope.clock.monotonic()
            if not passes(error) or remaining <= 0:
                raise
            await scope.pause(min(away.failed(error), remaining))


async def _moved(scope: Scope, versions: int, seconds: float) -> bool:
    """Wait until the sum of all versions is past `versions`; False where the engine says that it is not."""
    if isinstance(scope.direct, Reporting):
        return bool(scope.direct.passed(None, versions, seconds))
    if isinstance(scope.engine, Reporting):
        return bool(await scope.engine.passed(None, versions, seconds))
    await scope.engine.wait(None, versions, seconds)
    return True


async def read_changes(reader: Reader, after: str, filter: Filter, limit: int, wait: float) -> Changes:
    """One read of the feed; see `Feed.read`."""
    return await Follower(reader.scope, after, filter).read(limit, wait)


class Feed(Family[M]):
    """``store.feed``: read what changed, and add changes of your own."""

    @reading
    async def read(
        self,
        tx: Reader,
        after: str = BEGINNING,
        *,
        families: Collection[str] | None = None,
        ops: Collection[ChangeOp | StrEnum] | None = None,
        ids: Collection[Any] | None = None,
        limit: int = 100,
        wait: float = 0.0,
    ) -> Changes:
        """Changes after a position, at most `limit` (1 to 1000) of those that match, in commit order of each part.

        Returns at once if there is a match, if `after` is BEGINNING or LATEST, or if changes that do not match were
        skipped; else it waits up to `wait` seconds, and only a match wakes it. `ids` matches a change's `id` or its
        whole `key`. Raises `Compacted` for a position older than what is retained, `InvalidArgument`.
        """
        check_limit(limit)
        wait = arguments.seconds(wait, "wait")
        if wait and isinstance(tx, Transaction):
            raise InvalidArgument("the feed cannot be waited for inside a transaction", what="wait", value=wait)
        return await _read_within(Follower(self._scope, after, make_filter(families, ops, ids)), limit, wait)

    @reading
    async def latest(self, tx: Reader) -> str:
        """The position after the newest change."""
        database = await positions.identity(self._scope)  # first: where it is made now, that is a commit of its own
        return positions.place_of(self._scope, database, await positions.latest(self._scope.reader)).text

    @joining
    async def emit(self, type: str, object: Any, id: str | None = None) -> str | None:
        """Add a change of your own: op "emit", family `type`, record `object`; `id` (or the type) decides the part.

        Gives the position just after it, and after all that was committed to other parts before; None in a transaction,
        whose commit decides it. Raises `InvalidArgument` for a type with the name of a family.
        """
        type = arguments.name(type, "type")
        if type in changed_families():
            raise InvalidArgument(f"{type!r} is the name of a family; choose another type", what="type", value=type)
        owner = type if id is None else arguments.name(id, "id")
        tx, scope = self._face.tx, self._scope
        if tx is not None:
            await append_plain(tx, "emit", type, owner, (owner,), object)
            return None
        # All that may fail comes before the commit: an error says that nothing was emitted.
        database = await positions.identity(scope)
        vector = await positions.latest(scope.reader) if scope.parts > 1 else positions.beginning(scope)
        emitted: list[tuple[TransactionRows, int]] = []

        async def body(tx: Transaction) -> None:
            index = await append_plain(tx, "emit", type, owner, (owner,), object)
            emitted[:] = [(tx.rows, index)]

        await transact(scope, body)
        rows, index = emitted[0]
        assert rows.version is not None
        vector[rows.part] = rows.version, index
        return positions.place_of(scope, database, vector).text


async def append_plain(
    tx: Transaction, op: ChangeOp, family: str, id: str, path: tuple[str | int, ...], value: Any
) -> int:
    """Add an entry that belongs to no record; gives its index in the commit."""
    scope = tx.scope
    rows = tx.at(id)
    data = scope.codec.encode(value)
    wrapped = await wrapper.keep(rows, plain_bound(scope, family, id), data, 1)
    at = to_micros(scope.clock.now())
    entry = Entry(op, family, id, path, NO_POINTER, at, wrapped, None)
    return rows.append(feed_prefix(scope), encode(scope, entry))
