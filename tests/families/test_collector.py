"""Collecting savepoints (seeds 5.5), on both faces."""

import pytest

from stateroom import AsyncCollector, Collector, Schedule
from stateroom.engines.memory import MemoryEngine
from stateroom.engines.wrap import Faulty
from stateroom.errors import AlreadyExists, InvalidArgument, NoSavepoint, NotInitialized, Unavailable
from stateroom.testing.faces import Driven


class Collecting:
    """A collector of either kind, used as a blocking one."""

    def __init__(self, store, run="r", schedule=None):
        if isinstance(store, Driven):
            self._thread = store.thread
            self._it = Driven(AsyncCollector(store.target, run, schedule), store.thread)
        else:
            self._thread = None
            self._it = Collector(store, run, schedule)

    def __getattr__(self, name):
        return getattr(self._it, name)

    def start(self, at, states):
        return self._driven(self._it.start(at, states))

    def resume(self, update=None):
        return self._driven(self._it.resume(update))

    def add(self, id, state, at):
        return self._driven({id: self._it.add(id, state, at)})[id]

    def _driven(self, entities):
        return {id: Driven(one, self._thread) if self._thread else one for id, one in entities.items()}


@pytest.fixture
def collector(store):
    store.savepoints.init("r", schedule=60000)
    return Collecting(store)


def test_a_savepoint_is_written_when_all_are_in_it(store, collector):
    both = collector.start(10000, {"a": 1, "b": 2})
    a, b = both["a"], both["b"]
    assert (a.id, a.state, a.timestamp, a.next_savepoint) == ("a", 1, 10000, 60000)
    assert collector.timestamp == 10000
    assert collector.pending() == {60000: {"a", "b"}}
    a.ack(59999)
    assert collector.pending() == {60000: {"a", "b"}}
    a.ack(60000)
    a.update(60000, 11)
    assert (a.state, a.timestamp, a.next_savepoint) == (11, 60000, 120000)
    assert collector.pending() == {60000: {"b"}}
    assert store.savepoints.list("r") == ()
    b.ack(70000)
    assert collector.pending() == {}
    assert collector.timestamp == 60000
    assert store.savepoints.latest("r").to_dict() == {"a": 1, "b": 2}
    assert store.savepoints.list("r") == (60000,)


def test_a_state_goes_into_every_open_savepoint_it_has_reached(store, collector):
    both = collector.start(0, {"a": "a0", "b": "b0"})
    a, b = both["a"], both["b"]
    a.ack(60000)
    a.update(60001, "a1")
    a.ack(120000)
    assert collector.pending() == {60000: {"b"}, 120000: {"b"}}
    b.update(5, "b1")
    b.ack(130000)
    assert store.savepoints.list("r") == (60000, 120000)
    assert store.savepoints.at("r", 60000).to_dict() == {"a": "a0", "b": "b1"}
    assert store.savepoints.at("r", 120000).to_dict() == {"a": "a1", "b": "b1"}


def test_multiples_that_were_skipped_are_not_made(store, collector):
    (a,) = collector.start(0, {"a": 1}).values()
    a.ack(250000)
    assert store.savepoints.list("r") == (60000, 240000)
    assert a.next_savepoint == 300000
    a.ack(299999)
    assert store.savepoints.list("r") == (60000, 240000)


def test_the_first_state_of_an_entity_wins(store, collector):
    both = collector.start(0, {"a": 1, "b": 1})
    both["a"].ack(60000)
    both["a"].update(60000, 2)
    both["a"].ack(60001)
    both["a"].ack(119999)
    both["b"].ack(60000)
    assert store.savepoints.latest("r").get("a") == 1


def test_a_state_is_as_it_was_when_it_was_saved(store, collector):
    both = collector.start(0, {"a": [1], "b": 1})
    both["a"].ack(60000)
    both["a"].state.append(2)
    both["b"].ack(60000)
    assert store.savepoints.latest("r").get("a") == [1]


def test_a_transform_runs_only_when_it_saves_and_changes_nothing_else(store, collector):
    both = collector.start(0, {"a": 1, "b": 1})
    calls = []

    def transform(state):
        calls.append(state)
        return {"packed": state}

    both["a"].ack(59999, transform)
    assert calls == []
    both["a"].ack(60000, transform)
    both["a"].ack(60001, transform)
    assert calls == [1]
    assert both["a"].state == 1
    both["b"].ack(60000)
    assert store.savepoints.latest("r").to_dict() == {"a": {"packed": 1}, "b": 1}


