"""The feed: every change of every family, in commit order, with no gap.

After etcd's watch: ordered, unique, atomic, reliable, resumable; what is gone is said aloud (`Compacted`).
"""

import contextlib
import heapq
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from . import blobs, keys, positions
from .clock import from_micros, to_micros
from .engine import Row
from .entry import NO_POINTER, OPS, Entry, decode, encode, feed_prefix
from .errors import Compacted, Damaged, InvalidArgument, StoreError
from .operation import Family, M, operation, reading
from .pages import check_limit
from .positions import BEGINNING, LATEST, Place, Vector
from .records import KINDS, decode_body
from .transaction import PENDING, Reader, Scope, Transaction

FAMILIES = ("instances", "machines", "results", "savepoints", "executions", "execution_events")
"""The families whose changes are in the feed; no emitted type may have these names."""

_LAST = 0xFFFF

RUN = 256
"""Entries that are read at once."""

LOOKED_AT = 2000
"""Entries one read looks at before it returns, however few of them match."""

PLAIN: dict[str, Callable[[Any], Any]] = {}
"""What builds the object of a family that is no record, from the value it was stored as."""

EVENTS: dict[str, Callable[[Any], Any]] = {}
"""What builds the events of a family's changes, from the values they were stored as; others stay as they are."""


class Change(msgspec.Struct, frozen=True):
    """One change."""

    position: str
    """Just after it: resuming here gives the next one."""
    before: str
    """Just before it: resuming here gives it again."""
    op: str
    """"create", "update", "delete" or "emit"."""
    family: str
    id: str
    """The string that decides the part."""
    key: tuple[str | int, ...]
    """The full key."""
    record: Any
    """The record after the change; None for a deletion; the emitted object for an emit."""
    previous: Any
    """The record before it, where there was one and the feed still has it."""
    events: tuple[Any, ...]
    """What was given as events with the change."""
    at: datetime
    error: StoreError | None = None
    """Set where the record cannot be decoded here; then `record` is None. It blocks nothing else."""


class Changes(msgspec.Struct, frozen=True):
    """Some changes, and where to go on: after the last change that was looked at."""

    items: tuple[Change, ...]
    next: str


class Filter(msgspec.Struct, frozen=True):
    """Which changes a reader wants; None wants all."""

    families: frozenset[str] | None = None
    ops: frozenset[str] | None = None
    ids: frozenset[Any] | None = None

    def wants(self, entry: Entry) -> bool:
        return (
            (self.families is None or entry.family in self.families)
            and (self.ops is None or entry.op in self.ops)
            and (self.ids is None or entry.id in self.ids or entry.path in self.ids)
        )


EVERYTHING = Filter()


def make_filter(families: Collection[str] | None, ops: Collection[str] | None, ids: Collection[Any] | None) -> Filter:
    """A checked filter. Raises `InvalidArgument` for a bare str, an unknown op or an id that is no name."""
    for what, given in (("families", families), ("ops", ops), ("ids", ids)):
        if isinstance(given, str | bytes):
            raise InvalidArgument(f"{what} is {given!r}; give a collection of them", what=what, value=given)
    for op in ops or ():
        if op not in OPS:
            raise InvalidArgument(f"unknown op {op!r}; one of {', '.join(OPS)}", what="ops", value=op)
    for family in families or ():
        keys.name(family, "family")
    wanted = None if ids is None else frozenset(tuple(one) if isinstance(one, list) else one for one in ids)
    return Filter(None if families is None else frozenset(families), None if ops is None else frozenset(ops), wanted)


class Seen(NamedTuple):
    """A matching entry, and the positions before and after it."""

    part: int
    at: bytes
    """Version and index as the end of its key."""
    entry: Entry
    error: StoreError | None
    before: str
    after: str


def floor_key(scope: Scope) -> bytes:
    """The row that says up to where a part's feed was pruned: 8 bytes of version and 2 of index."""
    return scope.key(b"G")


async def floors(reader: Reader) -> Vector:
    """Up to where each part was pruned."""
    found: Vector = []
    for part in range(reader.scope.parts):
        row = (await reader.peek(part, [floor_key(reader.scope)]))[0]
        value = row.value if row is not None else bytes(10)
        found.append((int.from_bytes(value[:8], "big"), int.from_bytes(value[8:10], "big")))
    return found


