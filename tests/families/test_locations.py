"""Locations, nodes and generations, on every engine and face. HND-L01 to L05 are Handoff's registry tests, ported."""

from datetime import timedelta

import pytest

from stateroom.errors import AlreadyExists, InvalidArgument, LostLease, Timeout
from stateroom.testing.faces import ManualClock

DIGEST, OTHER = "a" * 64, "b" * 64


def nodes_of(locations):
    return [location.node for location in locations]


def test_l01_registered_and_looked_up_by_dag(store):
    store.locations.register("one", "x", "n1")
    store.locations.register("two", "x", "n2")
    assert nodes_of(store.locations.of("one", "x")) == ["n1"]
    assert nodes_of(store.locations.of("two", "x")) == ["n2"]


def test_l02_another_dag_and_unknown_data_have_none(store):
    store.locations.register("one", "x", "n1")
    assert store.locations.of("two", "x") == ()
    assert store.locations.of("one", "y") == ()


def test_l03_registering_again_changes_that_dag_only(store):
    store.locations.register("one", "x", "n1", digest=DIGEST, size=3, form="bytes")
    store.locations.register("two", "x", "n1", digest=DIGEST)
    changed = store.locations.register("one", "x", "n1", digest=OTHER)
    assert (changed.digest, changed.size, changed.form, changed.revision) == (OTHER, None, None, 2)
    assert store.locations.of("one", "x") == (changed,)
    assert store.locations.of("two", "x")[0].digest == DIGEST


def test_l04_of_a_dag(store):
    for node in ("n2", "n1"):
        store.locations.register("one", "x", node)
    store.locations.register("one", "y", "n1")
    store.locations.register("two", "z", "n1")
    of_dag = store.locations.of_dag("one")
    assert {id: nodes_of(locations) for id, locations in of_dag.items()} == {"x": ["n1", "n2"], "y": ["n1"]}
    assert store.locations.of_dag("unknown") == {}


def test_l05_clearing_takes_one_dag_only(store):
    for dag in ("one", "one/b", "onE", "two"):
        store.locations.register(dag, "x", "n1")
        store.locations.register(dag, "y", "n2")
    assert store.locations.clear("one") == 2
    assert store.locations.clear("one") == 0
    assert store.locations.of_dag("one") == {}
    assert [len(store.locations.of_dag(dag)) for dag in ("one/b", "onE", "two")] == [2, 2, 2]
    assert nodes_of(store.locations.query(node="n1").items) == ["n1"] * 3


def test_what_is_not_given_is_kept_and_the_same_again_writes_nothing(store):
    first = store.locations.register("d", "x", "n", digest=DIGEST, size=7, form="value")
    assert store.locations.register("d", "x", "n") == first
    assert store.locations.register("d", "x", "n", digest=DIGEST) == first
    assert store.locations.of("d", "x") == (first,)
    assert first.created_at is not None


def test_unregister_one_node_or_all(store):
    for node in ("a", "b", "c"):
        store.locations.register("d", "x", node)
    assert store.locations.unregister("d", "x", "b") == 1
    assert store.locations.unregister("d", "x", "b") == 0
    assert nodes_of(store.locations.of("d", "x")) == ["a", "c"]
    assert store.locations.count("d") == 2
    assert store.locations.unregister("d", "x") == 2
    assert store.locations.count("d") == 0


def test_pages_by_dag_and_by_node(store):
    for number in range(7):
        store.locations.register("d", f"i{number}", "a")
        store.locations.register("d", f"i{number}", "b")
        store.locations.register(f"e{number}", "x", "a")
    for filters, expected in (({"dag": "d"}, 14), ({"node": "a"}, 14), ({"dag": "d", "node": "b"}, 7), ({}, 21)):
        seen, cursor = [], None
        while True:
            page = store.locations.query(**filters, limit=5, cursor=cursor)
            seen += page.items
            assert len(page) == 5 or page.cursor is None
            cursor = page.cursor
            if cursor is None:
                break
        assert len(seen) == expected
        assert seen == list(store.locations.scan(**filters))
        assert len({(one.dag, one.id, one.node) for one in seen}) == expected
    with pytest.raises(InvalidArgument):
        store.locations.query(dag="e1", cursor=store.locations.query(dag="d", limit=5).cursor)


