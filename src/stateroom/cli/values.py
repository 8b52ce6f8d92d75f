"""Records and values as JSON can hold them, and as a line of text."""

import json
from typing import Any

from .. import to_json
from ..codec import Raw, show
from .safe import safe


def plain(value: Any) -> Any:
    """The value as JSON can hold it, as `stateroom.to_json` says."""
    return json.loads(to_json(value))


def brief(value: Any, length: int) -> str:
    """The value on one line of at most `length` characters; controls are escaped, an unknown type is `name{...}`."""
    if value is None:
        return ""
    if isinstance(value, str):
        text = str(value)
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, int):
        text = _digits(value)
    elif has_raw(value):
        text = show(value)
    else:
        text = json.dumps(plain(value), ensure_ascii=False)
    text = safe(" ".join(text.split()))
    return text if len(text) <= length else text[: length - 1] + "…"


def has_raw(value: Any) -> bool:
    """Tell whether a value of an unknown type stands somewhere in plain containers."""
    if isinstance(value, dict):
        return any(map(has_raw, value.values()))
    if isinstance(value, list):
        return any(map(has_raw, value))
    return type(value) is Raw


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # Python writes no more than some thousand digits in decimal
        return hex(value)
