"""Bytes to values.

Plain data and known extensions are rebuilt in one call, with one callback per level of nesting. When that fails the
bytes are read again part by part, to say where the part is that cannot be rebuilt, or to put a `Raw` in its place.
"""

import re
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import ormsgpack

from . import arrays, builtin, failure, scalars, tags
from .depth import EXTENSIONS, bytes_fit
from .interrupts import from_handler
from .locate import short, step
from .raw import Raw
from .registry import Registry

_OPTIONS = ormsgpack.OPT_NON_STR_KEYS
# Bytes this short cannot nest deep enough to harm a thread's stack; of longer ones msgspec is held by the recursion
# limit.
SHORT = 2048
_SAFE_RECURSION = 2500
_ALONE = scalars.DECODERS | arrays.DECODERS | builtin.DECODERS
_EXTENSION = re.compile(b"[\xc7-\xc9\xd4-\xd8]")
"""What every extension begins with; other things hold such bytes too."""


# Made in C alone: no Python code runs while ormsgpack decodes, so nothing can be raised there and be dropped by it.
class _Part(msgspec.Struct):
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


_COLLECTIONS: dict[int, Callable[[Any], Any]] = {
    tags.TUPLE: tuple,
    tags.SET: set,
    tags.FROZENSET: frozenset,
    tags.MAPPING: builtin.mapping,
}


def stack_is_safe() -> bool:
    """Say whether the recursion limit keeps `Unpacker.fast` from overflowing the C stack."""
    return sys.getrecursionlimit() <= _SAFE_RECURSION


class Unpacker:
    """Decodes bytes, with the registered types of one codec."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._decoders = [msgspec.msgpack.Decoder(ext_hook=self._hook(depth)).decode for depth in range(EXTENSIONS + 1)]
        self._raw_decoders = [
            msgspec.msgpack.Decoder(ext_hook=self._raw_hook(depth)).decode for depth in range(EXTENSIONS + 1)
        ]
        self.fast: Callable[[bytes], Any] = self._decoders[0]
        """Decodes well-formed bytes. Raises whatever stands in the way; see `stack_is_safe`."""
        self.fast_raw: Callable[[bytes], Any] = self._raw_decoders[0]
        """As `fast`, with a `Raw` in place of each value that cannot be rebuilt."""

    def bounded(self, data: bytes) -> Any:
        """As `fast`, within `depth`'s bounds whatever the recursion limit is. Raises whatever stands in its way."""
        return self._assembled(ormsgpack.unpackb(data, ext_hook=_Part, option=_OPTIONS), data, 0)

    def _assembled(self, value: Any, data: bytes, depth: int) -> Any:
        """`value` with its parts rebuilt; one step of Python's stack for each extension, whatever the lists do."""
        if type(value) is _Part:
            return self._assemble(value, depth + 1)
        if _EXTENSION.search(data) is None:
            return value
        open_containers = [value] if type(value) in (list, dict) else []
        while open_containers:
            container = open_containers.pop()
            for at, item in enumerate(container) if type(container) is list else container.items():
                if type(item) is _Part:
                    container[at] = self._assemble(item, depth + 1)
                elif type(item) in (list, dict):
                    open_containers.append(item)
        return value

    def _assemble(self, part: _Part, depth: int) -> Any:
        alone = _ALONE.get(part.tag)
        if alone is not None:
            return alone(part.data)
        return self._rebuild(part.tag, self._assembled(self._inside(part.data, depth), part.data, depth))

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

    def _raw_hook(self, depth: int) -> Callable[[int, memoryview], Any]:
        below = depth + 1

        def rebuild(tag: int, data: memoryview) -> Any:
            alone, state = _ALONE.get(tag), None
            if below > EXTENSIONS:
                raise RecursionError("nested too deep")
            try:
                if alone is not None:
                    return alone(bytes(data))
                state = self._raw_decoders[below](data)
                return self._rebuild(tag, state)
            except (RecursionError, msgspec.DecodeError):
                raise
            except Exception as error:
                if from_handler(error):
                    raise
                return _raw(tag, bytes(data), state, error)

        return rebuild

    def _inside(self, data: bytes, depth: int) -> Any:
        if depth > EXTENSIONS or not bytes_fit(data, depth):
            raise ValueError("nested too deep")
        return ormsgpack.unpackb(data, ext_hook=_Part, option=_OPTIONS)

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
        if tag in builtin.CONTAINER_TAGS:
            if type(state) is not list:
                raise ValueError("not a list of parts")
            return builtin.rebuild(tag, state, self._type)
        raise ValueError("this version of Stateroom knows no such kind of value; read it with a newer one")

    def _type(self, name: str) -> Any:
        entry = self._registry.by_name.get(name)
        return None if entry is None else entry.type

    def explain(self, data: bytes, *, raw: bool) -> Any:
        """The value, part by part. Raises `Failed` at the first part in the way; with `raw` puts `Raw` there."""
        try:
            value = ormsgpack.unpackb(data, ext_hook=_Part, option=_OPTIONS)
        except Exception as error:
            if from_handler(error):
                raise
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
        state: Any = None
        try:
            alone = _ALONE.get(part.tag)
            if alone is not None:
                return alone(part.data)
            state = self._inside(part.data, depth)
            if _is_named(part.tag, state):
                state[2] = self._resolve(state[2], path, depth, raw)
            else:
                state = self._members(part.tag, state, path, depth, raw)
            return self._rebuild(part.tag, state)
        except (Failed, RecursionError):
            raise
        except Exception as error:
            if from_handler(error):
                raise
            envelope = _raw(part.tag, part.data, state, error)
            if raw:
                return envelope
            raise Failed(path, envelope.name, envelope.reason) from error

    def _members(self, tag: int, state: Any, path: str, depth: int, raw: bool) -> Any:
        if tag != tags.MAPPING or type(state) is not list:
            return self._resolve(state, path, depth, raw)
        for at in range(0, len(state) - 1, 2):
            state[at] = key = self._resolve(state[at], f"{path}<key>", depth, raw)
            state[at + 1] = self._resolve(state[at + 1], path + step(key), depth, raw)
        return state


def _is_named(tag: int, state: Any) -> bool:
    return tag == tags.NAMED and type(state) is list and len(state) == 3 and type(state[0]) is str


def _raw(tag: int, data: bytes, state: Any, error: Exception) -> Raw:
    """Return what stands for a part that could not be rebuilt; `state`: as far as it was decoded."""
    reason = f"{type(error).__name__}: {error}" if type(error) is not ValueError else str(error)
    if _is_named(tag, state):
        return Raw(state[0], state[1] if type(state[1]) is int else 0, state[2], reason, (tag, data))
    return Raw(tags.NAMES.get(tag, f"extension {tag}"), 0, data if state is None else state, reason, (tag, data))
