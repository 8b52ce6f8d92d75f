"""Positions in the feed: for each part, the last entry that was looked at; as text, an opaque token."""

import base64
import binascii
import os
import struct
from collections.abc import Sequence
from typing import Final
from zlib import crc32

from ..core.namespace import Reader, Scope
from ..engine import Batch
from ..errors import Conflict, InvalidArgument

BEGINNING: Final = "beginning"
"""The position before the oldest change that is retained; never `Compacted`."""

LATEST: Final = "latest"
"""The position after the newest change at the time of the call."""

_IDENTITY = b"\x00identity"  # no namespace is blank, so no record has this key
_LAST_INDEX = 0xFFFF
_HEAD, _EACH = 12, 10  # identity and namespace; version and index of one part
_URL_SAFE = bytes.maketrans(b"+/", b"-_")

Vector = list[tuple[int, int]]
"""Version and index of the last entry looked at, for each part."""


async def identity(scope: Scope) -> bytes:
    """Eight bytes made once for each database, by which a foreign position is known."""
    known: bytes | None = getattr(scope.engine, "identity", None)
    while known is None:
        row = (await Reader(scope).in_part(0).peek([_IDENTITY]))[0]
        if row is not None:
            known = row.value
        else:
            try:
                await scope.engine.commit(0, Batch(expect={_IDENTITY: 0}, write={_IDENTITY: os.urandom(8)}))
            except Conflict:
                continue  # another client was first: read what it wrote
    scope.engine.identity = known  # type: ignore[attr-defined]
    return known


class Place:
    """Where a reader stands in each part, moved entry by entry, and its token."""

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
        rest = _text(lead + (tail + lead).join(ats) + tail) if ats else ""
        step = (len(self._packed) - same) // 3 * 4
        return [first + rest[at : at + step] for at in range(0, len(rest), step)]


def _text(packed: bytes | bytearray) -> str:
    return binascii.b2a_base64(packed, newline=False).translate(_URL_SAFE).decode()


def place_of(scope: Scope, database: bytes, vector: Vector) -> Place:
    """A place to move, where the database's identity is known."""
    return Place(database + crc32(scope.prefix).to_bytes(4, "big"), vector)


async def write(scope: Scope, vector: Vector) -> str:
    """A vector as a token."""
    return place_of(scope, await identity(scope), vector).text


async def read(scope: Scope, position: str) -> Vector:
    """The vector in a token. Raises `InvalidArgument` for a malformed one or one of another database or namespace."""
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
    if packed[:_HEAD] != await identity(scope) + crc32(scope.prefix).to_bytes(4, "big") or parts != scope.parts:
        raise InvalidArgument(
            "this position belongs to another database or namespace; start from BEGINNING or LATEST",
            what="position",
            value=position,
        )
    numbers = struct.unpack(">" + "QH" * parts, packed[_HEAD:end])
    return list(zip(numbers[::2], numbers[1::2], strict=True))


async def versions(reader: Reader) -> list[int]:
    """The version of each part."""
    found = await reader.read_many([(part, [b""]) for part in range(reader.scope.parts)])
    return [row.version if row is not None else 0 for (row,) in found]


def beginning(scope: Scope) -> Vector:
    """Before everything."""
    return [(0, 0)] * scope.parts


async def latest(reader: Reader) -> Vector:
    """After everything that is committed now."""
    return [(version, _LAST_INDEX) for version in await versions(reader)]
