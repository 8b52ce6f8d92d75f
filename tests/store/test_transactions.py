"""`store.transaction()` and `store.transact()`, on every engine and face."""

import uuid

import pytest

from stateroom import Event, Execution, Instance
from stateroom.engines.wrap import Conflicting, Recording
from stateroom.errors import Closed, Conflict, InvalidArgument, NotFound, Unavailable, WrongState
from stateroom.testing.family_harness import changes, ids, nothing_changes


def refusing(database, times):
    """The database's engine, with a conflict in the first commits."""
    return Conflicting(database.raw(), refuse=lambda number, part, batch: number <= times)


def test_own_writes_are_seen(store):
    store.executions.create(Execution("r/old", "j", node_id="n"))
    with store.transaction() as tx:
        made = tx.executions.create(Execution("r/new", "j", node_id="n"), events=[Event("one")])
        tx.executions.add_events("r/new", Event("two"))
        tx.executions.delete("r/old")
        assert tx.executions.get("r/new") == made
        assert tx.executions.find("r/old") is None
        assert ids(tx.executions.query(job_id="j")) == ids(tx.executions.query(node_id="n")) == ["r/new"]
        assert ids(tx.executions.query()) == ids(tx.executions.scan()) == ["r/new"]
        assert ids(tx.executions.for_job("j")) == ["r/new"]
        assert [one.message for one in tx.executions.events("r/new")] == ["one", "two"]
        assert (tx.executions.count("new"), store.executions.count("new")) == (1, 1)
        tx.executions.update("r/new", state="running")
        assert (tx.executions.count("new"), tx.executions.count("running")) == (0, 1)
        assert ids(tx.executions.live()) == ["r/new"]
        assert store.executions.live() == ()
        assert store.executions.find("r/new") is None
    assert [one.message for one in store.executions.events("r/new")] == ["one", "two"]
    assert store.executions.get("r/new").revision == 2


def test_own_instances_are_seen(store):
    with store.transaction() as tx:
        tx.instances.start(Instance("k/1", "w", business_key="k", labels={"team": "red"}))
        assert tx.instances.active("k").id == "k/1"
        assert ids(tx.instances.query(label=("team", "red"), order="updated")) == ["k/1"]
        assert ids(tx.instances.query(workflow_prefix="w")) == ["k/1"]
        assert tx.instances.count(workflow="w") == 1
        assert ids(tx.instances.orphans()) == ["k/1"]
        tx.instances.cancel("k/1")
        assert tx.instances.active("k") is None
        assert [one.status for one in tx.instances.history("k/1")] == ["cancelled", "pending"]
    assert [one.op for one in changes(store)] == ["create", "update"]
    assert changes(store)[1].previous.status == "pending"


def test_another_root_is_refused(store):
    with nothing_changes(store):
        for first in (
            lambda tx: tx.executions.create(Execution("r/a", "j")),
            lambda tx: tx.executions.find("r/a"),
            lambda tx: tx.feed.emit("t", 1, "r"),
        ):
            with pytest.raises(InvalidArgument) as caught, store.transaction() as tx:
                first(tx)
                tx.executions.create(Execution("s", "j"))
            assert "'r'" in str(caught.value)
            assert "'s'" in str(caught.value)


def test_any_root_where_there_is_one_part(store, database):
    if not database.embedded:
        with nothing_changes(store), pytest.raises(InvalidArgument, match="embedded"):
            with store.transaction(any_root=True) as tx:
                tx.executions.create(Execution("r", "j"))
        return
    with store.transaction(any_root=True) as tx:
        tx.executions.create(Execution("r", "j"))
        tx.instances.put(Instance("s", "w"))
    assert (store.executions.get("r").revision, store.instances.get("s").revision) == (1, 1)


def test_a_conflict_is_shown_and_nothing_written(store, other):
    store.executions.create(Execution("r/a", "j"))
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.executions.update("r/a", message="mine")
        tx.executions.create(Execution("r/b", "j"))
        other.executions.update("r/a", message="theirs")
    assert store.executions.get("r/a").message == "theirs"
    assert store.executions.find("r/b") is None


