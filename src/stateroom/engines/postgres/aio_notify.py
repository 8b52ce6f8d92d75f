"""Hints for an event loop; `notify.py` says why and how."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import psycopg

from stateroom.errors import Closed, StoreError

from .aio_pool import AsyncLink
from .notify import DEAF_SECONDS, FIRST_POLL, HINT_EVERY, LAST_POLL, LINGER, Board, collect
from .statements import Statement
from .wire import Trip


class AsyncWatcher:
    """Waits on behalf of the tasks of one engine; see `notify.Watcher`."""

    def __init__(
        self,
        poll: Callable[[list[int]], Awaitable[dict[int, int]]],
        send: Callable[[dict[int, int]], Awaitable[None]],
        connect: Callable[[], Awaitable[AsyncLink]],
        listen: Statement,
    ) -> None:
        self._poll, self._send, self._connect, self._listen = poll, send, connect, listen
        self.reset()

    def reset(self) -> None:
        """Begin anew; also in a forked child, where no task of the parent runs."""
        self._board = Board()
        self._waiters: set[asyncio.Future[None]] = set()
        self._dirty: dict[int, int] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def committed(self, part: int, version: int) -> None:
        """A commit of this engine has returned: wake its own waiters now, and the other processes soon."""
        self._dirty[part] = version
        if self._board.waiting:
            self._note({part: version})
        self._ensure("hints", self._send_hints)

    async def wait(self, part: int | None, version: int, timeout: float, parts: int) -> None:
        """Return when the part (None: the sum of all) is past `version`, or in time. Raises `Closed`, `Unavailable`."""
        end = time.monotonic() + timeout
        self._note(await self._poll(list(range(parts)) if part is None else [part]))
        self._board.waiting[part] += 1
        try:
            while not self._board.past(part, version, parts) and (left := end - time.monotonic()) > 0:
                if self._closed:
                    raise Closed("the store is closed")
                self._ensure("watch", lambda: self._watch(parts))
                await self._news(left)
        finally:
            self._board.waiting[part] -= 1
            self._board.waiting = +self._board.waiting

    async def close(self) -> None:
        """Wake everybody and end the tasks."""
        self._closed = True
        self._wake(None)
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _news(self, seconds: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError as error:
            if isinstance(error, StoreError):
                raise
        finally:
            self._waiters.discard(waiter)

    def _ensure(self, name: str, run: Callable[[], Any]) -> None:
        task = self._tasks.get(name)
        if (task is None or task.done()) and not self._closed:
            self._tasks[name] = asyncio.get_running_loop().create_task(run(), name=f"stateroom-{name}")

    def _note(self, versions: Mapping[int, int]) -> bool:
        news = self._board.moved(versions)
        if news:
            self._wake(None)
        return news

    def _wake(self, error: StoreError | None) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)

    async def _send_hints(self) -> None:
        while self._dirty and not self._closed:
            dirty, self._dirty = self._dirty, {}
            # Only a hint: whoever waits polls as well, and the next commit reports what is wrong with the server.
            with contextlib.suppress(StoreError):
                await self._send(dirty)
            await asyncio.sleep(HINT_EVERY)

    async def _watch(self, parts: int) -> None:
        ear = AsyncEar(self._connect, self._listen)
        pause, idle_since = FIRST_POLL, time.monotonic()
        try:
            while not self._closed:
                wanted = self._board.wanted(parts)
                if wanted:
                    await ear.open()
                    pause = FIRST_POLL if self._note(await self._poll(wanted)) else min(2 * pause, LAST_POLL)
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > LINGER:
                    return
                self._note(await ear.hear(pause))
        except StoreError as error:
            self._wake(error)
        finally:
            ear.close()


class AsyncEar:
    """The one connection that listens; see `notify.Ear`."""

    def __init__(self, connect: Callable[[], Awaitable[AsyncLink]], listen: Statement) -> None:
        self._connect, self._listen = connect, listen
        self._link: AsyncLink | None = None
        self._retry_at = 0.0

    async def open(self) -> None:
        """Listen, if that is possible; what fails is tried again after a while."""
        if self._link is not None or time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + DEAF_SECONDS
        try:
            link = await self._connect()
        except (StoreError, OSError):
            return  # polling goes on, and reports a server that is away
        trip, listening = Trip([self._listen]), False
        try:
            await link.connection.wait(trip.talk(link.pgconn, None))
            listening = trip.failure() is None
        except psycopg.Error:
            return
        finally:
            if not listening:
                link.finish()
        self._link = link if listening else None

    async def hear(self, seconds: float) -> dict[int, int]:
        """What was said within `seconds`, at once when something is."""
        if self._link is None:
            await asyncio.sleep(seconds)
            return {}
        loop, pgconn = asyncio.get_running_loop(), self._link.pgconn
        said = asyncio.Event()
        loop.add_reader(pgconn.socket, said.set)
        try:
            async with asyncio.timeout(seconds):
                await said.wait()
        except TimeoutError:
            return {}
        finally:
            loop.remove_reader(pgconn.socket)
        try:
            return collect(pgconn)
        except psycopg.Error:
            self.close()
            return {}

    def close(self) -> None:
        """Hang up."""
        if self._link is not None:
            self._link.finish()
            self._link = None
