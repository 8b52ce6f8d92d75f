"""One round trip: statements out in one pipeline, their answers back.

libpq's own interface is used, not cursors: everything stays binary, a trip costs half the time, and it is known exactly
whether the server can have seen the end of what was sent, which decides between `Unavailable` and `OutcomeUnknown`.
The generator is driven by a carrier (`carriers.py`), so that both faces share it.
"""

import hashlib
import select
import time
from collections.abc import Generator, Sequence
from functools import partial
from typing import Any, NamedTuple

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from .statements import COMMIT, Statement

RENEW_USES, RENEW_SECONDS = 300, 30.0
"""After so many uses, or so long, a statement is planned anew."""

_SYNC, _FATAL, _DONE = ExecStatus.PIPELINE_SYNC, ExecStatus.FATAL_ERROR, ExecStatus.COMMAND_OK
_BINARY = [[1] * count for count in range(32)]
_R, _RW, _READY_R = Wait.R, Wait.RW, Ready.R
_BAD, _SQLSTATE = ConnStatus.BAD, DiagnosticField.SQLSTATE
_IN_ERROR, _IDLE = TransactionStatus.INERROR, TransactionStatus.IDLE

LARGE = 8000
"""Bytes that libpq may have begun to send before it is told to: its output buffer holds 8,192."""


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
        """Return the statement's name, and whether it must be prepared (again)."""
        ready = self._ready.get(sql)
        if ready is None:
            return b"stateroom_" + hashlib.blake2b(sql, digest_size=12).hexdigest().encode(), True
        name, uses, until = ready
        uses[0] -= 1
        return name, uses[0] < 0 or time.monotonic() > until

    def has(self, sql: bytes) -> bool:
        return sql in self._ready

    def learn(self, sql: bytes, name: bytes) -> None:
        self._ready[sql] = (name, [RENEW_USES], time.monotonic() + RENEW_SECONDS)

    def forget(self, sql: bytes) -> None:
        self._ready.pop(sql, None)


class Notice(NamedTuple):
    """A message of the server beside its answers."""

    severity: str
    """Not translated: "WARNING", "NOTICE", ...; a pooler's has none and counts as a warning."""
    text: str


def _note(notices: list[Notice], result: PGresult) -> None:
    severity = result.error_field(DiagnosticField.SEVERITY_NONLOCALIZED) or b"WARNING"
    text = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b""
    notices.append(Notice(severity.decode(), text.decode(errors="replace")))


class Connection:
    """A session at the server and what is prepared in it.

    It belongs to no thread and no event loop: whoever took it from the pool drives it with a carrier of its own. One
    that nobody refers to any more is closed, so that a call that was interrupted anywhere loses nothing for good.
    """

    __slots__ = ("__weakref__", "_driver", "_poll", "idle_since", "notices", "pgconn", "prepared")

    def __init__(self, driver: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]", *, prepare: bool) -> None:
        self._driver, self.pgconn = driver, driver.pgconn
        self.prepared = Prepared() if prepare else None
        self.idle_since = 0.0
        self.notices: list[Notice] = []
        self.pgconn.notice_handler = partial(_note, self.notices)  # no reference back: this object must die at once
        self.pgconn.nonblocking = 1
        self.pgconn.enter_pipeline_mode()
        self._poll = select.poll()
        self._poll.register(self.pgconn.socket, select.POLLIN)

    def readable(self, seconds: float = 0) -> bool:
        """Return whether it has something to say. For an unused one that nearly always is that the server has gone."""
        return bool(self._poll.poll(seconds * 1000))

    @property
    def status(self) -> TransactionStatus:
        return TransactionStatus(self.pgconn.transaction_status)

    @property
    def between_transactions(self) -> bool:
        """True where the next call may use it as it is."""
        return self.pgconn.transaction_status == _IDLE

    def finish(self) -> None:
        """Close it without waiting for anything."""
        self.pgconn.finish()


class Silent(psycopg.OperationalError):
    """No answer within the time that the url allows for one operation."""


