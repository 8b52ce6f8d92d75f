"""A reader beside the process that writes: what it shows is at most a second old."""

import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from importlib.metadata import version

from ...engine import Batch, Row
from ...errors import InUse, ReadOnly
from ..waiting import POLL_SECONDS
from .engine import Rows, verified
from .failures import closed
from .opening import keep_for_ever, open_secondary
from .place import Folder, Settings

__all__ = ["AGE_SECONDS", "RocksReader"]

AGE_SECONDS = 0.5
"""After this a call takes in what was committed meanwhile, before it reads."""


class RocksReader(Rows):
    """An `Engine` that reads what another process writes. Made by `connect` with ``read_only=True``."""

    def __init__(
        self, folder: Folder, settings: Settings, parts: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._notes = tempfile.mkdtemp(prefix="stateroom-rocksdb-")
        try:
            super().__init__(folder.path, open_secondary(folder, settings, self._notes), parts)
        except BaseException:
            shutil.rmtree(self._notes, ignore_errors=True)
            raise
        self._folder = folder
        self._clock = clock
        self._current = clock()
        self._lock = threading.RLock()
        self._pid = os.getpid()
        _readers.add(self)
        self.about = f"RocksDB (rocksdict {version('rocksdict')}), a secondary: what it shows is at most a second old"
        """What keeps the rows, and how old they may be."""

    def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        with self._lock:
            self._keep_up()
            return super().read(part, keys)

    def scan(self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False) -> list[Row]:
        with self._lock:
            self._keep_up()
            return super().scan(part, start, stop, limit=limit, reverse=reverse)

    def commit(self, part: int, batch: Batch, /) -> int:
        raise ReadOnly(f"{self.path} was opened with read_only=True; open it without to change something")

    def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        """Return when the part is past `version` here, or after `timeout` seconds."""
        deadline = self._clock() + timeout
        while True:
            with self._lock:
                self._keep_up(0.0)
                if self.version(part) > version:
                    return
            remaining = deadline - self._clock()
            if remaining <= 0:
                return
            time.sleep(min(remaining, POLL_SECONDS))

    def size(self) -> int:
        """Bytes on the disk, logs included."""
        self._check()
        return self._folder.size()

    def verify(self) -> list[str]:
        """What is wrong with the files, one sentence each."""
        with self._lock:
            self._keep_up(0.0)
            return verified(self._db, self.path, self.parts)

    def start_in_child(self) -> None:
        """Refuse every call in a process that was forked off: the threads under it are the parent's."""
        keep_for_ever(self._db)
        self._lock = threading.RLock()
        self._refusal = self._refusal or InUse(
            f"{self.path} was opened before this process was forked off process {self._pid}; start workers with spawn"
            " or forkserver, or fork before the first store is opened",
            pid=self._pid,
            path=self.path,
        )

    def close(self) -> None:
        if self._pid != os.getpid():
            self._refusal = closed(self.path)
            return
        with self._lock:
            super().close()
        shutil.rmtree(self._notes, ignore_errors=True)

    def _keep_up(self, age: float = AGE_SECONDS) -> None:
        """Take in what was committed, unless that was done less than `age` seconds ago."""
        self._check()
        now = self._clock()
        if now - self._current >= age:
            try:
                self._db.try_catch_up_with_primary()
            except Exception as error:
                raise self._mapped(error) from error
            self._current = now


_readers: "weakref.WeakSet[RocksReader]" = weakref.WeakSet()


def _after_fork() -> None:
    for reader in list(_readers):
        reader.start_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
