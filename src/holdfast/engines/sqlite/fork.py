"""No SQLite connection crosses a fork.

SQLite keeps the locks of a file once per process, in memory that a child copies without having the locks: a connection
opened there would run unlocked, and the last process to close the file could remove the log under it. So whoever forks
first waits for the running commit and closes every connection; parent and child open fresh ones at their next use.
"""

import os
import weakref
from typing import Protocol

from .opening import gate

__all__ = ["guard"]


class Forking(Protocol):
    """What takes part in a fork."""

    def before_fork(self) -> None: ...
    def after_fork(self, *, child: bool) -> None: ...


_guarded: "weakref.WeakSet[Forking]" = weakref.WeakSet()
_held: list[Forking] = []


def guard(engine: Forking) -> None:
    """Have `engine` take part in every fork from now on."""
    with gate:
        _guarded.add(engine)


def _before() -> None:
    for engine in list(_guarded):
        engine.before_fork()
        _held.append(engine)


def _after(child: bool) -> None:
    while _held:
        _held.pop().after_fork(child=child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=lambda: _after(False), after_in_child=lambda: _after(True))
