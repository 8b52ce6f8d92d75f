"""Values as JSON, readable by people: what has no JSON form is shown as what it is."""

import base64
import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import Any

import msgspec

from ..codec import Raw

_DEEPEST = 100
_SAFE = 1 << 53


def plain(value: Any, depth: int = 0) -> Any:
    """A value as dicts, lists, text, numbers, booleans and None."""
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, Enum):
        return str(value) if type(value).__name__ == "Omitted" else plain(value.value, depth + 1)
    if isinstance(value, int):
        return int(value) if abs(value) < _SAFE else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if depth > _DEEPEST:
        return "..."
    return _compound(value, depth + 1)


def _compound(value: Any, depth: int) -> Any:
    if isinstance(value, Raw):
        return {"$type": value.name, "$version": value.version, "$data": plain(value.data, depth), "$shown": str(value)}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, msgspec.Struct):
        fields = type(value).__struct_fields__
        return {name: plain(getattr(value, name), depth) for name in fields if name not in ("place", "nonce")}
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(plain(key)): plain(item, depth) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [plain(item, depth) for item in value]
        return sorted(items, key=repr) if isinstance(value, set | frozenset) else items
    if isinstance(value, BaseException):
        return {"$type": type(value).__name__, "$data": str(value)}
    return {"$type": type(value).__name__, "$shown": str(value)}


def encode(value: Any) -> bytes:
    """A value as JSON."""
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
