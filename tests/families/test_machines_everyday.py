"""Machines as programs meet them: unknown types, names that begin alike, definitions that change under a snapshot."""

from dataclasses import dataclass

import pytest

from kit.databases import SEVERAL
from kit.faults import over
from stateroom.codec import Codec, Raw, seal, unseal
from stateroom.engine import Batch
from stateroom.engines.memory import MemoryEngine
from stateroom.errors import InvalidArgument, Undecodable, WrongState


@dataclass
class Order:
    n: int


def knowing():
    codec = Codec()
    codec.register(Order, name="order")
    return codec


@pytest.fixture
def filled(database):
    """Machines of which a process that does not know `Order` cannot rebuild some snapshots."""
    database.codec = knowing()
    with database.open(codec=knowing()) as store:
        for number in range(5):
            store.machines.save("m", "x", f"s{number}", Order(number) if number in (1, 2) else number)
        store.machines.save("m", "y", "s", Order(7), event_payload=Order(8))
        store.machines.fail("m", "y", "wrong", info=Order(9))
        store.machines.save("m", "z", "s", "plain")
        store.machines.fail("only", "failed", Order(3))
    return database


@SEVERAL
def test_one_old_snapshot_of_an_unknown_type_hides_no_other(filled):
    with filled.open() as store:
        history = store.machines.history("m", "x")
        assert [one.state for one in history] == ["s4", "s3", "s2", "s1", "s0"]
        assert [type(one.payload) for one in history] == [int, int, Raw, Raw, int]
        assert history.items[2].payload.data == {"n": 2}
        newest = store.machines.history("m", "x", limit=2)
        assert [one.payload for one in newest] == [4, 3]
        following = store.machines.history("m", "x", limit=2, cursor=newest.cursor)
        assert [one.state for one in following] == ["s2", "s1"]
        last = store.machines.history("m", "x", limit=2, cursor=following.cursor)
        assert ([one.state for one in last], last.cursor) == (["s0"], None)
        assert store.machines.load("m", "x").payload == 4


def damage(engine, start, revision):
    """Flip a bit of a row whose key begins and ends so."""
    rows = engine.scan(0, start, start + b"\xff", limit=100)
    row = next(row for row in rows if row.key.endswith(revision.to_bytes(8, "big")))
    engine.commit(0, Batch(write={row.key: row.value[:-1] + bytes([row.value[-1] ^ 1])}))


def test_a_snapshot_that_cannot_be_opened_hides_no_other_and_is_counted(caplog):
    engine = MemoryEngine()
    store = over(engine)
    for number in range(6):
        store.machines.save("m", "x", f"s{number}", number)
    for revision in (2, 5):
        damage(engine, b"n\0MHm\0x\0", revision)
    page = store.machines.history("m", "x")
    assert ([one.payload for one in page], page.undecodable, page.cursor) == ([5, 3, 2, 0], 2, None)
    first = store.machines.history("m", "x", limit=1)
    assert ([one.payload for one in first], first.undecodable) == ([5], 0)
    second = store.machines.history("m", "x", limit=2, cursor=first.cursor)
    assert ([one.payload for one in second], second.undecodable) == ([3, 2], 1)
    third = store.machines.history("m", "x", limit=2, cursor=second.cursor)
    assert ([one.payload for one in third], third.undecodable, third.cursor) == ([0], 1, None)
    assert sum("m/x" in record.getMessage() for record in caplog.records) == 1
    # The snapshot itself: what came before it is read all the same.
    (row,) = engine.read(0, [b"n\0Rmm\0x\0"])
    engine.commit(0, Batch(write={row.key: seal(row.key, unseal(row.key, row.value)[:-1] + b"\xc1")}))
    with pytest.raises(Undecodable):
        store.machines.load("m", "x", raw=True)
    assert [one.payload for one in store.machines.history("m", "x")] == [5, 3, 2, 0]


@SEVERAL
def test_machines_of_unknown_types_are_read_raw_listed_and_purged(filled):
    with filled.open() as store:
        for read in (store.machines.load, store.machines.find, store.machines.last_error):
            with pytest.raises(Undecodable) as caught:
                read("m", "y")
            assert (caught.value.kind, caught.value.id, caught.value.tag) == ("machines", "m/y", "order")
        assert store.machines.load("m", "y", raw=True).payload == Raw("order", 1, {"n": 7})
        assert store.machines.find("m", "y", raw=True).event_payload.data == {"n": 8}
        failure = store.machines.last_error("m", "y", raw=True)
        assert (failure.reason, failure.payload.data, failure.info.data) == ("wrong", {"n": 7}, {"n": 9})
        assert store.machines.last_error("only", "failed", raw=True).reason.data == {"n": 3}
        page = store.machines.query(machine="m", state="s")
        assert [(one.name, type(one.payload)) for one in page] == [("y", Raw), ("z", str)]
        assert [one.name for one in store.machines.scan(machine="m")] == ["x", "y", "z"]
        assert store.machines.purge("m", "y")
        assert store.machines.purge("only", "failed")
        assert store.machines.find("m", "y") is store.machines.last_error("m", "y", raw=True) is None
        assert store.machines.count("m") == 2
        assert not store.machines.purge("m", "y")


