"""One round trip: statements out in one pipeline, their answers back.

libpq's own interface is used, not cursors: everything stays binary, a trip costs half the time, and it is known exactly
whether the server can have seen the end of what was sent, which decides between `Unavailable` and `OutcomeUnknown`.
The generator is driven by `Connection.wait` or `AsyncConnection.wait`, so that both engines share it.
"""

import hashlib
import select
import time
from collections.abc import Generator, Sequence
from typing import Generic, TypeVar

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from .statements import Statement

RENEW_USES, RENEW_SECONDS = 300, 30.0
"""After so many uses, or so long, a statement is planned anew."""

_SYNC, _FATAL, _DONE = ExecStatus.PIPELINE_SYNC, ExecStatus.FATAL_ERROR, ExecStatus.COMMAND_OK
_BINARY = [[1] * count for count in range(32)]
_R, _RW, _READY_R = Wait.R, Wait.RW, Ready.R
_BAD, _SQLSTATE = ConnStatus.BAD, DiagnosticField.SQLSTATE

C = TypeVar("C", bound="psycopg.Connection[tuple[object, ...]] | psycopg.AsyncConnection[tuple[object, ...]]")


class Prepared:
    """The statements that one session has ready: parsing and planning are half the cost of a commit.

    A plan made for a small table can be 10 to 90 times too slow for a large one, so each is made anew after a while.
    The name is a digest of the text. Where a transaction pooler gives our session to somebody else a name is missing or
    taken already, which is reported, and we stop preparing (`faults.UNPREPARED`); it never stands for something else.
    """

    __slots__ = ("_ready",)

    def __init__(self) -> None:
        self._ready: dict[bytes, tuple[bytes, list[int], float]] = {}

    def find(self, sql: bytes) -> tuple[bytes, bool]:
        """The statement's name, and whether it must be prepared (again)."""
        known = self._ready.get(sql)
        if known is None:
            return b"stateroom_" + hashlib.blake2b(sql, digest_size=12).hexdigest().encode(), True
        name, uses, until = known
        uses[0] -= 1
        return name, uses[0] < 0 or time.monotonic() > until

    def has(self, sql: bytes) -> bool:
        return sql in self._ready

    def learn(self, sql: bytes, name: bytes) -> None:
        self._ready[sql] = (name, [RENEW_USES], time.monotonic() + RENEW_SECONDS)

    def forget(self, sql: bytes) -> None:
        self._ready.pop(sql, None)


class Link(Generic[C]):
    """A connection and what its session knows."""

    __slots__ = ("_poll", "connection", "pgconn", "prepared")

    def __init__(self, connection: C, *, prepare: bool) -> None:
        self.connection, self.pgconn = connection, connection.pgconn
        self.prepared = Prepared() if prepare else None
        self.pgconn.nonblocking = 1
        self.pgconn.enter_pipeline_mode()
        self._poll = select.poll()
        self._poll.register(self.pgconn.socket, select.POLLIN)

    def readable(self, seconds: float = 0) -> bool:
        """Whether it has something to say. For an unused one that nearly always is that the server has gone."""
        return bool(self._poll.poll(seconds * 1000))

    @property
    def status(self) -> TransactionStatus:
        return TransactionStatus(self.pgconn.transaction_status)

    def finish(self) -> None:
        """Close it without waiting for anything."""
        self.pgconn.finish()


class Trip:
    """What is sent together, and what came back so far."""

    __slots__ = ("_extras", "answers", "sent", "statements")

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = statements
        self.answers: list[PGresult] = []
        self.sent = False
        """True once all of it is out of our hands: from then on the server may have done it."""
        self._extras: list[tuple[bytes, bytes] | None] = []

    def talk(self, pgconn: PGconn, prepared: Prepared | None) -> Generator[Wait, Ready | int, None]:
        """Send everything, then collect one answer a statement. Raises `psycopg.OperationalError` on a lost one."""
        self._send(pgconn, prepared)
        while pgconn.flush():
            if (yield _RW) & _READY_R:
                pgconn.consume_input()  # a server that answers while we send must not wait for us
        self.sent = True
        results: list[PGresult] = []
        while True:
            while not (yield _R):
                pass
            pgconn.consume_input()
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    if pgconn.status == _BAD:
                        raise psycopg.OperationalError("the connection was lost")
                elif result.status == _SYNC:
                    return
                else:
                    self._take(len(results), result, prepared)
                    results.append(result)

    def _send(self, pgconn: PGconn, prepared: Prepared | None) -> None:
        extras = self._extras
        coming: set[bytes] = set()
        for sql, values in self.statements:
            if prepared is None or not values:
                pgconn.send_query_params(sql, values, None, _BINARY[len(values)], 1)
            else:
                name, missing = prepared.find(sql)
                if missing and sql not in coming:
                    coming.add(sql)
                    if prepared.has(sql):
                        pgconn.send_query_params(b"DEALLOCATE " + name, ())
                        extras.append((sql, b""))
                    pgconn.send_prepare(name, sql)
                    extras.append((sql, name))
                pgconn.send_query_prepared(name, values, _BINARY[len(values)], 1)
            extras.append(None)
        pgconn.pipeline_sync()

    def _take(self, index: int, result: PGresult, prepared: Prepared | None) -> None:
        late = index == len(self._extras)
        if late or (result.status == _FATAL and not result.error_field(_SQLSTATE)):
            # The server ends the session after its last answer; or libpq made this up, without a code, in place of an
            # answer that will not come.
            raise psycopg.OperationalError(result.get_error_message() or "the connection was lost")
        extra = self._extras[index]
        if extra is None or prepared is None:
            self.answers.append(result)
        elif result.status == _DONE:
            sql, name = extra
            if name:
                prepared.learn(sql, name)
            else:
                prepared.forget(sql)
        elif result.status == _FATAL:
            # The statement itself is only skipped after this: its place is taken by the reason.
            self.answers.append(result)

    def committed(self) -> bool:
        """Whether the server has said that a COMMIT at the end is done, whatever befell the connection after it."""
        answers = self.answers
        return (
            len(answers) == len(self.statements)
            and self.statements[-1].sql == b"COMMIT"
            and answers[-1].command_status == b"COMMIT"
        )

    def failure(self) -> tuple[int, PGresult] | None:
        """The first statement that the server refused: its index and the refusal."""
        for index, answer in enumerate(self.answers):
            if answer.status == _FATAL:
                return index, answer
        return None
