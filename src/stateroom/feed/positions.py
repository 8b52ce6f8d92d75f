"""Positions in the feed: for each part, the last entry that was looked at; as text, an opaque token."""

import base64
import binascii
import os
import struct
from collections.abc import Callable, Sequence
from typing import Final
from weakref import WeakKeyDictionary
from zlib import crc32

from ..core.namespace import Reader, Scope
from ..core.transaction import Transaction, transact
from ..engine import Amend, AsyncEngine, Batch, Row
from ..errors import InvalidArgument, ReadOnly

BEGINNING: Final = "beginning"
"""The position before the oldest change that is retained; never `Compacted`."""

LATEST: Final = "latest"
"""The position after the newest change at the time of the call."""

_IDENTITY = b"\x00identity"  # no namespace is blank, so no record has this key
_LAST_INDEX = 0xFFFF
_ID = 8
_HEAD, _EACH = 12, 10  # identity and namespace; version and index of one part
_NONE = bytes(_ID)  # in positions that a store gave which could not write, before the database had an identity
_ANCESTORS = 64  # copies of copies whose positions are known
_URL_SAFE = bytes.maketrans(b"+/", b"-_")

Vector = list[tuple[int, int]]
"""Version and index of the last entry looked at, for each part."""


async def identity(scope: Scope) -> bytes:
    """Eight bytes made once for each database, and anew in each copy, by which a foreign position is known."""
    return (await _lineage(scope))[:_ID]


async def _lineage(scope: Scope) -> bytes:
    """The identity; then of each database that this is a copy of its identity, and its parts' versions at the time."""
    lineage = _lineages.get(scope.engine)
    if lineage is None:
        (row,) = await Reader(scope).in_part(0).peek([_IDENTITY])
        try:
            lineage = await transact(scope, _begin, part=0) if row is None else row.value
        except ReadOnly:
            return _NONE  # not remembered: somebody who may write can give it one
    _lineages[scope.engine] = lineage
    return lineage


async def _begin(tx: Transaction) -> bytes:
    """Make an identity, unless another client was first."""
    row = await tx.rows.get(_IDENTITY)
    if row is not None:
        return row.value
    identity = os.urandom(_ID)
    tx.rows.put(_IDENTITY, identity)
    return identity


_lineages: "WeakKeyDictionary[AsyncEngine, bytes]" = WeakKeyDictionary()


def renewed(parts: int) -> Amend:
    """Make what gives a copy an identity of its own.

    Its positions from before the copy was made are as good in it. Later ones are not: other commits have their numbers.
    """

    def amend(read: Callable[[int, Sequence[bytes]], list[Row | None]]) -> Batch:
        row = read(0, [_IDENTITY])[0]
        lineage = os.urandom(_ID)
        if row is not None:
            now = [version for part in range(parts) for version in read(part, [b""])]
            versions = b"".join((0 if part is None else part.version).to_bytes(8, "big") for part in now)
            older = row.value[_ID : _ID + (_ANCESTORS - 1) * (_ID + 8 * parts)]
            lineage += row.value[:_ID] + versions + older
        return Batch(write={_IDENTITY: lineage})

    return amend


def _at_copy(lineage: bytes, database: bytes, parts: int) -> Vector | None:
    """Return where `database` stood when a copy of it, with this lineage, was made; None: it is no copy of that."""
    size = _ID + 8 * parts
    for start in range(_ID, len(lineage), size):
        if lineage[start : start + _ID] == database:
            versions = struct.unpack(f">{parts}Q", lineage[start + _ID : start + size])
            return [(version, _LAST_INDEX) for version in versions]
    return None


