"""Errors of handlers in the log: enough to find the cause, and never a flood."""

import logging
import math

from ..clock import Clock
from ..feed.feed import Change

log = logging.getLogger("stateroom.watch")

EVERY_SECONDS = 60.0
"""How often a watcher says that its handler goes on failing."""

_TYPES = 16
"""Types of errors of which the first is logged with its traceback."""


class Complaints:
    """The log of one watcher's handler: the first error of each type with its traceback, then a line a minute."""

    def __init__(self, watcher: str, clock: Clock) -> None:
        self._watcher = watcher
        self._clock = clock
        self._types: set[type[BaseException]] = set()
        self._said = -math.inf
        self._unsaid = 0

    def handler_raised(self, change: Change, error: BaseException, calls: int) -> None:
        """Log what a handler raised at a change, of which it was the call number `calls`."""
        now = self._clock.monotonic()
        first = type(error) not in self._types and len(self._types) < _TYPES
        if not first and now - self._said < EVERY_SECONDS:
            self._unsaid += 1
            return
        summary = f"; {self._unsaid} errors since the last line" if self._unsaid else ""
        log.error(
            "the handler of watcher %r raised %s at %s %s %r, call %d%s",
            self._watcher, type(error).__name__, change.op, change.family, change.id, calls,
            summary or ("" if first else f": {error}"), exc_info=error if first else None,
        )  # fmt: skip
        self._types.add(type(error))
        self._said, self._unsaid = now, 0
