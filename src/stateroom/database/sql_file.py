"""Records as tables of a plain SQLite file: for SQL, and for tools such as datasette. A copy to look at, no store."""

import json
from typing import Any

from ..engines.sqlite.tables import Tables
from .export_items import Item

_TIMES = {"revision": "INTEGER", "created_at": "TEXT", "updated_at": "TEXT"}
TABLES: dict[str, dict[str, str]] = {
    "definitions": {
        "machine": "TEXT", "transitions": "JSON", "initial": "TEXT", "final": "JSON", "keep_history": "INTEGER",
    },
    "instances": {
        "id": "TEXT", "workflow": "TEXT", "workflow_version": "INTEGER", "status": "TEXT", "current_step": "TEXT",
        "business_key": "TEXT", "context": "JSON", "metadata": "JSON", "labels": "JSON", "active_steps": "JSON",
        "completed_steps": "JSON", "step_configs": "JSON", "history": "JSON", **_TIMES,
    },
    "executions": {
        "id": "TEXT", "job_id": "TEXT", "state": "TEXT", "desired_state": "TEXT", "message": "TEXT", "node_id": "TEXT",
        "partition_index": "INTEGER", "details": "JSON", "data": "JSON", "result": "JSON", **_TIMES,
    },
    "execution_events": {
        "execution_id": "TEXT", "seq": "INTEGER", "at": "TEXT", "topic": "TEXT", "message": "TEXT", "details": "JSON",
    },
    "machines": {
        "machine": "TEXT", "name": "TEXT", "state": "TEXT", "previous_state": "TEXT", "event": "TEXT",
        "payload": "JSON", "event_payload": "JSON", **_TIMES,
    },
    "results": {
        "dag": "TEXT", "id": "TEXT", "value": "JSON", "digest": "TEXT", "size": "INTEGER", "producer": "JSON",
        "inputs": "JSON", "expires_at": "TEXT", **_TIMES,
    },
    "savepoints": {"run": "TEXT", "timestamp": "INTEGER", "entity": "TEXT", "state": "JSON"},
    "timers": {
        "id": "TEXT", "at": "TEXT", "payload": "JSON", "every": "REAL", "cron": "TEXT", "tz": "TEXT", **_TIMES,
    },
}  # fmt: skip
INDEXES = (
    "id", "workflow", "status", "business_key", "job_id", "state", "node_id", "execution_id", "machine", "dag", "run",
    "at", "updated_at",
)  # fmt: skip


class SqlFile:
    """Writes items as rows."""

    def __init__(self, path: str, namespace: str) -> None:
        del namespace
        self._tables = Tables(path, TABLES, INDEXES)

    def add(self, item: Item) -> None:
        """Write one item, and what hangs on it."""
        record = item.record
        if item.family == "savepoints":
            for entity, state in record.get("entities", {}).items():
                self._row("savepoints", {**record, "entity": entity, "state": state})
            return
        self._row(item.family, record)
        for event in record.get("events", ()) if item.family == "executions" else ():
            self._row("execution_events", {**event, "execution_id": record["id"]})

    def _row(self, table: str, record: dict[str, Any]) -> None:
        columns = TABLES[table]
        row = {name: record.get(name) for name in columns}
        self._tables.add(
            table,
            {
                name: json.dumps(value, ensure_ascii=False) if columns[name] == "JSON" and value is not None else value
                for name, value in row.items()
            },
        )

    def end(self, count: int, digest: str) -> None:
        """Write what is left."""
        del count, digest
        self._tables.end()

    def close(self) -> None:
        """Close the file."""
        self._tables.close()