class RoundTrip:
    """Statements that are sent together, and their answers so far."""

    __slots__ = ("_extras", "aborted", "answers", "commits", "notices", "sent", "statements")

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = statements
        self.answers: list[PGresult] = []
        self.commits = statements[-1].sql == COMMIT.sql
        """True where the last statement is COMMIT."""
        self.sent = False
        """True once the end of it may be out of our hands: from then on the server may have done it."""
        self.aborted = False
        """True once the server has said, after all its answers, that the transaction failed and is still open."""
        self.notices: list[tuple[int, Notice]] = []
        """Notices, each with the index of the statement whose answer was next."""
        self._extras: list[tuple[bytes, bytes] | None] = []

    def talk(self, connection: Connection, deadline: float | None = None) -> Generator[Wait, Ready | int, None]:
        """Send everything, then collect one answer a statement.

        Raises `psycopg.OperationalError` on a lost connection, `Silent` after `deadline` (of `time.monotonic`).
        """
        pgconn, prepared, notices = connection.pgconn, connection.prepared, connection.notices
        notices.clear()
        preparing: set[bytes] = set()
        last = len(self.statements) - 1
        large = self.commits and self._size(prepared is not None) > LARGE
        for index, statement in enumerate(self.statements):
            if large and index == last:
                # libpq sends a large batch while it is queued. COMMIT is queued when all before it has gone, so that
                # a connection lost until then has changed nothing for certain.
                yield from _flush(pgconn, deadline)
            self._queue(pgconn, prepared, statement, preparing)
        pgconn.pipeline_sync()
        self.sent = True
        if pgconn.flush():
            yield from _flush(pgconn, deadline)
        index = 0
        while True:
            while not (yield _R):
                _check(deadline)
            pgconn.consume_input()
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if notices:
                    self.notices += [(len(self.answers), notice) for notice in notices]
                    notices.clear()
                if result is None:
                    if pgconn.status == _BAD:
                        raise psycopg.OperationalError("the connection was lost")
                elif result.status == _SYNC:
                    self.aborted = pgconn.transaction_status == _IN_ERROR
                    return
                else:
                    self._take(index, result, prepared)
                    index += 1

    def _size(self, prepared: bool) -> int:
        """Return about how many bytes are sent: a statement's messages take some 100 beside its values and text."""
        size = 100 * len(self.statements)
        for sql, values in self.statements:
            size += sum(map(len, filter(None, values))) + (0 if prepared else len(sql))
        return size

    def _queue(self, pgconn: PGconn, prepared: Prepared | None, statement: Statement, preparing: set[bytes]) -> None:
        extras = self._extras
        sql, values = statement
        if prepared is None or not values:
            pgconn.send_query_params(sql, values, None, _BINARY[len(values)], 1)
        else:
            name, missing = prepared.find(sql)
            if missing and sql not in preparing:
                preparing.add(sql)
                if prepared.has(sql):
                    pgconn.send_query_params(b"DEALLOCATE " + name, ())
                    extras.append((sql, b""))
                pgconn.send_prepare(name, sql)
                extras.append((sql, name))
            pgconn.send_query_prepared(name, values, _BINARY[len(values)], 1)
        extras.append(None)

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
        """Return whether the server has said that a COMMIT at the end is done, whatever befell the connection later."""
        answers = self.answers
        return self.commits and len(answers) == len(self.statements) and answers[-1].command_status == b"COMMIT"

    def doubt(self) -> str | None:
        """Return what the server said while it carried out a COMMIT at the end; None where it said nothing.

        What it says of an earlier statement comes before that one's answer.
        """
        last = len(self.statements) - 1
        for index, notice in self.notices if self.commits else ():
            if index >= last and notice.severity in ("WARNING", "NOTICE"):
                return notice.text
        return None

    def failure(self) -> tuple[int, PGresult] | None:
        """Return the first statement that the server refused: its index and the refusal."""
        for index, answer in enumerate(self.answers):
            if answer.status == _FATAL:
                return index, answer
        return None


def _flush(pgconn: PGconn, deadline: float | None) -> Generator[Wait, Ready | int, None]:
    while pgconn.flush():
        ready = yield _RW
        if not ready:
            _check(deadline)
        elif ready & _READY_R:
            pgconn.consume_input()  # a server that answers while we send must not wait for us


def _check(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise Silent("no answer in time")
