"""One transaction over all families: it moves an execution, saves its machine and a savepoint, stores its
result and sets a timer.

Whatever call of the engine fails, and even where the answer to the commit is lost, all of it is there or nothing.
"""

from datetime import timedelta

import pytest

from kit.databases import BLOCKING
from kit.faults import Fixed, at_every_call
from stateroom import Event, Execution, Instance
from stateroom.engines.wrap import Conflicting, Recording
from stateroom.errors import Conflict, LostLease, WrongState

LARGE = b"result" * 30_000
ID = "order-17"
NOW = Fixed().now()
RULES = {"idle": {"start": "running"}, "running": {"finish": "done"}}


def prepare(store):
    store.machines.define("order", RULES, initial="idle", final=["done"])
    store.instances.start(Instance(ID, "orders", status="running"))
    store.executions.create(Execution(f"{ID}/charge", "job", state="bid_accepted"))
    for state in ("idle", "running"):
        store.machines.save("order", f"{ID}/machine", state, {"state": state})
    store.machines.fail("order", f"{ID}/machine", "card declined")
    store.results.put(ID, "quote", LARGE)
    store.savepoints.init(ID)
    store.savepoints.save(ID, 1000, {"cart": {"items": 2}, "payment": None})
    store.timers.set(f"{ID}/retry", NOW - timedelta(seconds=1), "again")


def work(tx):
    """What a worker does when the charge went through."""
    tx.executions.update(f"{ID}/charge", state="completed", expected_states={"bid_accepted"}, events=[Event("charged")])
    tx.machines.save("order", f"{ID}/machine", "done", {"paid": 5}, event="finish", from_state="running")
    tx.machines.clear_error("order", f"{ID}/machine")
    tx.results.put(ID, "receipt", LARGE + b"!", producer="charge")
    tx.results.delete(ID, "quote")
    (timer,) = tx.timers.due()
    assert tx.timers.done(timer)
    tx.timers.set(f"{ID}/ship", NOW + timedelta(hours=1), {"order": 17})
    tx.instances.put(Instance(ID, "orders", status="completed", completed_steps=frozenset({"charge"})))
    tx.savepoints.update(ID, 2000, changed={"payment": {"paid": 5}})
    tx.feed.emit("shipped", {"order": 17}, id=ID)


def act(store):
    with store.transaction() as tx:
        work(tx)


def view(store):
    """Everything that the transaction changes, except what is made at random."""
    results = {id: store.results.find(ID, id) for id in store.results.ids(ID)}
    timers = [(timer.id, timer.at, timer.payload) for timer in store.timers.due(NOW + timedelta(days=1))]
    changes = store.feed.read(limit=1000).items
    return (
        store.instances.get(ID), store.executions.get(f"{ID}/charge"), store.executions.events(f"{ID}/charge"),
        store.machines.load("order", f"{ID}/machine"), list(store.machines.history("order", f"{ID}/machine")),
        store.machines.last_error("order", f"{ID}/machine"), results, timers,
        store.savepoints.list(ID), store.savepoints.latest(ID).to_dict(),
        [(change.op, change.family, change.key, change.record) for change in changes],
        (store.instances.count(status="completed"), store.executions.count("completed"), store.machines.count("order", "done")),
    )  # fmt: skip


@BLOCKING
def test_all_or_nothing_at_every_call(database):
    assert at_every_call(database, prepare, act, view) > 10


@BLOCKING
def test_one_commit(database):
    engine = Recording(database.raw())
    store = database.over(engine)
    prepare(store)
    engine.clear()
    act(store)
    assert engine.count("commit") == 1
    assert store.check() == []


def test_on_every_engine(store, reopen, clock):
    clock.advance((NOW - clock.now()).total_seconds())
    prepare(store)
    before = view(store)
    with pytest.raises(WrongState), store.transaction() as tx:
        work(tx)
        tx.machines.save("order", f"{ID}/machine", "running", None)  # nothing leaves a final state
    assert view(store) == before
    with pytest.raises(ZeroDivisionError), store.transaction() as tx:
        work(tx)
        raise ZeroDivisionError
    assert view(store) == before
    act(store)
    after = view(reopen())
    assert after != before
    assert after[1].state == "completed"
    assert after[3].state == "done"
    assert after[5] is None
    assert {id: result.value for id, result in after[6].items()} == {"receipt": LARGE + b"!"}
    assert (after[8], after[9]["payment"]) == ((1000, 2000), {"paid": 5})
    assert after[7] == [(f"{ID}/ship", NOW + timedelta(hours=1), {"order": 17})]


@BLOCKING
@pytest.mark.parametrize(
    "theirs",
    [
        lambda store: store.instances.cancel(ID),
        lambda store: store.executions.update(f"{ID}/charge", state="failed"),
        lambda store: store.machines.save("order", f"{ID}/machine", "running", "theirs"),
        lambda store: store.machines.define("order", RULES),
        lambda store: store.results.put(ID, "receipt", "theirs"),
        lambda store: store.timers.cancel(f"{ID}/retry"),
    ],
    ids=["instance", "execution", "machine", "rules", "result", "timer"],
)
def test_whatever_another_client_changes_first_nothing_of_ours_is_written(theirs, database):
    store = database.open()
    prepare(store)
    seen = []

    def interfere(number, part, batch):
        if number == 1:
            theirs(store)
            seen.append(view(store))

    with pytest.raises(Conflict):
        act(database.over(Conflicting(database.raw(), interfere=interfere)))
    assert view(store) == seen[0]
    assert store.check() == []


def test_under_a_lease_that_was_lost_nothing_is_written(store):
    prepare(store)
    lease = store.leases.acquire(ID, "worker-1", 60)
    before = view(store)
    with pytest.raises(LostLease), store.transaction(lease=lease) as tx:
        work(tx)
        store.leases.release(lease)
        store.leases.acquire(ID, "worker-2", 60)
    assert view(store) == before
    with store.transaction(lease=store.leases.acquire(ID, "worker-2", 60)) as tx:
        work(tx)
    assert view(store)[3].state == "done"


def test_once_does_it_once(store):
    prepare(store)

    def charge(tx):
        work(tx)
        return {"receipt": 17}

    assert store.transact(charge, once=f"{ID}/charge") == {"receipt": 17}
    after = view(store)
    assert store.transact(charge, once=f"{ID}/charge") == {"receipt": 17}
    assert view(store) == after
