"""The engine itself: reads on the caller's connection, everything else handed to its part."""

from collections.abc import Sequence
from typing import TypeVar

import apsw

from ...engine import Batch, Row
from ...errors import InvalidArgument
from ..waiting import Waiters
from .checkpoint import Checkpoints
from .connections import Connections, closed
from .fork import guard
from .group import READ
from .reading import PART, SCAN, SCAN_BACK, as_row, merged, read_rows
from .upkeep import Upkeep
from .writer import Writer

__all__ = ["SqliteEngine"]

_ALL_PARTS = "SELECT total(version) FROM parts WHERE part >= 0"
T = TypeVar("T")

_NESTED_SECONDS = 1.0
"""How long a `close` in a signal's handler waits for what other threads are reading."""


class SqliteEngine:
    """An `Engine` in one SQLite file; several processes may use it at once. Made by `connect`."""

    def __init__(self, connections: Connections, parts: int) -> None:
        self.parts = parts
        self.path = connections.path
        """The file, absolute."""
        self._connections = connections
        self._local = connections.local
        self._waiters = Waiters(self._version, self._foreign)
        self._checkpoints = Checkpoints(connections)
        self._writer = Writer(connections, self._waiters.wake, self._checkpoints.logged)
        self._checkpoints.lock = self._writer.lock
        self._upkeep = Upkeep(connections, self._writer)
        self.submit = self._writer.submit
        self.backup = self._upkeep.backup
        self.compact = self._upkeep.compact
        self.verify = self._upkeep.verify
        self.size = self._upkeep.size
        self.about = self._upkeep.about
        guard(self)

    def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        """The rows under `keys`, all as of one commit."""
        if not 0 <= part < self.parts:
            raise self._no_part(part)
        if len(keys) == 1:
            key = keys[0]
            if key:
                try:
                    row = self._local.reader.execute(READ, (part, key)).get
                except (apsw.Error, AttributeError):
                    row = self._connections.reading(lambda connection: connection.execute(READ, (part, key)).get)
                return [row and Row(key, row[0], row[1])]
        return self._connections.reading(lambda connection: read_rows(connection, part, keys))

    def scan(self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False) -> list[Row]:
        """At most `limit` rows of ``start <= key < stop`` in key order, as of one commit, over all parts too."""
        if limit < 0:
            raise InvalidArgument(f"limit is {limit}; at least 0", what="limit", value=limit)
        if part is not None and not 0 <= part < self.parts:
            raise self._no_part(part)
        statement = SCAN_BACK if reverse else SCAN
        parts = range(self.parts) if part is None else (part,)

        def run(connection: apsw.Connection) -> list[Row]:
            if len(parts) == 1:
                return list(map(as_row, connection.execute(statement, (parts[0], start, stop, limit))))
            return merged(connection, statement, [(number, start, stop, limit) for number in parts], limit, reverse)

        return self._connections.reading(run)

    def commit(self, part: int, batch: Batch, /) -> int:
        """Apply `batch`, in this thread; with whatever else is queued, in one flush."""
        return self._writer.commit(part, batch)

    def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        """Return when the part is past `version`, whoever moved it, or after `timeout` seconds."""
        if part is not None and not 0 <= part < self.parts:
            raise self._no_part(part)
        self._waiters.wait(part, version, timeout)

    def close(self) -> None:
        """Wait for the running commit, refuse what is queued, wake who waits, close every connection.

        In a signal's handler that came in the middle of a commit there is nothing to wait for: that commit is told, or
        undone and refused.
        """
        self._connections.refuse(closed(self.path))
        self._waiters.wake()
        self._writer.close()
        nested = self._writer.leading
        self._checkpoints.close(wait=not nested)
        if nested:
            self._connections.close_all(checkpoint=True, patience=_NESTED_SECONDS)
            return
        with self._upkeep.lock, self._writer.lock:
            self._connections.close_all(checkpoint=True)

    def hold(self) -> None:
        """Before a fork: wait for the running commit and let no other begin."""
        self._upkeep.lock.acquire()
        self._writer.lock.acquire()
        self._writer.settle()

    def part_with(self) -> None:
        """Then close every connection."""
        self._connections.close_all(checkpoint=False)

    def go_on(self, *, child: bool) -> None:
        """After a fork; in the child with no thread, no waiter and nothing queued."""
        if child:
            self._waiters.after_fork_in_child()
            self._checkpoints.after_fork_in_child()
            self._writer.after_fork_in_child()
        self._writer.lock.release()
        self._upkeep.lock.release()

    def _no_part(self, part: int) -> InvalidArgument:
        return InvalidArgument(f"there is no part {part}; {self.parts} in {self.path}", what="part", value=part)

    def _version(self, part: int | None) -> int:
        version = self._connections.reading(
            lambda connection: (
                connection.execute(_ALL_PARTS).get if part is None else connection.execute(PART, (part,)).get
            )
        )
        return int(version or 0)

    def _foreign(self) -> int:
        return self._connections.reading(self._look_out)

    def _look_out(self, connection: apsw.Connection) -> int:
        """Return what changes when another process commits. Raises `Damaged` where the file is not the one that was
        opened.
        """
        self._connections.check_place(connection)
        return int(connection.execute("PRAGMA data_version").get)
