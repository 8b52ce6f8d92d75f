"""Records: a row, its index rows, its counters and its feed entry, always written in one batch."""

import os
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import msgspec

from . import blobs, keys
from .clock import from_micros, to_micros
from .codec import SEAL_BYTES, seal, unseal
from .engine import Row
from .entry import NO_POINTER, Entry, encode, feed_prefix
from .errors import Damaged, InvalidArgument, Undecodable
from .transaction import PENDING, Reader, Scope, Transaction

_HEAD = struct.Struct(">BH8s")
_POINTER = struct.Struct(">Q")
_EXPLICIT = 1  # flag: the feed entry's version stands in the row, as the row was rewritten without a change


# Out of sight of the garbage collector: a page of records made it look at the whole process again and again, and what
# can be stored has no cycles.
class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What every record has. Records that you construct have revision 0 and no times; writes ignore these three."""

    revision: int = 0
    """1 at creation, +1 at each change."""
    created_at: datetime | None = None
    """Aware, UTC."""
    updated_at: datetime | None = None
    """Aware, UTC; never before the previous one."""


T = TypeVar("T", bound=Record)
NONCE_BYTES = 8


class Index(NamedTuple):
    """Rows that find records by a value: in id order, and newest change first where `newest` is set."""

    letter: bytes
    values: Callable[[Any], Iterable[bytes]]
    by_id: bool = True
    newest: bool = False


class Stored(NamedTuple, Generic[T]):
    """A record as read, with what a change of it needs to know."""

    record: T
    row: Row
    wrapped: bytes
    pointer: tuple[int, int]
    """Version and index of its feed entry."""
    nonce: bytes
    """Made at creation: dependents are keyed by it, so a recreated id inherits nothing."""
    created: int
    updated: int


class Kind(ABC, Generic[T]):
    """A family's record: how it is keyed, packed, indexed and counted."""

    name: ClassVar[str]
    letter: ClassVar[bytes]
    layout: ClassVar[int] = 1
    fields: ClassVar[tuple[str, ...]] = ()
    """Names of the packed fields, for paths in errors."""
    indexes: ClassVar[tuple[Index, ...]] = ()
    shape: ClassVar[tuple[type, ...]] = (str,)
    """Which steps of the key are names and which are numbers."""

    @abstractmethod
    def path(self, record: T) -> tuple[str | int, ...]:
        """The full key."""

    def owner(self, path: Sequence[Any]) -> str:
        """Which string of the key decides the part."""
        return cast(str, path[0])

    @abstractmethod
    def pack(self, record: T) -> list[Any]:
        """The record's own fields as plain values, in the order of `fields`."""

    @abstractmethod
    def unpack(self, fields: list[Any], revision: int, created_at: datetime, updated_at: datetime) -> T:
        """The record that `pack` was given."""

    def counters(self, record: T) -> Iterable[bytes]:
        """Tails of the counters that count this record."""
        del record
        return ()

    def ended(self, record: T) -> bool:
        """Whether nothing more is expected of it: retention counts from when it came to be so."""
        del record
        return False

    def shown(self, record: T) -> T:
        """The record as pages and changes show it."""
        return record

    def held(self, record: T) -> Iterable[bytes]:
        """Wrappers of large values, beside its own body, that the record's row holds one reference to."""
        del record
        return ()

    async def audit(self, reader: Reader, part: int, records: "dict[bytes, Stored[T]]") -> list[Any]:
        """What `check` should look at beside indexes, counters and feed; gives `Problem`s."""
        del reader, part, records
        return []

    def prefix(self, scope: Scope) -> bytes:
        return scope.prefix + b"R" + self.letter

    def index_prefix(self, scope: Scope, index: Index, value: bytes, *, newest: bool = False) -> bytes:
        return scope.prefix + b"X" + self.letter + index.letter + (b"N" if newest else b"I") + value

    def counter(self, scope: Scope, tail: bytes) -> bytes:
        return scope.prefix + b"C" + self.letter + tail


KINDS: dict[str, Kind[Any]] = {}
"""Every kind by the name of its family: the feed, `check` and `copy` find them here."""

HELD: dict[bytes, Callable[[Row], bytes]] = {}
"""For each tag of a row that is no record and holds a value of any size: from the row to the value's wrapper."""


K = TypeVar("K", bound=Kind[Any])


def register(kind: K) -> K:
    """Make a kind known to the feed, `check` and `copy`."""
    KINDS[kind.name] = kind
    return kind


