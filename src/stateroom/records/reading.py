"""Records: a row, its index rows, its counters and its feed entry, always written in one batch."""

import re
from collections.abc import Sequence
from typing import Any

from .. import keys
from ..clock import from_micros
from ..codec import SEAL_BYTES, unseal
from ..codec.interrupts import from_handler
from ..codec.malformed import MALFORMED
from ..core.namespace import Scope
from ..core.transaction import Readable
from ..engine import Row
from ..errors import Damaged
from ..values import wrapper
from .kind import Kind, Stored, T
from .layout import HEAD, decode_body, split_row


async def open_row(
    reader: Readable, kind: Kind[T], path: Sequence[str | int], key: bytes, row: Row, *, raw: bool = False
) -> Stored[T]:
    """The record in a row; `raw`: with an envelope in place of each value that cannot be rebuilt.

    Raises `Damaged` or `Undecodable`.
    """
    try:
        pointer, nonce, wrapped = split_row(unseal(key, row.value), row.version)
        if wrapped[:1] == wrapper.INLINE:  # what every small record is: no detour
            body = reader.scope.codec.reveal(key, wrapped[1:])
        else:
            body = await wrapper.fetch(reader.look_at(kind.owner(path)), key, wrapped)
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
    fields, message = {**error.fields, "kind": kind.name, "id": id}, error.message
    place = _PLACE.match(fields.get("path") or "")
    if place is not None and int(place[1]) - _UNNAMED in range(len(kind.fields)):
        fields["path"] = f"$.{kind.fields[int(place[1]) - _UNNAMED]}{place.string[place.end() :]}"
        message = message.replace(place.string, fields["path"], 1)
    return type(error)(f"{kind.name} {id!r}: {message}", **fields)


async def open_current(
    reader: Readable, kind: Kind[T], path: Sequence[str | int], key: bytes, row: Row | None, *, raw: bool = False
) -> Stored[T] | None:
    """The record in a row, or in the row that replaced it while its body was read; None where it was removed."""
    while row is not None:
        try:
            return await open_row(reader, kind, path, key, row, raw=raw)
        except Damaged as error:
            row = await wrapper.replacement(reader.look_at(kind.owner(path)), row, error)
    return None


async def load(
    reader: Readable, kind: Kind[T], path: Sequence[str | int], *, raw: bool = False, new: bool = False
) -> Stored[T] | None:
    """The record under a key of checked names; None where there is none. `raw` as in `open_row`; `new`: assume it
    does not exist; the commit verifies this.
    """
    key = kind.prefix(reader.scope) + keys.path(*path)
    rows = reader.at(kind.owner(path))
    row = await (rows.get_new(key) if new else rows.get(key))
    return await open_current(reader, kind, path, key, row, raw=raw)


async def load_many(
    reader: Readable, kind: Kind[T], paths: Sequence[Sequence[str | int]], *, raw: bool = False
) -> list[Stored[T] | None]:
    """As `load` of each, where all are in one root; one call of the engine."""
    places = [kind.prefix(reader.scope) + keys.path(*path) for path in paths]
    rows = await reader.at(kind.owner(paths[0])).get_many(places) if paths else []
    triples = zip(paths, places, rows, strict=True)
    return [await open_current(reader, kind, path, place, row, raw=raw) for path, place, row in triples]


async def find(reader: Readable, kind: Kind[T], path: Sequence[str | int], *, raw: bool = False) -> T | None:
    """The record under a key of checked names, for who only reads it; None where there is none."""
    scope = reader.scope
    key = kind.prefix(scope) + keys.path(*path)
    row = await reader.at(kind.owner(path)).get(key)
    if row is None:
        return None
    record = _plain(scope, kind, key, row.value)
    if record is None:
        stored = await open_current(reader, kind, path, key, row, raw=raw)
        return None if stored is None else stored.record
    return record


_BODY = SEAL_BYTES + HEAD.size


def _plain(scope: Scope, kind: Kind[T], key: bytes, value: bytes) -> T | None:
    """The record in a row that is as most are: whole, small and readable; None for any other, which `open_row` reads.

    What a read costs beside the engine is in here, so it does in place what `open_row` does in steps.
    """
    if value[SEAL_BYTES : SEAL_BYTES + 1] != b"\0" or value[_BODY : _BODY + 1] != wrapper.INLINE:
        return None
    try:
        body = scope.codec.reveal(key, unseal(key, value)[_BODY - SEAL_BYTES + 1 :])
        layout, revision, created, updated, *fields = scope.codec.decode(body)
        if layout != kind.layout:
            return None
        creation = from_micros(created)
        return kind.unpack(fields, revision, creation, creation if updated == created else from_micros(updated))
    except MALFORMED as error:
        if from_handler(error):
            raise
        return None
    except Damaged:
        return None
