"""The blocking engine."""

import os
import weakref
from collections.abc import Callable, Sequence
from typing import TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from stateroom.engine import Batch, Outcome, Range, Row
from stateroom.errors import InvalidArgument

from . import dsn, faults
from .notify import Watcher
from .plans import Plan, Plans
from .pool import BlockingLink, Pool, connect
from .statements import ROLLBACK, Statements
from .turns import Turns
from .views import View
from .wire import Trip

T = TypeVar("T")


class PostgresEngine:
    """An `Engine` over a pool of blocking connections; every method may be called from any thread."""

    distant = True

    def __init__(self, target: dsn.Target, *, flush: bool) -> None:
        self._target = target
        statements = Statements(target.schema)
        self._plans = Plans(statements, target.where, flush=flush)
        self._pool = Pool(target)
        self._watcher = Watcher(self._versions, self._notify, self._connect_ear, statements.listen())
        self._turns = Turns(self._alone, self._together)
        _engines.add(self)

    def open(self, parts: int | None, create: bool) -> "PostgresEngine":
        """Find, make or migrate the tables."""
        try:
            self._run(lambda: self._plans.open(parts, create))
        except BaseException:
            self.close()
            raise
        return self

    def describe(self, number: int, views: Sequence[View]) -> None:
        """Make the views for people who ask in SQL, where those that are there have a lower number."""
        self._run(lambda: self._plans.describe(number, views))

    @property
    def parts(self) -> int:
        return self._plans.parts

    def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        """One round trip."""
        return self._run(lambda: self._plans.read(part, keys))

    def read_many(self, requests: Sequence[tuple[int, Sequence[bytes]]], /) -> list[list[Row | None]]:
        """As `read` of each, in one round trip; each part as of one commit."""
        return self._run(lambda: self._plans.read_many(requests))

    def scan_many(self, ranges: Sequence[Range], /) -> list[list[Row]]:
        """As `scan` of each, in one round trip."""
        return self._run(lambda: self._plans.scan_many(ranges))

    def scan(self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False) -> list[Row]:
        """One round trip for one part; for all of them at least one, pipelined."""
        return self._run(lambda: self._plans.scan(part, start, stop, limit, reverse))

    def commit(self, part: int, batch: Batch, /) -> int:
        """One round trip, shared with what else waits for the same part."""
        return self._turns.commit(part, batch)

    def _alone(self, part: int, batch: Batch) -> int:
        version = self._run(lambda: self._plans.commit(part, batch), writes=True)
        self._watcher.committed(part, version)
        return version

    def _together(self, part: int, batches: Sequence[Batch]) -> list[Outcome]:
        outcomes = self._run(lambda: self._plans.commit_all(part, batches), writes=True)
        self._watcher.committed(part, max((one for one in outcomes if isinstance(one, int)), default=0))
        return outcomes

    def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        """Other processes' commits are seen within some milliseconds through NOTIFY, within 100 ms without."""
        if part is not None:
            self._plans.check_part(part)
        self._watcher.wait(part, version, timeout, self.parts)

    def close(self) -> None:
        """Calls under way end as they do; a second close does nothing."""
        self._watcher.close()
        self._pool.close()

    def _run(self, make: Callable[[], Plan[T]], *, writes: bool = False) -> T:
        """Carry out a plan; once more from the start where the connection was lost and nothing can have happened."""
        again = True
        while True:
            link = self._pool.acquire()
            try:
                return self._drive(link, make())
            except faults.Unprepared:
                # Only raised with sessions that prepare, so this is not passed twice in one call for long.
                self._pool.prepare = False
                link.finish()
            except faults.Lost as lost:
                if not again or (writes and lost.trip.sent):
                    raise faults.of_loss(lost, self._target.where, writes=writes) from lost.__cause__
                again = False
            finally:
                self._give_back(link)

    def _drive(self, link: BlockingLink, plan: Plan[T]) -> T:
        try:
            statements = next(plan)
            while True:
                trip = Trip(statements)
                try:
                    link.connection.wait(trip.talk(link.pgconn, link.prepared))
                except psycopg.OperationalError as error:
                    if not trip.committed():
                        raise faults.Lost(trip) from error
                refusal = faults.check(trip, self._target.where, prepared=link.prepared is not None)
                statements = plan.send(trip.answers) if refusal is None else plan.throw(refusal)
        except StopIteration as done:
            result: T = done.value
            return result

    def _give_back(self, link: BlockingLink) -> None:
        """Keep a connection that is between transactions; end a refused transaction first; drop any other."""
        try:
            if link.status == TransactionStatus.INERROR:
                link.connection.wait(Trip([ROLLBACK]).talk(link.pgconn, None))
        except psycopg.Error:
            link.finish()
        finally:
            if link.status == TransactionStatus.IDLE:
                self._pool.release(link)
            else:
                self._pool.drop(link)

    def _versions(self, parts: list[int]) -> dict[int, int]:
        return self._run(lambda: self._plans.versions(parts))

    def _notify(self, versions: dict[int, int]) -> None:
        self._run(lambda: self._plans.notify(versions))

    def _connect_ear(self) -> BlockingLink:
        return connect(self._target.listen, self._target.where)

    def _forget(self) -> None:
        self._pool.forget()
        self._watcher.reset()
        self._turns.reset()


def open_engine(url: str, *, durability: str, create: bool, parts: int | None) -> PostgresEngine:
    """The engine behind a url."""
    return PostgresEngine(dsn.parse(url), flush=flushes(durability)).open(parts, create)


def flushes(durability: str) -> bool:
    """Whether a commit waits for the disk. Raises `InvalidArgument` for anything but "full" and "normal"."""
    if durability not in ("full", "normal"):
        raise InvalidArgument('durability is "full" or "normal"', what="durability", value=durability)
    return durability == "full"


_engines: "weakref.WeakSet[PostgresEngine]" = weakref.WeakSet()


def _forget_in_child() -> None:
    for engine in list(_engines):
        engine._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
