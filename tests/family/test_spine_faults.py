"""A failure at any call of the engine: an error comes out, and the store holds all of an operation or nothing."""

import pytest

from holdfast import Event, Execution, Instance, Store, codec
from holdfast.engines import memory
from holdfast.engines.wrap import Faulty, Recording
from holdfast.errors import OutcomeUnknown, Unavailable
from holdfast.testing.faces import ManualClock


def several(tx):
    tx.executions.update("r/old", message="m")
    tx.instances.put(Instance("r/i", "w"))


OPERATIONS = {
    "create": lambda store: store.executions.create(Execution("r/new", "j", node_id="n"), events=[Event("e")]),
    "update": lambda store: store.executions.update("r/old", state="running", events=[Event("e")]),
    "add_events": lambda store: store.executions.add_events("r/old", Event("e")),
    "delete": lambda store: store.executions.delete("r/old"),
    "start": lambda store: store.instances.start(Instance("k/2", "other", business_key="k")),
    "put": lambda store: store.instances.put(Instance("k/1", "w", business_key="k", status="completed")),
    "cancel": lambda store: store.instances.cancel("k/1"),
    "delete an instance": lambda store: store.instances.delete("k/1"),
    "acquire": lambda store: store.leases.acquire("r", "me", 60),
    "emit": lambda store: store.feed.emit("t", {"n": 1}, "r"),
    "transact": lambda store: store.transact(several, once="request-1"),
}


def prepared():
    """An engine with something in it, and a store over it."""
    engine = memory.connect("memory:")
    store = over(engine)
    store.executions.create(Execution("r/old", "j"), events=[Event("first")])
    store.instances.start(Instance("k/1", "w", business_key="k"))
    store.leases.acquire("k/1", "me", 60)
    store.feed.latest()
    return engine, store


def over(engine):
    return Store(engine, "memory:", namespace="default", codec=codec.default, clock=ManualClock(), owner=False)


def contents(store):
    return (
        [*store.executions.scan()],
        [*store.instances.scan()],
        [store.executions.events(one.id) for one in store.executions.scan()],
        [store.leases.holder(key) for key in ("r", "k/1")],
        [(one.op, one.family, one.id, one.record) for one in store.feed.read(limit=1000).items],
        store.executions.count("new"),
        store.instances.count(),
    )


def calls_of(operation):
    engine, _ = prepared()
    recording = Recording(engine)
    operation(over(recording))
    return len(recording.calls)


@pytest.mark.parametrize("name", OPERATIONS)
def test_at_every_call(name):
    operation = OPERATIONS[name]
    for number in range(1, calls_of(operation) + 1):
        engine, store = prepared()
        before = contents(store)
        with pytest.raises(Unavailable):
            operation(over(Faulty(engine, number, once=True)))
        assert contents(store) == before, number
        assert store.check() == []
        operation(store)
        assert contents(store) != before
        assert store.check() == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_with_the_answer_lost(name):
    operation = OPERATIONS[name]
    engine, store = prepared()
    before = contents(store)
    with pytest.raises(OutcomeUnknown):
        operation(over(Faulty(engine, 1, lost=True, calls=["commit"])))
    done = contents(store)
    assert done != before
    assert store.check() == []
    if name == "transact":  # its idempotency key makes it safe to ask again
        operation(store)
        assert contents(store) == done