class Place:
    """The place of a reader in each part, moved entry by entry, and its token."""

    __slots__ = ("_packed", "_text", "_whole")

    def __init__(self, head: bytes, vector: Vector) -> None:
        places = b"".join(version.to_bytes(8, "big") + index.to_bytes(2, "big") for version, index in vector)
        self._packed = bytearray(head + places + b"\0" * (-len(head + places) % 3))
        self._text: str | None = None

    def at(self, part: int) -> bytes:
        """Version (8 bytes) and index (2 bytes) of the last entry looked at in a part: these sort as the feed does."""
        start = _HEAD + _EACH * part
        return bytes(self._packed[start : start + _EACH])

    def move(self, part: int, at: bytes) -> None:
        """Stand after an entry, whose key ends with these 10 bytes."""
        start = _HEAD + _EACH * part
        self._packed[start : start + _EACH] = at
        self._text = None

    @property
    def text(self) -> str:
        """The token."""
        if self._text is None:
            self._text = "p1." + _text(self._packed)
        return self._text

    def texts(self, part: int, ats: Sequence[bytes]) -> list[str]:
        """The tokens of standing after each of some entries of one part."""
        start = _HEAD + _EACH * part
        same = (
            start - start % 3
        )  # what is before that is the same text in all of them, as three bytes make four letters
        lead, tail = self._packed[same:start], self._packed[start + _EACH :]
        first = "p1." + _text(self._packed[:same])
        digits = _text(lead + (tail + lead).join(ats) + tail) if ats else ""
        step = (len(self._packed) - same) // 3 * 4
        return [first + digits[at : at + step] for at in range(0, len(digits), step)]


def _text(packed: bytes | bytearray) -> str:
    return binascii.b2a_base64(packed, newline=False).translate(_URL_SAFE).decode()


def place_of(scope: Scope, database: bytes, vector: Vector) -> Place:
    """A place to move, where the database's identity is known."""
    return Place(database + crc32(scope.prefix).to_bytes(4, "big"), vector)


async def write(scope: Scope, vector: Vector) -> str:
    """A vector as a token."""
    return place_of(scope, await identity(scope), vector).text


async def read(scope: Scope, position: str, *, nearest: bool = False) -> Vector:
    """The vector in a token. Raises `InvalidArgument` for a malformed one or one of another database or namespace.

    One from after the copy that this database is was made is refused too, or with `nearest` taken for that moment.
    """
    try:
        if not position.startswith("p1.") or "=" in position:
            raise ValueError(position)
        packed = base64.b64decode(position[3:], b"-_", validate=True)
        parts = (len(packed) - _HEAD) // _EACH
        end = _HEAD + _EACH * parts
        if parts < 1 or len(packed) != end + -end % 3 or any(packed[end:]):
            raise ValueError(position)
    except (ValueError, AttributeError, TypeError, binascii.Error) as error:
        raise InvalidArgument(
            "this is not a position: use BEGINNING, LATEST or one the feed gave", what="position", value=position
        ) from error
    numbers = struct.unpack(">" + "QH" * parts, packed[_HEAD:end])
    vector = list(zip(numbers[::2], numbers[1::2], strict=True))
    lineage, database = await _lineage(scope), packed[:_ID]
    foreign = packed[_ID:_HEAD] != crc32(scope.prefix).to_bytes(4, "big") or parts != scope.parts
    if not foreign and database not in (lineage[:_ID], _NONE):
        limit = _at_copy(lineage, database, parts)
        within = [] if limit is None else [min(at, end) for at, end in zip(vector, limit, strict=True)]
        foreign = within != vector and not (nearest and within)
        vector = within
    if foreign:
        raise InvalidArgument(
            "this position belongs to another database or namespace, or to the time after the backup that this database"
            " comes from; start from BEGINNING or LATEST",
            what="position",
            value=position,
        )
    return vector


async def versions(reader: Reader) -> list[int]:
    """The version of each part."""
    answers = await reader.read_many([(part, [b""]) for part in range(reader.scope.parts)])
    return [row.version if row is not None else 0 for (row,) in answers]


def beginning(scope: Scope) -> Vector:
    """Before everything."""
    return [(0, 0)] * scope.parts


async def latest(reader: Reader) -> Vector:
    """After everything that is committed now."""
    return [(version, _LAST_INDEX) for version in await versions(reader)]
