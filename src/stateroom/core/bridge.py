"""Ways to run the one asynchronous core on a blocking engine."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from ..engine import Batch, Engine, Gathering, Outcome, Range, Row, Submitting
from ..errors import Closed, StoreError

R = TypeVar("R")

_THREADS = 8
"""Calls that block at the same time, beside the loop."""

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
        self._instant = not getattr(engine, "blocks", True)
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False
        self._deliveries: dict[asyncio.AbstractEventLoop, _Delivery] = {}
        self._hub = _Hub(engine)

    async def commit(self, part: int, batch: Batch, /) -> int:
        if self._instant:
            return self.engine.commit(part, batch)
        if self._submitting is None:
            return await self._aside(self.engine.commit, part, batch)
        loop = asyncio.get_running_loop()
        delivery = self._deliveries.get(loop)
        if delivery is None:
            self._deliveries = {known: kept for known, kept in self._deliveries.items() if not known.is_closed()}
            delivery = self._deliveries[loop] = _Delivery(loop)
        return await delivery.submit(self._submitting, part, batch)

    async def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not await self._passed(part, version):
            left = deadline - loop.time()
            if left <= 0:
                return
            await self._hub.change(loop, part, version, left, self._passed)

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
        self.engine.close()
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

    async def _passed(self, part: int | None, version: int) -> bool:
        return await self._aside(self._hub.passed, part, version)


def bridged(engine: Engine) -> tuple[Threaded, Engine | None]:
    """A blocking engine for an event loop, and the engine itself where it may be read in place."""
    if getattr(engine, "distant", False):
        return Remote(engine), None
    return Threaded(engine), engine


class _Delivery:
    """Brings outcomes of a writer thread to one event loop, waking it once for all that came together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._done: list[tuple[asyncio.Future[int], Outcome]] = []

    async def submit(self, engine: Submitting, part: int, batch: Batch) -> int:
        future: asyncio.Future[int] = self._loop.create_future()

        def done(outcome: Outcome) -> None:
            with self._lock:
                self._done.append((future, outcome))
                wake = len(self._done) == 1
            if wake and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._deliver)

        engine.submit(part, batch, done)
        # A commit that was handed over cannot be called back: a cancelled caller leaves, the commit goes on.
        return await future

    def _deliver(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        for future, outcome in done:
            if future.cancelled():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


class _Hub:
    """One thread that waits on the engine for all tasks that wait; it runs only while somebody does."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.Future[None], tuple[asyncio.AbstractEventLoop, int | None, int]] = {}
        self._running = False

    def passed(self, part: int | None, version: int) -> bool:
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

    def wake_all(self) -> None:
        with self._lock:
            waiting = list(self._waiting.items())
        for future, (loop, _, _) in waiting:
            _wake(loop, future)

    def _version(self, part: int | None) -> int:
        parts = range(self._engine.parts) if part is None else (part,)
        engine = self._engine
        if isinstance(engine, Gathering):
            found = engine.read_many([(each, (b"",)) for each in parts])
        else:
            found = [engine.read(each, (b"",)) for each in parts]
        return sum(row.version for (row,) in found if row is not None)

    def _run(self) -> None:
        try:
            while True:
                seen = self._version(None)
                with self._lock:
                    if not self._waiting:
                        self._running = False
                        return
                    waiting = list(self._waiting.items())
                versions: dict[int | None, int] = {}
                for future, (loop, part, version) in waiting:
                    if part not in versions:
                        versions[part] = self._version(part)
                    if versions[part] > version:
                        _wake(loop, future)
                self._engine.wait(None, seen, _HUB_SECONDS)
        except BaseException as error:  # closed, or away for a while: whoever waits looks for himself, and is told
            with self._lock:
                self._running = False  # first, so that who comes to wait from now on starts this again
            self.wake_all()
            if not isinstance(error, StoreError):
                raise


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _wake(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[None]") -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(_resolve, future)
