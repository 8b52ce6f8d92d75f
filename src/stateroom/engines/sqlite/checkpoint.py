"""Copies the log into the database beside the commits, never on their path."""

import logging
import threading
from queue import SimpleQueue

import apsw

from ...errors import StoreError
from ..interrupts import Lock
from .connections import Connections

__all__ = ["Checkpoints"]

_log = logging.getLogger("stateroom.sqlite")

STEP_PAGES = 1000
"""Pages the log grows by between two checkpoints."""

LOG_PAGES = 4000
"""Pages (of 4 KiB) from which writers pause for the rest, so that the log starts anew under load without end."""

RESTART_MS = 50
"""How long that pause may wait for readers and for other processes; then the next step tries again."""


class Checkpoints:
    """A thread, started when the log is first long enough."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.lock = Lock()
        """The writer's; set by the engine."""
        self._thread: threading.Thread | None = None
        self._next = STEP_PAGES
        self._stopped = False
        self._due: SimpleQueue[None] = SimpleQueue()  # an Event's lock could be left locked by an interrupt

    def logged(self, pages: int) -> None:
        """Called after each group of commits with the length of the log."""
        if pages < self._next - STEP_PAGES:
            self._next = STEP_PAGES
        if pages >= self._next:
            self._next = pages + STEP_PAGES
            self._due.put(None)
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._serve, name="stateroom-sqlite-checkpoint", daemon=True)
                self._thread.start()

    def close(self, *, wait: bool) -> None:
        """End the thread; `wait`: until the checkpoint it may be in is over."""
        self._stopped = True
        self._due.put(None)
        if wait and self._thread is not None:
            self._thread.join()

    def after_fork_in_child(self) -> None:
        """A thread does not live on in a child."""
        self._due = SimpleQueue()
        self._thread = None

    def run(self) -> None:
        """One checkpoint now."""
        try:
            connection = self._connections.open()
            try:
                pages, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                if pages >= LOG_PAGES:
                    with self.lock:
                        connection.set_busy_timeout(RESTART_MS)
                        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            finally:
                connection.close()
        except (apsw.BusyError, apsw.LockedError, apsw.ConnectionClosedError, apsw.ThreadingViolationError):
            return  # readers, another process or a fork are in the way: the log grows on and the next step asks again
        except (apsw.Error, StoreError) as error:
            _log.warning("%s: checkpoint failed, the log is kept: %s", self._connections.path, error)

    def _serve(self) -> None:
        due = self._due
        while True:
            due.get()
            if self._stopped:
                return
            self.run()
