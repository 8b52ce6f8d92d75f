"""No SQLite connection crosses a fork.

SQLite keeps the locks of a file once per process, in memory that a child copies without having the locks: a connection
opened there would run unlocked, and the last process to close the file could remove the log under it. So whoever forks
first waits for the running commit and closes every connection; parent and child open fresh ones at their next use.
"""

import os
import weakref
from typing import Protocol

from .opening import gate

__all__ = ["Forking", "guard"]


class Forking(Protocol):
    """A participant of a fork."""

    def hold(self) -> None:
        """Let the running work end and no other begin."""

    def part_with(self) -> None:
        """Close what a child must not inherit. Nobody can open anything now."""

    def go_on(self, *, child: bool) -> None:
        """Undo `hold`; in the child forget what only the parent has."""


_guarded: "weakref.WeakSet[Forking]" = weakref.WeakSet()
_held: list[Forking] = []


def guard(engine: Forking) -> None:
    """Have `engine` take part in every fork from now on."""
    with gate:
        _guarded.add(engine)


def _before() -> None:
    while True:
        # Engines first, the gate last: whoever holds an engine's lock may be waiting for the gate.
        for engine in _missing():
            _held.append(engine)
            engine.hold()
        gate.acquire()
        if not _missing():
            break
        gate.release()
    for engine in _held:
        engine.part_with()


def _missing() -> list[Forking]:
    return [engine for engine in list(_guarded) if engine not in _held]


def _after(child: bool) -> None:
    gate.release()
    while _held:
        _held.pop().go_on(child=child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=lambda: _after(False), after_in_child=lambda: _after(True))