class Survey(NamedTuple):
    """How far each part has come, and up to where it was pruned."""

    versions: list[int]
    floors: list[bytes]


async def survey(reader: Reader) -> Survey:
    """Look at every part, with one read each."""
    wanted = (b"", floor_key(reader.scope))
    found = Survey([], [])
    for part in range(reader.scope.parts):
        head, floor = await reader.peek(part, wanted)
        found.versions.append(0 if head is None else head.version)
        found.floors.append(bytes(10) if floor is None else floor.value)
    return found


async def check_floors(reader: Reader, place: Place, low: Sequence[bytes]) -> None:
    """Raise `Compacted` where something after a place is no longer retained."""
    if any(place.at(part) < floor for part, floor in enumerate(low)):
        raise Compacted(
            "changes after this position are no longer retained; read the records, then the feed from `first`",
            first=await positions.write(reader.scope, [place_in(floor) for floor in low]),
        )


def _read_entry(scope: Scope, row: Row) -> tuple[Entry, StoreError | None]:
    try:
        return decode(scope, row.value), None
    except Damaged as error:  # it is delivered as what it is, and blocks nothing behind it
        return Entry("update", "", "", (), NO_POINTER, 0, None, None), error


def place_in(key: bytes) -> tuple[int, int]:
    """Version and index at the end of an entry's key."""
    return int.from_bytes(key[-10:-2], "big"), int.from_bytes(key[-2:], "big")


async def record_of(reader: Reader, entry: Entry) -> Any:
    """The object in an entry, as changes show it. Raises `Damaged` or `Undecodable`."""
    wrapped = entry.wrapped
    if wrapped is None:
        return None
    scope = reader.scope
    if wrapped[:1] == blobs.INLINE:  # what every small record is: no detour
        bound = b"" if scope.codec.key_ring is None else entry_bound(scope, entry)
        body = scope.codec.reveal(bound, wrapped[1:])
    else:
        body = await blobs.fetch(reader, keys.root(entry.id), entry_bound(scope, entry), wrapped)
    kind = KINDS.get(entry.family)
    if kind is not None:
        return kind.shown(decode_body(scope, kind, entry.path, body)[0])
    value = scope.codec.decode(body)
    return PLAIN[entry.family](value) if entry.family in PLAIN else value


def plain_bound(scope: Scope, family: str, id: str) -> bytes:
    """What the value of an entry without a record is bound to."""
    return feed_prefix(scope) + keys.path(family, id)


def entry_bound(scope: Scope, entry: Entry) -> bytes:
    """What the value and the events of an entry are bound to."""
    kind = KINDS.get(entry.family)
    if kind is None:
        return plain_bound(scope, entry.family, entry.id)
    return kind.prefix(scope) + keys.path(*entry.path)


def before_of(at: tuple[int, int], entry: Entry) -> tuple[int, int] | None:
    """Where the record's entry before this one stands; None where there is none."""
    version, index = entry.before
    if version == PENDING:  # written by the same commit
        return at[0], index
    return None if entry.before == NO_POINTER else entry.before


async def _entries_before(reader: Reader, seen: Sequence[Seen]) -> list[Entry | None]:
    """The same records' entries before some: None where there was none, or it is not retained or not readable."""
    prefix = feed_prefix(reader.scope)
    known = {(one.part, one.at): one.entry for one in seen if one.error is None}
    wanted: dict[int, list[bytes]] = {}
    places: list[tuple[int, bytes] | None] = []
    for part, at, entry, _, _, _ in seen:
        version, index = entry.before
        if version == 0:
            places.append(None)
            continue
        back = (at[:8] if version == PENDING else version.to_bytes(8, "big")) + index.to_bytes(2, "big")
        places.append((part, back))
        if (part, back) not in known:
            wanted.setdefault(part, []).append(prefix + back)
    for part, found in wanted.items():
        for row in await reader.peek(part, found):
            if row is not None:
                entry, error = _read_entry(reader.scope, row)
                if error is None:
                    known[part, row.key[-10:]] = entry
    return [None if spot is None else known.get(spot) for spot in places]


