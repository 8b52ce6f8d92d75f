"""A failure at any call of the engine: an error comes out, and the store holds all of an operation or nothing."""

import itertools

import msgspec
import pytest

from kit.model_machine import Place
from stateroom import Context, Event, Execution, Instance
from stateroom.engines.wrap import Faulty
from stateroom.errors import OutcomeUnknown, StoreError

LARGE = "large" * 20_000


def prepare(store):
    executions, instances = store.executions, store.instances
    executions.create(Execution("e/1", "j", details={"a": 1}), events=[Event("made")])
    executions.create(Execution("e/2", "j", state="bid_accepted", data=LARGE))
    executions.update("e/2", state="completed", events=[Event("done", details={"x": LARGE})])
    instances.start(Instance("o/1", "w", business_key="o", labels={"l": "1"}))
    instances.put(Instance("o/2", "w", status="failed", business_key="o", context=Context({"in": LARGE})))
    store.leases.acquire("o/1", "runner", 60)


def view(store):
    """All that a user sees of both families, the lease, and the feed."""
    executions, instances = list(store.executions.scan()), list(store.instances.scan())
    return (
        executions, instances, [store.executions.events(one.id) for one in executions],
        [list(store.executions.history(one.id)) for one in executions],
        [list(store.instances.history(one.id)) for one in instances],
        store.executions.live(), store.executions.for_job("j"), store.instances.active("o"),
        store.instances.count(), sorted(one.id for one in store.instances.query(order="updated")), [store.leases.holder(key) for key in ("o/1", "e/1")],
        sorted((change.key, change.op, len(change.events)) for change in store.feed.read(limit=1000).items),
    )  # fmt: skip


def replace_instance(store):
    store.instances.put(msgspec.structs.replace(store.instances.get("o/1"), workflow="other", labels={"l": "2"}))


def several(store):
    with store.transaction() as tx:
        tx.executions.update("e/1", state="running", events=[Event("one")])
        tx.executions.add_events("e/1", Event("two"))
        tx.executions.delete("e/2")
        tx.feed.emit("moved", {"to": "running"}, id="e/1")


def together(tx):
    tx.executions.update("e/1", message="m")
    tx.instances.put(Instance("e/2", "w"))


ACTS = {
    "create": lambda store: store.executions.create(Execution("e/3", "j"), events=[Event("a"), Event("b")]),
    "create-large": lambda store: store.executions.create(Execution("e/3", "j", data=LARGE, node_id="n")),
    "update": lambda store: store.executions.update("e/1", state="running", events=[Event("a")]),
    "update-large": lambda store: store.executions.update("e/1", state="running", result=LARGE + "!"),
    "delete": lambda store: store.executions.delete("e/1"),
    "delete-large": lambda store: store.executions.delete("e/2"),
    "add_events": lambda store: store.executions.add_events("e/2", Event("after"), Event("all")),
    "start": lambda store: store.instances.start(Instance("o/3", "other", business_key="o", labels={"l": "1"})),
    "put": replace_instance,
    "put-new": lambda store: store.instances.put(Instance("p", "w", business_key="p", context=Context({"in": LARGE}))),
    "cancel": lambda store: store.instances.cancel("o/1"),
    "delete-instance": lambda store: store.instances.delete("o/1"),
    "delete-large-instance": lambda store: store.instances.delete("o/2"),
    "transaction": several,
    "once": lambda store: store.transact(together, once="request-1"),
    "acquire": lambda store: store.leases.acquire("e/1", "me", 60),
    "emit": lambda store: store.feed.emit("moved", {"n": 1}, "e/1"),
}


@pytest.mark.parametrize("database", ["memory", "memory-async", "sqlite", "sqlite-async", "postgresql"], indirect=True)
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_all_or_nothing_at_every_call(act, database):
    """After each failure another client opens the database: it has what it had, or all that was asked for."""
    place = Place(database)
    whole = place.open(place.namespace())
    prepare(whole)
    before = view(whole)
    act(whole)
    after = view(whole)
    assert before != after
    for lost in (False, True):
        for number in itertools.count(1):
            namespace = place.namespace()
            prepare(whole.namespace(namespace))
            faulty = Faulty(place.raw, number, once=True, lost=lost)
            expected = after
            try:
                act(place.over(faulty, namespace))
            except OutcomeUnknown:
                assert lost
            except StoreError:
                expected = before
            again = place.open(namespace)
            assert view(again) == expected
            if act is ACTS["once"]:  # its idempotency key makes it safe to ask again
                act(again)
                assert view(again) == after
            assert again.check() == []
            again.close()
            if faulty.count < number:
                break
        assert number > 1, "nothing was made to fail"