@SEVERAL
def test_a_machine_of_an_unknown_type_goes_on(filled):
    with filled.open() as store:
        failure = store.machines.fail("m", "y", "again")
        assert failure.payload.data == {"n": 7}
        change = store.feed.read(ids=["y"], limit=1000).items[-1]
        assert (change.op, change.key) == ("update", ("m", "y"))
        assert store.machines.clear_error("m", "y")
    with filled.open(codec=knowing()) as store:
        assert store.machines.load("m", "y").payload == Order(7)  # announcing it has changed nothing of it
        assert store.machines.load("m", "y").revision == 1
    with filled.open() as store:
        raw = store.machines.load("m", "y", raw=True)
        assert store.machines.save("m", "y", "t", raw.payload, from_state="s").revision == 2
    with filled.open(codec=knowing()) as store:
        assert [one.payload for one in store.machines.history("m", "y")] == [Order(7), Order(7)]
        assert store.check() == []


def test_names_that_begin_alike(store):
    for machine, name in (("m", "a"), ("m", "ab"), ("m", "ab/1"), ("m", "b"), ("m2", "ab")):
        store.machines.save(machine, name, "on" if name != "b" else "off", 1)
    query = store.machines.query
    assert [one.name for one in query(machine="m", id_prefix="ab")] == ["ab", "ab/1"]
    assert [(one.machine, one.name) for one in store.machines.scan(id_prefix="ab")] == [
        ("m", "ab"), ("m", "ab/1"), ("m2", "ab"),
    ]  # fmt: skip
    assert [one.name for one in query(machine="m", state="on", id_prefix="a", limit=2)] == ["a", "ab"]
    cursor = query(machine="m", id_prefix="a", limit=1).cursor
    assert [one.name for one in query(machine="m", id_prefix="a", cursor=cursor)] == ["ab", "ab/1"]
    assert len(query(id_prefix="")) == len(query()) == 5
    with pytest.raises(InvalidArgument):
        query(machine="m", id_prefix="b", cursor=cursor)
    for bad in (5, b"a", "x" * 300):
        with pytest.raises(InvalidArgument):
            query(id_prefix=bad)


def test_a_state_that_is_no_longer_defined_can_be_left(store):
    machines = store.machines
    machines.define("m", {"a": {"go": "b"}, "b": {"go": "c"}}, initial="a", final=["c"])
    for name in ("x", "y", "z"):
        machines.save("m", name, "a", 0)
        machines.save("m", name, "b", 1, event="go")
    machines.define("m", {"new": {"go": "done"}}, initial="new", final=["done"])
    for state, event in (("a", None), ("c", "go"), ("other", None)):
        with pytest.raises(WrongState, match="is b, and neither that nor") as caught:
            machines.save("m", "x", state, 2, event=event)
        assert (caught.value.actual, caught.value.terminal) == ("b", False)
    assert machines.save("m", "x", "b", 2).revision == 3  # a new payload, as ever
    assert machines.save("m", "x", "new", 3).previous_state == "b"
    assert machines.save("m", "y", "done", 3, event="migrate", from_state="b").event == "migrate"
    assert [one.state for one in machines.history("m", "x")] == ["new", "b", "b", "a"]
    # From then on the rules hold again, and nothing leaves a final state.
    with pytest.raises(WrongState):
        machines.save("m", "x", "b", 4)
    with pytest.raises(WrongState) as caught:
        machines.save("m", "y", "new", 4)
    assert caught.value.terminal
    machines.define("m", {"b": {"go": "done"}, "new": {"go": "done"}}, final=["done"])
    with pytest.raises(WrongState):  # it is known again
        machines.save("m", "z", "new", 2)


def test_definitions_race_and_each_generation_is_taken_once(store, other):
    import threading

    generations = []

    def define(client, number):
        generations.append(client.machines.define("m", {"a": {"go": f"b{number}"}}).generation)

    threads = [threading.Thread(target=define, args=((store, other)[number % 2], number)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(generations) == list(range(1, 9))
    assert store.machines.definition("m").generation == 8