async def changes_of(reader: Reader, seen: Sequence[Seen]) -> tuple[Change, ...]:
    """Entries as changes."""
    changes = []
    for one, back in zip(seen, await _entries_before(reader, seen), strict=True):
        entry, error = one.entry, one.error
        record = previous = None
        events: tuple[Any, ...] = ()
        try:
            if error is None and entry.wrapped is not None:
                record = await record_of(reader, entry)
            if entry.events is not None:
                events = await _events(reader, entry)
        except Damaged as found:
            error = found
        if back is not None and back.wrapped is not None:
            with contextlib.suppress(Damaged):
                previous = await record_of(reader, back)
        changes.append(
            Change(
                one.after, one.before, entry.op, entry.family, entry.id, entry.path, record, previous, events,
                from_micros(entry.at), error,
            )
        )  # fmt: skip
    return tuple(changes)


async def _events(reader: Reader, entry: Entry) -> tuple[Any, ...]:
    """What was given as events with a change of a record."""
    if entry.events is None:
        return ()
    scope = reader.scope
    bound = KINDS[entry.family].prefix(scope) + keys.path(*entry.path)
    values = scope.codec.decode(await blobs.fetch(reader, keys.root(entry.id), bound, entry.events))
    build = EVENTS.get(entry.family)
    return tuple(values) if build is None else tuple(map(build, values))


class Follower:
    """A reader of the feed that goes on where it stopped, and remembers what it need not look at again."""

    def __init__(self, scope: Scope, after: str, wanted: Filter) -> None:
        self._scope = scope
        self._reader = scope.reader
        self._after = after
        self._wanted = wanted
        self._place: Place | None = None
        self._read_to = [-1] * scope.parts
        """The version of each part at which nothing was left to look at."""
        self.versions: list[int] = []
        """Those of the last look."""

    @property
    def position(self) -> str:
        """After the last change looked at."""
        return self._after if self._place is None else self._place.text

    async def read(self, limit: int, wait: float) -> Changes:
        """One read; see `Feed.read`."""
        scope = self._scope
        deadline = scope.clock.monotonic() + wait
        first = at_once = True
        while True:
            now = await survey(self._reader)
            self.versions = now.versions
            if self._place is None:
                at_once = self._after in (BEGINNING, LATEST)
                self._place = await self._begin(now)
            elif first:
                at_once = False
            await check_floors(self._reader, self._place, now.floors)
            found, looked = await self._look(self._place, now.versions, limit)
            if found is None:
                continue
            left = deadline - scope.clock.monotonic()
            if found or (first and (looked or at_once)) or left <= 0 or wait <= 0:
                self._after = self._place.text
                return Changes(found, self._after)
            first = False
            if looked < LOOKED_AT:
                await scope.engine.wait(None, sum(now.versions), left)

    async def _begin(self, now: Survey) -> Place:
        """Where a position stands. Raises `InvalidArgument`."""
        scope = self._scope
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
        seen, looked, ended = await self._entries(place, parts, limit)
        found = await changes_of(self._reader, seen) if looked else ()
        # Only now: what was pruned since we began is missing in what we found, or all that we should have found.
        low = {part: await self._floor(part) for part in parts}
        if any(start[part] < low[part] for part in parts):
            for part in parts:
                place.move(part, start[part])
            if self._after != BEGINNING:
                await check_floors(self._reader, place, (await survey(self._reader)).floors)
            for part in parts:
                place.move(part, max(start[part], low[part]))
            return None, 0
        if ended:
            for part in parts:
                self._read_to[part] = versions[part]
        return found, looked

    async def _floor(self, part: int) -> bytes:
        (row,) = await self._reader.peek(part, [floor_key(self._scope)])
        return bytes(10) if row is None else row.value

    async def _entries(self, place: Place, parts: list[int], limit: int) -> tuple[list[Seen], int, bool]:
        """Matching entries, how many were looked at, and whether none is left."""
        wanted, everything = self._wanted, self._wanted == EVERYTHING
        run = min(limit, RUN) if everything and len(parts) == 1 else RUN
        streams = [Stream(self._reader, part, place.at(part), run) for part in parts]
        heads = [(stream.entry.at, stream.part, stream) for stream in streams if await stream.advance()]
        heapq.heapify(heads)
        seen: list[Seen] = []
        looked = 0
        while heads and len(seen) < limit and looked < LOOKED_AT:
            _, part, stream = heads[0]
            looked += 1
            if everything or stream.error is not None or wanted.wants(stream.entry):
                before = place.text
                place.move(part, stream.at)
                seen.append(Seen(part, stream.at, stream.entry, stream.error, before, place.text))
            else:
                place.move(part, stream.at)
            if not await stream.advance():
                heapq.heappop(heads)
            elif len(heads) > 1:
                heapq.heapreplace(heads, (stream.entry.at, part, stream))
        return seen, looked, not heads


