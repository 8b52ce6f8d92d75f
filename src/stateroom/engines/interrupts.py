"""Interrupted calls: what they may leave behind, and whose error an exception is.

An exception may come up at any line of the main thread: Ctrl-C, or whatever the handler of a signal raises. The handler
itself runs in the middle of whatever that thread is doing, and may call the engine. So a lock that is taken on the way
of a commit can be taken again by its owner, and is given back by whoever sees the exception pass.
"""

import os
from _thread import RLock
from types import TracebackType
from typing import Any

__all__ = ["Lock", "is_foreign"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class Lock(RLock):  # type: ignore[misc] # final in the stubs alone: it takes subclasses
    """A lock that its owner may take again, and that knows whether this thread has it.

    In Python code, as a Condition's or an Event's, an exception may come between taking a lock and knowing so; here
    both are one call in C.
    """

    @property
    def owned(self) -> bool:
        """True in a call that a signal's handler makes in the middle of another one, or after an interrupt."""
        owner: Any = self
        return bool(owner._is_owned())

    def locked(self) -> bool:
        """Say whether any thread has it."""
        if self.owned:
            return True
        if self.acquire(blocking=False):
            self.release()
            return False
        return True

    def give_back(self, *, nested: bool) -> None:
        """Release what an exception left with this thread, unless a frame further out has it (`nested`).

        ``with lock:`` does so itself, but for an exception between its last line and its end.
        """
        while not nested and self.owned:
            self.release()


def is_foreign(error: BaseException) -> bool:
    """Say whether an exception came up outside of this package, as in the handler of a signal that ran in its
    middle.
    """
    if not isinstance(error, Exception):
        return True
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith(_PACKAGE) and not name.endswith(".c"):  # apsw adds frames for its own sources
            return True
        trace = trace.tb_next
    return False
