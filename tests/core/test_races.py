"""Another client commits exactly between this one's reading and its commit: what comes out is as if one came first."""

import pytest

from kit.databases import BLOCKING
from stateroom import Event, Execution, Instance, Store, codec
from stateroom.core.bridge import run_now
from stateroom.engines.wrap import Conflicting, Slow
from stateroom.errors import AlreadyExists, LostLease, StaleRevision, WrongState
from stateroom.families.results import clear
from stateroom.testing.family_harness import ids


@pytest.fixture
def meeting(database, store):
    """`meeting(what)`: a client whose first commit meets `what(store)`, done by another just before."""

    def make(what):
        def interfere(number, part, batch):
            if number == 1:
                what(direct)

        engine = Conflicting(database.raw(), interfere=interfere)
        return database.over(engine)

    direct = blocking(database)
    return make


def blocking(database):
    """Another client that may be called from within a call of the engine, on whatever thread that is."""
    options = {"namespace": database.namespace, "codec": codec.default, "clock": database.clock, "owner": False}
    return Store(database.raw(), database.url, **options)


def test_two_starts(meeting, store):
    client = meeting(lambda other: other.instances.start(Instance("k/1", "w", business_key="k")))
    with pytest.raises(AlreadyExists) as caught:
        client.instances.start(Instance("k/2", "w", business_key="k"))
    assert caught.value.id == "k/1"
    assert ids(store.instances.query()) == ["k/1"]


def test_a_start_and_a_reactivation(meeting, store):
    store.instances.put(Instance("k/1", "w", business_key="k", status="failed"))
    back = Instance("k/1", "w", business_key="k", status="running")
    client = meeting(lambda other: other.instances.put(back, expected_revision=1))
    with pytest.raises(AlreadyExists) as caught:
        client.instances.start(Instance("k/2", "w", business_key="k"))
    assert caught.value.id == "k/1"


def test_a_start_and_an_end(meeting, store):
    store.instances.start(Instance("k/1", "w", business_key="k"))
    client = meeting(lambda other: other.instances.cancel("k/1"))
    assert client.instances.put(Instance("k/1", "w", business_key="k", status="completed")).revision == 3
    assert store.instances.start(Instance("k/2", "w", business_key="k")).revision == 1


def test_a_put_and_a_cancel(meeting, store):
    store.instances.put(Instance("a", "w", status="running"))
    with pytest.raises(WrongState) as caught:
        meeting(lambda other: other.instances.cancel("a")).instances.put(Instance("a", "w", status="waiting"))
    assert caught.value.terminal is True
    assert store.instances.get("a").status == "cancelled"


def test_a_put_with_a_revision(meeting, store):
    store.instances.put(Instance("a", "w"))
    client = meeting(lambda other: other.instances.put(Instance("a", "w", status="running")))
    with pytest.raises(StaleRevision) as caught:
        client.instances.put(Instance("a", "w"), expected_revision=1)
    assert caught.value.actual == 2


def test_two_creates(meeting, store):
    client = meeting(lambda other: other.executions.create(Execution("a", "theirs")))
    with pytest.raises(AlreadyExists):
        client.executions.create(Execution("a", "mine"))
    assert store.executions.get("a").job_id == "theirs"


def test_two_updates(meeting, store):
    store.executions.create(Execution("a", "j"))
    client = meeting(lambda other: other.executions.update("a", state="running", details={"n": 1}))
    with pytest.raises(WrongState):
        client.executions.update("a", state="failed", expected_states={"new"})
    client = meeting(lambda other: other.executions.update("a", message="theirs"))
    merged = client.executions.update("a", node_id="n")
    assert (merged.message, merged.node_id, merged.revision) == ("theirs", "n", 4)


def test_an_update_and_a_delete_and_a_create(meeting, store):
    store.executions.create(Execution("a", "j"), events=[Event("old")])

    def again(other):
        other.executions.delete("a")
        other.executions.create(Execution("a", "j"), events=[Event("new")])

    meeting(again).executions.add_events("a", Event("mine"))
    assert [one.message for one in store.executions.events("a")] == ["new", "mine"]


def test_two_writers_of_events(meeting, store):
    store.executions.create(Execution("a", "j"))
    client = meeting(lambda other: other.executions.add_events("a", Event("theirs")))
    client.executions.add_events("a", Event("mine"))
    assert [(one.seq, one.message) for one in store.executions.events("a")] == [(1, "theirs"), (2, "mine")]


def test_two_holders(meeting, store):
    with pytest.raises(LostLease) as caught:
        meeting(lambda other: other.leases.acquire("a", "you", 60)).leases.acquire("a", "me", 60)
    assert caught.value.holder == "you"


def test_a_cancel_and_an_acquire(meeting, store):
    store.instances.put(Instance("a", "w", status="running"))
    taken = []
    meeting(lambda other: taken.append(other.leases.acquire("a", "me", 60))).instances.cancel("a")
    with pytest.raises(LostLease):
        store.leases.renew(taken[0], 60)


def test_a_record_that_moves_between_two_lists_is_found_once(database, store):
    for n in range(40):
        store.executions.create(Execution(f"e{n:02}", "j", state="bid_accepted"))
    other, scans = blocking(database), []

    def before(name, part):
        scans.append(name)
        if scans.count("scan") == 2 and name == "scan":  # in the first list already, it comes into the second
            other.executions.update("e01", state="running")

    client = database.over(Slow(database.raw(), before))
    found = client.executions.query(state_in=["bid_accepted", "running"])
    assert ids(found) == [f"e{n:02}" for n in range(40)]


def test_a_clear_and_a_put(meeting, store):
    store.results.put("d", "x", 1)
    client = meeting(lambda other: other.results.put("d", "y", 2))
    assert client.results.clear("d") == 2
    assert list(store.results.ids("d")) == []
    assert store.results.count("d") == 0


@BLOCKING
def test_an_expiry_and_a_put(meeting, store, clock):
    store.results.put("d", "x", 1, ttl=10)
    clock.advance(20)
    client = meeting(lambda other: other.results.put("d", "x", 2, ttl=1000))
    assert run_now(clear.expire(client._scope, clock.now())) == 0
    assert store.results.get("d", "x") == 2
