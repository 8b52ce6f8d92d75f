"""A plain SQLite file with a table for each family: for SQL and for tools such as datasette. It is a copy, no store."""

from collections.abc import Mapping, Sequence
from typing import Any

import apsw

_ROWS = 500


class Tables:
    """Writes rows of named columns into typed, indexed tables of a new file."""

    def __init__(self, path: str, tables: Mapping[str, Mapping[str, str]], indexes: Sequence[str]) -> None:
        self._connection = apsw.Connection(path)
        self._tables = tables
        self._rows: dict[str, list[list[Any]]] = {name: [] for name in tables}
        # Read to the end: a statement that gives a row stops what comes after it.
        self._connection.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN").fetchall()
        for name, columns in tables.items():
            self._connection.execute(f"CREATE TABLE {name} ({', '.join(map(' '.join, columns.items()))})")
            for column in columns:
                if column in indexes:
                    self._connection.execute(f"CREATE INDEX {name}_{column} ON {name} ({column})")

    def add(self, table: str, row: Mapping[str, Any]) -> None:
        """Add a row; columns that it does not have are NULL."""
        rows = self._rows[table]
        rows.append([row.get(column) for column in self._tables[table]])
        if len(rows) >= _ROWS:
            self._flush(table)

    def _flush(self, table: str) -> None:
        marks = ", ".join("?" * len(self._tables[table]))
        self._connection.executemany(f"INSERT INTO {table} VALUES ({marks})", self._rows[table])
        self._rows[table].clear()

    def end(self) -> None:
        """Write what is left."""
        for table in self._tables:
            self._flush(table)
        self._connection.execute("COMMIT; ANALYZE").fetchall()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
