"""The difference between two values in JSON: a line for each place where they differ."""

from typing import Any, NamedTuple

LINES = 500


class Line(NamedTuple):
    """A place, and what stood there before and after; `absent` where nothing did."""

    path: str
    kind: str
    """added, removed or changed"""
    before: Any
    after: Any


def differences(before: Any, after: Any) -> list[Line]:
    """The differences, in order; at most `LINES`."""
    lines: list[Line] = []
    _walk("", before, after, lines)
    return lines[:LINES]


def _walk(path: str, before: Any, after: Any, lines: list[Line]) -> None:
    if len(lines) >= LINES or (type(before) is type(after) and before == after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            place = f"{path}.{key}" if path else str(key)
            _pair(place, before, after, key, key in before, key in after, lines)
    elif isinstance(before, list) and isinstance(after, list):
        for number in range(max(len(before), len(after))):
            _pair(f"{path}[{number}]", before, after, number, number < len(before), number < len(after), lines)
    else:
        lines.append(Line(path, "changed", before, after))


def _pair(path: str, before: Any, after: Any, key: Any, was: bool, is_: bool, lines: list[Line]) -> None:
    if was and is_:
        _walk(path, before[key], after[key], lines)
    elif was:
        lines.append(Line(path, "removed", before[key], None))
    else:
        lines.append(Line(path, "added", None, after[key]))
