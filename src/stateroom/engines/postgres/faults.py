"""The errors of this package for what the server and libpq report: the one place where they are mapped.

The rule for a commit: once COMMIT may have been sent, whatever is not the server's own clean refusal is
`OutcomeUnknown`. A pooler answers a lost server with an error of its own, in the place of the first answer that is
missing, which may be that of BEGIN; a cluster reports a node that it lost while committing; a server that stops waiting
for its standby warns, and says that it has committed.
"""

from typing import NoReturn

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import DiagnosticField
from psycopg.pq.abc import PGresult

from stateroom.errors import Conflict, Damaged, InvalidArgument, NotFound, OutcomeUnknown, StoreError, Unavailable

from .wire import RoundTrip, Silent

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
_UNKNOWN = "40003"
_CLEAN_AT_COMMIT = frozenset({"22", "23", "25", "27", "2D", "40", "42", "44", "53", "55", "P0"})
"""Classes of a refusal by COMMIT itself that are certain: a deferred constraint or trigger, a conflict, no room."""


class Lost(Exception):
    """The connection ended in the middle of a round trip; the engine decides what that means."""

    def __init__(self, trip: RoundTrip) -> None:
        super().__init__("connection lost")
        self.trip = trip


class Unprepared(Exception):
    """The session is not what we left it: a pooler stands in between. Nothing happened; go on without preparing."""


def check(trip: RoundTrip, where: str, *, prepared: bool) -> StoreError | None:
    """Return the error for the first refusal of a round trip, or for a COMMIT that may not hold; None if all is well.

    Raises `Unprepared`.
    """
    failure = trip.failure()
    if failure is None:
        return _doubtful(trip, where) if trip.commits else None
    code = _field(failure[1], DiagnosticField.SQLSTATE)
    if prepared and code in UNPREPARED and not _uncertain(trip, *failure, code):
        raise Unprepared(code)
    return of_answer(trip, *failure, where)


def _doubtful(trip: RoundTrip, where: str) -> StoreError | None:
    if not trip.committed():  # the transaction had failed before, though no answer said so
        return Unavailable(f"{where}: the server ended the transaction without a reason; nothing was changed")
    doubt = trip.doubt()
    if doubt is None:
        return None
    return OutcomeUnknown(
        f"{where}: committed here, but {doubt!r}: after a failover the change may be there or not; look before trying"
        " again, or use `once`"
    )


def sqlstate(error: StoreError) -> str:
    """Return the server's code behind an error of ours, or ""."""
    return str(error.fields.get("sqlstate", ""))


def of_answer(trip: RoundTrip, index: int, answer: PGresult, where: str) -> StoreError:
    """Return the error for the statement at `index`, which was refused with `answer`."""
    code = _field(answer, DiagnosticField.SQLSTATE)
    text = f"{where}: {_field(answer, DiagnosticField.MESSAGE_PRIMARY)} ({code})"
    if code == _UNKNOWN or _uncertain(trip, index, answer, code):
        error: StoreError = OutcomeUnknown(f"{text}: the change may be there or not; look before trying again")
    else:
        error = _map(code, text, ended=_field(answer, DiagnosticField.SEVERITY_NONLOCALIZED) in ("FATAL", "PANIC"))
    error.fields.setdefault("sqlstate", code)
    error.__cause__ = error_from_result(answer)
    return error


def _uncertain(trip: RoundTrip, index: int, answer: PGresult, code: str) -> bool:
    """Return whether the transaction may have been committed although this answer refuses a statement of it."""
    if not (trip.commits and trip.sent):
        return False
    if index == len(trip.statements) - 1 and code[:2] not in _CLEAN_AT_COMMIT:
        return True
    # Only the server itself knows. It names the function in its source that refused; or it says after an error that
    # the transaction is still open. What a pooler makes up has neither.
    severity = _field(answer, DiagnosticField.SEVERITY_NONLOCALIZED)
    by_server = bool(_field(answer, DiagnosticField.SOURCE_FUNCTION))
    if severity == "ERROR":
        return not (by_server or trip.aborted)
    return not (by_server and severity in ("FATAL", "PANIC"))


def _field(answer: PGresult, field: DiagnosticField) -> str:
    return (answer.error_field(field) or b"").decode(errors="replace")


def _map(code: str, text: str, *, ended: bool) -> StoreError:
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
            f"{text}: the role of the url lacks a right; docs/operate/postgresql.md lists what it needs",
            what="url",
            outside=True,
        )
    if ended or code in _UNAVAILABLE or code[:2] in _UNAVAILABLE_CLASSES:
        return Unavailable(f"{text}: nothing was changed; try again")
    return StoreError(f"{text}: unexpected answer of the server")


def of_loss(lost: Lost, where: str, *, writes: bool) -> StoreError:
    """Return the error for a lost or silent connection: unknown only where a COMMIT may have reached the server."""
    failed = lost.trip.failure()
    if failed is not None:
        return of_answer(lost.trip, *failed, where)
    silent = isinstance(lost.__cause__, Silent)
    reason = "the server did not answer within the url's operation_timeout" if silent else "the connection was lost"
    if writes and lost.trip.sent:
        return OutcomeUnknown(
            f"{where}: {reason} while committing: the change may be there or not; look before trying again,"
            " or use `once`"
        )
    return Unavailable(f"{where}: {reason}; nothing was changed; try again")


def cannot_connect(error: psycopg.Error, where: str) -> StoreError:
    """Return the error for a connection that was not made. libpq gives no code, only the server's English text."""
    reason = " ".join(str(error).split())
    if "password authentication failed" in reason or "no pg_hba.conf entry" in reason:
        return InvalidArgument(f"{where} refuses the role of the url: {reason}", what="url", outside=True)
    if "does not exist" in reason and ("database" in reason or "role" in reason):
        return InvalidArgument(f"{where}: {reason}; create it, or correct the url", what="url", outside=True)
    return Unavailable(f"cannot connect to {where}: {reason}; check that the server runs and the url is right")


def unusable(why: str, where: str) -> NoReturn:
    """Raise for a database whose own rows make no sense."""
    raise Damaged(f"{where}: {why}")
