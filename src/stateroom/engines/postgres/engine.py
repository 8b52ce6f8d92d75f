"""The engine, for threads and for event loops: one definition, driven by two carriers."""

import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ParamSpec, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from stateroom.engine import Batch, Outcome, Range, Row, View
from stateroom.errors import InvalidArgument

from ..interrupts import Lock
from . import dsn, faults
from .carriers import Asyncio, Blocking, Carrier
from .dialogues import Dialogue, Dialogues
from .notify import CommitNotifier, Source
from .pool import Pool, connect, reaper
from .queue import CommitQueue
from .snapshot import AsyncSnapshot, Session, Snapshot
from .statements import ROLLBACK, Statements
from .wire import Connection, RoundTrip

P = ParamSpec("P")
T = TypeVar("T")


class Driver:
    """The part that both faces share: coroutines that carry out dialogues over pooled connections."""

    def __init__(self, target: dsn.Target, carrier: Carrier, *, flush: bool) -> None:
        self.target, self.carrier = target, carrier
        statements = Statements(target.schema)
        self.dialogues = Dialogues(statements, target.where, flush=flush)
        self.pool = Pool(target)
        self.notifier = CommitNotifier(
            Source(self._versions, self._send, self._ping, self._connect_listener, statements.listen)
        )
        self.queue = CommitQueue(carrier, self.alone, self.together)

    async def run(self, make: Callable[[], Dialogue[T]], *, writes: bool = False, carrier: Carrier | None = None) -> T:
        """Carry out a dialogue; once more from the start where the connection was lost and nothing has happened."""
        carrier = carrier or self.carrier
        deadline = None if self.target.seconds is None else time.monotonic() + self.target.seconds
        repeat = True
        while True:
            connection = await self.pool.acquire(carrier, deadline)
            try:
                return await self.hold(carrier, connection, make(), deadline)
            except faults.Unprepared:
                # Only raised with sessions that prepare, so this is not passed twice in one call for long.
                self.pool.prepare = False
                connection.finish()
            except faults.Lost as lost:
                late = deadline is not None and time.monotonic() >= deadline
                if not repeat or late or (writes and lost.trip.sent):
                    raise faults.of_loss(lost, self.target.where, writes=writes) from lost.__cause__
                repeat = False
            finally:
                if connection.between_transactions:
                    self.pool.release(connection)
                else:
                    await self.give_back(carrier, connection, deadline)

    async def hold(self, carrier: Carrier, connection: Connection, dialogue: Dialogue[T], deadline: float | None) -> T:
        """Hold a dialogue over a connection. Raises `faults.Lost`, `faults.Unprepared` and what the dialogue raises."""
        try:
            statements = next(dialogue)
            while True:
                trip = RoundTrip(statements)
                try:
                    await carrier.carry(connection, trip, deadline)
                except psycopg.OperationalError as error:
                    if not trip.committed():
                        lost = faults.Lost(trip)
                        raise lost from error
                refusal = faults.check(trip, self.target.where, prepared=connection.prepared is not None)
                statements = dialogue.send(trip.answers) if refusal is None else dialogue.throw(refusal)
        except StopIteration as done:
            result: T = done.value
            return result

    async def give_back(self, carrier: Carrier, connection: Connection, deadline: float | None) -> None:
        """Keep a connection that is between transactions; end a refused transaction first; drop any other."""
        try:
            if connection.status in (TransactionStatus.INERROR, TransactionStatus.INTRANS):
                await carrier.carry(connection, RoundTrip([ROLLBACK]), deadline)
        except psycopg.Error:
            connection.finish()
        finally:
            if connection.between_transactions:
                self.pool.release(connection)
            else:
                self.pool.drop(connection)

    async def alone(self, part: int, batch: Batch) -> int:
        version = await self.run(lambda: self.dialogues.commit(part, batch), writes=True)
        self.notifier.committed(part, version)
        return version

    async def together(self, part: int, batches: Sequence[Batch]) -> list[Outcome]:
        outcomes = await self.run(lambda: self.dialogues.commit_all(part, batches), writes=True)
        self.notifier.committed(part, max((each for each in outcomes if isinstance(each, int)), default=0))
        return outcomes

    async def wait(self, part: int | None, version: int, timeout: float) -> bool:
        if part is not None:
            self.dialogues.check_part(part)
        return await self.notifier.wait(self.carrier, part, version, timeout, self.dialogues.parts)

    async def begin_snapshot(self) -> Session:
        """Return a session in which everything is read as of one moment."""
        session = Session(self, await self.pool.acquire(self.carrier))
        try:
            await session.begin()
        except BaseException:
            await session.end()
            raise
        return session

    @property
    def about(self) -> str:
        release = self.pool.release_number
        return f"PostgreSQL {release // 10_000}.{release % 10_000}" + (" (Citus)" if self.dialogues.function else "")

    def locks(self) -> "tuple[Lock, ...]":
        """Return every lock that is taken on the way of a call."""
        return (self.queue.lock, self.pool.lock, self.notifier.lock, reaper.lock)

    def close(self) -> None:
        self.notifier.close()
        self.pool.close()

    def forget(self) -> None:
        """In a forked child."""
        self.pool.forget()
        self.notifier.reset()
        self.queue.reset()

    async def _versions(self, carrier: Carrier, parts: Sequence[int]) -> dict[int, int]:
        return await self.run(lambda: self.dialogues.versions(parts), carrier=carrier)

    async def _send(self, carrier: Carrier, versions: dict[int, int]) -> None:
        await self.run(lambda: self.dialogues.notify(versions), carrier=carrier)

    async def _ping(self, carrier: Carrier, channel: str) -> None:
        await self.run(lambda: self.dialogues.ping(channel), carrier=carrier)

    async def _connect_listener(self, carrier: Carrier) -> Connection:
        return await connect(carrier, self.target.listen, self.target.where)


