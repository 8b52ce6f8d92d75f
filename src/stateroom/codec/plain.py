"""Everything that can be stored, as JSON can hold it. Nothing turns it back: times and bytes become text.

The forms are a promise (docs/guide/web-programs.md): programs read them.
"""

import base64
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping, Set
from datetime import date, datetime, time, timedelta
from enum import Enum
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from ..errors import StoreError
from .raw import Raw

_OWN: "WeakKeyDictionary[type, Callable[[Any], Any]]" = WeakKeyDictionary()
"""How registered types without fields are taken apart."""

_ATOMS = (bool, int, str, type(None))


def learn(kind: type, dump: Callable[[Any], Any]) -> None:
    """Remember how a registered type is taken apart, for those that have no fields to look at."""
    _OWN[kind] = dump


def plain(value: Any) -> Any:
    """The value made of None, bool, int, float, str, list and dict with str keys; floats are finite."""
    if type(value) in _ATOMS:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, Set):
        return sorted(map(plain, value), key=json.dumps)
    if isinstance(value, range):
        return str(value)
    if isinstance(value, tuple) and (names := getattr(value, "_fields", None)) is not None:
        return {name: plain(item) for name, item in zip(names, value, strict=True)}
    if isinstance(value, list | tuple) or type(value).__name__ == "deque":
        return list(map(plain, value))
    return _object(value)


def _mapping(value: Mapping[Any, Any]) -> Any:
    names = {key if isinstance(key, str) else _text(key): plain(item) for key, item in value.items()}
    if len(names) < len(value):  # 1 and "1", say: nothing is left out
        return [[plain(key), plain(item)] for key, item in value.items()]
    return names


def _text(key: Any) -> str:
    text = plain(key)
    return text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)


def _object(value: Any) -> Any:
    if type(value) is Raw:
        return {"$type": value.name, "$version": value.version, "data": plain(value.data)}
    if isinstance(value, StoreError):
        return {"code": value.code, "message": value.message, "fields": _mapping(value.fields)}
    method = getattr(value, "to_dict", None)
    if method is not None and isinstance(value, msgspec.Struct):
        return method()
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, SimpleNamespace):
        return _mapping(vars(value))
    return _foreign(value)


def _foreign(value: Any) -> Any:
    numpy, pydantic, attrs = (sys.modules.get(name) for name in ("numpy", "pydantic", "attr"))
    if numpy is not None and isinstance(value, numpy.ndarray):
        return plain(value.tolist())
    if numpy is not None and isinstance(value, numpy.generic):
        inside = value.item()
        return str(value) if isinstance(inside, numpy.generic) else plain(inside)
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return plain(value.model_dump())
    if attrs is not None and attrs.has(type(value)):
        return {field.name: plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    dump = _OWN.get(type(value))
    return str(value) if dump is None else plain(dump(value))


def to_json(value: Any) -> str:
    """A record, a page, a change, or any value that can be stored, as one line of JSON."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
