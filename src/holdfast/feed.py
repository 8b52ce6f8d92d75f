"""The feed: every change of every family, in commit order, with no gap.

After etcd's watch: ordered, unique, atomic, reliable, resumable; what is gone is said aloud (`Compacted`).
"""

import heapq
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec

from . import blobs, keys, positions
from .clock import from_micros, to_micros
from .engine import Row, stamped
from .entry import NO_POINTER, OPS, Entry, decode, encode, feed_prefix
from .errors import Compacted, Damaged, InvalidArgument, StoreError
from .operation import Family, M, operation, reading
from .pages import check_limit
from .positions import BEGINNING, LATEST, Vector
from .records import KINDS, decode_body
from .transaction import PENDING, Reader, Scope, Transaction

FAMILIES = ("instances", "machines", "results", "savepoints", "executions", "execution_events")
"""The families whose changes are in the feed; no emitted type may have these names."""

_LAST = 0xFFFF

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


class Look(msgspec.Struct):
    """What one look at the feed found."""

    vector: Vector
    """After the last entry looked at."""
    found: list["Seen"] = msgspec.field(default_factory=list)
    looked: int = 0


class Seen(msgspec.Struct, frozen=True):
    """A matching entry, where it stands, and the vectors before and after it."""

    part: int
    at: tuple[int, int]
    entry: Entry
    error: StoreError | None
    before: Vector
    after: Vector


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


async def start_vector(reader: Reader, after: str) -> Vector:
    """Where a position stands. Raises `Compacted` for one older than what is retained, `InvalidArgument`."""
    if after == LATEST:
        return await positions.latest(reader)
    low = await floors(reader)
    if after == BEGINNING:
        return low
    vector = await positions.read(reader.scope, after)
    await check_floors(reader, vector, low)
    return vector


async def check_floors(reader: Reader, vector: Vector, low: Vector) -> None:
    """Raise `Compacted` where something after `vector` is no longer retained."""
    if any(at < floor for at, floor in zip(vector, low, strict=True)):
        raise Compacted(
            "changes after this position are no longer retained; read the records, then the feed from `first`",
            first=await positions.write(reader.scope, low),
        )


async def look(reader: Reader, vector: Vector, wanted: Filter, limit: int) -> Look:
    """Look at entries after `vector`, in order, until `limit` match, `LOOKED_AT` were seen or there are no more."""
    result = Look(list(vector))
    versions = await positions.versions(reader)
    streams = [_Stream(reader, part, at) for part, at in enumerate(vector) if versions[part] > at[0] or at[1] < _LAST]
    heads: list[tuple[int, int, _Stream]] = []
    for stream in streams:
        await stream.queue(heads)
    while heads and len(result.found) < limit and result.looked < LOOKED_AT:
        _, part, stream = heapq.heappop(heads)
        at, entry, error = stream.head
        before, result.vector = result.vector, list(result.vector)
        result.vector[part] = at
        result.looked += 1
        if error is not None or wanted.wants(entry):
            result.found.append(Seen(part, at, entry, error, before, result.vector))
        await stream.queue(heads)
    return result


class _Stream:
    """The entries of one part, read ahead in runs."""

    def __init__(self, reader: Reader, part: int, at: tuple[int, int]) -> None:
        self._reader = reader
        self._part = part
        self._start = stamped(feed_prefix(reader.scope), *at) + b"\0"
        self._rows: list[Row] = []
        self._ended = False
        self.head: tuple[tuple[int, int], Entry, StoreError | None]

    async def queue(self, heads: list[tuple[int, int, "_Stream"]]) -> None:
        """Put this stream among the heads with its next entry, if there is one."""
        scope = self._reader.scope
        if not self._rows and not self._ended:
            stop = feed_prefix(scope) + keys.END
            rows = await self._reader.scan_part(self._part, self._start, stop, limit=256)
            self._ended = len(rows) < 256
            if rows:
                self._start = rows[-1].key + b"\0"
            self._rows = rows[::-1]
        if self._rows:
            row = self._rows.pop()
            entry, error = _read_entry(scope, row)
            self.head = (place(row.key), entry, error)
            heapq.heappush(heads, (entry.at, self._part, self))