def encode_body(scope: Scope, kind: Kind[T], record: T, revision: int, created: int, updated: int) -> bytes:
    """The bytes of a record, times in microseconds. Raises `InvalidArgument` with the path of a value it refuses."""
    fields = kind.pack(record)
    try:
        return scope.codec.encode([kind.layout, revision, created, updated, *fields])
    except InvalidArgument:
        for name, value in zip(kind.fields, fields, strict=True):
            try:
                scope.codec.encode(value)
            except InvalidArgument as error:
                path = f"$.{name}" + str(error.path or "$")[1:]
                raise InvalidArgument(f"{kind.name}: {path}: {error.message}", what=error.what, path=path) from error
        raise


def decode_body(
    scope: Scope, kind: Kind[T], path: Sequence[Any], body: bytes, *, raw: bool = False
) -> tuple[T, int, int]:
    """The record in a body, and when it was made and changed, in microseconds."""
    try:
        layout, revision, created, updated, *fields = scope.codec.decode(body, raw=raw)
        if layout != kind.layout:
            raise Undecodable(f"layout {layout}; this version reads {kind.layout}", tag=layout)
        return kind.unpack(fields, revision, from_micros(created), from_micros(updated)), created, updated
    except (ValueError, TypeError) as error:
        raise Damaged(f"{kind.name} {path!r} cannot be read", kind=kind.name, id=str(path)) from error


async def open_row(
    reader: Reader, kind: Kind[T], path: Sequence[str | int], key: bytes, row: Row, *, raw: bool = False
) -> Stored[T]:
    """The record in a row; `raw`: with an envelope in place of each value that cannot be rebuilt.

    Raises `Damaged` or `Undecodable`.
    """
    try:
        pointer, nonce, wrapped = _split(unseal(key, row.value), row.version)
        if wrapped[:1] == blobs.INLINE:  # what every small record is: no detour
            body = reader.scope.codec.reveal(key, wrapped[1:])
        else:
            body = await blobs.fetch(reader, keys.root(kind.owner(path)), key, wrapped)
        record, created, updated = decode_body(reader.scope, kind, path, body, raw=raw)
    except Damaged as error:
        raise _named(error, kind, path) from error
    return Stored(record, row, wrapped, pointer, nonce, created, updated)


# The packed list begins with layout, revision and two times; the fields follow.
_UNNAMED = 4
_PLACE = re.compile(r"\$\[(\d+)\]")


def _named(error: Damaged, kind: Kind[Any], path: Sequence[Any]) -> Damaged:
    """The same error, saying which record it is about, and which of its fields."""
    id = "/".join(map(str, path))
    known, message = {**error.fields, "kind": kind.name, "id": id}, error.message
    place = _PLACE.match(known.get("path") or "")
    if place is not None and int(place[1]) - _UNNAMED in range(len(kind.fields)):
        known["path"] = f"$.{kind.fields[int(place[1]) - _UNNAMED]}{place.string[place.end() :]}"
        message = message.replace(place.string, known["path"], 1)
    return type(error)(f"{kind.name} {id!r}: {message}", **known)


def _split(payload: bytes, version: int) -> tuple[tuple[int, int], bytes, bytes]:
    """The pointer to the feed entry, the nonce and the wrapped body in a row's payload."""
    flags, index, nonce = _HEAD.unpack_from(payload)
    at = _HEAD.size
    if flags & _EXPLICIT:
        version = _POINTER.unpack_from(payload, at)[0]
        at += _POINTER.size
    return (version, index), nonce, payload[at:]


def row_body(row: Row) -> bytes:
    """The wrapped body in a record's row. Raises `Damaged`."""
    return _split(unseal(row.key, row.value), row.version)[2]


def pointer_of(row: Row) -> tuple[int, int]:
    """Version and index of the feed entry of a record's row. Raises `Damaged`."""
    return _split(unseal(row.key, row.value), row.version)[0]


def nonce_of(row: Row) -> bytes:
    """What was made with the record in a row, and tells it from a later one of the same id. Raises `Damaged`."""
    return _split(unseal(row.key, row.value), row.version)[1]


def renewed_row(row: Row, wrapped: bytes) -> bytes:
    """The value of a record's row with another wrapper of the same record: no change, so its feed entry stays."""
    pointer, nonce, _ = _split(unseal(row.key, row.value), row.version)
    return seal(row.key, _HEAD.pack(_EXPLICIT, pointer[1], nonce) + _POINTER.pack(pointer[0]) + wrapped)


def moved_row(row: Row, pointer: tuple[int, int]) -> bytes:
    """The value of a record's row for another database, where its feed entry stands elsewhere."""
    _, nonce, wrapped = _split(unseal(row.key, row.value), row.version)
    return seal(row.key, _HEAD.pack(_EXPLICIT, pointer[1], nonce) + _POINTER.pack(pointer[0]) + wrapped)


