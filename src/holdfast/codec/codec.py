"""Values to bytes and back."""

from datetime import datetime
from typing import Any

import ormsgpack

from ..errors import InvalidArgument, Undecodable

_OPTIONS = (
    ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
_TUPLE, _SET, _FROZENSET, _DATETIME = 1, 2, 3, 4


def _extension(value: Any) -> Any:
    if type(value) is tuple:
        return ormsgpack.Ext(_TUPLE, _pack(list(value)))
    if type(value) is set:
        return ormsgpack.Ext(_SET, _pack(sorted(value, key=repr)))
    if type(value) is frozenset:
        return ormsgpack.Ext(_FROZENSET, _pack(sorted(value, key=repr)))
    if type(value) is datetime:
        return ormsgpack.Ext(_DATETIME, value.isoformat().encode())
    raise TypeError(f"{type(value).__name__} is not a value Holdfast keeps")


def _rebuild(tag: int, data: bytes) -> Any:
    if tag == _TUPLE:
        return tuple(_unpack(data))
    if tag == _SET:
        return set(_unpack(data))
    if tag == _FROZENSET:
        return frozenset(_unpack(data))
    if tag == _DATETIME:
        return datetime.fromisoformat(bytes(data).decode())
    raise ValueError(f"unknown tag {tag}")


def _pack(value: Any) -> bytes:
    return ormsgpack.packb(value, _extension, _OPTIONS)


def _unpack(data: bytes) -> Any:
    return ormsgpack.unpackb(data, ext_hook=_rebuild)


class Codec:
    """Turns values into bytes and back; what goes in comes out equal and of the same type, or is refused."""

    def encode(self, value: Any) -> bytes:
        """The bytes of a value. Raises `InvalidArgument` with `path` (``$.a[3].b``) and the type that is refused."""
        try:
            return _pack(value)
        except TypeError as error:
            raise InvalidArgument(f"cannot be stored: {error}", what="value", path="$") from error

    def decode(self, data: bytes) -> Any:
        """What `encode` was given. Raises `Undecodable`."""
        try:
            return _unpack(data)
        except Exception as error:
            raise Undecodable(f"a stored value cannot be decoded: {error}") from error

    def with_key_ring(self, key_ring: Any) -> "Codec":
        """The same codec, encrypting."""
        raise InvalidArgument("encryption needs a key ring", what="key_ring", value=key_ring)

    def protect(self, bound: bytes, data: bytes) -> bytes:
        """Encrypt where a key ring is set; `bound` must be given again to `reveal`."""
        del bound
        return data

    def reveal(self, bound: bytes, data: bytes) -> bytes:
        """What `protect` was given."""
        del bound
        return data


default = Codec()


def register(*args: Any, **_kwargs: Any) -> Any:
    """Register a type with the default codec."""
    raise InvalidArgument("types cannot be registered yet", what="register", value=args)
