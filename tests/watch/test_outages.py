"""A watcher goes on by itself after an outage of any length, wherever that found it, and misses nothing."""

import logging
import threading

import pytest

from kit.away import Away
from stateroom import Execution
from stateroom.core import outage
from stateroom.errors import Timeout
from watch.test_watch import PATIENCE, Handler, emit, until

FAILURES = 25
"""Tries during an outage: more than any number of tries that something could be given up after."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(outage, "LEAST_SECONDS", 0.0001)
    monkeypatch.setattr(outage, "MOST_SECONDS", 0.001)


@pytest.fixture
def away(database):
    return Away(database.raw())


def endure(away, *names, lost=False, count=FAILURES):
    """Be away until so many calls were refused."""
    before = away.refused
    away.leave(*names, lost=lost)
    until(lambda: away.refused >= before + count)
    away.come_back()


def test_an_active_watcher_goes_on_although_its_lease_is_due(database, store, away, clock):
    handler = Handler()
    watcher = database.over(away).watch("w", handler)
    watcher.start()
    emit(store, "r/before")
    handler.wait(1)
    clock.advance(6)  # a third of its lease is over: the next thing it does is to renew it
    endure(away)
    emit(store, "r/after")
    assert handler.wait(2) == ["r/before", "r/after"]
    assert watcher.stats().state == "running"
    watcher.stop()


def test_an_outage_longer_than_the_lease(database, store, away, clock):
    handler = Handler()
    watcher = database.over(away).watch("w", handler)
    watcher.start()
    emit(store, "r/before")
    handler.wait(1)
    until(lambda: store.checkpoints.find("w") is not None)
    before = away.refused
    away.leave()
    clock.advance(3600)
    until(lambda: away.refused > before + FAILURES)
    emit(store, "r/meanwhile")
    away.come_back()
    assert handler.wait(2) == ["r/before", "r/meanwhile"]
    watcher.stop()


def test_a_watcher_that_waits_for_the_lease_goes_on_waiting(database, store, away, clock):
    first, second = Handler(), Handler()
    active = store.watch("w", first)
    active.start()
    emit(store, "r/1")
    first.wait(1)
    standing_by = database.over(away).watch("w", second)
    standing_by.start()
    until(lambda: standing_by.stats().state == "waiting")
    endure(away)
    assert standing_by.stats().state == "waiting"
    active.stop()
    emit(store, "r/2")
    assert second.wait(1) == ["r/2"]
    standing_by.stop()


@pytest.mark.parametrize("lost", [False, True])
def test_a_checkpoint_is_written_when_it_can_be(database, store, away, lost):
    entered, leave = threading.Event(), threading.Event()
    seen = []

    def handler(change):
        entered.set()
        assert leave.wait(PATIENCE)
        seen.append(change.id)

    watcher = database.over(away).watch("w", handler)
    watcher.start()
    emit(store, "r/1")
    assert entered.wait(PATIENCE)
    before = away.refused
    away.leave("commit", lost=lost)
    leave.set()
    until(lambda: away.refused >= before + (1 if lost else FAILURES))
    away.come_back()
    (change,) = store.feed.read().items
    until(lambda: store.checkpoints.find("w") == change.position)  # without another change that would bring it along
    assert seen == ["r/1"]
    watcher.stop()
    assert watcher.stats().handled == 1


@pytest.mark.parametrize("lost", [False, True])
def test_a_dead_letter_is_written_once_and_its_change_handled_no_more_often(database, store, away, lost):
    refused = threading.Event()

    def fails(change, calls):
        if calls == 2:
            away.leave("commit", lost=lost)
            refused.set()
        return change.id == "r/bad"

    handler = Handler(fails)
    watcher = database.over(away).watch("w", handler, on_error="skip", max_retries=1, backoff=(0, 0))
    watcher.start()
    emit(store, "r/bad")
    assert refused.wait(PATIENCE)
    until(lambda: away.refused >= (1 if lost else FAILURES))
    away.come_back()
    emit(store, "r/good")
    assert handler.wait(1) == ["r/good"]
    watcher.stop()
    assert handler.calls == 3
    (letter,) = store.dead_letters.list()
    assert (letter.attempts, watcher.stats().skipped) == (2, 1)


def test_a_letter_that_was_handed_back_is_handled_when_the_database_is_there(database, store, away):
    failing = threading.Event()
    failing.set()
    handler = Handler(lambda change, calls: failing.is_set())
    watcher = database.over(away).watch("w", handler, on_error="skip", max_retries=0, backoff=(0, 0))
    watcher.start()
    emit(store, "r/1")
    until(lambda: len(store.dead_letters.list()) == 1)
    failing.clear()
    (letter,) = store.dead_letters.list()
    away.leave("scan", "scan_many")
    store.dead_letters.retry(letter)
    until(lambda: away.refused >= FAILURES)
    away.come_back()
    handler.wait(1)
    until(lambda: store.dead_letters.list() == ())
    watcher.stop()


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(database, store, away, caplog):
    handler = Handler()
    watcher = database.over(away).watch("w", handler)
    with caplog.at_level(logging.WARNING, "stateroom.watch"):
        watcher.start()
        emit(store, "r/1")
        handler.wait(1)
        endure(away)
        emit(store, "r/2")
        handler.wait(2)
        watcher.stop()
    lines = [record.getMessage() for record in caplog.records if record.name == "stateroom.watch"]
    assert len(lines) == 2, lines
    assert "goes on trying" in lines[0]
    assert "goes on after" in lines[1]


def test_an_iterator_over_the_feed_goes_on(database, store, away):
    changes = database.over(away).feed.follow("reader")
    seen = threading.Semaphore(0)
    ids = []

    def read():
        for change in changes:
            ids.append(change.id)
            seen.release()
            if change.id == "r/end":
                return

    thread = threading.Thread(target=read)
    thread.start()
    emit(store, "r/1")
    assert seen.acquire(timeout=PATIENCE)
    endure(away)
    emit(store, "r/2", "r/end")
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert ids == ["r/1", "r/2", "r/end"]


def test_who_waits_for_a_record_goes_on_waiting(database, store, away):
    waiter = database.over(away)
    outcome = []
    away.leave()
    thread = threading.Thread(
        target=lambda: outcome.append(waiter.executions.wait("e", lambda execution: True, timeout=PATIENCE).id)
    )
    thread.start()
    until(lambda: away.refused >= FAILURES)
    away.come_back()
    store.executions.create(Execution("e", "job"))
    thread.join(PATIENCE)
    assert outcome == ["e"]


def test_who_waits_in_an_outage_is_told_when_time_is_up(database, away):
    waiter = database.over(away)
    away.leave()
    with pytest.raises(Timeout, match="away"):
        waiter.executions.wait("e", lambda execution: True, timeout=0.05)
    away.come_back()


def test_a_read_that_waits_goes_on_waiting(database, store, away):
    reader = database.over(away)
    emit(store, "r/1")
    after = store.feed.latest()
    outcome = []
    away.leave()
    thread = threading.Thread(target=lambda: outcome.append(reader.feed.read(after, wait=PATIENCE)))
    thread.start()
    until(lambda: away.refused >= FAILURES)
    emit(store, "r/2")
    away.come_back()
    thread.join(PATIENCE)
    assert [change.id for change in outcome[0].items] == ["r/2"]
