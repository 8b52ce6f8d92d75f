"""What an answer, or the lack of one, says about a commit; without a server, so that each case is said once."""

import pytest
from psycopg.pq import DiagnosticField, ExecStatus

from stateroom.engines.postgres import faults
from stateroom.engines.postgres.statements import COMMIT, Statement
from stateroom.engines.postgres.wire import Notice, RoundTrip
from stateroom.errors import Conflict, OutcomeUnknown, StoreError, Unavailable

WRITE = Statement(b"WRITE", ())


class Answer:
    """What libpq gives for one statement; a refusal where there is a code."""

    def __init__(self, tag=b"", code="", severity="ERROR", function="exec"):
        self.status = ExecStatus.FATAL_ERROR if code else ExecStatus.COMMAND_OK
        self.command_status = tag
        self._fields = {
            DiagnosticField.SQLSTATE: code.encode(),
            DiagnosticField.SEVERITY_NONLOCALIZED: severity.encode(),
            DiagnosticField.SOURCE_FUNCTION: function.encode(),
            DiagnosticField.MESSAGE_PRIMARY: b"no",
        }

    def error_field(self, field):
        return self._fields.get(field) or None

    def get_error_message(self, encoding="utf-8"):
        return "no"


def trip_of(*answers, commits=True, aborted=False, notices=()):
    """A round trip of a write and a COMMIT whose end was sent."""
    trip = RoundTrip([WRITE, COMMIT if commits else WRITE])
    trip.answers += answers
    trip.sent, trip.aborted = True, aborted
    trip.notices += notices
    return trip


WRITTEN, COMMITTED = Answer(b"INSERT 0 1"), Answer(b"COMMIT")


def test_a_commit_that_was_answered_holds():
    assert faults.check(trip_of(WRITTEN, COMMITTED), "here", prepared=False) is None


@pytest.mark.parametrize("code", ["08000", "08006", "XX000", "58030", "57P01", "HV000", "40003"])
def test_a_refusal_by_commit_itself_that_is_not_clean_leaves_the_outcome_unknown(code):
    error = faults.check(trip_of(WRITTEN, Answer(code=code)), "here", prepared=False)
    assert type(error) is OutcomeUnknown
    assert error.fields["sqlstate"] == code


@pytest.mark.parametrize(("code", "kind"), [("40001", Conflict), ("53100", Unavailable), ("23514", StoreError)])
def test_a_clean_refusal_by_commit_itself_is_told_as_what_it_is(code, kind):
    assert type(faults.check(trip_of(WRITTEN, Answer(code=code)), "here", prepared=False)) is kind


def test_an_error_that_names_no_function_is_a_poolers_unless_the_transaction_is_still_open():
    made_up = Answer(code="08006", function="")
    assert type(faults.check(trip_of(made_up), "here", prepared=False)) is OutcomeUnknown
    assert type(faults.check(trip_of(made_up, aborted=True), "here", prepared=False)) is Unavailable
    assert type(faults.check(trip_of(Answer(code="08006")), "here", prepared=False)) is Unavailable
    fatal = Answer(code="08006", severity="FATAL", function="")
    assert type(faults.check(trip_of(fatal), "here", prepared=False)) is OutcomeUnknown


@pytest.mark.parametrize(
    ("index", "severity", "kind"),
    [
        (1, "WARNING", OutcomeUnknown),
        (1, "NOTICE", OutcomeUnknown),
        (1, "INFO", type(None)),
        (0, "WARNING", type(None)),
        (0, "NOTICE", type(None)),
    ],
)
def test_what_the_server_says_while_it_commits_is_a_doubt(index, severity, kind):
    trip = trip_of(WRITTEN, COMMITTED, notices=[(index, Notice(severity, "canceling wait for replication"))])
    assert type(faults.check(trip, "here", prepared=False)) is kind


def test_a_transaction_that_was_rolled_back_without_a_word_has_changed_nothing():
    assert type(faults.check(trip_of(WRITTEN, Answer(b"ROLLBACK")), "here", prepared=False)) is Unavailable


def test_a_lost_connection_is_unknown_only_once_commit_may_have_been_sent():
    trip = trip_of(WRITTEN)
    assert type(faults.of_loss(faults.Lost(trip), "here", writes=True)) is OutcomeUnknown
    assert type(faults.of_loss(faults.Lost(trip), "here", writes=False)) is Unavailable
    trip.sent = False
    assert type(faults.of_loss(faults.Lost(trip), "here", writes=True)) is Unavailable


def test_a_conflict_that_was_answered_before_the_loss_is_told():
    lost = faults.Lost(trip_of(Answer(code="40001")))
    assert type(faults.of_loss(lost, "here", writes=True)) is Conflict