class Stream:
    """The entries of one part after a place, one after another, read ahead in runs."""

    at: bytes
    entry: Entry
    error: StoreError | None

    def __init__(self, reader: Reader, part: int, after: bytes, run: int) -> None:
        self.part = part
        self._reader = reader
        self._run = run
        self._start = feed_prefix(reader.scope) + after + b"\0"
        self._last = False
        self._rows: list[Row] = []

    async def advance(self) -> bool:
        """Go to the next entry; False where there is none."""
        if not self._rows:
            if self._last:
                return False
            stop = feed_prefix(self._reader.scope) + keys.END
            rows = await self._reader.scan_part(self.part, self._start, stop, limit=self._run)
            self._last = len(rows) < self._run
            if not rows:
                return False
            self._start = rows[-1].key + b"\0"
            self._rows = rows[::-1]
        row = self._rows.pop()
        self.at = row.key[-10:]
        self.entry, self.error = _read_entry(self._reader.scope, row)
        return True


async def read_changes(reader: Reader, after: str, wanted: Filter, limit: int, wait: float) -> Changes:
    """One read of the feed; see `Feed.read`."""
    return await Follower(reader.scope, after, wanted).read(limit, wait)


class Feed(Family[M]):
    """``store.feed``: read what changed, and add changes of your own."""

    @reading
    async def read(
        self,
        tx: Reader,
        after: str = BEGINNING,
        *,
        families: Collection[str] | None = None,
        ops: Collection[str] | None = None,
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
        if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait < 1e9:
            raise InvalidArgument(f"wait is {wait!r}; use seconds, 0 or more", what="wait", value=wait)
        if wait and isinstance(tx, Transaction):
            raise InvalidArgument("the feed cannot be waited for inside a transaction", what="wait", value=wait)
        return await Follower(self._scope, after, make_filter(families, ops, ids)).read(limit, wait)

    @reading
    async def latest(self, tx: Reader) -> str:
        """The position after the newest change."""
        database = await positions.identity(self._scope)  # first: where it is made now, that is a commit of its own
        return positions.place_of(self._scope, database, await positions.latest(self._scope.reader)).text

    @operation
    async def emit(self, tx: Transaction, type: str, object: Any, id: str | None = None) -> None:
        """Add a change of your own: op "emit", family `type`, record `object`; `id` (or the type) decides the part.

        Raises `InvalidArgument` for a type with the name of a family.
        """
        keys.name(type, "type")
        if type in FAMILIES:
            raise InvalidArgument(f"{type!r} is the name of a family; choose another type", what="type", value=type)
        owner = type if id is None else id
        keys.name(owner, "id")
        await append_plain(tx, "emit", type, owner, (owner,), object)


async def append_plain(tx: Transaction, op: str, family: str, id: str, path: tuple[str | int, ...], value: Any) -> None:
    """Add an entry that belongs to no record."""
    scope = tx.scope
    root = keys.root(id)
    data = scope.codec.encode(value)
    wrapped = await blobs.keep(tx, root, plain_bound(scope, family, id), data, 1)
    at = to_micros(scope.clock.now())
    tx.append(root, feed_prefix(scope), encode(scope, Entry(op, family, id, path, NO_POINTER, at, wrapped, None)))
