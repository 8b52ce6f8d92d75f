"""The hash of a value's content: the same for equal values of equal types, however they were put together."""

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

from . import arrays, builtin
from .raw import Raw
from .registry import Registry

_LEAVES = frozenset((str, int, float, bool, type(None), bytes))
_UNORDERED: dict[type, bytes] = {dict: b"d", defaultdict: b"D", Counter: b"c"}
_ORDERED: dict[type, bytes] = {list: b"l", tuple: b"t", deque: b"q"}


class Hasher:
    """Hashes one value, with the registered types of a codec."""

    def __init__(self, encode: Callable[[Any], bytes], registry: Registry) -> None:
        self._encode = encode
        self._types = registry.by_type
        self._hashed = sha256()

    def hexdigest(self, value: Any) -> str:
        """64 hexadecimal digits. Raises `InvalidArgument` for what cannot be stored, RecursionError."""
        self._add(value)
        return self._hashed.hexdigest()

    def _digest(self, value: Any) -> bytes:
        hasher = Hasher(self._encode, Registry())
        hasher._types = self._types
        hasher._add(value)
        return hasher._hashed.digest()

    def _add(self, value: Any) -> None:
        kind = type(value)
        entry = self._types.get(kind)
        if entry is not None:
            self._head(b"r", entry.name, entry.version)
            self._add(entry.content(value))
        elif kind in _UNORDERED:
            if kind is defaultdict:
                self._leaf(builtin.factory_name(value, self._name))
            self._pairs(_UNORDERED[kind], value.items())
        elif kind is SimpleNamespace:
            self._pairs(b"n", vars(value).items())
        elif kind in _ORDERED:
            self._items(_ORDERED[kind], value)
        elif kind is OrderedDict:
            self._items(b"o", list(value.items()))
        elif kind is set or kind is frozenset:
            self._many(b"s" if kind is set else b"f", sorted(map(self._digest, value)))
        elif kind is Raw:
            self._head(b"R", value.name, value.version)
            self._add(value.data)
        elif (plain := arrays.content(value)) is not None:
            self._many(b"a", plain)
        else:
            self._leaf(value)

    def _name(self, kind: type) -> str | None:
        entry = self._types.get(kind)
        return None if entry is None else entry.name

    def _head(self, tag: bytes, *parts: Any) -> None:
        self._hashed.update(tag)
        self._leaf(list(parts))

    def _leaf(self, value: Any) -> None:
        code = self._encode(value)
        self._hashed.update(b"v%d:" % len(code) + code)

    def _many(self, tag: bytes, parts: Iterable[bytes]) -> None:
        items = list(parts)
        self._hashed.update(b"%b%d:" % (tag, len(items)))
        for part in items:
            self._hashed.update(b"%d:" % len(part) + part)

    def _items(self, tag: bytes, items: Any) -> None:
        self._hashed.update(b"%b%d:" % (tag, len(items)))
        if set(map(type, items)) <= _LEAVES:
            self._leaf(list(items))  # at once: nothing in it could be put together otherwise
            return
        for item in items:
            self._add(item)

    def _pairs(self, tag: bytes, pairs: Iterable[tuple[Any, Any]]) -> None:
        items = sorted(((self._digest(key), value) for key, value in pairs), key=lambda pair: pair[0])
        self._hashed.update(b"%b%d:" % (tag, len(items)))
        for key, value in items:
            self._hashed.update(key)
            self._add(value)
