"""What the server and libpq report, as errors of this package: the one place where they are mapped."""

from typing import NoReturn

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import DiagnosticField
from psycopg.pq.abc import PGresult

from stateroom.errors import Conflict, Damaged, InvalidArgument, NotFound, OutcomeUnknown, StoreError, Unavailable

from .wire import Trip

UNPREPARED = frozenset({"26000", "42P05", "0A000"})
"""A prepared statement is missing, is there already, or has outlived the table it was made for."""

_CONFLICT = frozenset({"40001", "40P01"})
_COUNTER = frozenset({"22003", "23502"})
_DAMAGED = frozenset({"XX001", "XX002"})
_ABSENT = frozenset({"42P01", "3F000", "3D000"})
_RIGHTS = frozenset({"42501", "28000", "28P01"})
# Connection lost, out of resources, operator intervention, the machine's own failures, busy, a server that only reads.
_UNAVAILABLE_CLASSES = frozenset({"08", "53", "57", "58"})
_UNAVAILABLE = frozenset({"55P03", "25006", "25P03", "25P04", "55000"})
_GONE_AT_COMMIT = frozenset({"08", "57", "58"})


class Lost(Exception):
    """The connection ended in the middle of a trip; the engine decides what that means."""

    def __init__(self, trip: Trip) -> None:
        super().__init__("connection lost")
        self.trip = trip


class Unprepared(Exception):
    """The session is not what we left it: a pooler stands in between. Nothing happened; go on without preparing."""


def check(trip: Trip, where: str, *, prepared: bool) -> StoreError | None:
    """The error for the first refusal of a trip, if there is one."""
    failure = trip.failure()
    if failure is None:
        return None
    code = (failure[1].error_field(DiagnosticField.SQLSTATE) or b"").decode()
    if prepared and code in UNPREPARED:
        raise Unprepared(code)
    return of_answer(trip, *failure, where)


def sqlstate(error: StoreError) -> str:
    """The server's code behind an error of ours, or ""."""
    return str(error.fields.get("sqlstate", ""))


def of_answer(trip: Trip, index: int, answer: PGresult, where: str) -> StoreError:
    """The error for a statement that the server refused.

    A server that ends our session while COMMIT runs may have committed already (it does so when it gives up waiting
    for a synchronous standby), so only there an ended session is an unknown outcome.
    """
    code = (answer.error_field(DiagnosticField.SQLSTATE) or b"").decode()
    text = (answer.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
    committing = trip.statements[index].sql == b"COMMIT"
    error = _map(code, f"{where}: {text} ({code})", committing=committing)
    error.fields.setdefault("sqlstate", code)
    error.__cause__ = error_from_result(answer)
    return error


def _map(code: str, text: str, *, committing: bool) -> StoreError:
    if code == "40003" or (committing and code[:2] in _GONE_AT_COMMIT):
        return OutcomeUnknown(f"{text}: the change may be there or not; look before trying again")
    if code in _CONFLICT:
        return Conflict(f"{text}: nothing was written; try again")
    if code in _COUNTER:
        return InvalidArgument("a counter went beyond 64 bits", what="counter")
    if code in _DAMAGED:
        return Damaged(f"{text}: restore from a backup or fail over")
    if code in _ABSENT:
        return NotFound(f"{text}: the tables are gone or were never made", kind="database")
    if code in _RIGHTS:
        return InvalidArgument(
            f"{text}: the role of the url lacks a right; docs/operate/postgresql.md lists what it needs", what="url"
        )
    if code in _UNAVAILABLE or code[:2] in _UNAVAILABLE_CLASSES:
        return Unavailable(f"{text}: nothing was changed; try again")
    return StoreError(f"{text}: unexpected answer of the server")


def of_loss(lost: Lost, where: str, *, writes: bool) -> StoreError:
    """The error for a lost connection: unknown only where a COMMIT may have reached the server."""
    failed = lost.trip.failure()
    if failed is not None:
        return of_answer(lost.trip, *failed, where)
    if writes and lost.trip.sent:
        return OutcomeUnknown(
            f"{where}: the connection was lost while committing: the change may be there or not;"
            " look before trying again, or use `once`"
        )
    return Unavailable(f"{where}: the connection was lost; nothing was changed; try again")


def cannot_connect(error: psycopg.Error, where: str) -> StoreError:
    """The error for a connection that could not be made. libpq gives no code here, only the server's English text."""
    reason = " ".join(str(error).split())
    if "password authentication failed" in reason or "no pg_hba.conf entry" in reason:
        return InvalidArgument(f"{where} refuses the role of the url: {reason}", what="url")
    if "does not exist" in reason and ("database" in reason or "role" in reason):
        return InvalidArgument(f"{where}: {reason}; create it, or correct the url", what="url")
    return Unavailable(f"cannot connect to {where}: {reason}; check that the server runs and the url is right")


def unusable(why: str, where: str) -> NoReturn:
    """Raise for a database whose own rows make no sense."""
    raise Damaged(f"{where}: {why}")