def test_what_a_transform_raises_blocks_the_save(store, collector):
    (a,) = collector.start(0, {"a": 1}).values()

    def transform(state):
        raise RuntimeError("not now")

    with pytest.raises(RuntimeError, match="not now"):
        a.ack(60000, transform)
    assert a.next_savepoint == 60000
    assert collector.pending() == {60000: {"a"}}
    assert store.savepoints.list("r") == ()
    a.ack(60000)
    assert store.savepoints.list("r") == (60000,)


def test_a_state_that_cannot_be_stored_is_refused_by_name(store, collector):
    (a,) = collector.start(0, {"a": 1}).values()
    a.update(5, object())
    with pytest.raises(InvalidArgument, match="'a'"):
        a.ack(60000)
    assert a.next_savepoint == 60000


def test_a_laggard_is_shown_and_given_up(store, collector):
    both = collector.start(0, {"a": 1, "b": 2})
    a, b = both["a"], both["b"]
    a.ack(60000)
    assert collector.pending() == {60000: {"b"}}
    assert collector.abandon(60000) is True
    assert collector.abandon(60000) is False
    assert collector.pending() == {}
    b.ack(60000)  # it is not opened again
    assert collector.pending() == {}
    a.ack(120000)
    b.ack(120000)
    assert store.savepoints.list("r") == (120000,)


def test_a_failed_write_stays_and_is_tried_again(database):
    faulty = Faulty(MemoryEngine(), 10**9)
    store = database.over(faulty)
    store.savepoints.init("r", schedule=100)
    collector = Collecting(store)
    both = collector.start(0, {"a": 1, "b": 2})
    both["a"].ack(100)
    faulty.after = faulty.count + 1
    with pytest.raises(Unavailable):
        both["b"].ack(100)
    assert collector.pending() == {100: set()}
    assert both["b"].next_savepoint == 200
    both["b"].update(100, "later")
    faulty.heal()
    both["a"].ack(101)
    assert collector.pending() == {}
    assert store.savepoints.latest("r").to_dict() == {"a": 1, "b": 2}


def test_a_run_goes_on_where_it_was(store, collector):
    (a,) = collector.start(0, {"a": 1}).values()
    a.ack(60000)
    again = Collecting(store)
    (a,) = again.resume().values()
    assert (a.id, a.state, a.timestamp, a.next_savepoint) == ("a", 1, 60000, 120000)
    assert again.timestamp == 60000
    assert again.pending() == {120000: {"a"}}
    other = Collecting(store)
    found = other.resume(lambda states: {**states, "b": 5})
    assert {id: one.state for id, one in found.items()} == {"a": 1, "b": 5}

    def change(states):
        states["c"] = states.pop("a")

    assert list(Collecting(store).resume(change)) == ["c"]


def test_what_is_not_there_cannot_be_resumed(store):
    with pytest.raises(NoSavepoint):
        Collecting(store).resume()
    store.savepoints.init("r", schedule=5)
    with pytest.raises(NoSavepoint):
        Collecting(store).resume()


def test_a_schedule_given_initialises_and_beats_that_of_init(store):
    with pytest.raises(NotInitialized):
        Collecting(store).start(0, {"a": 1})
    (a,) = Collecting(store, schedule=Schedule(10)).start(0, {"a": 1}).values()
    assert store.savepoints.initialized("r")
    a.ack(10)
    assert store.savepoints.list("r") == (10,)
    (a,) = Collecting(store, schedule=Schedule(7)).start(10, {"a": 1}).values()
    assert a.next_savepoint == 14


def test_without_an_interval_nothing_is_saved(store):
    store.savepoints.init("r")
    collector = Collecting(store)
    (a,) = collector.start(0, {"a": 1}).values()
    a.ack(10**9)
    assert (a.next_savepoint, collector.pending(), store.savepoints.list("r")) == (None, {}, ())


def test_an_entity_that_joins_is_part_of_what_comes_after(store, collector):
    a = collector.start(0, {"a": "a0"})["a"]
    a.ack(60000)
    a.ack(120000)
    assert store.savepoints.list("r") == (60000, 120000)
    b = collector.add("b", "b0", 150000)
    assert (b.id, b.state, b.timestamp, b.next_savepoint) == ("b", "b0", 150000, 180000)
    a.ack(180000)
    assert collector.pending() == {180000: {"b"}}
    b.update(151000, "b1")
    b.ack(200000)
    assert store.savepoints.latest("r").to_dict() == {"a": "a0", "b": "b1"}
    assert store.savepoints.at("r", 120000).to_dict() == {"a": "a0"}


