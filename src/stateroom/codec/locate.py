"""The search for the part of a value that cannot be stored. Runs only after encoding has failed."""

import dataclasses
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import ormsgpack

from . import builtin
from .depth import EXTENSIONS, PLAIN
from .interrupts import from_handler
from .packing import Packer, refusal
from .raw import Raw
from .registry import Registry

_LEVELS = PLAIN + EXTENSIONS
TOO_DEEP = f"nested deeper than {PLAIN} lists and dicts, or {EXTENSIONS} other values"
PATH = 400
"""Characters of a path that are shown."""


@dataclasses.dataclass
class Found(Exception):
    """The path and the reason."""

    path: str
    reason: str


def locate(value: Any, packer: Packer, registry: Registry) -> tuple[str, str] | None:
    """The path of the first part that is refused, and why; None where no part of it is."""
    try:
        _Search(packer, registry).visit(value, "$", ())
    except Found as place:
        return short(place.path), place.reason
    except RecursionError:
        return "$", "nested deeper than the stack of this thread allows"
    return None


def short(path: str) -> str:
    """A path as it is shown: of one that is very long, the beginning and the end."""
    return path if len(path) <= PATH else f"{path[: PATH // 2]} ... {path[-PATH // 2 :]}"


def step(key: Any) -> str:
    """One step of a path: ``.name`` for an identifier, ``[key]`` for any other key."""
    if type(key) is str and key.isidentifier():
        return f".{key}"
    text = ascii(key)
    return f"[{text if len(text) <= 64 else text[:61] + '...'}]"


_CONTAINERS = frozenset({list, tuple, set, frozenset, dict, Raw, *builtin.TAGS})


class _Search:
    def __init__(self, packer: Packer, registry: Registry) -> None:
        self._packer = packer
        self._registry = registry

    def visit(self, value: Any, path: str, above: tuple[int, ...]) -> None:
        kind = type(value)
        if len(above) > _LEVELS:
            raise Found(path, f"nested deeper than {_LEVELS} levels")
        if kind is str:
            self._text(value, path)
        elif kind in _CONTAINERS or kind in self._registry.by_type:
            if id(value) in above:
                raise Found(path, f"a {kind.__qualname__} that contains itself is not kept")
            self._inside(value, path, (*above, id(value)))
        else:
            self._alone(value, path)

    def _text(self, value: str, path: str) -> None:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Found(
                path, f"a str with a lone surrogate at {error.start} is no text; store bytes, or repair it"
            ) from error

    def _inside(self, value: Any, path: str, above: tuple[int, ...]) -> None:
        entry = self._registry.by_type.get(type(value))
        if entry is not None:
            try:
                state = entry.dump(value)
            except Exception as error:
                if from_handler(error):
                    raise
                raise Found(path, f"taking a {entry.name!r} apart failed: {type(error).__name__}: {error}") from error
            if type(state) is dict:
                self._inside(state, path, above)
            else:
                self.visit(state, path, above)
        elif isinstance(value, dict):
            if type(value) is defaultdict:
                self._alone(defaultdict(value.default_factory), path)
            for key, item in value.items():
                self.visit(key, f"{path}<key {step(key)}>", above)
                self.visit(item, path + step(key), above)
        elif type(value) is SimpleNamespace:
            self._inside(vars(value), path, above)
        elif type(value) is Raw:
            if value.stored is None:
                self.visit(value.data, path, above)
        else:
            for at, item in enumerate(value):
                self.visit(item, f"{path}[{at}]", above)

    def _alone(self, value: Any, path: str) -> None:
        if type(value) in (memoryview, ormsgpack.Ext, ormsgpack.Fragment):
            raise Found(path, refusal(value))
        try:
            self._packer.encode_alone(value)
        except Exception as error:
            if from_handler(error):
                raise
            raise Found(path, str(error) or type(error).__name__) from error