def test_a_point_read_is_checked_and_a_query_is_not(store, other):
    store.instances.put(Instance("r/a", "w"))
    with pytest.raises(Conflict), store.transaction() as tx:
        assert tx.instances.find("r/b") is None
        tx.feed.emit("seen", 1, "r")
        other.instances.put(Instance("r/b", "w"))
    with store.transaction() as tx:
        assert len(tx.instances.query()) == 2
        tx.feed.emit("seen", 2, "r")
        other.instances.put(Instance("r/c", "w"))
    assert [one.record for one in changes(store, families=["seen"])] == [2]


def test_a_transaction_that_only_reads_commits_nothing(store, other):
    store.instances.put(Instance("r/a", "w"))
    before = store.feed.latest()
    with store.transaction() as tx:
        assert tx.instances.get("r/a").revision == 1
    assert store.feed.latest() == before
    with store.transaction() as tx:
        tx.instances.get("r/a")
        other.instances.cancel("r/a")
    assert store.instances.get("r/a").status == "cancelled"


def test_a_refused_operation_leaves_nothing(store):
    store.executions.create(Execution("r/a", "j", state="bid_accepted"), events=[Event("first")])
    with store.transaction() as tx:
        tx.executions.update("r/a", state="completed")
        with pytest.raises(WrongState):
            tx.executions.update("r/a", state="running", events=[Event("refused")])
        with pytest.raises(InvalidArgument):
            tx.executions.create(Execution("r/b", "j", data=object()), events=[Event("refused")])
        with pytest.raises(NotFound):
            tx.executions.add_events("r/c", Event("refused"))
    assert [one.message for one in store.executions.events("r/a")] == ["first"]
    assert store.executions.find("r/b") is None
    assert [one.op for one in changes(store)] == ["create", "update"]


def test_after_its_end_it_is_closed(store):
    with store.transaction() as tx:
        tx.instances.put(Instance("r", "w"))
        scan = tx.instances.scan()
        next(scan)
    for use in (
        lambda: tx.instances.get("r"),
        lambda: tx.instances.put(Instance("r", "w")),
        lambda: tx.instances.query(),
        lambda: tx.leases.holder("r"),
        lambda: tx.feed.emit("t", 1),
        lambda: list(tx.instances.scan()),
        lambda: list(scan),
    ):
        with pytest.raises(Closed):
            use()
    with pytest.raises(LookupError), store.transaction() as tx:
        raise LookupError
    with pytest.raises(Closed):
        tx.instances.get("r")


def test_what_a_transaction_refuses(store):
    store.instances.put(Instance("r", "w"))
    with store.transaction() as tx:
        for refused in (
            lambda: tx.transaction,
            lambda: tx.instances.wait("r", lambda one: True),
            lambda: tx.executions.wait("r", lambda one: True),
            lambda: tx.watch("w", print),
            lambda: tx.feed.read(wait=1),
        ):
            with pytest.raises(InvalidArgument):
                refused()
        with store.transaction() as independent:
            independent.instances.put(Instance("s", "w"))
        assert store.instances.get("s").revision == 1


def test_emitting_with_a_change(store):
    with store.transaction() as tx:
        tx.instances.put(Instance("r", "w"))
        tx.feed.emit("invoice", {"amount": 5}, "r/1")
    assert [(one.op, one.family, one.id) for one in changes(store)] == [
        ("create", "instances", "r"),
        ("emit", "invoice", "r/1"),
    ]


def test_an_operation_goes_on_after_conflicts_and_never_shows_them(database, store):
    store.executions.create(Execution("a", "j"))
    recording = Recording(refusing(database, 60))
    assert database.over(recording).executions.update("a", message="at last").revision == 2
    assert recording.count("commit") == 61


def test_an_operation_that_conflicts_for_thirty_seconds_is_unavailable(database, store, clock):
    store.executions.create(Execution("a", "j"))

    def refuse(number, part, batch):
        clock.advance(2)
        return True

    recording = Recording(Conflicting(database.raw(), refuse=refuse))
    with nothing_changes(store), pytest.raises(Unavailable, match="met other writers") as error:
        database.over(recording).executions.update("a", message="never")
    assert error.value.retry
    assert isinstance(error.value.__cause__, Conflict)
    assert recording.count("commit") == 20


