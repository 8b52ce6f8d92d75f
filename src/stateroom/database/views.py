"""Records as SQL users see them, for engines that offer views (`describe`)."""

from typing import Any, NamedTuple

from ..records.kind import KINDS, Kind

NUMBER = 1
"""Raised whenever a view changes; an engine makes the views anew where it has a lower number."""

_TEXT = {
    "id", "workflow", "status", "current_step", "business_key", "unique", "job_id", "state", "desired_state", "message",
    "node_id", "machine", "name", "event", "previous_state", "dag", "producer", "run", "digest",
}  # fmt: skip
_NUMBERS = {"workflow_version", "partition_index", "timestamp", "count", "bytes", "size"}
_KEYS = {
    "instances": ("id",),
    "executions": ("id",),
    "machines": ("machine", "name"),
    "results": ("dag", "id"),
    "savepoints": ("run", "#timestamp"),
}


class View(NamedTuple):
    """A kind of record; what each field means is said in ``engines/postgres/views.py``."""

    name: str
    tag: bytes
    key: tuple[str, ...]
    columns: tuple[tuple[str, int, str], ...]


def views() -> tuple[View, ...]:
    """A view for each family with records, named like it."""
    return tuple(_view(kind) for kind in KINDS.values() if kind.name in _KEYS)


def _view(kind: Kind[Any]) -> View:
    key = _KEYS[kind.name]
    taken = {name.lstrip("#") for name in key}
    columns = [("revision", 1, "bigint"), ("created_at", 2, "time"), ("updated_at", 3, "time")]
    for place, field in enumerate(kind.fields, 4):
        name = field.replace(".", "_")
        if name not in taken:
            columns.append((name, place, "text" if name in _TEXT else "bigint" if name in _NUMBERS else "jsonb"))
    return View(kind.name, b"R" + kind.letter, key, tuple(columns))
