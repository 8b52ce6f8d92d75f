"""What the store says of itself agrees with what is in it."""

import uuid
from typing import Any

import stateroom
from stateroom import BEGINNING, Event, Execution, Instance


def test_counts_are_those_of_the_records(store: Any) -> None:
    for number in range(5):
        store.executions.create(Execution(f"e{number}", "job"), events=[Event("made")])
    store.executions.update("e0", state="running")
    store.executions.delete("e1")
    store.instances.start(Instance("k/1", "wf", business_key="k"))
    found = store.stats()
    assert found.executions == {"new": 3, "running": 1}
    assert found.instances == {"pending": 1}
    assert found.machines == {}
    assert found.dead_letters == 0
    assert found.commits >= 8


def test_a_consumer_that_is_behind_shows(store: Any) -> None:
    store.checkpoints.set("slow", BEGINNING)
    for number in range(3):
        store.executions.create(Execution(f"e{number}", "job"))
    store.checkpoints.set("quick", store.feed.latest())
    lags = {lag.name: lag.commits for lag in store.stats().checkpoints}
    assert lags["slow"] >= 4
    assert lags["quick"] <= 1


def test_namespaces_are_counted_apart(store: Any) -> None:
    other = store.namespace(uuid.uuid4().hex)  # on a server the tests share a schema
    other.executions.create(Execution("a", "job"))
    assert store.stats().executions == {}
    assert other.stats().executions == {"new": 1}


def test_it_says_what_keeps_it(tmp_path: Any) -> None:
    with stateroom.open(tmp_path / "a.db") as store:
        assert store.stats().engine.startswith("SQLite 3.")