async def open_current(
    reader: Reader, kind: Kind[T], path: Sequence[str | int], key: bytes, row: Row | None, *, raw: bool = False
) -> Stored[T] | None:
    """The record in a row, or in the row that replaced it while its body was read; None where it was removed."""
    while row is not None:
        try:
            return await open_row(reader, kind, path, key, row, raw=raw)
        except Damaged as error:
            row = await blobs.again(reader, keys.root(kind.owner(path)), row, error)
    return None


async def load(
    reader: Reader, kind: Kind[T], path: Sequence[str | int], *, raw: bool = False, new: bool = False
) -> Stored[T] | None:
    """The record under a key of checked names; None where there is none. `raw` as in `open_row`; `new`: there is none,
    most likely.
    """
    key = kind.prefix(reader.scope) + keys.path(*path)
    root = keys.root(kind.owner(path))
    row = await (reader.absent(root, key) if new else reader.get(root, key))
    return await open_current(reader, kind, path, key, row, raw=raw)


async def load_many(reader: Reader, kind: Kind[T], paths: Sequence[Sequence[str | int]]) -> list[Stored[T] | None]:
    """As `load` of each, where all are in one root; one call of the engine."""
    places = [kind.prefix(reader.scope) + keys.path(*path) for path in paths]
    rows = await reader.get_many(keys.root(kind.owner(paths[0])), places) if paths else []
    each = zip(paths, places, rows, strict=True)
    return [await open_current(reader, kind, path, place, row) for path, place, row in each]


async def find(reader: Reader, kind: Kind[T], path: Sequence[str | int], *, raw: bool = False) -> T | None:
    """The record under a key of checked names, for who only reads it; None where there is none."""
    scope = reader.scope
    key = kind.prefix(scope) + keys.path(*path)
    root = keys.root(kind.owner(path))
    row = reader.now(root, key) if reader.instant else await reader.get(root, key)
    if row is None:
        return None
    record = _plain(scope, kind, key, row.value)
    if record is None:
        stored = await open_current(reader, kind, path, key, row, raw=raw)
        return None if stored is None else stored.record
    return record


_BODY = SEAL_BYTES + _HEAD.size


def _plain(scope: Scope, kind: Kind[T], key: bytes, value: bytes) -> T | None:
    """The record in a row that is as most are: whole, small and readable; None for any other, which `open_row` reads.

    What a read costs beside the engine is in here, so it does in place what `open_row` does in steps.
    """
    if value[SEAL_BYTES : SEAL_BYTES + 1] != b"\0" or value[_BODY : _BODY + 1] != blobs.INLINE:
        return None
    try:
        body = scope.codec.reveal(key, unseal(key, value)[_BODY - SEAL_BYTES + 1 :])
        layout, revision, created, updated, *fields = scope.codec.decode(body)
        if layout != kind.layout:
            return None
        made = from_micros(created)
        return kind.unpack(fields, revision, made, made if updated == created else from_micros(updated))
    except (Damaged, ValueError, TypeError):
        return None


def index_rows(scope: Scope, kind: Kind[T], record: T, tail: bytes, updated: int) -> dict[bytes, bool]:
    """Every index row a record must have; True for those whose version tells the order of equal times."""
    rows: dict[bytes, bool] = {}
    for index in kind.indexes:
        for value in index.values(record):
            if index.by_id:
                rows[kind.index_prefix(scope, index, value) + tail] = False
            if index.newest:
                rows[kind.index_prefix(scope, index, value, newest=True) + keys.number(updated) + tail] = True
    return rows


