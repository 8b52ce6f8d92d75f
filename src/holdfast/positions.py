"""Positions in the feed: for each part, the last entry that was looked at; as text, an opaque token."""

import base64
import binascii
import os
from typing import Final
from zlib import crc32

import msgspec

from .engine import Batch
from .errors import Conflict, InvalidArgument
from .limits import INT64_MAX
from .transaction import Reader, Scope

BEGINNING: Final = "beginning"
"""The position before the oldest change that is retained; never `Compacted`."""

LATEST: Final = "latest"
"""The position after the newest change at the time of the call."""

_IDENTITY = b"\x00identity"  # no namespace is blank, so no record has this key
_LAST_INDEX = 0xFFFF

Vector = list[tuple[int, int]]
"""Version and index of the last entry looked at, for each part."""


class _Token(msgspec.Struct, array_like=True):
    database: bytes
    namespace: int
    flat: list[int]


async def identity(scope: Scope) -> bytes:
    """Eight bytes made once for each database, by which a foreign position is known."""
    known: bytes | None = getattr(scope.engine, "identity", None)
    while known is None:
        row = (await Reader(scope).peek(0, [_IDENTITY]))[0]
        if row is not None:
            known = row.value
        else:
            try:
                await scope.engine.commit(0, Batch(expect={_IDENTITY: 0}, write={_IDENTITY: os.urandom(8)}))
            except Conflict:
                continue  # another client was first: read what it wrote
    scope.engine.identity = known  # type: ignore[attr-defined]
    return known


async def write(scope: Scope, vector: Vector) -> str:
    """A vector as a token."""
    return format_token(scope, await identity(scope), vector)


def format_token(scope: Scope, database: bytes, vector: Vector) -> str:
    """A vector as a token, where the database's identity is known."""
    flat = [number for pair in vector for number in pair]
    packed = msgspec.msgpack.encode(_Token(database, crc32(scope.prefix), flat))
    return "p1." + base64.urlsafe_b64encode(packed).decode().rstrip("=")


async def read(scope: Scope, position: str) -> Vector:
    """The vector in a token. Raises `InvalidArgument` for a malformed one or one of another database or namespace."""
    try:
        if not position.startswith("p1."):
            raise ValueError(position)
        text = position[3:]
        packed = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        token = msgspec.msgpack.decode(packed, type=_Token)
        vector = list(zip(token.flat[::2], token.flat[1::2], strict=True))
        if not all(0 <= version <= INT64_MAX and 0 <= index <= _LAST_INDEX for version, index in vector):
            raise ValueError(position)
    except (ValueError, AttributeError, TypeError, binascii.Error, msgspec.DecodeError) as error:
        raise InvalidArgument(
            "this is not a position: use BEGINNING, LATEST or one the feed gave", what="position", value=position
        ) from error
    if token.database != await identity(scope) or token.namespace != crc32(scope.prefix) or len(vector) != scope.parts:
        raise InvalidArgument(
            "this position belongs to another database or namespace; start from BEGINNING or LATEST",
            what="position",
            value=position,
        )
    return vector


async def versions(reader: Reader) -> list[int]:
    """The version of each part."""
    found = []
    for part in range(reader.scope.parts):
        row = (await reader.peek(part, [b""]))[0]
        found.append(row.version if row is not None else 0)
    return found


def beginning(scope: Scope) -> Vector:
    """Before everything."""
    return [(0, 0)] * scope.parts


async def latest(reader: Reader) -> Vector:
    """After everything that is committed now."""
    return [(version, _LAST_INDEX) for version in await versions(reader)]
