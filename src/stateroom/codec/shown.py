"""Abilities of every object that the store gives: show itself, be changed into another, be JSON, be a response
model.
"""

import types
import typing
from collections.abc import Mapping, Set
from datetime import date, datetime, timedelta
from typing import Any, ClassVar, Self, Union, get_args, get_origin

import msgspec

from .plain import plain

_LAST = ("revision", "created_at", "updated_at")
"""Of a record, what the store says of it comes after what it is."""


class Shown(msgspec.Struct, frozen=True):
    """A value object of the store."""

    _internal: ClassVar[frozenset[str]] = frozenset()
    """Fields that say nothing to a reader: neither shown nor part of its JSON."""

    def replace(self, **changes: Any) -> Self:
        """The same with some fields changed. Raises TypeError for a field that it does not have."""
        return msgspec.structs.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON can hold them: times as ISO 8601 with their zone, bytes as base64, objects by field."""
        return {name: plain(getattr(self, name)) for name in self.keys()}

    def keys(self) -> tuple[str, ...]:
        """The names of its fields: with them ``dict(record)`` works, which web frameworks try."""
        hidden = (*self._internal, *_LAST)
        names = self.__struct_fields__
        return (*(name for name in names if name not in hidden), *(name for name in _LAST if name in names))

    def __getitem__(self, name: str) -> Any:
        if name not in self.__struct_fields__ or name in self._internal:
            raise KeyError(name)
        return plain(getattr(self, name))

    def __repr__(self) -> str:
        texts = []
        fields = {field.name: field for field in msgspec.structs.fields(self)}
        for name in self.keys():
            field, value = fields[name], getattr(self, name)
            if value is None or _is_default(field, value):
                continue
            text = value.isoformat() if isinstance(value, datetime) else repr(value)
            texts.append(f"{field.name}={text}")
        return f"{type(self).__name__}({', '.join(texts)})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let pydantic, and so FastAPI, take one as it is and write it as its `to_dict` says."""
        from pydantic_core import core_schema

        def written(value: Any) -> Any:
            return value.to_dict() if isinstance(value, Shown) else value

        anything = core_schema.any_schema()
        serialization = core_schema.plain_serializer_function_ser_schema(written, return_schema=anything)
        return core_schema.is_instance_schema(cls, serialization=serialization, metadata={"stateroom": source})

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        del handler
        source = (schema.get("metadata") or {}).get("stateroom", cls)
        return cls._json_schema(dict(zip(getattr(cls, "__parameters__", ()), get_args(source), strict=False)))

    @classmethod
    def _json_schema(cls, arguments: Mapping[Any, Any]) -> dict[str, Any]:
        hints = typing.get_type_hints(cls)
        properties = {
            field.name: _schema(hints.get(field.name, Any), arguments)
            for field in msgspec.structs.fields(cls)
            if field.name not in cls._internal
        }
        return {"title": cls.__name__, "type": "object", "properties": properties, "required": list(properties)}


_SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    bytes: {"type": "string", "format": "base64"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
    timedelta: {"type": "number", "description": "seconds"},
    type(None): {"type": "null"},
}


def _schema(hint: Any, arguments: Mapping[Any, Any]) -> dict[str, Any]:
    """The JSON schema of a field's type, as far as its JSON form is fixed; of anything else, nothing."""
    hint = arguments.get(hint, hint) if isinstance(hint, typing.TypeVar) else hint
    if hint in _SIMPLE:
        return dict(_SIMPLE[hint])
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(inner, arguments) for inner in inside]}
    if origin is typing.Literal:
        return {"enum": list(inside)}
    kind = origin or hint
    if not isinstance(kind, type):
        return {}
    if issubclass(kind, Shown):
        return kind._json_schema(dict(zip(getattr(kind, "__parameters__", ()), inside, strict=False)))
    if issubclass(kind, Mapping):
        return {"type": "object"}
    if issubclass(kind, tuple | list | Set):
        items = [inner for inner in inside if inner is not ...]
        return {"type": "array", "items": _schema(items[0], arguments) if len(items) == 1 else {}}
    return {}


def _is_default(field: msgspec.structs.FieldInfo, value: Any) -> bool:
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    elif field.default is not msgspec.NODEFAULT:
        default = field.default
    else:
        return False
    return type(value) is type(default) and bool(value == default)
