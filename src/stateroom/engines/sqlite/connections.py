"""The connections of one engine: one to read for every thread that does, one to write, one for checkpoints."""

import contextlib
import math
import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

import apsw

from ...errors import Closed, Damaged, StoreError
from .failures import mapped
from .opening import connection, gate
from .place import Place

__all__ = ["Connections"]

T = TypeVar("T")

_GONE = (apsw.ConnectionClosedError, apsw.CursorClosedError, apsw.ThreadingViolationError)
"""What a thread sees whose connection was closed under it: by `close`, or because another thread forks."""


class Reader:
    """A thread's own connection. Its thread reads without a lock, so others stop it by taking the connection away."""

    __slots__ = ("__weakref__", "connection", "execute")

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection: apsw.Connection | None = connection
        self.execute: Callable[..., apsw.Cursor] = connection.execute

    def stop(self) -> None:
        self.connection, self.execute = None, _stopped


def _stopped(*_arguments: object) -> apsw.Cursor:
    raise apsw.ConnectionClosedError("stopped")


class Connections:
    """Opened at first use, closed with their thread, with the engine, or before a fork."""

    def __init__(self, path: str, *, durability: str, patience: float, vfs: str, verify: bool = True) -> None:
        self.path = path
        self.local = threading.local()
        """`reader` of this thread; absent before its first read."""
        self._settings = (path, patience, vfs)
        self._verify = verify
        self._synchronous = "FULL" if durability == "full" else "NORMAL"
        self._open: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
        self._readers: weakref.WeakSet[Reader] = weakref.WeakSet()
        self._writer: apsw.Connection | None = None
        self._refusal: StoreError | None = None
        self.place = Place(path)
        self._kept: list[apsw.Connection] = []
        self.replaced = False
        """The file is not the one that was opened: nothing is written into it any more."""
        self.log_pages = 0
        """How long the log was after the last commit of this engine."""

    def check(self) -> None:
        """Raise why the engine cannot be used any more, if so."""
        refusal = self._refusal
        if refusal is not None:
            raise type(refusal)(refusal.message)

    def open(self) -> apsw.Connection:
        """A new connection, closed with the engine at the latest."""
        with gate:
            self.check()
            opened = connection(*self._settings, verify=self._verify, synchronous=self._synchronous)
            self._open.add(opened)
            self._check(self.place.check)
            return opened

    def check_place(self, connection: apsw.Connection) -> None:
        """Raise `Damaged`, from now on always, where the file or its log was replaced, removed or overwritten."""
        self._check(lambda: self.place.check(connection))

    def check_commit(self, connection: apsw.Connection) -> None:
        """The same after a commit, which is none where its log has lost its name."""
        self._check(lambda: self.place.check(connection))
        self._check(self.place.check_log)

    def _check(self, look: Callable[[], None]) -> None:
        try:
            look()
        except Damaged as damage:
            self.refuse(damage)
            with gate:
                self.replaced = True
                self._kept = list(self._open)  # until they are closed without a checkpoint, by the writer or `close`
                for reader in list(self._readers):
                    reader.stop()
            raise

    def reading(self, run: Callable[[apsw.Connection], T]) -> T:
        """Return what `run` gives on this thread's connection, which is opened where there is none or it was closed."""
        while True:
            try:
                reader = getattr(self.local, "reader", None)
                return run((reader and reader.connection) or self._open_reader())
            except _GONE:
                self.local.reader = None
            except apsw.Error as error:
                failure = mapped(error, self.path)
                reader = getattr(self.local, "reader", None)
                if isinstance(failure, Damaged) and reader is not None and reader.connection is not None:
                    with contextlib.suppress(apsw.Error):
                        self.check_place(reader.connection)  # what SQLite stumbled over may be another file
                raise failure from error

    def writer(self) -> apsw.Connection:
        """The connection that commits. Only for the holder of the writer's lock."""
        self.check()
        if self._writer is None:
            self._writer = self.open()
            self.place.forget_log()  # the log stays as long as a connection does; another one may begin another
            self._writer.pragma("cache_size", -16384)
            self._writer.set_wal_hook(self._note_log)
        return self._writer

    def drop_writer(self) -> None:
        """Open another one next time: this one could not even roll back."""
        writer, self._writer = self._writer, None
        if writer is not None:
            _close(writer, checkpoint=False)

    def set_aside(self) -> None:
        """Open another one next time; a frame that was interrupted by a signal's handler goes on with this one."""
        self._writer = None

    def abandon(self, connection: apsw.Connection) -> None:
        """Undo the transaction that `connection` is in, so that nothing can be written with it any more."""
        self._writer = None
        try:
            connection.close()
        except apsw.ThreadingViolationError:  # a callback of its own is on this thread's stack
            connection.execute("ROLLBACK")
            connection.pragma("query_only", True)

    def refuse(self, reason: StoreError) -> None:
        """From now on open nothing and raise `reason`; the first reason stays."""
        with gate:
            self._refusal = self._refusal or reason

    def close_all(self, *, checkpoint: bool, patience: float | None = None) -> None:
        """Close every connection, waiting for the statement each may be in (`patience`: for so many seconds each).

        The last one to close a file copies its log into it, unless `checkpoint` is False.
        """
        checkpoint = checkpoint and not self.replaced
        with gate:
            self._writer = None
            for reader in list(self._readers):
                reader.stop()
            for opened in list(self._open):
                _close(opened, checkpoint, patience)
            self._open = weakref.WeakSet()
            self._kept = []

    def _open_reader(self) -> apsw.Connection:
        with gate:
            opened = self.open()
            opened.pragma("query_only", True)
            self.local.reader = Reader(opened)
            self._readers.add(self.local.reader)
            return opened

    def _note_log(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self.log_pages = pages
        return apsw.SQLITE_OK


def _close(opened: apsw.Connection, checkpoint: bool, patience: float | None = None) -> None:
    deadline = math.inf if patience is None else time.monotonic() + patience
    while True:
        try:
            if not checkpoint:
                opened.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            opened.close()
            return
        except apsw.ConnectionClosedError:
            return
        except apsw.ThreadingViolationError:
            if time.monotonic() > deadline:
                return  # it closes when the last frame that has it ends
            time.sleep(0.0005)


def closed(path: str) -> Closed:
    return Closed(f"the store on {path} is closed; open it again")
