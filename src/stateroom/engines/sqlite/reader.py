"""A file that is only read: nothing is made beside it or changed in it, and it may be on a medium nobody can write.

Where there is no log, all that was committed is in the file, and it is read as it stands, without locks or shared
memory, which would be files of their own. That holds as long as nobody writes: a log appears before the file is
changed, so whatever was read is thrown away and read again when one has, or when the file is another one. Where there
is a log, the locks and the memory that its writers share are used with them.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apsw

from ...engine import Batch, Row
from ...errors import Damaged, InvalidArgument, NotFound, StoreError
from ..interrupts import Lock
from ..read_only import refusal
from ..waiting import POLL_SECONDS
from .connections import closed
from .failures import mapped
from .fork import guard
from .opening import gate, inspect, opening_error, reading_connection
from .reading import SCAN, SCAN_BACK, as_row, merged, read_row, read_rows
from .upkeep import Upkeep

__all__ = ["SqliteReader", "open_reader"]

T = TypeVar("T")
_State = tuple[int, int, int, int]


def open_reader(path: str, *, parts: int | None, verify: bool) -> "SqliteReader":
    """Open the file at `path` to read it. Raises as `connect` does, and `NotFound` where there is nothing."""
    if os.path.isdir(path):
        raise InvalidArgument(f"cannot open {path}: it is a folder; name a file in it", what="url", value=path)
    if not os.path.exists(path) or not os.path.getsize(path):
        raise NotFound(f"there is no database at {path}", kind="database", id=path)
    files = _Files(path, verify)
    try:
        number = files.reading(lambda connection: inspect(connection, path))
    except apsw.Error as error:
        files.close_all()
        raise opening_error(error, path) from error
    except StoreError:
        files.close_all()
        raise
    if parts is not None and parts != number:
        raise InvalidArgument(
            f"{path} was made with {number} parts, not {parts}; leave `parts` out", what="parts", value=parts
        )
    return SqliteReader(files, number)


class _Files:
    """A connection for each thread, opened anew whenever a log has come or gone."""

    def __init__(self, path: str, verify: bool) -> None:
        self.path = path
        self._verify = verify
        self._lock = Lock()
        self._local = threading.local()
        self._open: set[apsw.Connection] = set()
        self._refusal: StoreError | None = None

    def check(self) -> None:
        """Raise why nothing can be read any more, if so."""
        if self._refusal is not None:
            raise type(self._refusal)(self._refusal.message)

    def open(self) -> apsw.Connection:
        """A new connection, as the files are now; the caller closes it."""
        self.check()
        opened = reading_connection(self.path, still=self._state() is not None, verify=self._verify)
        with self._lock:
            self._open.add(opened)
        return opened

    def reading(self, run: Callable[[apsw.Connection], T]) -> T:
        """Return what `run` gives on this thread's connection, run again where the files have changed in a way it
        misses.
        """
        while True:
            self.check()
            state = self._state()
            try:
                result = run(self._connection(state))
            except (apsw.ConnectionClosedError, apsw.ThreadingViolationError):
                self._local.connection = None
                continue
            except (apsw.Error, StoreError):
                if self._state() != state:
                    continue
                raise
            if state is None or self._state() == state:
                return result

    def close_all(self) -> None:
        """Close every connection."""
        with gate, self._lock:
            for opened in self._open:
                while True:
                    try:
                        opened.close()
                        break
                    except apsw.ThreadingViolationError:
                        time.sleep(0.0005)
            self._open = set()
            self._local = threading.local()

    def refuse(self, reason: StoreError) -> None:
        self._refusal = self._refusal or reason

    def _connection(self, state: _State | None) -> apsw.Connection:
        previous = getattr(self._local, "connection", None)
        if previous is not None and self._local.state == state:
            connection: apsw.Connection = previous
            return connection
        if previous is not None:
            previous.close()
            self._open.discard(previous)
        opened = reading_connection(self.path, still=state is not None, verify=self._verify)
        with self._lock:
            self._open.add(opened)
        self._local.connection, self._local.state = opened, state
        return opened

    def _state(self) -> _State | None:
        """Which file there is, and when it was changed; None while there is a log."""
        if os.path.exists(f"{self.path}-wal"):
            return None
        try:
            now = os.stat(self.path)
        except FileNotFoundError as error:
            raise Damaged(f"{self.path} was deleted while it was read", kind="database", id=self.path) from error
        return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns


class SqliteReader:
    """An engine that reads, waits, and makes copies. Made by ``connect(url, read_only=True)``."""

    def __init__(self, files: _Files, parts: int) -> None:
        self.parts = parts
        self.path = files.path
        """The file, absolute."""
        self._files = files
        self._upkeep = Upkeep(files, None)
        self.backup = self._upkeep.backup
        self.verify = self._upkeep.verify
        self.size = self._upkeep.size
        self.about = self._upkeep.about
        guard(self)

    def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        self._check_part(part)
        return self._mapped(lambda connection: read_rows(connection, part, keys))

    def scan(self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False) -> list[Row]:
        if limit < 0:
            raise InvalidArgument(f"limit is {limit}; at least 0", what="limit", value=limit)
        if part is not None:
            self._check_part(part)
        statement = SCAN_BACK if reverse else SCAN
        parts = range(self.parts) if part is None else (part,)

        def run(connection: apsw.Connection) -> list[Row]:
            if len(parts) == 1:
                return list(map(as_row, connection.execute(statement, (parts[0], start, stop, limit))))
            return merged(connection, statement, [(number, start, stop, limit) for number in parts], limit, reverse)

        return self._mapped(run)

    def commit(self, part: int, batch: Batch, /) -> int:
        raise refusal()

    def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        """Return when the part is past `version`, or after `timeout` seconds; looks every 35 ms."""
        if part is not None:
            self._check_part(part)
        deadline = time.monotonic() + timeout
        while self._version(part) <= version:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            time.sleep(min(remaining, POLL_SECONDS))

    def close(self) -> None:
        self._files.refuse(closed(self.path))
        self._files.close_all()

    def hold(self) -> None:
        """Before a fork."""
        self._upkeep.lock.acquire()

    def part_with(self) -> None:
        self._files.close_all()

    def go_on(self, *, child: bool) -> None:
        self._upkeep.lock.release()

    def _version(self, part: int | None) -> int:
        parts = range(self.parts) if part is None else (part,)
        rows = self._mapped(lambda connection: [read_row(connection, number, b"") for number in parts])
        return sum(row.version for row in rows if row is not None)

    def _mapped(self, run: Callable[[apsw.Connection], T]) -> T:
        try:
            return self._files.reading(run)
        except apsw.Error as error:
            raise mapped(error, self.path) from error

    def _check_part(self, part: Any) -> None:
        if not 0 <= part < self.parts:
            raise InvalidArgument(f"there is no part {part}; {self.parts} in {self.path}", what="part", value=part)
