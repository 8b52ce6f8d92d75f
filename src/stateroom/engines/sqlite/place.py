"""The file that an engine has open, and whether it is still the one under that name.

Open files outlive their names: whoever moves another file over a database, deletes it or removes its log leaves the
processes that have it open writing into what nobody will ever open again. And a log that lies beside a file it does not
belong to is replayed into it. So each file has a number of its own, drawn when it is made and anew in each copy, in the
row of `parts` for part -1, which is on the page that every commit writes into the log.
"""

import contextlib
import os
import secrets
import time

import apsw

from ...errors import Damaged

__all__ = ["APPLICATION_ID", "IDENTITY", "Place", "check_log", "draw", "find_parts", "read_parts"]

APPLICATION_ID = 0x5354524D
"""``STRM``: stands in the file's header, so that `file` and we know whose it is."""

IDENTITY = -1
"""The part whose version is the number of the file."""

_ROOT = "SELECT rootpage FROM sqlite_schema WHERE name = 'parts'"
_PARTS = "SELECT part, version FROM parts"
_LEAF = 13
_LOOKS = 5
"""Times that a page is read before it counts as damaged: another process may be writing it."""


def draw() -> int:
    """A number for a file: 62 random bits."""
    return secrets.randbits(62)


class Place:
    """The file under the path when the first connection was opened, compared with the one there now."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._names = os.fsencode(path), os.fsencode(f"{path}-wal")
        self._file: tuple[int, int] | None = None
        self._log: int | None = None
        self._is_log_due = False
        self._written: tuple[int, int] | None = None
        self._versions: dict[int, int] = {}
        self._page: tuple[int, int] | None = None

    def check(self, connection: apsw.Connection | None = None) -> None:
        """Raise `Damaged` when the path leads elsewhere; with a connection, look into a file that was written to."""
        try:
            now = os.stat(self._names[0])
        except (FileNotFoundError, NotADirectoryError):
            raise self._error("deleted") from None
        except OSError:
            return  # nothing is known: the folder may not be looked into for a while
        file = now.st_dev, now.st_ino
        if file != self._file:
            if self._file is not None:
                raise self._error("replaced by another file")
            self._file = file
        written = now.st_mtime_ns, now.st_size
        if connection is not None and written != self._written:
            with contextlib.suppress(apsw.Error):  # it cannot be read now: that is no news of another file
                self._is_log_due = True
                self._look_into(connection)
                self._written = written

    def check_log(self) -> None:
        """Raise `Damaged` when the log that was committed to has lost its name."""
        # Not `stat` each time: whoever asks for a file's times has the next write set them, and its flush take longer.
        if self._log is not None and not self._is_log_due and os.access(self._names[1], os.F_OK):
            return
        self._is_log_due = False
        try:
            log = os.stat(self._names[1]).st_ino
        except (FileNotFoundError, NotADirectoryError):
            raise self._error("closed by another program, which took its log away,") from None
        except OSError:
            return
        if log != self._log:
            if self._log is not None:
                raise self._error("given another log")
            self._log = log

    def forget_log(self) -> None:
        """Take whatever log there is at the next commit for the connection's."""
        self._log = None

    def _look_into(self, connection: apsw.Connection) -> None:
        """Compare what stands in the file itself with what it held before: checkpoints only ever move it on."""
        # The page is remembered: another file may be in such a state by now that SQLite does not find it.
        page = self._page = self._page or find_parts(connection)
        versions = None if page is None else read_parts(connection, page)
        if versions is None:
            # Many parts, or a page that rots, or that a checkpoint left half-written: what the file is says its header.
            if not _is_ours(connection):
                raise self._error("overwritten")
            return
        before = self._versions or {part: 0 for part in versions if part != IDENTITY}
        if any(versions.get(part, -1) < version for part, version in before.items()):
            raise self._error("overwritten")
        if versions.get(IDENTITY) != before.get(IDENTITY, versions.get(IDENTITY)):
            raise self._error("overwritten")
        now = dict(connection.execute(_PARTS))
        if versions.get(IDENTITY) != now.get(IDENTITY) or any(versions[part] > now.get(part, -1) for part in versions):
            raise self._error("overwritten")
        self._versions = versions

    def _error(self, how: str) -> Damaged:
        path = self._path
        return Damaged(
            f"{path} was {how} while it was in use: nothing more is written, and what was committed last may be in"
            f" {path}-wal alone; stop every process that has it open, put the right file there, move {path}-wal and"
            f" {path}-shm away, and open it again",
            kind="database",
            id=path,
        )


def check_log(connection: apsw.Connection, path: str) -> None:
    """Raise `Damaged` when the log beside a file, through which `connection` sees it, belongs to another one."""
    versions = read_parts(connection)
    number = connection.execute("SELECT version FROM parts WHERE part = ?", (IDENTITY,)).get
    if versions is not None and versions.get(IDENTITY, number) != number:
        raise Damaged(
            f"{path}-wal is the log of another database, from before {path} was put there; if {path} is what you want,"
            f" move {path}-wal and {path}-shm away and open it again",
            kind="database",
            id=path,
        )


def _is_ours(connection: apsw.Connection) -> bool:
    """Say whether the file begins as one of ours, past its log."""
    complete, header = connection.read("main", 0, 0, 100)
    return complete and header.startswith(b"SQLite format 3\0") and header[68:72] == APPLICATION_ID.to_bytes(4, "big")


def find_parts(connection: apsw.Connection) -> tuple[int, int] | None:
    """Return where the first page of the table `parts` is in the file, and its size, in bytes."""
    root = connection.execute(_ROOT).get
    size = connection.pragma("page_size")
    return ((root - 1) * size, size) if root else None


def read_parts(connection: apsw.Connection, page: tuple[int, int] | None = None) -> dict[int, int] | None:
    """Parts and versions as the file itself has them, without its log; None where they cannot be told from it.

    A page that fails its checksum tells nothing: power loss may have torn it, and rot is told by whoever reads rows.
    """
    page = page or find_parts(connection)
    for look in range(_LOOKS if page else 0):
        try:
            complete, content = connection.read("main", 0, *page) if page else (False, b"")
        except apsw.Error:  # it fails its checksum
            time.sleep(0.001 * look)
            continue
        return parse_parts(content) if complete else None
    return None


def parse_parts(page: bytes) -> dict[int, int] | None:
    """Rows of the table `parts` where it is one page; None where it is more, or no such page at all."""
    if page[0] != _LEAF:
        return None
    versions = {}
    try:
        for number in range(int.from_bytes(page[3:5], "big")):
            start = int.from_bytes(page[8 + 2 * number : 10 + 2 * number], "big")
            _, start = _varint(page, start)
            part, start = _varint(page, start)
            size = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}[page[start + 2]]
            if page[start] != 3 or page[start + 1] != 0:  # two columns, of which the first is the row's number
                return None
            value = page[start + 3 : start + 3 + size]
            versions[part] = int.from_bytes(value, "big", signed=True) if size else page[start + 2] - 8
    except (IndexError, KeyError):
        return None
    return versions


def _varint(page: bytes, start: int) -> tuple[int, int]:
    """SQLite's integer of 1 to 9 bytes at `start`, as a signed one of 64 bits, and where it ends."""
    number = 0
    for at in range(start, start + 8):
        number = number << 7 | page[at] & 0x7F
        if page[at] < 0x80:
            return number, at + 1
    number = number << 8 | page[start + 8]
    return number - (1 << 64) if number >> 63 else number, start + 9