async def save(
    tx: Transaction, kind: Kind[T], before: Stored[T] | None, after: T, *, events: Sequence[Any] = ()
) -> Stored[T]:
    """Write a record with its indexes, counters and feed entry; gives it with revision and times."""
    scope = tx.scope
    path = kind.path(after)
    tail = keys.path(*path)
    key = kind.prefix(scope) + tail
    root = keys.root(kind.owner(path))
    now = to_micros(scope.clock.now())
    if before is None:
        revision, created, updated, nonce, back = 1, now, now, os.urandom(NONCE_BYTES), NO_POINTER
    else:
        revision, created, updated = before.record.revision + 1, before.created, max(now, before.updated)
        nonce, back = before.nonce, before.pointer
    body = encode_body(scope, kind, after, revision, created, updated)
    told = await _keep_events(tx, root, key, events)
    wrapped = await blobs.keep(tx, root, key, body, 2)
    if before is not None:
        await blobs.drop(tx, root, before.wrapped)
    if before is not None and kind.ended(before.record):
        await remember_end(tx, kind.letter + tail, root, before.updated, kept=kind.ended(after))
    op = "create" if before is None else "update"
    entry = Entry(op, kind.name, kind.owner(path), path, back, updated, wrapped, told)
    index = tx.append(root, feed_prefix(scope), encode(scope, entry))
    value = seal(key, _HEAD.pack(0, index, nonce) + wrapped)
    tx.put(root, key, value)
    result = msgspec.structs.replace(
        after, revision=revision, created_at=from_micros(created), updated_at=from_micros(updated)
    )
    _reindex(tx, kind, root, tail, before, result, updated)
    return Stored(result, Row(key, value, PENDING), wrapped, (PENDING, index), nonce, created, updated)


async def announce(tx: Transaction, kind: Kind[T], stored: Stored[T], *, events: Sequence[Any] = ()) -> None:
    """Put a record into the feed again, as an update with events: it keeps its revision, times and index rows."""
    scope = tx.scope
    path = kind.path(stored.record)
    key = kind.prefix(scope) + keys.path(*path)
    root = keys.root(kind.owner(path))
    record = stored.record
    body = encode_body(scope, kind, record, record.revision, stored.created, stored.updated)
    wrapped = await blobs.keep(tx, root, key, body, 2)
    await blobs.drop(tx, root, stored.wrapped)
    told = await _keep_events(tx, root, key, events)
    now = max(to_micros(scope.clock.now()), stored.updated)
    entry = Entry("update", kind.name, kind.owner(path), path, stored.pointer, now, wrapped, told)
    index = tx.append(root, feed_prefix(scope), encode(scope, entry))
    tx.put(root, key, seal(key, _HEAD.pack(0, index, stored.nonce) + wrapped))


async def remove(tx: Transaction, kind: Kind[T], before: Stored[T], *, events: Sequence[Any] = ()) -> None:
    """Remove a record with its indexes and counters; the deletion is in the feed."""
    scope = tx.scope
    path = kind.path(before.record)
    tail = keys.path(*path)
    root = keys.root(kind.owner(path))
    key = kind.prefix(scope) + tail
    told = await _keep_events(tx, root, key, events)
    now = max(to_micros(scope.clock.now()), before.updated)
    entry = Entry("delete", kind.name, kind.owner(path), path, before.pointer, now, None, told)
    tx.append(root, feed_prefix(scope), encode(scope, entry))
    tx.delete(root, key)
    await blobs.drop(tx, root, before.wrapped)
    if kind.ended(before.record):
        await remember_end(tx, kind.letter + tail, root, before.updated, kept=False)
    _reindex(tx, kind, root, tail, before, None, 0)


async def _keep_events(tx: Transaction, root: str, key: bytes, events: Sequence[Any]) -> bytes | None:
    return await blobs.keep(tx, root, key, tx.scope.codec.encode(list(events)), 1) if events else None


async def remember_end(tx: Transaction, tail: bytes, root: str, since: int, *, kept: bool) -> None:
    """Of a record that had ended: keep since when, as its time of change will not say so any more, or forget it."""
    key = tx.scope.key(keys.ENDED_SINCE, tail)
    row = await tx.get(root, key)
    if row is None and kept:
        tx.put(root, key, keys.number(since))
        tx.put(root, tx.scope.key(keys.ENDED, tail[:1] + keys.number(since) + tail[1:]), b"")
    elif row is not None and not kept:
        tx.delete(root, key)
        tx.delete(root, tx.scope.key(keys.ENDED, tail[:1] + row.value + tail[1:]))


def _reindex(
    tx: Transaction, kind: Kind[T], root: str, tail: bytes, before: Stored[T] | None, after: T | None, updated: int
) -> None:
    scope = tx.scope
    old = index_rows(scope, kind, before.record, tail, before.updated) if before is not None else {}
    new = index_rows(scope, kind, after, tail, updated) if after is not None else {}
    for key in old:
        if key not in new:
            tx.delete(root, key)
    for key, ordered in new.items():
        if ordered or key not in old:
            tx.put(root, key, b"")
    counts: dict[bytes, int] = {}
    for record, amount in ((before.record if before is not None else None, -1), (after, 1)):
        if record is not None:
            for counter in kind.counters(record):
                counts[counter] = counts.get(counter, 0) + amount
    for counter, amount in counts.items():
        if amount:
            tx.add(root, kind.counter(scope, counter), amount)
