"""The asyncio engine: the same statements and plans, carried by asyncio connections."""

import asyncio
import contextlib
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from holdfast.engine import Batch, Row
from holdfast.errors import Closed, StoreError

from . import dsn, faults
from .aio_pool import AsyncLink, AsyncPool, connect
from .engine import flushes
from .notify import DEAF_SECONDS, FIRST_POLL, HINT_EVERY, LAST_POLL, LINGER, Board, collect
from .plans import Plan, Plans
from .statements import ROLLBACK, Statement, Statements
from .views import View
from .wire import Trip

T = TypeVar("T")


class AsyncPostgresEngine:
    """An `AsyncEngine`; all its calls are made in one event loop."""

    def __init__(self, target: dsn.Target, *, flush: bool) -> None:
        self._target = target
        self._statements = Statements(target.schema)
        self._plans = Plans(self._statements, target.where, flush=flush)
        self._pool = AsyncPool(target)
        self._watcher = AsyncWatcher(self)
        _engines.add(self)

    async def open(self, parts: int | None, create: bool) -> "AsyncPostgresEngine":
        """Find, make or migrate the tables."""
        try:
            await self._run(lambda: self._plans.open(parts, create))
        except BaseException:
            await self.close()
            raise
        return self

    async def describe(self, number: int, views: Sequence[View]) -> None:
        """Make the views for people who ask in SQL, where those that are there have a lower number."""
        await self._run(lambda: self._plans.describe(number, views))

    @property
    def parts(self) -> int:
        return self._plans.parts

    async def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        """One round trip."""
        return await self._run(lambda: self._plans.read(part, keys))

    async def scan(
        self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        """One round trip for one part; for all of them at least one, pipelined."""
        return await self._run(lambda: self._plans.scan(part, start, stop, limit, reverse))

    async def commit(self, part: int, batch: Batch, /) -> int:
        """One round trip. A cancelled one may have happened."""
        version = await self._run(lambda: self._plans.commit(part, batch), writes=True)
        self._watcher.committed(part, version)
        return version

    async def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        """Other processes' commits are seen within some milliseconds through NOTIFY, within 100 ms without."""
        if part is not None:
            self._plans.check_part(part)
        await self._watcher.wait(part, version, timeout)

    async def close(self) -> None:
        """Calls under way end as they do; a second close does nothing."""
        await self._watcher.close()
        await self._pool.close()

    async def _run(self, make: Callable[[], Plan[T]], *, writes: bool = False) -> T:
        again = True
        while True:
            link = await self._pool.acquire()
            try:
                return await self._drive(link, make())
            except faults.Unprepared:
                # Only raised with sessions that prepare, so this is not passed twice in one call for long.
                self._pool.prepare = False
                link.finish()
            except faults.Lost as lost:
                if not again or (writes and lost.trip.sent):
                    raise faults.of_loss(lost, self._target.where, writes=writes) from lost.__cause__
                again = False
            finally:
                await self._give_back(link)

    async def _drive(self, link: AsyncLink, plan: Plan[T]) -> T:
        try:
            statements = next(plan)
            while True:
                trip = Trip(statements)
                try:
                    await link.connection.wait(trip.talk(link.pgconn, link.prepared))
                except psycopg.OperationalError as error:
                    if not trip.committed():
                        raise faults.Lost(trip) from error
                refusal = faults.check(trip, self._target.where, prepared=link.prepared is not None)
                statements = plan.send(trip.answers) if refusal is None else plan.throw(refusal)
        except StopIteration as done:
            result: T = done.value
            return result

    async def _give_back(self, link: AsyncLink) -> None:
        """Keep a connection that is between transactions; end a refused transaction first; drop any other."""
        try:
            if link.status == TransactionStatus.INERROR:
                await link.connection.wait(Trip([ROLLBACK]).talk(link.pgconn, None))
        except psycopg.Error:
            link.finish()
        finally:
            if link.status == TransactionStatus.IDLE:
                self._pool.release(link)
            else:
                self._pool.drop(link)

    def _forget(self) -> None:
        self._pool.forget()
        self._watcher = AsyncWatcher(self)


class AsyncWatcher:
    """Waits on behalf of the tasks of one engine; see `notify.Watcher`."""

    def __init__(self, engine: AsyncPostgresEngine) -> None:
        self._engine = engine
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

    async def wait(self, part: int | None, version: int, timeout: float) -> None:
        """Return when the part (None: the sum of all) is past `version`, or in time. Raises `Closed`, `Unavailable`."""
        parts = self._engine.parts
        end = time.monotonic() + timeout
        self._note(await self._poll(list(range(parts)) if part is None else [part]))
        self._board.waiting[part] += 1
        try:
            while not self._board.past(part, version, parts) and (left := end - time.monotonic()) > 0:
                if self._closed:
                    raise Closed("the store is closed")
                self._ensure("watch", self._watch)
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
            self._tasks[name] = asyncio.get_running_loop().create_task(run(), name=f"holdfast-{name}")

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

    async def _poll(self, parts: list[int]) -> dict[int, int]:
        engine = self._engine
        return await engine._run(lambda: engine._plans.versions(parts))

    async def _send_hints(self) -> None:
        engine = self._engine
        while self._dirty and not self._closed:
            dirty, self._dirty = self._dirty, {}
            # Only a hint: whoever waits polls as well, and the next commit reports what is wrong with the server.
            with contextlib.suppress(StoreError):
                await engine._run(lambda dirty=dirty: engine._plans.notify(dirty))  # type: ignore[misc]
            await asyncio.sleep(HINT_EVERY)

    async def _watch(self) -> None:
        ear = AsyncEar(self._engine._target, self._engine._statements.listen())
        pause, idle_since = FIRST_POLL, time.monotonic()
        try:
            while not self._closed:
                wanted = self._board.wanted(self._engine.parts)
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

    def __init__(self, target: dsn.Target, listen: Statement) -> None:
        self._target, self._listen = target, listen
        self._link: AsyncLink | None = None
        self._retry_at = 0.0

    async def open(self) -> None:
        """Listen, if that is possible; what fails is tried again after a while."""
        if self._link is not None or time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + DEAF_SECONDS
        try:
            link = await connect(self._target.listen, self._target.where)
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


async def open_engine(url: str, *, durability: str, create: bool, parts: int | None) -> AsyncPostgresEngine:
    """The engine behind a url."""
    return await AsyncPostgresEngine(dsn.parse(url), flush=flushes(durability)).open(parts, create)


_engines: "weakref.WeakSet[AsyncPostgresEngine]" = weakref.WeakSet()


def _forget_in_child() -> None:
    for engine in list(_engines):
        engine._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
