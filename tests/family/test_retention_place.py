"""A bounded run over a family without an index by time goes on where the last one ended."""

import itertools
from datetime import timedelta
from typing import Any

import pytest

from holdfast import Policy


def test_short_runs_reach_what_is_behind_much_that_stays(
    store: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.retention.set(Policy("results", older_than=timedelta(hours=1)))
    for number in range(5):
        store.results.put("dag", f"z{number}", number)
    clock.advance(7200)
    for number in range(300):
        store.results.put("dag", f"a{number:03d}", number)  # young, and in front of what is old
    ticks = itertools.count()
    monkeypatch.setattr(clock, "monotonic", lambda: float(next(ticks)))  # each look at the time takes a second
    runs = [store.retention.run(max_seconds=4).families["results"] for _ in range(30)]
    assert runs[0] == 0, "one run alone must not reach them, or this shows nothing"
    assert sum(runs) == 5


def test_a_run_that_came_to_the_end_begins_anew(store: Any, clock: Any) -> None:
    store.retention.set(Policy("results", older_than=timedelta(hours=1)))
    for number in range(20):
        store.results.put("dag", f"b{number:02d}", number)
    clock.advance(7200)
    assert store.retention.run(max_records=5).families["results"] == 5
    store.results.put("dag", "a", 1)
    clock.advance(7200)
    gone = 0
    for _ in range(6):
        gone += store.retention.run(max_records=5).families["results"]
    assert gone == 16
    assert store.results.ids("dag") == ()
