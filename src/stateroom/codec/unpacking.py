"""Bytes to values.

Plain data and known extensions are rebuilt in one call, with one callback per level of nesting. When that fails the
bytes are read again part by part, to say where the part is that cannot be rebuilt, or to put a `Raw` in its place.
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import ormsgpack

from . import arrays, failure, scalars, tags
from .depth import EXTENSIONS, bytes_fit
from .locate import short, step
from .registry import Registry

_OPTIONS = ormsgpack.OPT_NON_STR_KEYS
# Bytes this short cannot nest deep enough to harm a thread's stack; of longer ones msgspec is held by the recursion
# limit.
SHORT = 2048
_SAFE_RECURSION = 2500
_ALONE = scalars.DECODERS | arrays.DECODERS


class Raw(msgspec.Struct, frozen=True):
    """What stands in the place of a value that cannot be rebuilt here, when `decode` is asked for it with ``raw=True``.

    `name` is the registered name, or the kind of value; `version` that it was stored under (0 where it has none);
    `data` its decoded state, or the stored bytes where they say nothing; `reason` why it cannot be rebuilt.
    """

    name: str
    version: int
    data: Any
    reason: str


class _Part(NamedTuple):
    """An extension that was not rebuilt yet."""

    tag: int
    data: bytes


class Failed(Exception):
    """A part that cannot be rebuilt."""

    def __init__(self, path: str, tag: str | None, reason: str) -> None:
        super().__init__(reason)
        self.path = short(path)
        self.tag = tag
        self.reason = reason


def _mapping(flat: list[Any]) -> dict[Any, Any]:
    if type(flat) is not list or len(flat) % 2:
        raise ValueError("not pairs of key and value")
    return dict(zip(flat[::2], flat[1::2], strict=True))


_COLLECTIONS: dict[int, Callable[[Any], Any]] = {
    tags.TUPLE: tuple,
    tags.SET: set,
    tags.FROZENSET: frozenset,
    tags.MAPPING: _mapping,
}


def stack_is_safe() -> bool:
    """Whether the recursion limit keeps `Unpacker.fast` from overflowing the C stack."""
    return sys.getrecursionlimit() <= _SAFE_RECURSION


class Unpacker:
    """Decodes bytes, with the registered types of one codec."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._decoders = [msgspec.msgpack.Decoder(ext_hook=self._hook(depth)).decode for depth in range(EXTENSIONS + 1)]
        self._callbacks = [self._callback(depth) for depth in range(EXTENSIONS + 1)]
        self.fast: Callable[[bytes], Any] = self._decoders[0]
        """Decodes well-formed bytes. Raises whatever stands in the way; see `stack_is_safe`."""

    def bounded(self, data: bytes) -> Any:
        """As `fast`, within `depth`'s bounds whatever the recursion limit is. Raises whatever stands in its way."""
        return ormsgpack.unpackb(data, ext_hook=self._callbacks[0], option=_OPTIONS)

    def _hook(self, depth: int) -> Callable[[int, memoryview], Any]:
        below = depth + 1

        def rebuild(tag: int, data: memoryview) -> Any:
            alone = _ALONE.get(tag)
            if alone is not None:
                return alone(bytes(data))
            if below > EXTENSIONS:
                raise ValueError("nested too deep")
            return self._rebuild(tag, self._decoders[below](data))

        return rebuild

    def _callback(self, depth: int) -> Callable[[int, bytes], Any]:
        below = depth + 1

        def rebuild(tag: int, data: bytes) -> Any:
            alone = _ALONE.get(tag)
            if alone is not None:
                return alone(data)
            return self._rebuild(tag, self._inside(data, below, self._callbacks))

        return rebuild

    def _inside(self, data: bytes, depth: int, callbacks: list[Callable[[int, bytes], Any]]) -> Any:
        if depth > EXTENSIONS or not bytes_fit(data, depth):
            raise ValueError("nested too deep")
        return ormsgpack.unpackb(data, ext_hook=callbacks[depth], option=_OPTIONS)

    def _rebuild(self, tag: int, state: Any) -> Any:
        collection = _COLLECTIONS.get(tag)
        if collection is not None:
            if type(state) is not list:
                raise ValueError("not a list of members")
            return collection(state)
        if tag == tags.NAMED:
            name, version, inner = state
            entry = self._registry.by_name.get(name)
            if entry is None:
                raise ValueError("no type is registered under this name; register it, or read it with raw=True")
            return entry.rebuild(version, inner)
        if tag == tags.ERROR:
            return failure.from_state(state)
        raise ValueError("this version of Stateroom knows no such kind of value; read it with a newer one")

    def explain(self, data: bytes, *, raw: bool) -> Any:
        """The value, part by part. Raises `Failed` at the first part in the way; with `raw` puts `Raw` there."""
        try:
            value = ormsgpack.unpackb(data, ext_hook=_Part, option=_OPTIONS)
        except Exception as error:
            raise Failed("$", None, f"the bytes are no encoded value: {error}") from error
        return self._resolve(value, "$", 0, raw)

    def _resolve(self, value: Any, path: str, depth: int, raw: bool) -> Any:
        """`value` with its parts rebuilt; lists and dicts are fresh from decoding and changed in place."""
        if type(value) is _Part:
            return self._resolve_part(value, path, depth + 1, raw)
        if type(value) is list:
            for at, item in enumerate(value):
                if type(item) in (_Part, list, dict):
                    value[at] = self._resolve(item, f"{path}[{at}]", depth, raw)
        elif type(value) is dict:
            for key, item in value.items():
                if type(item) in (_Part, list, dict):
                    value[key] = self._resolve(item, path + step(key), depth, raw)
        return value

    def _resolve_part(self, part: _Part, path: str, depth: int, raw: bool) -> Any:
        label, version = tags.NAMES.get(part.tag, f"extension {part.tag}"), 0
        state: Any = part.data
        try:
            alone = _ALONE.get(part.tag)
            if alone is not None:
                return alone(part.data)
            state = self._inside(part.data, depth, [_Part] * (EXTENSIONS + 1))
            if part.tag == tags.NAMED and type(state) is list and len(state) == 3 and type(state[0]) is str:
                label = state[0]
                version = state[1] if type(state[1]) is int else 0
                state[2] = self._resolve(state[2], path, depth, raw)
            else:
                state = self._members(part.tag, state, path, depth, raw)
            return self._rebuild(part.tag, state)
        except (Failed, RecursionError):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}" if type(error) is not ValueError else str(error)
            if raw:
                known = part.tag == tags.NAMED and type(state) is list and len(state) == 3
                return Raw(label, version, state[2] if known else state, reason)
            raise Failed(path, label, reason) from error

    def _members(self, tag: int, state: Any, path: str, depth: int, raw: bool) -> Any:
        if tag != tags.MAPPING or type(state) is not list:
            return self._resolve(state, path, depth, raw)
        for at in range(0, len(state) - 1, 2):
            state[at] = key = self._resolve(state[at], f"{path}<key>", depth, raw)
            state[at + 1] = self._resolve(state[at + 1], path + step(key), depth, raw)
        return state
