"""Several batches as one WriteBatch: each is checked against what earlier ones leave."""

from collections.abc import Iterable

import rocksdict

from ...engine import Batch, read_counter, stamped, write_counter
from ...errors import Conflict
from .reading import full_key, prefix_of, version_of

__all__ = ["Group"]


class Group:
    """The changes of several batches, kept in memory until they are written; nobody else may write meanwhile."""

    __slots__ = ("_cleared", "_db", "_rows", "_versions", "size")

    def __init__(self, db: rocksdict.Rdict) -> None:
        self._db = db
        self._rows: dict[bytes, bytes | None] = {}
        """Whole key to version and value; None: removed."""
        self._cleared: list[tuple[bytes, bytes]] = []
        self._versions: dict[int, int] = {}
        self.size = 0
        """Bytes of the values taken so far."""

    def add(self, part: int, batch: Batch) -> int:
        """Take `batch` in and give the version it makes. Raises `Conflict` (or `InvalidArgument`) and takes nothing."""
        prefix = prefix_of(part)
        before = self._look(prefix + key for key in (b"", *batch.expect, *batch.add))
        for key, expected in batch.expect.items():
            actual = version_of(before[prefix + key])
            if actual != expected:
                raise _conflict(key, expected, actual)
        version = (self._versions[part] if part in self._versions else version_of(before[prefix])) + 1
        stamp = version.to_bytes(8, "big")
        rows: dict[bytes, bytes | None] = {
            prefix + key: None if value is None else stamp + value for key, value in batch.write.items()
        }
        for key, amount in batch.add.items():
            whole = prefix + key
            if whole in rows:
                value = rows[whole]
            elif any(start <= key < stop for start, stop in batch.clear):
                value = None
            else:
                value = before[whole]
            rows[whole] = stamp + write_counter(read_counter(value and value[8:]) + amount)
        for index, (head, value) in enumerate(batch.append):
            rows[prefix + stamped(head, version, index)] = stamp + value
        for start, stop in batch.clear:  # nothing is refused from here on
            self._clear(full_key(prefix, start), prefix + stop)
        self._versions[part] = version
        self._rows.update(rows)
        self.size += sum([len(value) for value in rows.values() if value is not None])
        return version

    @property
    def changes(self) -> bool:
        """Whether anything was taken."""
        return bool(self._versions)

    def fill(self, batch: rocksdict.WriteBatch) -> None:
        """Put what was taken into `batch`, to be written in one call."""
        for start, stop in self._cleared:
            batch.delete_range(start, stop)
        for key, value in self._rows.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        for part, version in self._versions.items():
            batch.put(prefix_of(part), version.to_bytes(8, "big"))

    def is_there(self) -> bool:
        """Whether what was taken has been written."""
        return all(version_of(self._db.get(prefix_of(part))) >= each for part, each in self._versions.items())

    def _look(self, keys: Iterable[bytes]) -> dict[bytes, bytes | None]:
        """Version and value under each whole key, as earlier batches leave them."""
        rows: dict[bytes, bytes | None] = {}
        unknown: list[bytes] = []
        for key in keys:
            if key in self._rows:
                rows[key] = self._rows[key]
            elif any(start <= key < stop for start, stop in self._cleared):
                rows[key] = None
            else:
                unknown.append(key)
        if unknown:
            rows.update(zip(unknown, self._db.get(unknown), strict=True))  # type: ignore[arg-type]
        return rows

    def _clear(self, start: bytes, stop: bytes) -> None:
        if start >= stop:
            return
        for key in [key for key in self._rows if start <= key < stop]:
            del self._rows[key]
        self._cleared.append((start, stop))


def _conflict(key: bytes, expected: int, actual: int) -> Conflict:
    present = f"has version {actual}" if actual else "is absent"
    asked = f"version {expected}" if expected else "none"
    return Conflict(f"{key!r} {present}, expected {asked}; read it again", key=key, expected=expected, actual=actual)
