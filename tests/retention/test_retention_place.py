"""A bounded run goes on where the last one ended: nothing waits for ever for what has more to do than a run may."""

import itertools
from datetime import timedelta
from typing import Any

import pytest

from stateroom import Execution, Instance, Policy, Store, codec
from stateroom.engines.memory import MemoryEngine
from stateroom.errors import Damaged
from stateroom.testing.faces import ManualClock


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


# --- however much one has to do, the others get their turn ---


def instances(store: Any, round: int, where: str = "", status: str = "completed") -> None:
    for number in range(10):
        store.instances.put(Instance(f"{where}/i{round}-{number}", "w", status=status))


def executions(store: Any, round: int, where: str = "") -> None:
    for number in range(10):
        store.executions.create(Execution(f"{where}/e{round}-{number}", "j"))
        store.executions.update(f"{where}/e{round}-{number}", state="failed")


def results(store: Any, round: int, where: str = "") -> None:
    for number in range(10):
        store.results.put(f"{where}/d", f"r{round}-{number}", 1)


def expired(store: Any, round: int, where: str = "") -> None:
    for number in range(10):
        store.results.put(f"{where}/x", f"r{round}-{number}", 1, ttl=1)


def feed(store: Any, round: int, where: str = "") -> None:
    for number in range(10):
        store.feed.emit("note", number, id=f"{where}/f")


def once(store: Any, round: int, where: str = "") -> None:
    for number in range(10):
        store.transact(lambda tx: None, once=f"{where}/k{round}-{number}")


GREEDY = [instances, executions, results, expired, feed, once]


@pytest.mark.parametrize("database", ["memory", "postgresql"], indirect=True)  # of one part and of several
@pytest.mark.parametrize("greedy", GREEDY)
def test_what_has_more_to_do_than_a_run_may_does_not_starve_the_others(store: Any, clock: Any, greedy: Any) -> None:
    for family in ("instances", "executions"):
        store.retention.set(Policy(family, terminal_older_than=timedelta(hours=1)))
    for family in ("results", "feed", "once"):
        store.retention.set(Policy(family, older_than=timedelta(hours=1)))
    for fill in GREEDY:
        fill(store, 0)
    removed: dict[str, int] = {}
    for round in range(1, 40):
        greedy(store, round)
        clock.advance(7200)
        done = store.retention.run(max_records=5)
        assert not done.complete
        for family, count in done.families.items():
            removed[family] = removed.get(family, 0) + count
    for fill in GREEDY:
        assert removed[fill.__name__] >= 10, "its turn never came"
    assert sum(removed.values()) == 39 * 5


@pytest.mark.parametrize("greedy", GREEDY)
def test_a_part_with_more_to_do_than_a_run_may_does_not_starve_the_others(greedy: Any) -> None:
    clock = ManualClock()
    store = Store(MemoryEngine(parts=3), "memory:", namespace="n", codec=codec.default, clock=clock)
    roots = {store._scope.part(f"root{number}"): f"root{number}" for number in range(20)}
    if greedy in (instances, executions):
        store.retention.set(Policy(greedy.__name__, terminal_older_than=timedelta(hours=1)))
    elif greedy is not expired:
        store.retention.set(Policy(greedy.__name__, older_than=timedelta(hours=1)))
    for fullest in range(3):
        for part in range(3):
            greedy(store, 100 + fullest, roots[part])
        removed = [0, 0, 0]
        engine = store._engine
        commit = engine.commit

        def counted(part: int, batch: Any, commit: Any = commit, removed: Any = removed) -> int:
            removed[part] += bool(batch.clear) or None in batch.write.values()
            return int(commit(part, batch))

        engine.commit = counted
        for round in range(12):
            greedy(store, round, roots[fullest])
            clock.advance(7200)
            assert not store.retention.run(max_records=5).complete
        engine.commit = commit
        assert all(removed), f"of part {fullest} there was always more: {removed}"
        store.retention.run(max_records=100_000)
    store.close()


def test_a_status_with_more_to_do_than_a_run_may_does_not_starve_the_others(store: Any, clock: Any) -> None:
    store.retention.set(Policy("instances", terminal_older_than=timedelta(hours=1)))
    for status in ("completed", "failed", "cancelled"):
        instances(store, 0, status, status)
    for round in range(1, 20):
        instances(store, round, "completed")
        clock.advance(7200)
        assert store.retention.run(max_records=5).count == 5
    assert store.instances.count(status="failed") == store.instances.count(status="cancelled") == 0
    assert store.instances.count(status="completed") > 100


def test_one_that_fails_does_not_keep_the_others_from_their_turn(
    store: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: Any) -> Any:
        raise Damaged("a checkpoint cannot be read", kind="checkpoints")

    monkeypatch.setattr("stateroom.retention.feed.limits", fail)
    store.retention.set(Policy("feed", older_than=timedelta(hours=1)))
    store.retention.set(Policy("instances", terminal_older_than=timedelta(hours=1)))
    instances(store, 0)
    clock.advance(7200)
    for _ in range(2):
        with pytest.raises(Damaged):
            store.retention.run()
    assert store.instances.count() == 0


def test_a_run_reaches_what_came_in_front_of_where_the_last_one_ended(store: Any, clock: Any) -> None:
    store.retention.set(Policy("results", older_than=timedelta(hours=1)))
    for number in range(200):
        store.results.put("dag", f"m{number:03d}", number)
    clock.advance(7200)
    assert store.retention.run(max_records=70).count == 70
    store.results.put("dag", "a", 1)
    clock.advance(7200)
    done = store.retention.run()
    assert (done.count, done.complete) == (131, True)
    assert store.results.ids("dag") == ()
