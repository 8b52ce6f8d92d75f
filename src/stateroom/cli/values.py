"""Records and values as JSON can hold them, and as a line of text."""

import json
from typing import Any

from .. import to_json


def plain(value: Any) -> Any:
    """The value as JSON can hold it, as `stateroom.to_json` says."""
    return json.loads(to_json(value))


def brief(value: Any, length: int) -> str:
    """The value on one line of at most `length` characters."""
    if value is None:
        return ""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, int):
        text = str(value)
    else:
        text = json.dumps(plain(value), ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"