def test_tries_of_transact(database, store):
    runs = []

    def body(tx):
        runs.append(1)
        tx.instances.put(Instance("a", "w"))
        return len(runs)

    assert database.over(refusing(database, 2)).transact(body, tries=3) == 3
    runs.clear()
    with nothing_changes(store), pytest.raises(Conflict):
        database.over(refusing(database, 3)).transact(body, tries=3)
    assert len(runs) == 3
    for tries in (0, -1, 1.5, True):
        with pytest.raises(InvalidArgument):
            store.transact(body, tries=tries)


def test_a_transaction_shows_the_first_conflict(database, store):
    recording = Recording(refusing(database, 1))
    with pytest.raises(Conflict), database.over(recording).transaction() as tx:
        tx.instances.put(Instance("a", "w"))
    assert recording.count("commit") == 1
    assert store.instances.find("a") is None


def test_once(store, other):
    runs = []

    def body(tx):
        runs.append(1)
        tx.executions.add_events("r/a", Event("charged"))
        return {"n": len(runs), "t": (1, b"x")}

    store.executions.create(Execution("r/a", "j"))
    first = store.transact(body, once="charge-1")
    assert store.transact(body, once="charge-1") == first == {"n": 1, "t": (1, b"x")}
    assert other.transact(body, once="charge-1") == first
    assert len(store.executions.events("r/a")) == 1
    assert store.transact(body, once="charge-2")["n"] > 1
    assert len(store.executions.events("r/a")) == 2


def test_once_is_of_its_root(store):
    def charge(id):
        return lambda tx: tx.instances.put(Instance(id, "w")).id

    assert store.transact(charge("r"), once="k") == "r"
    assert store.transact(charge("s"), once="k") == "s"
    assert store.transact(charge("r/2"), once="k") == "r"
    assert ids(store.instances.query()) == ["r", "s"]


def test_once_without_a_read_and_without_a_value(store):
    for _ in range(2):
        assert store.transact(lambda tx: tx.feed.emit("t", 1, "r"), once="k") is None
    assert len(changes(store)) == 1


def test_once_that_fails_is_not_done(store):
    def fails(tx):
        tx.instances.put(Instance("r", "w"))
        raise LookupError

    with pytest.raises(LookupError):
        store.transact(fails, once="k")
    assert store.instances.find("r") is None
    assert store.transact(lambda tx: tx.instances.put(Instance("r", "w")).revision, once="k") == 1
    for bad in ("", " ", "x" * 257, 5):
        with pytest.raises(InvalidArgument):
            store.transact(fails, once=bad)


def test_namespaces_are_isolated(store):
    one, two, three = (store.namespace(uuid.uuid4().hex) for _ in range(3))
    one.instances.start(Instance("a", "w", business_key="a"))
    two.instances.start(Instance("a", "w2", business_key="a"))
    assert (one.instances.get("a").workflow, two.instances.get("a").workflow) == ("w", "w2")
    assert three.instances.find("a") is None
    assert one.instances.count() == one.instances.count(workflow="w") == 1
    assert [change.record.workflow for change in changes(two)] == ["w2"]
    assert one.leases.acquire("a", "me", 60).token == two.leases.acquire("a", "you", 60).token == 1
    with pytest.raises(InvalidArgument):
        two.feed.read(one.feed.latest())
    one.instances.delete("a")
    assert two.instances.get("a").revision == 1
    assert list(one.check()) == list(two.check()) == []
    for bad in ("", " ", "a\0", "x" * 65, 5):
        with pytest.raises(InvalidArgument):
            store.namespace(bad)


def test_a_closed_store(store, database):
    store.instances.put(Instance("a", "w"))
    client = database.open()
    with pytest.raises(Closed), client.transaction() as tx:
        tx.instances.put(Instance("b", "w"))
        client.close()
    client.close()
    for use in (
        lambda: client.instances.get("a"),
        lambda: client.instances.put(Instance("c", "w")),
        lambda: list(client.instances.scan()),
        lambda: client.executions.count("new"),
        lambda: client.leases.holder("a"),
        lambda: client.feed.read(),
        lambda: client.feed.emit("t", 1),
        lambda: client.transaction(),
        lambda: client.transact(lambda tx: None),
        lambda: client.namespace("x"),
        lambda: client.check(),
    ):
        with pytest.raises(Closed):
            use()
    assert store.instances.count() == 1