def test_an_expired_value_has_no_location(store, clock: ManualClock):
    store.locations.register("d", "x", "a", digest=DIGEST, expires_at=clock.now() + timedelta(seconds=10))
    assert len(store.locations.of("d", "x")) == 1
    clock.advance(11)
    assert store.locations.of("d", "x") == ()
    assert store.locations.of_dag("d") == {}
    assert store.locations.query(node="a").items == ()


def test_a_value_and_its_location_in_one_commit(store):
    with store.transaction() as tx:
        result = tx.results.put("run", "x", 5)
        tx.locations.register("run", "x", "a", digest=result.digest, size=result.size)
        assert nodes_of(tx.locations.of("run", "x")) == ["a"]
    assert store.locations.of("run", "x")[0].digest == store.results.find("run", "x").digest
    with pytest.raises(ZeroDivisionError), store.transaction() as tx:
        tx.locations.unregister("run", "x")
        raise ZeroDivisionError
    assert nodes_of(store.locations.of("run", "x")) == ["a"]


def test_waiting_ends_with_a_registration(store, other, database):
    with pytest.raises(Timeout):
        store.locations.wait("d", "x", timeout=0)
    first = other.locations.register("d", "x", "a")
    assert store.locations.wait("d", "x", timeout=10) == (first,)
    with pytest.raises(Timeout):
        store.locations.wait("d", "x", known=(first,), timeout=0)
    other.locations.register("d", "x", "b")
    assert nodes_of(store.locations.wait("d", "x", known=(first,), timeout=10)) == ["a", "b"]


def test_clearing_what_one_node_has(store):
    for number in range(5):
        store.locations.register("d", f"i{number}", "a")
        store.locations.register("d", f"i{number}", "b")
        store.locations.register("e", f"i{number}", "a")
    assert store.locations.clear_node("a", "d") == 5
    assert store.locations.clear_node("a", "d") == 0
    assert len(store.locations.query(node="a").items) == 5
    assert store.locations.clear_node("a") == 5
    assert len(store.locations.query(node="b").items) == 5


def test_a_generation_rises_and_takes_the_locations(store):
    assert store.locations.generation("d") == 0
    store.locations.register("d", "x", "a")
    store.locations.register("e", "x", "a")
    before = store.locations.advances()
    assert store.locations.advance("d") == 1
    assert store.locations.advance("d") == 2
    assert store.locations.advances() == before + 2
    assert store.locations.generations() == {"d": 2}
    assert store.locations.of_dag("d") == {}
    assert len(store.locations.of_dag("e")) == 1


def test_a_nodes_generation_only_rises(store):
    store.locations.settle("d", "a", 3)
    store.locations.settle("d", "a", 2)
    assert store.locations.generation("d", "a") == 3
    assert store.locations.generation("d", "b") == 0
    assert store.locations.generation("d") == 0


def test_a_generation_that_was_read_holds_a_commit(store, other):
    from stateroom.errors import Conflict

    with pytest.raises(Conflict), store.transaction() as tx:
        tx.locations.generation("d")
        tx.locations.register("d", "x", "a")
        other.locations.advance("d")
    assert store.locations.of("d", "x") == ()


