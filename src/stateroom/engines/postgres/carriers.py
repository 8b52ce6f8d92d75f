"""The carriers of a dialogue with the server: a thread that blocks, or a task of an event loop.

Everything above is written once, as coroutines over a carrier. Those of the blocking one never suspend, so that
`finish` runs them like a plain call.
"""

import _thread
import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import waiting
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .wire import Connection, RoundTrip

T = TypeVar("T")
Driver = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

LOOK_SECONDS = 0.2
"""How often who waits for another call looks for itself: an interrupt may have ended that without a word."""
INTERVAL = 0.1
"""Seconds after which a wait for the server looks for signals and at its deadline."""


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise RuntimeError("a blocking call was suspended")


class _Driver(psycopg.Connection[Any]):
    """A connection that ends without a word when nobody refers to it; in the process that made it alone."""

    def __del__(self, *_: object) -> None:
        return  # libpq's object closes itself; the driver would warn as well


class _AsyncDriver(psycopg.AsyncConnection[Any]):
    """The same, made by a task."""

    def __del__(self, *_: object) -> None:
        return


def _within(conninfo: str, seconds: int | None) -> str:
    """Return what libpq is told, with its own bound on connecting lowered to `seconds`."""
    bound = conninfo_to_dict(conninfo).get("connect_timeout") if seconds is not None else None
    if seconds is None or (bound is not None and int(bound) <= seconds):
        return conninfo
    return make_conninfo(conninfo, connect_timeout=seconds)


class Signal(Protocol):
    """An event that is set once, from any thread, and awaited by one."""

    def set(self) -> bool:
        """Wake whoever waits; False where nobody can be woken any more (its event loop has ended)."""
        ...

    async def wait(self, seconds: float) -> bool:
        """Return True once it is set, False when `seconds` are over."""
        ...


class Carrier(Protocol):
    """The way in which one face waits."""

    async def connect(self, conninfo: str, seconds: int | None) -> Driver:
        """Return a fresh connection of the driver; `seconds` bound it where the url's own bound is longer."""
        ...

    async def carry(self, connection: Connection, trip: RoundTrip, deadline: float | None) -> None:
        """Make a round trip. Raises `psycopg.OperationalError`."""
        ...

    def signal(self) -> Signal: ...

    def caller(self) -> int | None:
        """Return a number of the thread whose calls may be nested: a signal's handler runs in the middle of another
        call. None where a thread has many calls side by side.
        """
        ...

    async def apart(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run what also concerns others, so that it goes on where the caller is cancelled or interrupted."""
        ...


class Blocking:
    """For threads: every coroutine blocks and never suspends."""

    async def connect(self, conninfo: str, seconds: int | None) -> Driver:
        return _Driver.connect(_within(conninfo, seconds), autocommit=True)

    async def carry(self, connection: Connection, trip: RoundTrip, deadline: float | None) -> None:
        # Not the driver's own wait: that asks the server to cancel when it is interrupted, also a COMMIT.
        waiting.wait(trip.talk(connection, deadline), connection.pgconn.socket, INTERVAL)

    def signal(self) -> "ThreadSignal":
        return ThreadSignal()

    def caller(self) -> int | None:
        return threading.get_ident()

    async def apart(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if threading.current_thread() is not threading.main_thread():
            await work()
            return
        # Signals come to the main thread alone. What it does for others is done where none can come.
        over = ThreadSignal()
        # Not `Thread.start`, which waits: an interrupt there leaves a thread that never runs.
        _thread.start_new_thread(_finish_and_tell, (work, over))
        while not await over.wait(LOOK_SECONDS):
            pass


def _finish_and_tell(work: Callable[[], Coroutine[Any, Any, None]], over: "ThreadSignal") -> None:
    try:
        finish(work())
    finally:
        over.set()


class ThreadSignal:
    """A `Signal` for a thread."""

    __slots__ = ("_lock", "_set")

    def __init__(self) -> None:
        self._set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> bool:
        self._set = True
        with contextlib.suppress(RuntimeError):  # set before
            self._lock.release()
        return True

    async def wait(self, seconds: float) -> bool:
        if not self._set:
            self._lock.acquire(timeout=max(0.0, seconds))
        return self._set


class Asyncio:
    """For tasks of any event loop: each call uses the loop it runs in."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self, conninfo: str, seconds: int | None) -> Driver:
        return await _AsyncDriver.connect(_within(conninfo, seconds), autocommit=True)

    async def carry(self, connection: Connection, trip: RoundTrip, deadline: float | None) -> None:
        await waiting.wait_async(trip.talk(connection, deadline), connection.pgconn.socket, INTERVAL)

    def signal(self) -> "LoopSignal":
        return LoopSignal()

    def caller(self) -> int | None:
        return None

    async def apart(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)


class LoopSignal:
    """A `Signal` for a task of the event loop in which it was made."""

    __slots__ = ("_future", "_loop", "_set")

    def __init__(self) -> None:
        self._set = False
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None

    def set(self) -> bool:
        if self._set:
            return True
        self._set = True
        if asyncio._get_running_loop() is self._loop:
            self._wake()
            return True
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop is closed
            return False
        return True

    async def wait(self, seconds: float) -> bool:
        if not self._set:
            self._future = self._loop.create_future()
            timer = self._loop.call_later(max(0.0, seconds), self._wake)
            try:
                await self._future
            finally:
                timer.cancel()
                self._future = None
        return self._set

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
