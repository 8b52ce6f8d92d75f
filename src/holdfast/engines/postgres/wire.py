"""One round trip: statements out in one pipeline, their answers back.

libpq's own interface is used, not cursors: everything stays binary, a trip costs half the time, and it is known exactly
whether the server can have seen the end of what was sent, which decides between `Unavailable` and `OutcomeUnknown`.
The generator is driven by `Connection.wait` or `AsyncConnection.wait`, so that both engines share it.
"""

from collections.abc import Generator, Sequence
from typing import Any

import psycopg
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from .statements import Statement

_SYNC, _ABORTED, _FATAL = ExecStatus.PIPELINE_SYNC, ExecStatus.PIPELINE_ABORTED, ExecStatus.FATAL_ERROR
_BINARY = [[1] * count for count in range(8)]
_R, _RW, _READY_R = Wait.R, Wait.RW, Ready.R
_BAD = ConnStatus.BAD


class Trip:
    """What is sent together, and what came back so far."""

    __slots__ = ("answers", "sent", "statements")

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = statements
        self.answers: list[PGresult] = []
        self.sent = False
        """True once all of it is out of our hands: from then on the server may have done it."""

    def talk(self, pgconn: PGconn) -> Generator[Wait, Ready | int, None]:
        """Send everything, then collect one answer a statement. Raises `psycopg.OperationalError` on a lost one."""
        for sql, values in self.statements:
            pgconn.send_query_params(sql, values, None, _BINARY[len(values)], 1)
        pgconn.pipeline_sync()
        while pgconn.flush():
            if (yield _RW) & _READY_R:
                pgconn.consume_input()  # a server that answers while we send must not wait for us
        self.sent = True
        answers = self.answers
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
                    answers.append(result)

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


def prepare(connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]") -> None:
    """Put a fresh connection into the state that `Trip` needs, for the rest of its life."""
    connection.pgconn.nonblocking = 1
    connection.pgconn.enter_pipeline_mode()
