"""Waiting for a part to move on, in this process or another."""

import threading
import time
from collections.abc import Callable

from .interrupts import Lock

__all__ = ["POLL_SECONDS", "Waiters"]

POLL_SECONDS = 0.035
"""How often one of the waiters asks whether another process has committed. It costs under 1 % of a core."""


class Waiters:
    """Threads that wait. A commit of this process wakes them at once; one of them looks out for other processes."""

    def __init__(self, version: Callable[[int | None], int], foreign: Callable[[], int]) -> None:
        """`version` reads how far a part is; `foreign`, per thread, changes when others commit."""
        self._version = version
        self._foreign = foreign
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """None of the parent's waiters is here."""
        # The lock is entered itself: a Condition's `__enter__` is Python code, in which an interrupt leaves it locked.
        self._lock = Lock()
        self._changed = threading.Condition(self._lock)
        self._tick = 0
        self._present: set[object] = set()
        self._poller: object | None = None

    @property
    def _waiting(self) -> int:
        return len(self._present)

    @property
    def _polled(self) -> bool:
        return self._poller is not None

    def wake(self) -> None:
        """Something was committed, or the engine was closed."""
        if not self._present:
            return
        nested = self._lock.owned
        try:
            with self._lock:
                self._tick += 1
                self._changed.notify_all()
        except BaseException:
            self._lock.give_back(nested=nested)
            raise

    def wait(self, part: int | None, version: int, timeout: float) -> None:
        """Return once `part` is past `version`, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        nested = self._lock.owned
        me = object()
        try:
            self._present.add(me)  # before the first look: whoever commits after it sees somebody waiting
            while True:
                tick, foreign = self._tick, self._foreign()
                if self._version(part) > version:
                    return
                if not self._sleep(me, tick, foreign, deadline) or self._version(part) > version:
                    return
        finally:
            self._lock.give_back(nested=nested)
            self._present.discard(me)

    def _sleep(self, me: object, tick: int, foreign: int, deadline: float) -> bool:
        """Until the tick moves on; False when the time is up."""
        try:
            with self._lock:
                if self._poller is None:
                    self._poller = me
            if self._poller is me:
                return self._poll(tick, foreign, deadline)
        finally:
            if self._poller is me:
                with self._lock:
                    self._poller = None
                    self._changed.notify_all()  # another waiter takes over
        with self._lock:
            while self._tick == tick and self._polled:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._changed.wait(remaining)
            return True

    def _poll(self, tick: int, foreign: int, deadline: float) -> bool:
        """The same, and look out for other processes."""
        while True:
            with self._lock:
                if self._tick != tick:
                    return True
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                notified = self._changed.wait(min(remaining, POLL_SECONDS))
            if not notified and self._foreign() != foreign:
                self.wake()
                return True
