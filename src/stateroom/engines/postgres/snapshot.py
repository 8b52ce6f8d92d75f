"""Reading a whole database as of one moment while others go on committing: one transaction that only reads.

On distributed tables each part is seen as of one moment, all of them together not: a cluster has no common snapshot.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from stateroom.engine import Range, Row

from . import dsn, faults
from .carriers import Carrier, finish
from .dialogues import Dialogue, Dialogues
from .statements import SNAPSHOT
from .wire import Connection

T = TypeVar("T")


class Driver(Protocol):
    """The members of an engine that a session needs."""

    dialogues: Dialogues
    carrier: Carrier
    target: dsn.Target

    async def hold(
        self, carrier: Carrier, connection: Connection, dialogue: Dialogue[T], deadline: float | None
    ) -> T: ...
    async def give_back(self, carrier: Carrier, connection: Connection, deadline: float | None) -> None: ...


class Session:
    """A connection that is kept in one transaction."""

    def __init__(self, driver: Driver, connection: Connection) -> None:
        self._driver, self._connection = driver, connection
        # What was prepared stays so; but within the transaction a pooler's surprise could not be repaired.
        self._prepared, connection.prepared = connection.prepared, None

    @property
    def dialogues(self) -> Dialogues:
        return self._driver.dialogues

    async def begin(self) -> None:
        """Begin, and look once: the moment is that of the first look."""
        await self.run(self._begin)

    def _begin(self) -> Dialogue[None]:
        yield [SNAPSHOT]
        yield from self.dialogues.versions(range(2))

    async def run(self, make: Callable[[], Dialogue[T]]) -> T:
        """Hold a dialogue in the transaction. Raises `Unavailable` where the connection was lost."""
        driver = self._driver
        try:
            return await driver.hold(driver.carrier, self._connection, make(), None)
        except faults.Lost as lost:
            raise faults.of_loss(lost, driver.target.where, writes=False) from lost.__cause__

    async def end(self) -> None:
        """End the transaction and give the connection back."""
        self._connection.prepared = self._prepared
        await self._driver.give_back(self._driver.carrier, self._connection, None)


class Snapshot:
    """The reading methods of an engine, as of one moment."""

    distant = True

    def __init__(self, session: Session) -> None:
        self._session, self.parts = session, session.dialogues.parts

    def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        return finish(self._session.run(lambda: self._session.dialogues.read(part, keys)))

    def read_many(self, requests: Sequence[tuple[int, Sequence[bytes]]], /) -> list[list[Row | None]]:
        return finish(self._session.run(lambda: self._session.dialogues.read_many(requests)))

    def scan(self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False) -> list[Row]:
        return finish(self._session.run(lambda: self._session.dialogues.scan(part, start, stop, limit, reverse)))

    def scan_many(self, ranges: Sequence[Range], /) -> list[list[Row]]:
        return finish(self._session.run(lambda: self._session.dialogues.scan_many(ranges)))


class AsyncSnapshot:
    """The reading methods of an asynchronous engine, as of one moment."""

    distant = True

    def __init__(self, session: Session) -> None:
        self._session, self.parts = session, session.dialogues.parts

    async def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        return await self._session.run(lambda: self._session.dialogues.read(part, keys))

    async def read_many(self, requests: Sequence[tuple[int, Sequence[bytes]]], /) -> list[list[Row | None]]:
        return await self._session.run(lambda: self._session.dialogues.read_many(requests))

    async def scan(
        self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        return await self._session.run(lambda: self._session.dialogues.scan(part, start, stop, limit, reverse))

    async def scan_many(self, ranges: Sequence[Range], /) -> list[list[Row]]:
        return await self._session.run(lambda: self._session.dialogues.scan_many(ranges))
