"""Values as JSON, in the forms of `stateroom.to_json`."""

import json
from typing import Any

from .. import to_json


def plain(value: Any) -> Any:
    """A value as dicts, lists, text, numbers, booleans and None."""
    return json.loads(to_json(value))


def encode(value: Any) -> bytes:
    """A value as JSON."""
    return to_json(value).encode("utf-8", "replace")