def test_an_open_savepoint_waits_for_whoever_was_there_at_its_time(store, collector):
    both = collector.start(0, {"a": 1, "b": 2})
    both["a"].ack(60000)
    late, early = collector.add("late", 3, 60000), collector.add("early", 4, 59999)
    assert collector.pending() == {60000: {"b", "early"}}
    both["b"].ack(60001)
    late.ack(60001)
    assert collector.pending() == {60000: {"early"}}
    early.ack(60001)
    assert store.savepoints.at("r", 60000).to_dict() == {"a": 1, "b": 2, "early": 4}
    late.ack(120000)
    assert collector.pending() == {120000: {"a", "b", "early"}}


def test_who_joins_behind_what_was_saved_does_not_open_it_again(store, collector):
    a = collector.start(0, {"a": "old"})["a"]
    a.ack(60000)
    late = collector.add("late", 1, 10)
    assert (late.timestamp, late.next_savepoint) == (10, 120000)
    late.ack(60000)
    late.ack(70000)
    a.update(70000, "new")
    a.ack(130000)
    assert collector.pending() == {120000: {"late"}}
    assert store.savepoints.list("r") == (60000,)
    assert store.savepoints.latest("r").to_dict() == {"a": "old"}
    assert collector.abandon(120000)
    assert collector.add("later", 1, 90000).next_savepoint == 180000


def test_who_leaves_is_not_waited_for_and_what_it_saved_stays(store, collector):
    three = collector.start(0, {"a": 1, "b": 2, "c": 3})
    three["a"].ack(60000)
    assert collector.remove("a") is True
    assert collector.remove("a") is False
    assert collector.pending() == {60000: {"b", "c"}}
    three["b"].ack(60000)
    assert collector.remove("c") is True  # the last one that was missing: nobody may come to write it
    assert store.savepoints.latest("r").to_dict() == {"a": 1, "b": 2}
    with pytest.raises(InvalidArgument, match="'c' was removed"):
        three["c"].ack(120000)
    assert collector.pending() == {}
    again = collector.add("c", 33, 70000)
    with pytest.raises(InvalidArgument):
        three["c"].ack(120000)
    three["b"].ack(120000)
    again.ack(120000)
    assert store.savepoints.latest("r").to_dict() == {"b": 2, "c": 33}


def test_when_all_have_left_nothing_is_saved_and_others_may_come(store, collector):
    collector.start(0, {"a": 1})
    collector.remove("a")
    assert (collector.pending(), store.savepoints.list("r")) == ({}, ())
    with pytest.raises(InvalidArgument, match="started already"):
        collector.start(0, {"b": 1})
    b = collector.add("b", 2, 30)
    b.ack(60000)
    assert store.savepoints.latest("r").to_dict() == {"b": 2}


def test_what_cannot_join_changes_nothing(store, collector):
    with pytest.raises(InvalidArgument, match="start"):
        collector.add("a", 1, 0)
    a = collector.start(0, {"a": 1})["a"]
    for id, state, at in (("", 1, 0), (5, 1, 0), ("b", object(), 0), ("b", 1, -1), ("b", 1, None)):
        with pytest.raises(InvalidArgument):
            collector.add(id, state, at)
    with pytest.raises(AlreadyExists) as caught:
        collector.add("a", 2, 5)
    assert caught.value.id == "a"
    with pytest.raises(InvalidArgument):
        collector.remove(5)
    a.ack(60000)
    assert store.savepoints.latest("r").to_dict() == {"a": 1}


def test_a_write_that_fails_when_somebody_leaves_is_tried_again(database):
    faulty = Faulty(MemoryEngine(), 10**9)
    store = database.over(faulty)
    store.savepoints.init("r", schedule=100)
    collector = Collecting(store)
    both = collector.start(0, {"a": 1, "b": 2})
    both["a"].ack(100)
    faulty.after = faulty.count + 1
    with pytest.raises(Unavailable):
        collector.remove("b")
    assert collector.pending() == {100: set()}
    faulty.heal()
    both["a"].ack(101)
    assert store.savepoints.latest("r").to_dict() == {"a": 1}


def test_bad_arguments_change_nothing(store, collector):
    for at, states in ((-1, {"a": 1}), (0, {"": 1}), (0, {5: 1}), (0, {"a": object()}), (0, "ab"), (0, None)):
        with pytest.raises(InvalidArgument):
            collector.start(at, states)
    (a,) = collector.start(0, {"a": 1}).values()
    for call in (lambda: a.ack(-1), lambda: a.update(1.5, 2), lambda: collector.start(0, {}), collector.resume):
        with pytest.raises((InvalidArgument, NoSavepoint)):
            call()
    assert a.state == 1
    with pytest.raises(InvalidArgument):
        Collector(None, "r")
    with pytest.raises(InvalidArgument):
        (Collector if isinstance(store, Driven) else AsyncCollector)(getattr(store, "target", store), "r")
