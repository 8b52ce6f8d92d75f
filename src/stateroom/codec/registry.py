"""Types registered by name: the name and version they are stored under, and how old versions are upgraded."""

from collections.abc import Callable, Collection, Mapping
from threading import Lock
from typing import Any

import msgspec

from ..errors import AlreadyExists, InvalidArgument
from . import arrays
from .kinds import Dump, Load, content, how
from .plain import learn

NAME_BYTES = 128
"""A registered name, in UTF-8."""

Upgrade = Callable[[Any], Any]


class Registered(msgspec.Struct, frozen=True):
    """One registered type."""

    type: type
    name: str
    version: int
    dump: Dump
    load: Load
    upgrade: Mapping[int, Upgrade]

    def content(self, value: Any) -> Any:
        """Return what of an object's state tells it from others that are not equal to it."""
        return content(self.type, self.dump(value))

    def rebuild(self, version: Any, state: Any) -> Any:
        """The object of a stored state, upgraded step by step. Raises ValueError, or whatever an upgrade raises."""
        if version != self.version:
            state = self._upgraded(version, state)
        return self.load(state)

    def _upgraded(self, version: Any, state: Any) -> Any:
        if type(version) is not int or version < 1:
            raise ValueError(f"{version!r} is not a version")
        if version > self.version:
            raise ValueError(f"it was stored as version {version}; this program knows versions up to {self.version}")
        for step in range(version, self.version):
            function = self.upgrade.get(step)
            if function is None:
                raise ValueError(f"there is no upgrade from version {step} to {step + 1}")
            state = function(state)
        return state


class Registry:
    """The registered types of a codec. Adding is thread-safe; reading needs no lock."""

    def __init__(self) -> None:
        self.by_type: dict[type, Registered] = {}
        self.by_name: dict[str, Registered] = {}
        self._lock = Lock()

    def add(
        self,
        kind: Any,
        *,
        name: Any,
        version: Any,
        upgrade: Mapping[int, Upgrade] | None,
        encode: Dump | None,
        decode: Load | None,
        built_in: Collection[Any] = (),
    ) -> Registered:
        """Register; nothing changes when it is refused."""
        if not isinstance(kind, type):
            raise InvalidArgument(f"{kind!r} is not a type", what="type", value=repr(kind))
        if kind in built_in or kind.__module__ == "builtins" or arrays.keeps(kind):
            raise InvalidArgument(
                f"{kind.__qualname__} is kept as it is, and cannot be registered; register a class of your own",
                what="type",
                value=kind.__qualname__,
            )
        if not isinstance(name, str) or not name.strip() or len(name.encode(errors="replace")) > NAME_BYTES:
            raise InvalidArgument(f"a registered name is a text of 1 to {NAME_BYTES} bytes", what="name", value=name)
        if type(version) is not int or not 1 <= version < 1 << 31:
            raise InvalidArgument("a version is an int from 1", what="version", value=version)
        steps = dict(upgrade or {})
        for step, function in steps.items():
            if type(step) is not int or not 1 <= step < version or not callable(function):
                raise InvalidArgument(
                    f"upgrade maps an old version (1 to {version - 1}) to a function", what="upgrade", value=step
                )
        if (encode is None) != (decode is None):
            raise InvalidArgument("encode= and decode= belong together", what="encode")
        dump, load = (encode, decode) if encode and decode else how(kind)
        entry = Registered(kind, name, version, dump, load, steps)
        with self._lock:
            if name in self.by_name:
                registered = self.by_name[name].type
                raise AlreadyExists(
                    f"the name {name!r} is registered for {registered.__module__}.{registered.__qualname__}",
                    kind="type",
                    id=name,
                )
            if kind in self.by_type:
                raise AlreadyExists(
                    f"{kind.__qualname__} is registered as {self.by_type[kind].name!r}", kind="type", id=name
                )
            self.by_name[name] = entry
            self.by_type[kind] = entry
            if encode is not None:
                learn(kind, dump)
        return entry
