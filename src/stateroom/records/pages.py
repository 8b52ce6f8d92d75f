"""Pages of a query, and the cursors that go on with it."""

import base64
import binascii
import logging
from collections.abc import Iterator
from typing import Annotated, Any, Final, Generic, TypeVar, overload
from weakref import WeakKeyDictionary
from zlib import crc32

import msgspec

from ..codec.shown import Shown
from ..core.namespace import Scope
from ..errors import Damaged, InvalidArgument
from ..keys import check_number
from ..limits import PAGE_ITEMS

_log = logging.getLogger("stateroom")

_REASONS = 100
"""Reasons that a store names at most: each may be another one where much is damaged."""

_named: "WeakKeyDictionary[Scope, set[tuple[str, str, str]]]" = WeakKeyDictionary()

T = TypeVar("T")
C = TypeVar("C")

_Natural = Annotated[int, msgspec.Meta(ge=0)]
_Index = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]

# What a cursor says: the query's fingerprint, and a place in its order. Made here, for a type that two threads meet
# first at the same time is not safe to decode.
BY_NAME: Final = msgspec.msgpack.Decoder(tuple[int, bytes])
BY_TIME: Final = msgspec.msgpack.Decoder(tuple[int, tuple[_Natural, _Natural, bytes]])
BY_ENTRY: Final = msgspec.msgpack.Decoder(tuple[int, tuple[_Natural, _Index]])
BY_NUMBER: Final = msgspec.msgpack.Decoder(tuple[int, _Natural])


class Page(Shown, Generic[T], frozen=True):
    """Some of what a query found, in its order."""

    items: tuple[T, ...] = ()
    cursor: str | None = None
    """Goes on after the last item; None at the end."""
    undecodable: int = 0
    """How many records were left out because they cannot be decoded here; `stateroom doctor` lists them."""

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[T, ...]: ...
    @overload
    def __getitem__(self, at: str) -> Any: ...
    def __getitem__(self, at: int | slice | str) -> Any:
        """An item by its number, or some by a slice; by a name a field as JSON can hold it."""
        return super().__getitem__(at) if isinstance(at, str) else self.items[at]


def check_limit(limit: int) -> int:
    """`limit` if it is 1 to 1000; else `InvalidArgument`."""
    return check_number(limit, "limit", least=1, most=PAGE_ITEMS)


def fingerprint(*what: Any) -> int:
    """A number that differs when a cursor is used with another query."""
    return crc32(repr(what).encode())


def write_cursor(query: int, position: Any) -> str:
    """An opaque cursor."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode([query, position])).decode().rstrip("=")


def read_cursor(cursor: str, query: int, order: msgspec.msgpack.Decoder[tuple[int, C]]) -> C:
    """The position in a cursor. Raises `InvalidArgument` for a cursor of another query, or none at all."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        digest, position = order.decode(base64.b64decode(padded, b"-_", validate=True))
    except (ValueError, TypeError, AttributeError, binascii.Error, msgspec.DecodeError) as error:
        raise InvalidArgument("this is not a cursor of Stateroom", what="cursor", value=cursor) from error
    if digest != query:
        raise InvalidArgument(
            "this cursor belongs to another query: use it with the filters it came from", what="cursor", value=cursor
        )
    return position


def left_out(scope: Scope, family: str, id: str, error: Damaged) -> None:
    """Warn that a record is not in a list because it cannot be opened; once for each reason."""
    tag = error.fields.get("tag")
    reason = (family, error.code, error.message.partition(": ")[2] or error.message if tag is None else str(tag))
    named = _named.setdefault(scope, set())
    if reason not in named and len(named) < _REASONS:
        named.add(reason)
        _log.warning(
            "%s %r is left out of lists: %s (others for the same reason are not named; `stateroom doctor` lists them)",
            family, id, error.message,
        )  # fmt: skip
