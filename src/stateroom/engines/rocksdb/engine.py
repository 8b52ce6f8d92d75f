"""The engine itself: reads in the caller's thread, everything else handed to its part."""

import contextlib
import logging
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import count

import rocksdict

from ...engine import Batch, Outcome, Row
from ...errors import InUse, InvalidArgument, StoreError
from ..interrupts import Lock
from ..waiting import Waiters
from .failures import closed, is_rocksdb, mapped
from .opening import keep_for_ever, open_still
from .place import Folder, Settings
from .reading import MAX_PARTS, prefix_of, read_rows, scan_parts, version_of
from .writer import Writer

__all__ = ["RocksEngine", "Rows"]

_log = logging.getLogger("stateroom.rocksdb")

_PAUSE = 0.001
"""Seconds between looks whether another thread has left a database that is to be closed."""


class Rows:
    """The reading methods over an open RocksDB."""

    def __init__(self, path: str, db: rocksdict.Rdict, parts: int) -> None:
        self.parts = parts
        self.path = path
        """The folder, absolute."""
        self._db = db
        self._refusal: StoreError | None = None

    def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        """The rows under `keys`, all as of one commit."""
        self._check(part)
        try:
            return read_rows(self._db, part, keys)
        except Exception as error:
            raise self._mapped(error) from error

    def scan(self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False) -> list[Row]:
        """At most `limit` rows of ``start <= key < stop`` in key order, each part as of one commit."""
        self._check(part)
        parts = range(self.parts) if part is None else (part,)
        try:
            return scan_parts(self._db, self.path, parts, start, stop, limit, reverse)
        except Exception as error:
            raise self._mapped(error) from error

    def version(self, part: int | None) -> int:
        """The version of a part, or the sum over all."""
        self._check(part)
        parts = range(self.parts) if part is None else (part,)
        try:
            return sum([version_of(self._db.get(prefix_of(each))) for each in parts])
        except Exception as error:
            raise self._mapped(error) from error

    def close(self) -> None:
        """Let go of the files; a second call does nothing."""
        self._refusal = self._refusal or closed(self.path)
        self._close()

    def _close(self) -> None:
        while True:
            try:
                self._db.close()
            except RuntimeError as error:  # another thread is in a call: rocksdict says that it is borrowed
                if not is_rocksdb(error):
                    raise
                time.sleep(_PAUSE)
            except Exception as error:  # noqa: BLE001 - rocksdict's errors have no class
                if type(error).__name__ != "DbClosedError":  # it is closed, and what was committed is in its log
                    _log.warning("%s: closed after an error: %s", self.path, error)
                return
            else:
                return

    def _check(self, part: int | None = None) -> None:
        if self._refusal is not None:
            raise type(self._refusal)(self._refusal.message, **self._refusal.fields)
        if part is not None and not 0 <= part < self.parts:
            raise InvalidArgument(f"there is no part {part}; {self.parts} in {self.path}", what="part", value=part)

    def _mapped(self, error: Exception) -> Exception:
        return mapped(error, self.path) if is_rocksdb(error) else error


class RocksEngine(Rows):
    """An `Engine` in a folder of RocksDB's; one process has it. Made by `connect`."""

    def __init__(self, folder: Folder, db: rocksdict.Rdict, parts: int, *, durability: str, settings: Settings) -> None:
        super().__init__(folder.path, db, parts)
        self._folder, self._settings = folder, settings
        self._waiters = Waiters(self.version, lambda: 0)
        self._writer = Writer(folder.path, db, sync=durability == "full", check=self._check, moved=self._waiters.wake)
        self._upkeep = Lock()
        self._numbers = count()
        self._pid = os.getpid()
        self.about = f"RocksDB (rocksdict {version('rocksdict')})"
        """What keeps the rows."""
        _engines.add(self)

    def commit(self, part: int, batch: Batch, /) -> int:
        """Apply `batch`, in this thread; with whatever else is queued, in one flush."""
        self._check(part)
        return self._writer.commit(part, batch)

    def submit(self, part: int, batch: Batch, done: Callable[[Outcome], None], /) -> None:
        """Queue `batch`; `done` gets the outcome."""
        try:
            self._check(part)
        except StoreError as refusal:
            done(refusal)
            return
        self._writer.submit(part, batch, done)

    def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        """Return when the part is past `version`, or after `timeout` seconds."""
        self._check(part)
        self._waiters.wait(part, version, timeout)

    def close(self) -> None:
        """Wait for the running commit, refuse what is queued, wake who waits, let go of the files."""
        if self._pid != os.getpid():
            self._refusal = closed(self.path)
            return
        self._refusal = self._refusal or closed(self.path)
        self._waiters.wake()
        self._writer.close()
        if self._writer.leading:  # in a signal's handler: its frame writes nothing any more
            self._close()
            return
        with self._upkeep, self._writer.lock:
            self._close()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Rows]:
        """The database as of one moment: hard links to its files, opened for reading."""
        os.makedirs(self._folder.moments, mode=0o700, exist_ok=True)
        path = os.path.join(self._folder.moments, str(next(self._numbers)))
        try:
            with self._upkeep:
                self._check()
                try:
                    rocksdict.Checkpoint(self._db).create_checkpoint(path)
                    still = Rows(self.path, open_still(path, self._settings), self.parts)
                except Exception as error:
                    raise self._mapped(error) from error
            try:
                yield still
            finally:
                still.close()
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def size(self) -> int:
        """Bytes on the disk, logs included."""
        self._check()
        return self._folder.size()

    def compact(self) -> int:
        """Drop what was replaced and removed; by how many bytes the folder is smaller for it."""
        with self._upkeep:
            before = self.size()
            try:
                self._db.flush()
                self._db.compact_range(None, None)
            except Exception as error:
                raise self._mapped(error) from error
            return max(0, before - self._folder.size())

    def verify(self) -> list[str]:
        """What is wrong with the files, one sentence each: every block is read, and its checksum looked at."""
        with self._upkeep:
            self._check()
            return verified(self._db, self.path, self.parts)

    def start_in_child(self) -> None:
        """Refuse every call in a process that was forked off: the parent writes."""
        keep_for_ever(self._db)
        if self._refusal is None:
            self._refusal = InUse(
                f"{self.path} was opened before this process was forked off process {self._pid}, which has it;"
                " start workers with spawn or forkserver, or fork before the first store is opened",
                pid=self._pid,
                path=self.path,
            )


def verified(db: rocksdict.Rdict, path: str, parts: int) -> list[str]:
    """What an iteration over all rows meets, one sentence each."""
    faults: list[str] = []
    rows = db.iter()
    rows.seek_to_first()
    while rows.valid():
        key, value = rows.key(), rows.value()
        if len(key) > 1 and int.from_bytes(key[:2], "big") not in (*range(parts), MAX_PARTS):
            faults.append(f"row {key!r} of {path} is in no part")
        elif len(key) > 1 and key[:2] != b"\xff\xff" and len(value) < 8:
            faults.append(f"row {key!r} of {path} has no version")
        rows.next()
    try:
        rows.status()
    except Exception as error:  # noqa: BLE001 - rocksdict's errors have no class
        faults.append(str(mapped(error, path)))
    return faults[:100]


_engines: "weakref.WeakSet[RocksEngine]" = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.start_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
