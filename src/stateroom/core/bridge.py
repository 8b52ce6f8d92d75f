"""Ways to run the one asynchronous core on a blocking engine."""

import asyncio
import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from ..engine import Batch, Distant, Engine, Gathering, Instant, Outcome, Range, Reporting, Row, Submitting
from ..engines.interrupts import Lock
from ..errors import Closed, StoreError

R = TypeVar("R")

_THREADS = 8
"""Calls that block at the same time, beside the loop."""

_TURN_BYTES = 1 << 20
"""What may be read in place before other tasks have their turn: a few milliseconds of work."""

_ROW_BYTES, _COMMIT_BYTES = 500, 10_000
"""What a row, and a commit in place, cost beside their values, as bytes of value that take as long."""

_HUB_SECONDS = 1.0
"""How long the waiting thread stays in one call of the engine; it ends when nobody waits any more."""


def run_now(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine that never suspends, which on a blocking engine none does."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: R = stop.value
        return result
    work.close()
    raise RuntimeError("an operation on a blocking engine may await nothing but its transaction")


def iterate_now(items: AsyncIterator[R]) -> Iterator[R]:
    """Iterate over an asynchronous generator that never suspends."""
    while True:
        try:
            item = run_now(_next(items))
        except StopAsyncIteration:
            return
        yield item


async def _next(items: AsyncIterator[R]) -> R:
    return await items.__anext__()


class Inline:
    """A blocking engine, called in place: its coroutines never suspend."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.parts = engine.parts

    async def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        return self.engine.read(part, keys)

    async def scan(
        self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        return self.engine.scan(part, start, stop, limit=limit, reverse=reverse)

    async def commit(self, part: int, batch: Batch, /) -> int:
        return self.engine.commit(part, batch)

    async def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        self.engine.wait(part, version, timeout)

    async def close(self) -> None:
        self.engine.close()


class Threaded(Inline):
    """A blocking engine for event loops: reads in place; what blocks leaves the loop.

    Commits go to the engine's own writer where it has one (`Submitting`), and the loop is woken once for all that one
    group commit finished. Any number of waiting tasks share one thread.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._submitting = engine if isinstance(engine, Submitting) else None
        self._instant = isinstance(engine, Instant) and not engine.blocks and not _is_distant(engine)
        self._closed = False
        self._served = 0
        self.start_in_child()
        _bridges.add(self)

    def start_in_child(self) -> None:
        """Have no thread, no task and no loop wait: none of the parent's is in a process that was forked off."""
        self._threads: ThreadPoolExecutor | None = None
        self._deliveries: dict[asyncio.AbstractEventLoop, _Delivery] = {}
        self._hub = _Hub(self.engine)

    async def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        rows = self.engine.read(part, keys)
        self._served += sum([_ROW_BYTES + len(row.value) for row in rows if row is not None])
        if self._served > _TURN_BYTES:
            await self._yield()
        return rows

    async def scan(
        self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        rows = self.engine.scan(part, start, stop, limit=limit, reverse=reverse)
        self._served += sum([_ROW_BYTES + len(row.value) for row in rows])
        if self._served > _TURN_BYTES:
            await self._yield()
        return rows

    async def _yield(self) -> None:
        """Let the loop run others: what is done in place has taken some milliseconds since it last could."""
        self._served = 0
        await asyncio.sleep(0)

    async def commit(self, part: int, batch: Batch, /) -> int:
        if self._instant:
            self._served += _COMMIT_BYTES
            if self._served > _TURN_BYTES:
                await self._yield()
            return self.engine.commit(part, batch)
        if self._submitting is None:
            return await self._aside(self.engine.commit, part, batch)
        loop = asyncio.get_running_loop()
        delivery = self._deliveries.get(loop)
        if delivery is None:
            self._deliveries = {
                bound_loop: deliverer
                for bound_loop, deliverer in self._deliveries.items()
                if not bound_loop.is_closed()
            }
            delivery = self._deliveries[loop] = _Delivery(loop)
        return await delivery.submit(self._submitting, part, batch)

    async def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not await self._passed(part, version):
            remaining = deadline - loop.time()
            if remaining <= 0:
                return
            await self._hub.change(loop, part, version, remaining, self._passed)

    async def _passed(self, part: int | None, version: int) -> bool:
        return self._hub.passed(part, version)

    async def _aside(self, call: Callable[..., R], *arguments: Any) -> R:
        """Make a call that blocks in another thread."""
        if self._closed:
            raise Closed("the store is closed")
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "stateroom-aside")
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    async def close(self) -> None:
        self._closed = True
        if self._instant:
            self.engine.close()
        else:  # it waits for the commit that is under way, and copies the log into the file
            await asyncio.to_thread(self.engine.close)
        self._hub.wake_all()
        if self._threads is not None:
            self._threads.shutdown(wait=False)


class Remote(Threaded):
    """A blocking engine whose reads are round trips: they leave the loop as well."""

    distant = True

    async def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        return await self._aside(self.engine.read, part, keys)

    async def scan(
        self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        return await self._aside(partial(self.engine.scan, part, start, stop, limit=limit, reverse=reverse))

    async def read_many(self, requests: Sequence[tuple[int, Sequence[bytes]]], /) -> list[list[Row | None]]:
        if isinstance(self.engine, Gathering):
            return await self._aside(self.engine.read_many, requests)
        return [await self.read(part, keys) for part, keys in requests]

    async def scan_many(self, ranges: Sequence[Range], /) -> list[list[Row]]:
        if isinstance(self.engine, Gathering):
            return await self._aside(self.engine.scan_many, ranges)
        return [await self.scan(part, start, stop, limit=limit) for part, start, stop, limit in ranges]

    async def passed(self, part: int | None, version: int, timeout: float, /) -> bool:
        """As `wait`, and whether the version was passed; True where the engine cannot say."""
        await self.wait(part, version, timeout)
        return not isinstance(self.engine, Reporting) or await self._passed(part, version)

    async def _passed(self, part: int | None, version: int) -> bool:
        return await self._aside(self._hub.passed, part, version)


def _is_distant(engine: Engine) -> bool:
    return isinstance(engine, Distant) and engine.distant


def bridged(engine: Engine) -> tuple[Threaded, Engine | None]:
    """A blocking engine for an event loop, and the engine itself where it may be read in place."""
    if _is_distant(engine):
        return Remote(engine), None
    return Threaded(engine), engine


class _Delivery:
    """Brings outcomes of a writer thread to one event loop, waking it once for all that came together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Without a lock: whoever is interrupted, or handles a signal, in the middle of this leaves nothing locked.
        self._done: deque[tuple[asyncio.Future[int], Outcome]] = deque()
        self._woken = False

    async def submit(self, engine: Submitting, part: int, batch: Batch) -> int:
        future: asyncio.Future[int] = self._loop.create_future()

        def done(outcome: Outcome) -> None:
            self._done.append((future, outcome))
            if not self._woken:
                self._woken = True
                with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits in it
                    self._loop.call_soon_threadsafe(self._deliver)

        engine.submit(part, batch, done)
        # A commit that was handed over cannot be called back: a cancelled caller leaves, the commit goes on.
        return await future

    def _deliver(self) -> None:
        self._woken = False  # before the first look: what comes after it wakes again
        while self._done:
            future, outcome = self._done[0]
            if future.done():
                pass
            elif isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
            self._done.popleft()  # after it was told: an interrupt in between must not lose it


class _Hub:
    """One thread that waits on the engine for all tasks that wait; it runs only while somebody does."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._waiting: dict[asyncio.Future[None], tuple[asyncio.AbstractEventLoop, int | None, int]] = {}
        self._running = False

    def passed(self, part: int | None, version: int) -> bool:
        if isinstance(self._engine, Reporting):  # which may know without asking the server
            return bool(self._engine.passed(part, version, 0))
        return self._version(part) > version

    async def change(
        self,
        loop: asyncio.AbstractEventLoop,
        part: int | None,
        version: int,
        timeout: float,
        passed: Callable[[int | None, int], Awaitable[bool]],
    ) -> None:
        """Return when the part may have moved past `version`, or after `timeout` seconds."""
        future: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(timeout, _resolve, future)
        with self._lock:
            self._waiting[future] = (loop, part, version)
            start, self._running = not self._running, True
        if start:
            threading.Thread(target=self._run, name="stateroom-wait", daemon=True).start()
        try:
            # A commit between the caller's look and the registration would otherwise be slept through.
            if not await passed(part, version):
                await future
        finally:
            timer.cancel()
            with self._lock:
                self._waiting.pop(future, None)

    def _moved(self, seen: int) -> bool:
        """Wait for a while; False where the sum of all versions is certainly still `seen`."""
        if isinstance(self._engine, Reporting):
            return bool(self._engine.passed(None, seen, _HUB_SECONDS))
        self._engine.wait(None, seen, _HUB_SECONDS)
        return True

    def wake_all(self) -> None:
        with self._lock:
            waiting = list(self._waiting.items())
        for future, (loop, _, _) in waiting:
            _wake(loop, future)

    def _version(self, part: int | None) -> int:
        parts = range(self._engine.parts) if part is None else (part,)
        engine = self._engine
        if isinstance(engine, Gathering):
            answers = engine.read_many([(number, (b"",)) for number in parts])
        else:
            answers = [engine.read(number, (b"",)) for number in parts]
        return sum(row.version for (row,) in answers if row is not None)

    def _run(self) -> None:
        total: int | None = None
        try:
            while True:
                if total is None:
                    total = self._version(None)
                with self._lock:
                    if not self._waiting:
                        self._running = False
                        return
                    waiting = list(self._waiting.items())
                outcomes: dict[tuple[int | None, int], bool] = {}
                for future, (loop, part, version) in waiting:
                    if (part, version) not in outcomes:
                        outcomes[part, version] = self.passed(part, version)
                    if outcomes[part, version]:
                        _wake(loop, future)
                if self._moved(total):
                    total = None
        except BaseException as error:  # closed, or away for a while: whoever waits looks for himself, and is told
            with self._lock:
                self._running = False  # first, so that who comes to wait from now on starts this again
            self.wake_all()
            if not isinstance(error, StoreError):
                raise


_bridges: "weakref.WeakSet[Threaded]" = weakref.WeakSet()


def _after_fork() -> None:
    for bridge in list(_bridges):
        bridge.start_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _wake(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[None]") -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed
        loop.call_soon_threadsafe(_resolve, future)
