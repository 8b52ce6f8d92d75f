"""Wait for something to come up in a namespace: woken by commits, and by the time that the look itself names."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from ..core.namespace import Scope

R = TypeVar("R")

_LONGEST = 10.0
"""Seconds after which it is looked again in any case: a time of day may have been set."""

_GAPS = (0.0, 0.0, 0.002, 0.005, 0.01, 0.02, 0.05)
"""Seconds between looks that gave nothing although something was committed: who waits beside a busy writer must not
cost as much as the writer does.
"""


class Look(NamedTuple):
    """The outcome of a look, and after how many seconds another may give more without any commit; None: never."""

    result: Any
    retry_in: float | None = None


async def until(scope: Scope, name: str | None, look: Callable[[], Awaitable[Look]], seconds: float) -> Any:
    """The first result of `look` that is not empty, or the last one when the time is over.

    `name`: only commits to its part matter; None: those to any part.
    """
    part = None if name is None else scope.part(name)
    clock = scope.clock
    deadline = clock.monotonic() + seconds
    fruitless = 0
    while True:
        version = await _version(scope, part) if seconds else 0
        outcome = await look()
        remaining = deadline - clock.monotonic()
        if outcome.result or remaining <= 0:
            return outcome.result
        pause = min(remaining, _LONGEST)
        if outcome.retry_in is not None:
            pause = min(pause, max(outcome.retry_in, 0.0005))
        started = clock.monotonic()
        await scope.engine.wait(part, version, pause)
        fruitless = 0 if clock.monotonic() - started > 1.0 else min(fruitless + 1, len(_GAPS) - 1)
        await scope.pause(min(_GAPS[fruitless], remaining))


async def _version(scope: Scope, part: int | None) -> int:
    parts = range(scope.parts) if part is None else (part,)
    rows = await scope.reader.read_many([(number, (b"",)) for number in parts])
    return sum(row.version for (row,) in rows if row is not None)


async def undone_if_cancelled(scope: Scope, work: Coroutine[Any, Any, R], undo: Callable[[R], Awaitable[Any]]) -> R:
    """Return what `work` gives; where the caller is cancelled meanwhile, what it took is given back before that is
    told.

    A commit that was handed over goes on whatever becomes of its caller: a lease taken so would have no holder.
    """
    if not scope.suspends:
        return await work
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        cleaning = asyncio.ensure_future(_undo(task, undo))
        _cleaning.add(cleaning)
        cleaning.add_done_callback(_cleaning.discard)
        await asyncio.shield(cleaning)
        raise


async def _undo(task: "asyncio.Future[R]", undo: Callable[[R], Awaitable[Any]]) -> None:
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    if not isinstance(outcome, BaseException):
        await undo(outcome)


_cleaning: set["asyncio.Future[None]"] = set()
"""Clean-ups under way: the event loop itself holds them weakly."""
