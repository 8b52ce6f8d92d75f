"""Records as SQL users see them, for engines that offer views (`describe`)."""

from typing import Any

from ..engine import View
from ..records.kind import KINDS, Kind

NUMBER = 1
"""Raised whenever a view changes; an engine makes the views anew where it has a lower number."""


def views() -> tuple[View, ...]:
    """A view for each family with records, named like it."""
    return tuple(_view(kind) for kind in KINDS.values())


def _view(kind: Kind[Any]) -> View:
    steps = zip(kind.key_names, kind.shape, strict=True)
    columns = [("revision", 1, "bigint"), ("created_at", 2, "time"), ("updated_at", 3, "time")]
    for place, field in enumerate(kind.fields, 4):
        name = field.replace(".", "_")
        if name not in kind.key_names:
            type = "text" if name in kind.texts else "bigint" if name in kind.numbers else "jsonb"
            columns.append((name, place, type))
    key = tuple(f"#{name}" if step is int else name for name, step in steps)
    return View(kind.name, b"R" + kind.letter, key, tuple(columns))
