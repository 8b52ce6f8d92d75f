"""Tests written once for `Store` run on `AsyncStore` too: an adapter that drives it from blocking code, and what the
fixtures of a family's tests are made of: a clock that a test moves, a database that can be opened again and twice.
"""

import asyncio
import functools
import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, TypeVar

from ..core.operation import iteration, operation, procedure, reading

R = TypeVar("R")

PATIENCE = 60.0
"""Seconds after which an answer of the event loop counts as lost. Never waited for when all is well."""

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
"""What a `ManualClock` says first."""

_DESCRIBED = (operation, reading, procedure, iteration)
_CALLBACKS = {"transact": (0, "function"), "memo": (3, "compute"), "watch": (1, "handler")}
"""Where a method takes a function that is a coroutine function on `AsyncStore`."""


class ManualClock:
    """A clock whose time of day moves only when a test says so.

    `monotonic` runs with the machine's (and is moved too), so that a time-out in real seconds still ends.
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._moved = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return time.monotonic() + self._moved

    def advance(self, seconds: float) -> datetime:
        """Move on (or back, with a negative number), and give the new time of day."""
        self._now += timedelta(seconds=seconds)
        self._moved += max(0.0, seconds)
        return self._now


class LoopThread:
    """An event loop in a thread of its own, for blocking code."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="stateroom-test-loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine in a task of its own."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("called from the event loop itself: use the asynchronous face here")
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def close(self) -> None:
        """End what still runs there, then the loop."""
        if self.loop.is_closed():
            return
        self.run(self._drain())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()

    async def _drain(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()


class Driven:
    """An object of the asynchronous face as the blocking face looks: coroutines are run, iterators iterated.

    A function that it takes (``transact``) is an ordinary one: it runs in a thread and is given driven objects.
    """

    def __init__(self, target: Any, thread: LoopThread, *, owns: bool = False) -> None:
        self.target = target
        """What is driven."""
        self.thread = thread
        self._owns = owns

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self.target, name)
        if not callable(value) or _is_driven(value):
            return self._adapt(value)

        def call(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = self._callbacks(name, args, kwargs)
            return self._adapt(value(*args, **kwargs))

        return call

    def __repr__(self) -> str:
        return f"<driven {self.target!r}>"

    def close(self) -> None:
        """As the target's; ends the event loop with it where it was made for it alone."""
        try:
            self._adapt(self.target.close())
        finally:
            if self._owns:
                self.thread.close()

    def __enter__(self) -> Any:
        return self._adapt(self.thread.run(_enter(self.target)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        return self.thread.run(_exit(self.target, kind, error, trace))

    def _adapt(self, value: Any) -> Any:
        if inspect.iscoroutine(value):
            return self._adapt(self.thread.run(value))
        if isinstance(value, AsyncIterator) and not hasattr(value, "read"):  # a file is driven as a file
            return self._iterate(value)
        return Driven(value, self.thread) if _is_driven(value) else value

    def _iterate(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        try:
            while True:
                try:
                    item = self.thread.run(_next(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                with suppress(RuntimeError):  # the loop may be gone when a forgotten iterator is collected
                    self.thread.run(close())

    def _callbacks(self, name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        place, word = _CALLBACKS.get(name, (len(args), ""))
        if len(args) > place:
            args = (*args[:place], self._as_coroutine(args[place]), *args[place + 1 :])
        elif word in kwargs:
            kwargs = {**kwargs, word: self._as_coroutine(kwargs[word])}
        return args, kwargs

    def _as_coroutine(self, function: Any) -> Any:
        if not callable(function) or inspect.iscoroutinefunction(function):
            return function

        @functools.wraps(function)  # whoever looks at its signature must see the function's
        async def run(*args: Any) -> Any:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(None, lambda: function(*map(self._adapt, args)))

        return run


def _is_driven(value: Any) -> bool:
    """Say whether an object has coroutines to call."""
    kind = type(value)
    if not kind.__module__.startswith("stateroom") or isinstance(value, type | BaseException):
        return False
    if hasattr(kind, "__aenter__") or hasattr(kind, "transaction"):
        return True
    members = (inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_"))
    return any(
        isinstance(member, _DESCRIBED) or inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
        for member in members
    )


async def _enter(target: Any) -> Any:
    return await target.__aenter__()


async def _exit(target: Any, *error: Any) -> Any:
    return await target.__aexit__(*error)


async def _next(items: AsyncIterator[Any]) -> Any:
    return await items.__anext__()


def drive(opening: Callable[[], Coroutine[Any, Any, Any]], thread: LoopThread | None = None) -> Any:
    """Open an `AsyncStore` and give it as a `Store` looks; without a thread it brings one, ended by its ``close``."""
    used = thread or LoopThread()
    return Driven(used.run(opening()), used, owns=thread is None)
