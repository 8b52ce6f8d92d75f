"""Where every call of an engine is a round trip: a new record is presumed to be new, and parts are looked at at once."""

import pytest

from stateroom import Event, Execution, Instance, Store, codec
from stateroom.clock import SystemClock
from stateroom.engines import memory
from stateroom.engines.wrap import Recording
from stateroom.errors import AlreadyExists, LostLease, WrongState
from stateroom.testing import family_suite


class Gathering(memory.MemoryEngine):
    def read_many(self, requests, /):
        return [self.read(part, keys) for part, keys in requests]

    def scan_many(self, ranges, /):
        return [self.scan(part, start, stop, limit=limit) for part, start, stop, limit in ranges]


class Distant(Recording):
    distant = True


def open_distant():
    engine = Distant(Gathering(3))
    return Store(engine, "memory:", namespace="default", codec=codec.default, clock=SystemClock())


class TestDistant(family_suite(open_distant)):
    """Whoever presumes wrong looks, so nothing else can be told apart."""


@pytest.fixture
def store():
    with open_distant() as store:
        yield store
        assert store.check() == []


def calls(store, work):
    engine = store._engine
    engine.clear()
    work()
    return engine.reads, sum(call.name == "commit" for call in engine.calls)  # refused ones too


def test_a_new_record_takes_one_call(store):
    assert calls(store, lambda: store.executions.create(Execution("e", "j"), events=[Event("made")])) == (0, 1)
    assert calls(store, lambda: store.instances.start(Instance("i", "w"))) == (0, 1)
    assert calls(store, lambda: store.instances.start(Instance("k/1", "w", business_key="k"))) == (0, 1)


def test_a_record_that_is_there_is_found_by_the_commit_and_then_read(store):
    store.executions.create(Execution("e", "first"))

    def again():
        with pytest.raises(AlreadyExists):
            store.executions.create(Execution("e", "second"))

    assert calls(store, again) == (1, 1)
    assert store.executions.get("e").job_id == "first"


def test_an_error_under_a_presumption_is_not_told_before_it_was_looked_at(store):
    store.executions.create(Execution("e", "j"))
    with pytest.raises(AlreadyExists):
        store.executions.create(Execution("e", "j", state="running"))
    with pytest.raises(WrongState):
        store.executions.create(Execution("new", "j", state="running"))


def test_a_business_key_in_use_is_found(store):
    store.instances.start(Instance("k/1", "w", business_key="k"))
    with pytest.raises(AlreadyExists) as found:
        store.instances.start(Instance("k/2", "w", business_key="k"))
    assert found.value.id == "k/1"
    store.instances.start(Instance("k/3", "other", business_key="k"))
    assert {one.id for one in store.instances.scan()} == {"k/1", "k/3"}


def test_what_stands_in_every_part_takes_one_call(store):
    for number in range(20):
        store.executions.create(Execution(f"e{number}", "j"))
    assert store.executions.count("new") == 20
    assert calls(store, lambda: store.executions.count("new")) == (1, 0)
    store.feed.latest()
    assert calls(store, store.feed.latest) == (1, 0)
    # The index rows of all parts, then the records of each: all that are needed at once.
    assert calls(store, lambda: store.executions.query(job_id="j", limit=10)) == (2, 0)


def test_rows_that_are_surely_needed_are_read_at_once(store):
    assert calls(store, lambda: store.machines.save("door", "front", "open", None)) == (1, 1)
    assert calls(store, lambda: store.machines.save("door", "front", "closed", None)) == (1, 1)
    assert calls(store, lambda: store.leases.acquire("key", "me", 60)) == (1, 1)
    store.instances.put(Instance("i", "w", status="running"))
    lease = store.leases.acquire("i", "me", 60)
    assert calls(store, lambda: store.instances.cancel("i")) == (1, 1)
    assert store.instances.get("i").status == "cancelled"
    with pytest.raises(LostLease):
        store.leases.renew(lease, 60)


def test_results_are_gathered_at_once(store):
    for number in range(5):
        store.results.put("dag", f"r{number}", number)
    wanted = ["r3", "absent", "r0", "r3"]
    assert calls(store, lambda: store.results.gather("dag", wanted)) == (1, 0)
    assert store.results.gather("dag", wanted) == {"r3": 3, "r0": 0}
    with store.transaction() as tx:
        tx.results.put("dag", "r0", "mine")
        assert calls(store, lambda: tx.results.gather("dag", wanted)) == (1, 0)
        assert tx.results.gather("dag", wanted) == {"r3": 3, "r0": "mine"}


def test_the_feed_of_all_parts_takes_four_calls(store):
    for number in range(20):
        store.executions.create(Execution(f"e{number}", "j"))
    after = store.feed.latest()
    for number in range(20):
        store.executions.update(f"e{number}", message="m")
    found = []
    # How far each part is, the first entries of each, the entries before them, and whether anything was pruned meanwhile.
    assert calls(store, lambda: found.extend(store.feed.read(after).items)) == (4, 0)
    assert [change.previous.message for change in found] == [""] * 20


def test_a_transaction_of_the_caller_presumes_nothing(store):
    store.executions.create(Execution("e", "j"))
    with store.transaction() as tx, pytest.raises(AlreadyExists):
        tx.executions.create(Execution("e", "j"))
