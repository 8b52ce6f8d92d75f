"""Records: a row, its index rows, its counters and its feed entry, always written in one batch."""

import struct
from collections.abc import Sequence
from typing import Any

from .. import keys
from ..clock import from_micros
from ..codec import seal, unseal
from ..codec.malformed import MALFORMED, damaged
from ..core.namespace import Scope
from ..engine import Row
from ..errors import Damaged, InvalidArgument, Undecodable
from .kind import Kind, T

HEAD = struct.Struct(">BH8s")
POINTER = struct.Struct(">Q")
EXPLICIT = 1  # flag: the feed entry's version stands in the row, as the row was rewritten without a change
NONCE_BYTES = 8


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
        record = kind.unpack(fields, revision, from_micros(created), from_micros(updated))
        if tuple(kind.path(record)) != tuple(path) or min(created, updated) < 0:
            raise ValueError("it is not the record of its key")
        return record, created, updated
    except MALFORMED as error:
        raise damaged(f"{kind.name} {path!r}", error, kind=kind.name, id=str(path)) from error


def split_row(payload: bytes, version: int) -> tuple[tuple[int, int], bytes, bytes]:
    """The pointer to the feed entry, the nonce and the wrapped body in a row's payload."""
    try:
        flags, index, nonce = HEAD.unpack_from(payload)
        at = HEAD.size
        if flags & EXPLICIT:
            version = POINTER.unpack_from(payload, at)[0]
            at += POINTER.size
    except struct.error as error:
        raise Damaged(f"the head of a record has {len(payload)} bytes, too few to be one") from error
    return (version, index), nonce, payload[at:]


def row_body(row: Row) -> bytes:
    """The wrapped body in a record's row. Raises `Damaged`."""
    return split_row(unseal(row.key, row.value), row.version)[2]


def pointer_of(row: Row) -> tuple[int, int]:
    """Version and index of the feed entry of a record's row. Raises `Damaged`."""
    return split_row(unseal(row.key, row.value), row.version)[0]


def nonce_of(row: Row) -> bytes:
    """Return what was made with the record in a row, and tells it from a later one of the same id. Raises `Damaged`."""
    return split_row(unseal(row.key, row.value), row.version)[1]


def renewed_row(row: Row, wrapped: bytes) -> bytes:
    """The value of a record's row with another wrapper of the same record: no change, so its feed entry stays."""
    pointer, nonce, _ = split_row(unseal(row.key, row.value), row.version)
    return seal(row.key, HEAD.pack(EXPLICIT, pointer[1], nonce) + POINTER.pack(pointer[0]) + wrapped)


def moved_row(row: Row, pointer: tuple[int, int]) -> bytes:
    """The value of a record's row for another database, where its feed entry stands elsewhere."""
    _, nonce, wrapped = split_row(unseal(row.key, row.value), row.version)
    return seal(row.key, HEAD.pack(EXPLICIT, pointer[1], nonce) + POINTER.pack(pointer[0]) + wrapped)


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
