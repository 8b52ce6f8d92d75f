"""Upkeep of a file: copies, checks, and disk space given back."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import apsw

from ...engine import Amend
from ...errors import InvalidArgument, Unavailable
from ..interrupts import Lock
from .failures import mapped
from .group import Group
from .place import IDENTITY, draw
from .reading import read_row

if TYPE_CHECKING:
    from .writer import Writer

__all__ = ["Upkeep"]

STEP_PAGES = 256
"""Pages given back in one transaction: writers get their turn in between."""


COPY_PAGES = 1024
"""Pages copied at a time."""


class Opening(Protocol):
    """A function that opens connections to a file."""

    path: str

    def check(self) -> None:
        """Raise why the engine cannot be used any more, if so."""

    def open(self) -> apsw.Connection:
        """A new connection, which the caller closes."""
        ...


class Upkeep:
    """Each call has a connection of its own; a fork waits until it is done."""

    def __init__(self, connections: Opening, writer: "Writer | None") -> None:
        self._connections = connections
        self._writer = writer
        self.lock = Lock()

    def backup(self, path: str, amend: Amend | None = None) -> None:
        """Write a consistent copy to `path`, which must not exist, while others go on committing.

        `amend` is given a function that reads rows of the copy, as `Engine.read` does, and gives a batch for its part
        0: what the copy is not to have in common with this database. It always has a number of its own (`place`).
        Raises `InvalidArgument` when there is something at `path` or its folder is missing.
        """
        target = os.path.abspath(path)
        if os.path.lexists(target):
            raise InvalidArgument(f"{target} exists; name a file that does not", what="path", value=path)
        if not os.path.isdir(os.path.dirname(target)):
            raise InvalidArgument(f"there is no folder for {target}; make it first", what="path", value=path)
        partial = ""
        with self._connection() as connection:
            try:
                partial = _beside(target)
                _copy(connection, partial, amend)
                _publish(partial, target)
            except FileExistsError as error:
                raise InvalidArgument(f"{target} exists; name a file that does not", what="path", value=path) from error
            except OSError as error:
                raise Unavailable(f"could not write {target}: {error.strerror}; there is no copy") from error
            finally:
                with contextlib.suppress(OSError):  # told already, or not there
                    os.unlink(partial)

    def compact(self) -> int:
        """Give free pages back to the disk, a few at a time; how many bytes the file is smaller for it."""
        writer, before = self._writer, self.size()
        if writer is None:
            return 0
        with self._connection() as connection:
            while True:
                began = time.monotonic()
                with writer.lock:
                    free = connection.pragma("freelist_count")
                    connection.execute(f"PRAGMA incremental_vacuum({STEP_PAGES})").get  # noqa: B018
                    if connection.pragma("freelist_count") == free:
                        break
                time.sleep(time.monotonic() - began)  # a lock that is taken again at once lets nobody in
            with contextlib.suppress(apsw.BusyError, apsw.LockedError):
                connection.set_busy_handler(None)  # readers in the way: the file shrinks at a later checkpoint
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)  # the most of it, beside the writers
            with contextlib.suppress(apsw.BusyError, apsw.LockedError), writer.lock:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        return max(0, before - self.size())

    def verify(self) -> list[str]:
        """Return what SQLite finds wrong with the file, one sentence each, at most 100; empty when it is sound."""
        with self._connection() as connection:
            try:
                messages = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(100)")]
            except (apsw.CorruptError, apsw.NotADBError, apsw.IOError) as error:
                return [str(mapped(error, self._connections.path))]
        return [] if messages == ["ok"] else messages

    @property
    def about(self) -> str:
        """The library that keeps the file."""
        return f"SQLite {apsw.sqlite_lib_version()}"

    def size(self) -> int:
        """Bytes on the disk, the log included."""
        self._connections.check()
        total = 0
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(self._connections.path + suffix).st_size
        return total

    @contextlib.contextmanager
    def _connection(self) -> Iterator[apsw.Connection]:
        with self.lock:
            try:
                connection = self._connections.open()
                try:
                    yield connection
                finally:
                    connection.close()
            except apsw.Error as error:
                raise mapped(error, self._connections.path) from error


def _beside(target: str) -> str:
    """Make an empty file in the folder of `target`, under a name that nobody else has, for this user alone."""
    folder, name = os.path.split(target)
    handle, path = tempfile.mkstemp(prefix=f".{name[:100]}.", suffix=".partial", dir=folder)
    os.close(handle)
    return path


def _amend(target: apsw.Connection, amend: Amend | None) -> None:
    """Give a copy a number of its own, and what `amend` says."""
    with target:
        target.execute("INSERT OR REPLACE INTO parts VALUES (?, ?)", (IDENTITY, draw()))
        if amend is not None:
            group = Group(target)
            group.add(0, amend(lambda part, keys: [read_row(target, part, key) for key in keys]))
            group.flush()


def _copy(connection: apsw.Connection, path: str, amend: Amend | None) -> None:
    """Copy a database as it is now, page by page."""
    with contextlib.closing(apsw.Connection(path, vfs=connection.open_vfs or None)) as target:
        # The first page says whether pages carry checksums. It must be in the file before any other: a page that
        # leaves the cache ahead of it would be written without one, and the copy could not be read.
        if reserved := connection.reserve_bytes("main"):
            target.reserve_bytes("main", reserved)
        target.execute(f"PRAGMA page_size = {connection.pragma('page_size')}; CREATE TABLE first(page)").get  # noqa: B018
        target.pragma("synchronous", "OFF")  # flushed when it is whole
        with connection:
            connection.execute("SELECT count(*) FROM sqlite_schema").get  # noqa: B018 - from here on the same snapshot
            copying = target.backup("main", connection, "main")
            try:
                while not copying.done:
                    copying.step(COPY_PAGES)
            finally:
                copying.close(True)  # what a step has raised is told; here it would be raised once more
        _amend(target, amend)


def _publish(partial: str, target: str) -> None:
    """Make the copy durable under its name, which nobody may have taken meanwhile, and flush the folder."""
    _flush(partial)
    try:
        os.link(partial, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.rename(partial, target)
    _flush(os.path.dirname(target))


def _flush(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
