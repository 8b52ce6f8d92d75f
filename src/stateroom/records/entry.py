"""An entry of the feed as it is stored: what changed, and where the same record's entry before it stands.

The record after the change is in the entry, the one before is in the entry before: so nothing is stored twice, and
following the pointers gives a record's history.
"""

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple
from zlib import crc32

import msgspec
import ormsgpack

from ..clock import FIRST, LAST
from ..codec import seal, unseal
from ..codec.interrupts import from_handler
from ..codec.malformed import MALFORMED, damaged
from ..codec.seal import FORMAT, SEAL_BYTES
from ..core.namespace import Scope
from ..core.transaction import PENDING
from ..engine import Row
from ..errors import Damaged, StoreError
from ..limits import INT64_MAX

_SEAL = struct.Struct(">BI")
_PLACE = struct.Struct(">QH")

ChangeOp = Literal["create", "update", "delete", "emit"]
"""The kinds of changes."""
OPS: tuple[ChangeOp, ...] = ("create", "update", "delete", "emit")

NO_POINTER = (0, 0)
"""A record's first entry points nowhere."""


_PACKED = msgspec.msgpack.Decoder(
    tuple[
        Annotated[int, msgspec.Meta(ge=0, lt=len(OPS))],
        str,
        str,
        list[str | int],
        Annotated[int, msgspec.Meta(ge=PENDING, le=INT64_MAX)],
        Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)],
        Annotated[int, msgspec.Meta(ge=FIRST, le=LAST)],
        bytes | None,
        bytes | None,
    ]
).decode
"""Checks every field, for what stands here comes from a file."""


class Entry(NamedTuple):
    """One change as stored."""

    op: ChangeOp
    family: str
    id: str
    path: tuple[str | int, ...]
    before: tuple[int, int]
    """Version and index of the record's entry before this; version `PENDING`: of the same commit; 0: none."""
    at: int
    wrapped: bytes | None
    """The record after the change, as `blobs.keep` gave it."""
    events: bytes | None
    """What was given as events with the change, kept likewise."""

    @property
    def wrappers(self) -> tuple[bytes, ...]:
        """Return what this entry refers to."""
        return tuple(wrapper for wrapper in (self.wrapped, self.events) if wrapper is not None)


_entry: Callable[[Any], Entry] = partial(tuple.__new__, Entry)

UNREADABLE = Entry("update", "", "", (), NO_POINTER, 0, None, None)
"""What stands in the place of an entry that cannot be read."""


def place_at(version: int, index: int) -> bytes:
    """Version and index as the end of an entry's key."""
    return _PLACE.pack(version, index)


def feed_prefix(scope: Scope) -> bytes:
    """The prefix of the feed's rows in a namespace."""
    return scope.key(b"F")


def floor_key(scope: Scope) -> bytes:
    """The row that says up to where a part's feed was pruned: 8 bytes of version and 2 of index."""
    return scope.key(b"G")


def encode(scope: Scope, entry: Entry) -> bytes:
    """The bytes of an entry."""
    op, family, id, path, before, at, wrapped, events = entry
    packed = ormsgpack.packb([OPS.index(op), family, id, list(path), before[0], before[1], at, wrapped, events])
    return seal(feed_prefix(scope), packed)


def decode(scope: Scope, stored: bytes) -> Entry:
    """Return what `encode` was given. Raises `Damaged`."""
    packed = unseal(feed_prefix(scope), stored)
    try:
        op, family, id, path, version, index, at, wrapped, events = _PACKED(packed)
        return Entry(OPS[op], family, id, tuple(path), (version, index), at, wrapped, events)
    except MALFORMED as error:
        raise damaged("an entry of the feed", error, kind="feed") from error


def decode_run(scope: Scope, rows: Sequence[Row]) -> tuple[list[Entry], dict[bytes, StoreError]]:
    """The entries in some rows, with `UNREADABLE` for each that is not, and why, by its place."""
    entries: list[Entry] = []
    errors: dict[bytes, StoreError] = {}
    add, ops, unpack, head = entries.append, OPS, _PACKED, _SEAL.unpack_from
    bound = crc32(feed_prefix(scope))
    for row in rows:  # `decode` in place, for this is done for every entry
        stored = row[1]
        packed = stored[SEAL_BYTES:]
        try:
            if head(stored) != (FORMAT, crc32(packed, bound)):
                raise ValueError
            op, family, id, path, version, index, at, wrapped, events = unpack(packed)
            add(_entry((ops[op], family, id, tuple(path), (version, index), at, wrapped, events)))
        except MALFORMED as failed:
            if from_handler(failed):
                raise
            try:
                add(decode(scope, stored))
            except Damaged as error:  # it is delivered as what it is, and blocks nothing behind it
                add(UNREADABLE)
                errors[row[0][-10:]] = error
    return entries, errors
