"""Waiting for a part to move on, in this process or another."""

import threading
import time
from collections.abc import Callable

__all__ = ["POLL_SECONDS", "Waiters"]

POLL_SECONDS = 0.035
"""How often one of the waiters asks SQLite whether another process has committed. It costs under 1 % of a core."""


class Waiters:
    """Those who wait. A commit of this process wakes them at once; one of them looks out for other processes."""

    def __init__(self, version: Callable[[int | None], int], foreign: Callable[[], int]) -> None:
        """`version` reads how far a part is; `foreign`, per thread, changes when others commit."""
        self._version = version
        self._foreign = foreign
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """None of the parent's waiters is here."""
        self._changed = threading.Condition()
        self._tick = 0
        self._waiting = 0
        self._polled = False

    def wake(self) -> None:
        """Something was committed, or the engine was closed."""
        if self._waiting:
            with self._changed:
                self._tick += 1
                self._changed.notify_all()

    def wait(self, part: int | None, version: int, timeout: float) -> None:
        """Return once `part` is past `version`, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._waiting += 1  # before the first look: whoever commits after it sees somebody waiting
        try:
            while True:
                tick, seen = self._tick, self._foreign()
                if self._version(part) > version:
                    return
                if not self._sleep(tick, seen, deadline) or self._version(part) > version:
                    return
        finally:
            with self._changed:
                self._waiting -= 1

    def _sleep(self, tick: int, seen: int, deadline: float) -> bool:
        """Until the tick moves on; False when the time is up."""
        with self._changed:
            lead, self._polled = not self._polled, True
        if lead:
            try:
                return self._poll(tick, seen, deadline)
            finally:
                with self._changed:
                    self._polled = False
                    if self._waiting > 1:
                        self._changed.notify_all()  # another waiter takes over
        with self._changed:
            while self._tick == tick and self._polled:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._changed.wait(remaining)
            return True

    def _poll(self, tick: int, seen: int, deadline: float) -> bool:
        """The same, and look out for other processes."""
        while True:
            with self._changed:
                if self._tick != tick:
                    return True
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                told = self._changed.wait(min(remaining, POLL_SECONDS))
            if not told and self._foreign() != seen:
                self.wake()
                return True
