"""Several batches as one transaction: each is checked against what earlier ones leave, all are written at once."""

from collections.abc import Mapping, Sequence

import apsw

from ...engine import Batch, read_counter, stamped, write_counter
from ...errors import Conflict, InvalidArgument

__all__ = ["READ", "Group"]

READ = "SELECT value, version FROM rows WHERE part = ? AND key = ?"
_VERSION = "SELECT version FROM rows WHERE part = ? AND key = ?"
_PUT = (
    "INSERT INTO rows VALUES (?, ?, ?, ?)"
    " ON CONFLICT (part, key) DO UPDATE SET value = excluded.value, version = excluded.version"
)
_REMOVE = "DELETE FROM rows WHERE part = ? AND key = ?"
_CLEAR = "DELETE FROM rows WHERE part = ? AND key >= ? AND key < ?"
_PART = "SELECT version FROM parts WHERE part = ?"
_MOVE = "UPDATE parts SET version = ? WHERE part = ?"

_Pending = tuple[int, bytes, bytes | None, int]
"""part, key, value (None: removed), version (0: removed)."""


class Group:
    """The changes of a transaction, kept in memory until `flush`; for an open ``BEGIN IMMEDIATE``.

    A row that many batches change, as a counter, is read once and written once.
    """

    __slots__ = ("_connection", "_execute", "_moved", "_rows", "_versions", "size")

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._rows: dict[int, dict[bytes, _Pending]] = {}
        self._versions: dict[int, int] = {}
        self._moved: set[int] = set()
        self.size = 0
        """Bytes of the values taken so far."""

    def add(self, part: int, batch: Batch) -> int:
        """Take `batch` in and give the version it makes. Raises `Conflict` (or `InvalidArgument`) and takes nothing."""
        rows = self._rows.get(part)
        if rows is None:
            rows = self._begin(part)
        for key, expected in batch.expect.items():
            pending = rows.get(key)
            actual = self._execute(_VERSION, (part, key)).get or 0 if pending is None else pending[3]
            if actual != expected:
                raise _conflict(key, expected, actual)
        version = self._versions[part] + 1
        counters = self._counters(part, rows, batch, version) if batch.add else None
        if batch.clear:
            self._clear(part, rows, batch.clear)
        self._versions[part] = version
        self._moved.add(part)
        size = 0
        for key, value in batch.write.items():
            if value is None:
                rows[key] = (part, key, None, 0)
            else:
                rows[key] = (part, key, value, version)
                size += len(value)
        if counters:
            rows.update(counters)
        for index, (prefix, value) in enumerate(batch.append):
            key = stamped(prefix, version, index)
            rows[key] = (part, key, value, version)
            size += len(value)
        self.size += size
        return version

    def flush(self) -> None:
        """Write what was taken."""
        for part in self._moved:
            self._write(self._rows[part])
            self._execute(_MOVE, (self._versions[part], part))

    def is_there(self, connection: apsw.Connection) -> bool:
        """Say whether what was taken has been committed, as another connection sees it."""
        return all((connection.execute(_PART, (part,)).get or 0) >= self._versions[part] for part in self._moved)

    def _begin(self, part: int) -> dict[bytes, _Pending]:
        version = self._execute(_PART, (part,)).get if part >= 0 else None  # -1 is none: see `place`
        if version is None:
            raise InvalidArgument(f"there is no part {part}", what="part", value=part)
        self._versions[part] = version
        rows = self._rows[part] = {}
        return rows

    def _write(self, rows: dict[bytes, _Pending]) -> None:
        ordered = sorted(rows.values())
        removed = [row[:2] for row in ordered if row[2] is None]
        if removed:
            self._connection.executemany(_REMOVE, removed)
            ordered = [row for row in ordered if row[2] is not None]
        self._connection.executemany(_PUT, ordered)

    def _clear(self, part: int, rows: dict[bytes, _Pending], ranges: Sequence[tuple[bytes, bytes]]) -> None:
        self._write(rows)
        rows.clear()
        for start, stop in ranges:
            self._execute(_CLEAR, (part, start, stop))

    def _counters(self, part: int, rows: Mapping[bytes, _Pending], batch: Batch, version: int) -> dict[bytes, _Pending]:
        """The counters' rows after `batch`; computed first, for a sum that does not fit refuses the batch."""
        pending: dict[bytes, _Pending] = {}
        for key, amount in batch.add.items():
            if key in batch.write:
                before = batch.write[key]
            elif any(start <= key < stop for start, stop in batch.clear):
                before = None
            elif key in rows:
                before = rows[key][2]
            else:
                row = self._execute(READ, (part, key)).get
                before = row[0] if row else None
            pending[key] = (part, key, write_counter(read_counter(before) + amount), version)
        return pending


def _conflict(key: bytes, expected: int, actual: int) -> Conflict:
    state = f"has version {actual}" if actual else "is absent"
    condition = f"version {expected}" if expected else "none"
    return Conflict(f"{key!r} {state}, expected {condition}; read it again", key=key, expected=expected, actual=actual)
