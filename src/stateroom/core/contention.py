"""Retry after a conflict, fairly: those of one process that met in one root go on one after another.

Without a line sixty-four callers of one record all read, all commit, and sixty-three of them are refused, again and
again. Whoever was refused once joins its root's line here and runs again when its turn comes; nobody who meets no
conflict ever looks at a line. Other processes are met with jitter alone.
"""

import asyncio
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING
from weakref import WeakSet

from ..errors import Conflict, Unavailable
from ..limits import RETRY_SECONDS, TRIES

if TYPE_CHECKING:
    from .namespace import Scope

_PATIENCE = 1.0
"""Seconds to wait for a turn: whoever is in front may have been suspended for good."""

_in_front: ContextVar[frozenset[str]] = ContextVar("stateroom_in_front", default=frozenset())
"""Roots in whose line this task or thread is in front: what it does there meanwhile does not queue behind itself."""


class Turn:
    """A place in a line."""

    def __init__(self, line: "deque[Turn]") -> None:
        self.line = line
        self.event = threading.Event()
        self._wake: Callable[[], object] | None = None

    def go(self) -> None:
        """Say that the turn has come."""
        self.event.set()
        wake = self._wake
        if wake is not None:
            wake()

    def wait(self, seconds: float) -> None:
        """Wait in this thread until the turn has come, or so long."""
        self.event.wait(seconds)

    async def wait_async(self, seconds: float) -> None:
        """Wait on the event loop until the turn has come, or so long."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed: nobody waits there any more
                loop.call_soon_threadsafe(woken.set)

        self._wake = wake
        if not self.event.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), seconds)


class Lines:
    """The lines of a namespace's roots; empty ones are not kept."""

    def __init__(self) -> None:
        self._reset()
        _every.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, deque[Turn]] = {}

    def join(self, root: str) -> Turn:
        """Take the last place in a root's line."""
        with self._lock:
            turn = Turn(self._lines.setdefault(root, deque()))
            turn.line.append(turn)
            if turn.line[0] is turn:
                turn.event.set()
            return turn

    def leave(self, root: str, turn: Turn) -> None:
        """Give the place up; the next one in the line goes on."""
        with self._lock:
            if turn in turn.line:
                turn.line.remove(turn)
            front = turn.line[0] if turn.line else None
            if front is None and self._lines.get(root) is turn.line:
                del self._lines[root]
        if front is not None:
            front.go()


_every: "WeakSet[Lines]" = WeakSet()


def _forget_lines() -> None:
    for lines in _every:
        lines._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lines)  # whoever stood in line stays in the parent


class Attempts:
    """The attempts of one operation: how long it has tried, and its place in the line."""

    def __init__(self, scope: "Scope", limit: float = RETRY_SECONDS) -> None:
        self._scope = scope
        self._limit = limit
        self._count = 0
        self._started = scope.clock.monotonic(), time.monotonic()
        self._root = ""
        self._turn: Turn | None = None
        self._token: object = None

    async def pause(self, root: str, error: Conflict) -> None:
        """Wait before the next attempt. Raises `Unavailable` once the operation has tried for its time."""
        self._count += 1
        start, real = self._started
        # An injected clock may stand still, or jump: then real time, or a number of attempts, has a say.
        late = self._count >= TRIES and self._scope.clock.monotonic() - start >= self._limit
        if late or time.monotonic() - real >= self._limit:
            raise Unavailable(
                f"{self._count} attempts in {self._limit:g} s met other writers each time: nothing was changed;"
                " try again, or let fewer write to one record at once",
                retry=True,
            ) from error
        if self._turn is None and root not in _in_front.get():
            self._root, self._turn = root, self._scope.lines.join(root)
            if self._scope.suspends:
                await self._turn.wait_async(_PATIENCE)
            else:
                self._turn.wait(_PATIENCE)
            self._token = _in_front.set(_in_front.get() | {root})
        else:
            await self._scope.pause(backoff(self._count))

    def end(self) -> None:
        """Leave the line."""
        if self._turn is not None:
            self._scope.lines.leave(self._root, self._turn)
            _in_front.set(_in_front.get() - {self._root})
            self._turn = None


def backoff(attempt: int) -> float:
    """Seconds before attempt number `attempt` + 1: the first repeat at once, then jitter up to 50 ms."""
    return 0.0 if attempt < 2 else random.uniform(0, min(0.0005 * 2 ** min(attempt, 10), 0.05))
