"""Handoff's tests of its distributed store, ported: HND-S05, S06, D01 to D08, C01 to C03, X01."""

import threading

import pytest

from stateroom.errors import NotFound, Timeout


def test_s05_what_is_here_is_found_first_by_dag(cluster):
    (a,) = cluster.nodes("a")
    a.results.put("one", "x", 1)
    a.results.put("two", "x", 2)
    assert (a.results.get_or_fetch("one", "x"), a.results.get_or_fetch("two", "x")) == (1, 2)
    assert a.transfers == 0


def test_s06_an_id_of_another_dag_is_not_found(cluster):
    a, b = cluster.nodes("a", "b")
    a.results.put("one", "x", 1)
    for call in (
        lambda: b.results.fetch("two", "x"),
        lambda: b.results.fetch("two", "x", node="a"),
        lambda: b.results.fetch("one", "x", node="nobody") and b.results.fetch("one", "y", node="nobody"),
    ):
        with pytest.raises(NotFound):
            call()


def test_d01_stored_and_registered_by_dag(cluster):
    a, b = cluster.nodes("a", "b")
    a.results.put("one", "x", 1)
    a.results.put("two", "x", 2)
    b.results.register("one", "y", "a")
    assert a.results.get("one", "x") == 1
    assert b.results.locate("one", "x") == ("a",)
    assert b.results.locations("one") == {"x": ("a",), "y": ("a",)}
    assert b.results.locations("two") == {"x": ("a",)}
    assert b.locations("three") == {}
    assert a.unregister("one", "y", "a") == 1
    assert a.locate("one", "y") == ()


def test_d02_waiting_by_dag(cluster):
    a, b = cluster.nodes("a", "b")
    a.results.put("one", "x", 1)
    assert a.wait("one", "x") == b.wait("one", "x") == 1
    with pytest.raises(Timeout):
        b.wait("two", "x", timeout=0.05)
    with pytest.raises(Timeout):
        b.results.wait("one", "y", timeout=0.05)


def test_d03_clearing_everywhere_takes_results_and_locations_of_one_dag(cluster):
    a, b = cluster.nodes("a", "b")
    for node in (a, b):
        node.results.put("one", node.name, 1)
        node.results.put("two", node.name, 2)
    b.fetch("one", "a")
    assert a.clear_everywhere("one") == {"a": 1, "b": 2}
    for node in (a, b):
        assert node.results.ids("one") == ()
        assert node.locations("one") == {}
        assert node.results.ids("two") == (node.name,)
        with pytest.raises(NotFound):
            node.fetch("one", "a")
    assert b.locations("two") == {"a": ("a",), "b": ("b",)}
    a.results.put("one", "again", 5)
    assert b.fetch("one", "again") == 5


def test_d04_gather_gives_what_could_be_had(cluster):
    a, b = cluster.nodes("a", "b")
    a.results.put("one", "x", 1)
    a.results.put("two", "y", 2)
    b.results.put("one", "z", None)
    assert b.gather("one", ["z", "x", "y", "x"]) == {"z": None, "x": 1}
    assert list(b.results.gather("two", iter(["x", "y"]))) == ["y"]


def test_d05_fetched_once_and_then_here(cluster):
    a, b = cluster.nodes("a", "b")
    for dag in ("one", "two"):
        a.results.put(dag, "x", dag)
    assert b.results.get_or_fetch("one", "x") == "one"
    assert b.results.get_or_fetch("one", "x") == "one"
    assert b.transfers == 1
    assert b.results.get("one", "x") == "one"
    assert not b.results.has("two", "x")
    assert b.locate("one", "x") == ("a", "b")
    assert b.locate("two", "x") == ("a",)


def test_d06_to_d08_waiting_for_what_comes(cluster):
    a, b = cluster.nodes("a", "b")
    a.results.put("one", "x", 1)
    assert b.wait("one", "x") == 1
    with pytest.raises(Timeout):
        b.wait("one", "missing", timeout=0)
    waiting = threading.Event()
    got = []

    def wait():
        waiting.set()
        got.append(b.wait("one", "later", timeout=30))

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait()
    a.results.put("one", "later", {"at": "last"})
    thread.join()
    assert got == [{"at": "last"}]


def test_c01_c02_two_dags_at_once_stay_apart(cluster):
    a, b = cluster.nodes("a", "b")

    def run(dag, maker, taker):
        for number in range(10):
            maker.results.put(dag, f"i{number}", [dag, number])
        assert [taker.fetch(dag, f"i{number}") for number in range(10)] == [[dag, number] for number in range(10)]
        done.append(dag)

    done = []
    threads = [threading.Thread(target=run, args=args) for args in (("one", a, b), ("two", b, a))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == ["one", "two"]
    assert set(a.locations("one")) == set(b.locations("two")) == {f"i{number}" for number in range(10)}


def test_c03_an_unknown_dag_or_item_times_out(cluster):
    (a,) = cluster.nodes("a")
    a.results.put("one", "x", 1)
    assert a.wait("one", "x", timeout=0) == 1
    for dag, id in (("unknown", "x"), ("one", "unknown")):
        with pytest.raises(Timeout):
            a.wait(dag, id, timeout=0)


def test_x01_arguments_go_from_node_to_node(cluster):
    a, b = cluster.nodes("a", "b")
    a.results.put("dag", "first", [1, 2, 3])
    b.results.put("dag", "second", sum(b.results.get_or_fetch("dag", "first")))
    a.results.put("dag", "third", a.results.get_or_fetch("dag", "second") * 7)
    assert b.fetch("dag", "third") == 42
    assert b.locations("dag") == {"first": ("a", "b"), "second": ("a", "b"), "third": ("a", "b")}