class PostgresEngine:
    """An `Engine`; every method may be called from any thread."""

    distant = True

    def __init__(self, target: dsn.Target, *, flush: bool) -> None:
        self._driver = Driver(target, Blocking(), flush=flush)
        self._dialogues = self._driver.dialogues
        _drivers.add(self._driver)

    def _run(self, make: Callable[[], Dialogue[T]]) -> T:
        return self._call(self._driver.run, make)

    def _call(self, work: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a coroutine function that never suspends; give back what locks an interrupt left with this thread."""
        # Where alone signals are handled. Within another call a lock may be that call's.
        locks = self._driver.locks() if threading.get_ident() == _main_thread.ident else ()
        owned = [lock for lock in locks if lock.owned]
        try:
            work(*args, **kwargs).send(None)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except BaseException:
            for lock in locks:
                lock.give_back(nested=lock in owned)
            raise
        raise RuntimeError("a blocking call was suspended")

    def open(self, parts: int | None, create: bool) -> "PostgresEngine":
        """Find, make or migrate the tables."""
        try:
            self._run(lambda: self._dialogues.open(parts, create))
        except BaseException:
            self.close()
            raise
        return self

    def describe(self, number: int, views: Sequence[View]) -> None:
        """Make the views for people who ask in SQL, where those that are there have a lower number."""
        self._run(lambda: self._dialogues.describe(number, views))

    @property
    def parts(self) -> int:
        return self._dialogues.parts

    @property
    def about(self) -> str:
        """The server's release, as of the last connection."""
        return self._driver.about

    def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        """One round trip."""
        return self._run(lambda: self._dialogues.read(part, keys))

    def read_many(self, requests: Sequence[tuple[int, Sequence[bytes]]], /) -> list[list[Row | None]]:
        """Do as `read` for each, in one round trip; each part is seen as of one commit."""
        return self._run(lambda: self._dialogues.read_many(requests))

    def scan_many(self, ranges: Sequence[Range], /) -> list[list[Row]]:
        """Do as `scan` for each, in one round trip."""
        return self._run(lambda: self._dialogues.scan_many(ranges))

    def scan(self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False) -> list[Row]:
        """One round trip for one part; for all of them at least one, pipelined."""
        return self._run(lambda: self._dialogues.scan(part, start, stop, limit, reverse))

    def commit(self, part: int, batch: Batch, /) -> int:
        """One round trip, shared with what else waits for the same part."""
        return self._call(self._driver.queue.commit, part, batch)

    def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        """Wait; other processes' commits are seen within some milliseconds through NOTIFY, within 100 ms without."""
        self.passed(part, version, timeout)

    def passed(self, part: int | None, version: int, timeout: float, /) -> bool:
        """Wait, and return whether the version was passed."""
        return self._call(self._driver.wait, part, version, timeout)

    def size(self) -> int:
        """Return the bytes on disk, of tables and indexes."""
        return self._run(self._dialogues.size)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Give a reader that sees everything as of one moment, for one thread."""
        session = self._call(self._driver.begin_snapshot)
        try:
            yield Snapshot(session)
        finally:
            self._call(session.end)

    def close(self) -> None:
        """Calls under way end as they do; a second close does nothing."""
        self._driver.close()


class AsyncPostgresEngine:
    """An `AsyncEngine`; its calls may be made in any event loop, of any number of them."""

    distant = True

    def __init__(self, target: dsn.Target, *, flush: bool) -> None:
        self._driver = Driver(target, Asyncio(), flush=flush)
        self._dialogues = self._driver.dialogues
        _drivers.add(self._driver)

    async def _run(self, make: Callable[[], Dialogue[T]]) -> T:
        return await self._driver.run(make)

    async def open(self, parts: int | None, create: bool) -> "AsyncPostgresEngine":
        """Find, make or migrate the tables."""
        try:
            await self._run(lambda: self._dialogues.open(parts, create))
        except BaseException:
            await self.close()
            raise
        return self

    async def describe(self, number: int, views: Sequence[View]) -> None:
        """Make the views for people who ask in SQL, where those that are there have a lower number."""
        await self._run(lambda: self._dialogues.describe(number, views))

    @property
    def parts(self) -> int:
        return self._dialogues.parts

    @property
    def about(self) -> str:
        """The server's release, as of the last connection."""
        return self._driver.about

    async def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        """One round trip."""
        return await self._run(lambda: self._dialogues.read(part, keys))

    async def read_many(self, requests: Sequence[tuple[int, Sequence[bytes]]], /) -> list[list[Row | None]]:
        """Do as `read` for each, in one round trip; each part is seen as of one commit."""
        return await self._run(lambda: self._dialogues.read_many(requests))

    async def scan_many(self, ranges: Sequence[Range], /) -> list[list[Row]]:
        """Do as `scan` for each, in one round trip."""
        return await self._run(lambda: self._dialogues.scan_many(ranges))

    async def scan(
        self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        """One round trip for one part; for all of them at least one, pipelined."""
        return await self._run(lambda: self._dialogues.scan(part, start, stop, limit, reverse))

    async def commit(self, part: int, batch: Batch, /) -> int:
        """One round trip, shared with what else waits for the same part. A cancelled one may have happened."""
        return await self._driver.queue.commit(part, batch)

    async def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        """Wait; other processes' commits are seen within some milliseconds through NOTIFY, within 100 ms without."""
        await self.passed(part, version, timeout)

    async def passed(self, part: int | None, version: int, timeout: float, /) -> bool:
        """Wait, and return whether the version was passed."""
        return await self._driver.wait(part, version, timeout)

    async def size(self) -> int:
        """Return the bytes on disk, of tables and indexes."""
        return await self._run(self._dialogues.size)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncSnapshot]:
        """Give a reader that sees everything as of one moment, for one task."""
        session = await self._driver.begin_snapshot()
        try:
            yield AsyncSnapshot(session)
        finally:
            await session.end()

    async def close(self) -> None:
        """Calls under way end as they do; a second close does nothing."""
        self._driver.close()


def open_engine(url: str, *, durability: str, create: bool, parts: int | None) -> PostgresEngine:
    """Return the engine behind a url."""
    return PostgresEngine(dsn.parse(url), flush=flushes(durability)).open(parts, create)


async def open_async(url: str, *, durability: str, create: bool, parts: int | None) -> AsyncPostgresEngine:
    """Return the engine behind a url, for event loops."""
    return await AsyncPostgresEngine(dsn.parse(url), flush=flushes(durability)).open(parts, create)


def flushes(durability: str) -> bool:
    """Return whether a commit waits for the disk. Raises `InvalidArgument` for anything but "full" and "normal"."""
    if durability not in ("full", "normal"):
        raise InvalidArgument('durability is "full" or "normal"', what="durability", value=durability)
    return durability == "full"


_main_thread = threading.main_thread()

_drivers: "weakref.WeakSet[Driver]" = weakref.WeakSet()


def _forget_in_child() -> None:
    global _main_thread
    _main_thread = threading.main_thread()
    reaper.reset()
    for driver in list(_drivers):
        driver.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
