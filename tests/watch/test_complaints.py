"""What a handler raises is logged: once with its traceback, then rarely."""

import logging

import pytest

from stateroom.errors import InvalidArgument
from stateroom.watch import complaints
from watch.test_watch import Handler, emit


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.ERROR, "stateroom.watch")
    return lambda: [record for record in caplog.records if record.name == "stateroom.watch"]


def skip_all(store, *ids):
    emit(store, *ids)
    handler = Handler(lambda change, calls: change.id != "r/end")
    emit(store, "r/end")
    watcher = store.watch("w", handler, on_error="skip", max_retries=2, backoff=(0, 0))
    watcher.start()
    handler.wait(1)
    watcher.stop()


def test_the_first_error_has_a_traceback_and_names_the_change(store, lines):
    skip_all(store, "r/1")
    (line,) = lines()
    assert "'w'" in line.getMessage()
    assert "emit note 'r/1'" in line.getMessage()
    assert line.exc_info is not None
    assert "cannot handle r/1" in str(line.exc_info[1])


def test_many_errors_are_few_lines(store, lines):
    skip_all(store, *[f"r/{number}" for number in range(30)])
    assert len(lines()) == 1


def test_errors_are_said_again_after_a_while_and_counted(store, lines, clock):
    skip_all(store, "r/1")
    assert len(lines()) == 1
    calls = complaints.Complaints("w", clock)
    change = store.feed.read().items[0]
    for _ in range(5):
        calls.handler_raised(change, ValueError("no"), 1)
    clock.advance(complaints.EVERY_SECONDS)
    calls.handler_raised(change, ValueError("no"), 6)
    said = lines()[1:]
    assert [line.exc_info is not None for line in said] == [True, False]
    assert "4 errors since" in said[1].getMessage()


def test_another_type_of_error_has_its_traceback_too(store, lines, clock):
    emit(store, "r/1")
    calls = complaints.Complaints("w", clock)
    change = store.feed.read().items[0]
    for error in (ValueError("a"), KeyError("b"), ValueError("c"), KeyError("d")):
        calls.handler_raised(change, error, 1)
    assert [type(line.exc_info[1]) for line in lines()] == [ValueError, KeyError]


@pytest.mark.parametrize("noun", ["instance", "execution", "machine", "result", "savepoint", "execution_event"])
def test_a_noun_for_a_family_is_refused_and_the_family_named(store, noun):
    calls = (
        lambda: store.feed.read(families=[noun]),
        lambda: store.watch("w", print, families={noun}),
    )
    for call in calls:
        with pytest.raises(InvalidArgument, match=f"'{noun}s' is meant") as refused:
            call()
        assert (refused.value.what, refused.value.value) == ("families", noun)