def test_a_node_lives_as_long_as_its_lease(store, clock: ManualClock):
    lease = store.locations.join("a", "http://one:1", "process-1", 10)
    (node,) = store.locations.nodes()
    assert (node.name, node.address, node.alive, node.seen_at) == ("a", "http://one:1", True, clock.now())
    with pytest.raises(AlreadyExists):
        store.locations.join("a", "http://two:2", "process-2", 10)
    clock.advance(6)
    lease = store.locations.beat(lease, "a", "http://one:1", 10, {"b": 3.5})
    clock.advance(6)
    (node,) = store.locations.nodes()
    assert node.alive
    assert node.clocks == {"b": 3.5}
    clock.advance(6)
    assert not store.locations.nodes()[0].alive
    with pytest.raises(LostLease):
        store.locations.beat(lease, "a", "http://one:1", 10)
    second = store.locations.join("a", "http://two:2", "process-2", 10)
    assert second.token > lease.token
    assert store.locations.nodes()[0].address == "http://two:2"
    with pytest.raises(LostLease):
        store.locations.beat(lease, "a", "http://one:1", 10)
    assert not store.locations.leave(lease)
    assert store.locations.leave(second)
    assert not store.locations.nodes()[0].alive


def test_a_node_that_is_gone_can_be_forgotten(store, clock: ManualClock):
    lease = store.locations.join("a", "http://one:1", "p", 10)
    with pytest.raises(AlreadyExists):
        store.locations.forget("a")
    store.locations.leave(lease)
    assert store.locations.forget("a")
    assert not store.locations.forget("a")
    assert store.locations.nodes() == ()


def test_long_names_have_leases_of_their_own(store):
    names = ["n" * 255 + letter for letter in "ab"]
    for name in names:
        store.locations.join(name, "http://one:1", "p", 10)
    assert [node.name for node in store.locations.nodes()] == names


@pytest.mark.parametrize("bad", ["", " ", "x\0y", "x" * 257, 5, None])
def test_names_are_checked(store, bad):
    for call in (
        lambda: store.locations.register(bad, "x", "n"),
        lambda: store.locations.register("d", bad, "n"),
        lambda: store.locations.register("d", "x", bad),
        lambda: store.locations.of("d", bad),
        lambda: store.locations.of_dag(bad),
        lambda: store.locations.clear(bad),
        lambda: store.locations.advance(bad),
        lambda: store.locations.join(bad, "http://one:1", "p", 10),
    ):
        with pytest.raises(InvalidArgument):
            call()
    assert list(store.locations.scan()) == []


@pytest.mark.parametrize(
    "given",
    [{"digest": "A" * 64}, {"digest": "a" * 63}, {"digest": b"a"}, {"size": -1}, {"size": "1"}, {"form": "json"}],
)
def test_what_a_location_says_is_checked(store, given):
    with pytest.raises(InvalidArgument) as caught:
        store.locations.register("d", "x", "n", **given)
    assert caught.value.what in given
    assert store.locations.of("d", "x") == ()


def test_any_text_is_a_name(store):
    for name in ("a/b", "../..", "%2e%2e/%00", "ä\u202e🙂", "a\nb", "?x=1&y#z"):
        store.locations.register(name, name, name)
        assert [(one.dag, one.id, one.node) for one in store.locations.of(name, name)] == [(name, name, name)]
    assert len(store.locations.query().items) == 6


@pytest.mark.embedded("rows are spoiled under the store")
def test_check_names_what_is_wrong_with_locations(database):
    from stateroom import keys
    from stateroom.engine import Batch

    store = database.open()
    store.locations.register("d", "x", "a", digest=DIGEST)
    store.locations.join("a", "http://one:1", "p", 10)
    store.locations.advance("e")
    scope, run = database.inside(store)
    tags = (keys.LOCATION, keys.LOCATION_BY_NODE, keys.LOCATION_COUNT, keys.GENERATION, keys.NODE)
    for tag, expected in zip(tags, ("damaged", "index-missing", "counter", "damaged", "damaged"), strict=True):
        start = scope.key(tag)
        (row,) = run(scope.engine.scan(0, start, start + keys.END, limit=10))[:1]
        spoiled = None if tag == keys.LOCATION_BY_NODE else row.value[:-1] + bytes([row.value[-1] ^ 1])
        run(scope.engine.commit(0, Batch(write={row.key: spoiled})))
        assert expected in {problem.code for problem in store.check() if problem.family == "locations"}, tag
        run(scope.engine.commit(0, Batch(write={row.key: row.value})))
        assert store.check() == []
