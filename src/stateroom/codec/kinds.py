"""How instances of registered types are taken apart and put together, without running their constructors."""

import dataclasses
import sys
from collections.abc import Callable
from enum import Enum, Flag
from operator import attrgetter
from typing import Any

import msgspec

from ..errors import InvalidArgument

Dump = Callable[[Any], Any]
Load = Callable[[Any], Any]

_MISSING: Any = object()
_OWN_CONTENT = (int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, BaseException)


def how(kind: type) -> tuple[Dump, Load]:
    """The two functions for a type this module knows. Raises `InvalidArgument` for any other."""
    if issubclass(kind, Flag):
        return attrgetter("value"), kind
    if issubclass(kind, Enum):
        return attrgetter("name"), lambda name: _member(kind, name)
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _namedtuple(kind)
    if issubclass(kind, msgspec.Struct):
        return _struct(kind)
    if issubclass(kind, _OWN_CONTENT):
        raise InvalidArgument(
            f"{kind.__qualname__} is a subclass of a built-in type; register it with encode= and decode=",
            what="type",
            value=kind.__qualname__,
        )
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(kind, pydantic.BaseModel):
        return _pydantic(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    attrs = sys.modules.get("attr")
    if attrs is not None and attrs.has(kind):
        return _attrs(kind, attrs)
    raise InvalidArgument(
        f"{kind.__qualname__} is no enum, dataclass, attrs class, Struct, pydantic model or named tuple; "
        "register it with encode= and decode=",
        what="type",
        value=kind.__qualname__,
    )


def content(kind: type, state: Any) -> Any:
    """Return the part of a dumped state that equality looks at: of a pydantic model not which fields were given."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(kind, pydantic.BaseModel) and type(state) is list and len(state) == 4:
        return [state[0], *state[2:]]
    return state


def _member(kind: Any, name: Any) -> Any:
    member = kind.__members__.get(name) if isinstance(name, str) else None
    if member is None:
        raise ValueError(f"{kind.__qualname__} has no member {name!r}")
    return member


def _complete(kind: type, state: Any, defaults: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """`state` with every field of `kind`: what it lacks from the defaults. Nothing stored is dropped unsaid."""
    if type(state) is not dict:
        raise ValueError(f"the stored state of {kind.__qualname__} is a {type(state).__name__}, not a dict")
    if state.keys() == defaults.keys():
        return state
    unknown = [name for name in state if name not in defaults]
    if unknown:
        raise ValueError(f"{kind.__qualname__} has no field {unknown[0]!r}; register a new version with an upgrade")
    full = {name: state[name] if name in state else default() for name, default in defaults.items()}
    lacking = [name for name, value in full.items() if value is _MISSING]
    if lacking:
        raise ValueError(
            f"nothing is stored for the field {lacking[0]!r} of {kind.__qualname__}, and it has no default; "
            "register a new version with an upgrade"
        )
    return full


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _assemble(kind: type, defaults: dict[str, Callable[[], Any]]) -> Load:
    def load(state: Any) -> Any:
        instance: Any = object.__new__(kind)
        for name, value in _complete(kind, state, defaults).items():
            object.__setattr__(instance, name, value)
        return instance

    return load


def _dataclass(kind: Any) -> tuple[Dump, Load]:
    defaults: dict[str, Callable[[], Any]] = {}
    for field in dataclasses.fields(kind):
        if field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory
        else:
            defaults[field.name] = _constant(_MISSING if field.default is dataclasses.MISSING else field.default)
    names = tuple(defaults)
    return lambda value: {name: getattr(value, name) for name in names}, _assemble(kind, defaults)


def _attrs(kind: Any, attrs: Any) -> tuple[Dump, Load]:
    defaults: dict[str, Callable[[], Any]] = {}
    for field in attrs.fields(kind):
        if field.default is attrs.NOTHING:
            defaults[field.name] = _constant(_MISSING)
        elif isinstance(field.default, attrs.Factory):
            # A factory that takes self cannot run before there is one.
            defaults[field.name] = _constant(_MISSING) if field.default.takes_self else field.default.factory
        else:
            defaults[field.name] = _constant(field.default)
    names = tuple(defaults)
    return lambda value: {name: getattr(value, name) for name in names}, _assemble(kind, defaults)


def _struct(kind: Any) -> tuple[Dump, Load]:
    defaults: dict[str, Callable[[], Any]] = {}
    for field in msgspec.structs.fields(kind):
        if field.default_factory is not msgspec.NODEFAULT:
            defaults[field.name] = field.default_factory
        else:
            defaults[field.name] = _constant(_MISSING if field.default is msgspec.NODEFAULT else field.default)

    changes = hasattr(kind, "__post_init__")

    def load(state: Any) -> Any:
        full = _complete(kind, state, defaults)
        instance = kind(**full)
        if changes:
            for name, value in full.items():
                msgspec.structs.force_setattr(instance, name, value)
        return instance

    return msgspec.structs.asdict, load


def _namedtuple(kind: Any) -> tuple[Dump, Load]:
    declared = dict(kind._field_defaults)
    defaults = {name: _constant(declared.get(name, _MISSING)) for name in kind._fields}

    def load(state: Any) -> Any:
        full = _complete(kind, state, defaults)
        return tuple.__new__(kind, [full[name] for name in kind._fields])

    return lambda value: dict(zip(kind._fields, value, strict=True)), load


def _pydantic(kind: Any) -> tuple[Dump, Load]:
    """Fields, which of them were set, extra fields and private attributes; put back as pickle and copy do.

    Validators do not run again: what was stored had passed them, and a stricter rule of today must not make yesterday's
    record unreadable.
    """
    if not hasattr(kind, "model_fields"):
        raise InvalidArgument(f"{kind.__qualname__} is a model of pydantic 1; only 2 is known", what="type")

    def default(field: Any) -> Callable[[], Any]:
        def make() -> Any:
            return _MISSING if field.is_required() else field.get_default(call_default_factory=True, validated_data={})

        return make

    def dump(value: Any) -> Any:
        state = value.__getstate__()
        # A RootModel has neither.
        extra, private = state.get("__pydantic_extra__"), state.get("__pydantic_private__")
        names = kind.model_fields
        fields = {name: item for name, item in state["__dict__"].items() if name in names}
        return [fields, sorted(state["__pydantic_fields_set__"]), extra, private]

    def load(state: Any) -> Any:
        fields, field_names, extra, private = state
        instance = kind.__new__(kind)
        instance.__setstate__(
            {
                "__dict__": _complete(kind, fields, {n: default(f) for n, f in kind.model_fields.items()}),
                "__pydantic_fields_set__": set(field_names),
                "__pydantic_extra__": extra,
                "__pydantic_private__": private,
            }
        )
        return instance

    return dump, load
