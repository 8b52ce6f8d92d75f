"""Executions: times, many events, large ones, history; beside the published cases."""

from datetime import UTC, datetime, timedelta

import pytest

from stateroom import Event, Execution
from stateroom.engines.wrap import Conflicting
from stateroom.errors import InvalidArgument, NotFound, Timeout, WrongState
from stateroom.records.dependents import sweep
from stateroom.testing.family_harness import changes, ids, nothing_changes


def test_times(store, clock):
    made = store.executions.create(Execution("a", "j"))
    clock.advance(5)
    changed = store.executions.update("a", message="m")
    assert (changed.created_at, changed.updated_at) == (made.created_at, clock.now())
    clock.advance(-60)
    again = store.executions.update("a", message="n")
    assert again.updated_at == changed.updated_at
    assert changes(store)[-1].at == changed.updated_at


def test_pages_and_filters(store, clock):
    for n in range(25):
        clock.advance(1)
        store.executions.create(Execution(f"e{n:02}", f"j{n % 2}", node_id=f"n{n % 3}", state="bid_accepted"))
    for filters in ({}, {"job_id": "j1"}, {"node_id": "n2"}, {"state": "bid_accepted"}, {"state_in": ["bid_accepted"]}):
        whole = ids(store.executions.scan(**filters))
        assert whole == sorted(whole)
        page, found = store.executions.query(limit=4, **filters), []
        while True:
            found += ids(page)
            if page.cursor is None:
                break
            assert len(page) == 4
            page = store.executions.query(limit=4, cursor=page.cursor, **filters)
        assert found == whole
    assert ids(store.executions.query(updated_before=clock.now() - timedelta(seconds=22))) == ["e00", "e01"]
    assert [one.id for one in store.executions.for_job("j1", limit=3)] == ["e23", "e21", "e19"]
    assert len(store.executions.live()) == 25
    for limit in (0, -1, 1.5, True):
        with pytest.raises(InvalidArgument):
            store.executions.live(limit=limit)
    for wrong in ({"state": "x"}, {"state_in": "new"}, {"state_in": 5}, {"job_id": ""}, {"updated_before": 5}):
        with pytest.raises(InvalidArgument):
            store.executions.query(**wrong)


def test_states_may_be_any_iterable(store):
    store.executions.create(Execution("a", "j"))
    with nothing_changes(store):
        with pytest.raises(WrongState):
            store.executions.update("a", message="m", expected_states=(one for one in ["running"]))
        with pytest.raises(WrongState):
            store.executions.update("a", message="m", unexpected_states=(one for one in ["new"]))
        for wrong in (5, None, "new", b"new", [5]):
            with pytest.raises(InvalidArgument):
                store.executions.update("a", message="m", expected_states=wrong)
        for wrong in (-1, "1", 1.0, True):
            with pytest.raises(InvalidArgument):
                store.executions.update("a", message="m", expected_revision=wrong)
    store.executions.update("a", state="running", expected_states=iter(["new"]))


def test_event_times(store, clock):
    at = datetime(2020, 1, 1, tzinfo=UTC)
    store.executions.create(Execution("a", "j"), events=[Event("e", at=at, seq=9), Event("f")])
    assert [(one.at, one.seq) for one in store.executions.events("a")] == [(at, 1), (clock.now(), 2)]
    with nothing_changes(store):
        for wrong in (datetime(2020, 1, 1), "now", 5):
            with pytest.raises(InvalidArgument):
                store.executions.add_events("a", Event("g", at=wrong))
        for wrong in (5, None):
            with pytest.raises(InvalidArgument):
                store.executions.update("a", events=wrong)


def test_more_than_a_thousand_events(store, database):
    store.executions.create(Execution("a", "j"))
    for start in (0, 900):
        store.executions.add_events("a", *(Event(f"{n}") for n in range(start, start + 900)))
    assert [one.message for one in store.executions.events("a")] == [str(n) for n in range(1800)]
    assert store.executions.delete("a") is True
    assert list(store.check()) == []
    store.executions.create(Execution("a", "j2"), events=[Event("mine")])
    assert [one.message for one in store.executions.events("a")] == ["mine"]
    store.compact()
    assert [one.message for one in store.executions.events("a")] == ["mine"]
    if not database.asynchronous:
        from stateroom.core.bridge import run_now

        assert run_now(sweep(store._scope)) == 0


def test_large_events(store):
    big = "x" * 300_000
    event = Event("big", details={"text": big})
    store.executions.create(Execution("a", "j"), events=[event])
    store.executions.add_events("a", event, Event("small"))
    assert [len(one.details.get("text", "")) for one in store.executions.events("a")] == [300_000, 300_000, 0]
    assert changes(store)[0].events[0].details == {"text": big}
    assert list(store.check()) == []
    store.executions.delete("a")
    assert list(store.check()) == []


def test_history_and_as_of(store, clock):
    store.executions.create(Execution("a", "j"))
    clock.advance(1)
    store.executions.update("a", state="running")
    store.executions.add_events("a", Event("e"))
    assert [one.state for one in store.executions.history("a")] == ["running", "new"]
    assert store.executions.as_of("a", clock.now() - timedelta(seconds=1)).state == "new"
    clock.advance(1)
    store.executions.delete("a")
    assert store.executions.as_of("a", clock.now() - timedelta(seconds=1)).state == "running"
    with pytest.raises(NotFound):
        store.executions.as_of("a", clock.now())
    with pytest.raises(NotFound):
        store.executions.history("a")
    with pytest.raises(Timeout):
        store.executions.wait("a", lambda one: True, timeout=0)


def test_reopened(store, reopen):
    store.executions.create(Execution("a", "j", data={1, 2}), events=[Event("e")])
    before = store.executions.update("a", state="running")
    position = store.feed.latest()
    store = reopen()
    assert store.executions.get("a") == before
    assert [one.message for one in store.executions.events("a")] == ["e"]
    assert store.feed.latest() == position
    assert store.feed.read(position).items == ()


def test_what_can_be_read_only_once_is_there_when_a_conflict_repeats_the_operation(database):
    store = database.over(Conflicting(database.raw(), refuse=lambda number, part, batch: number % 2 == 1))
    store.executions.create(Execution("a", "j"), events=(Event(text) for text in ("one", "two")))
    store.executions.update("a", events=iter([Event("three")]), state="running", expected_states=iter(["new"]))
    assert [event.message for event in store.executions.events("a")] == ["one", "two", "three"]
    with pytest.raises(WrongState):
        store.executions.update("a", message="lost", expected_states=iter(["completed"]))
    assert store.executions.get("a").message == ""