def _read_entry(scope: Scope, row: Row) -> tuple[Entry, StoreError | None]:
    try:
        return decode(scope, row.value), None
    except Damaged as error:  # it is delivered as what it is, and blocks nothing behind it
        return Entry("update", "", "", (), NO_POINTER, 0, None, None), error


def place(key: bytes) -> tuple[int, int]:
    """Version and index at the end of an entry's key."""
    return int.from_bytes(key[-10:-2], "big"), int.from_bytes(key[-2:], "big")


async def record_of(reader: Reader, entry: Entry) -> Any:
    """The object in an entry, as changes show it. Raises `Damaged` or `Undecodable`."""
    if entry.wrapped is None:
        return None
    scope = reader.scope
    root = keys.root(entry.id)
    kind = KINDS.get(entry.family)
    if kind is not None:
        bound = kind.prefix(scope) + keys.path(*entry.path)
        body = await blobs.fetch(reader, root, bound, entry.wrapped)
        return kind.shown(decode_body(scope, kind, entry.path, body)[0])
    body = await blobs.fetch(reader, root, plain_bound(scope, entry.family, entry.id), entry.wrapped)
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


async def previous_of(reader: Reader, seen: Sequence[Seen]) -> list[Any]:
    """The records before some changes: None where there was none, or it is no longer retained or readable."""
    prefix = feed_prefix(reader.scope)
    wanted: dict[int, dict[bytes, Entry | None]] = {}
    places: list[tuple[int, bytes] | None] = []
    for one in seen:
        back = None if one.error is not None else before_of(one.at, one.entry)
        places.append(None if back is None else (one.part, stamped(prefix, *back)))
        if back is not None:
            wanted.setdefault(one.part, {})[stamped(prefix, *back)] = None
    for part, found in wanted.items():
        for row in await reader.peek(part, list(found)):
            if row is not None:
                found[row.key] = _read_entry(reader.scope, row)[0]
    records: list[Any] = []
    for spot in places:
        entry = None if spot is None else wanted[spot[0]][spot[1]]
        try:
            records.append(None if entry is None else await record_of(reader, entry))
        except Damaged:
            records.append(None)
    return records


async def changes_of(reader: Reader, seen: Sequence[Seen]) -> tuple[Change, ...]:
    """Entries as changes."""
    scope = reader.scope
    database = await positions.identity(scope)
    changes = []
    for one, previous in zip(seen, await previous_of(reader, seen), strict=True):
        entry, error, record = one.entry, one.error, None
        events: tuple[Any, ...] = ()
        try:
            record = None if error is not None else await record_of(reader, entry)
            events = await _events(reader, entry)
        except Damaged as found:
            error = found
        after = positions.format_token(scope, database, one.after)
        before = positions.format_token(scope, database, one.before)
        changes.append(
            Change(
                after, before, entry.op, entry.family, entry.id, entry.path, record, previous, events,
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


async def read_changes(reader: Reader, after: str, wanted: Filter, limit: int, wait: float) -> Changes:
    """One read of the feed; see `Feed.read`."""
    scope = reader.scope
    vector = await start_vector(reader, after)
    deadline = scope.clock.monotonic() + wait
    first = True
    while True:
        version = sum(await positions.versions(reader))
        seen = await look(reader, vector, wanted, limit)
        found = await changes_of(reader, seen.found)
        try:  # only now: what was pruned since we began is missing in what we found
            await check_floors(reader, vector, await floors(reader))
        except Compacted:
            if after != BEGINNING:
                raise
            vector = await floors(reader)  # the oldest that is retained is elsewhere now
            continue
        vector = seen.vector
        if found or (first and (seen.looked or after in (BEGINNING, LATEST))):
            return Changes(found, await positions.write(scope, vector))
        left = deadline - scope.clock.monotonic()
        if left <= 0 or wait <= 0:
            return Changes((), await positions.write(scope, vector))
        first = False
        if seen.looked < LOOKED_AT:
            await scope.engine.wait(None, version, left)


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
        return await read_changes(self._scope.reader, after, make_filter(families, ops, ids), limit, wait)

    @reading
    async def latest(self, tx: Reader) -> str:
        """The position after the newest change."""
        database = await positions.identity(self._scope)  # first: where it is made now, that is a commit of its own
        return positions.format_token(self._scope, database, await positions.latest(self._scope.reader))

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
