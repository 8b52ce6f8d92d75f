"""What a node promises beyond Handoff's: one transfer for all, copies that are checked, generations, names by lease."""

import hashlib
import os
import threading
import time
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

import stateroom
from stateroom.errors import AlreadyExists, Closed, InvalidArgument, NotFound, Unavailable

from .processes import until

VALUES = [None, 0, "text", {"k": [1, (2, 3)], "s": {1, 2}}, b"", b"bytes", b"x" * 100_000, ["y" * 1000] * 100]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_any_value_is_fetched_as_it_was_put(cluster, value):
    a, b = cluster.nodes("a", "b")
    put = a.results.put("d", "x", value)
    assert b.results.fetch("d", "x") == value
    copy = b.results.find("d", "x")
    assert (copy.value, copy.digest, copy.size) == (value, put.digest, put.size)
    here, there = cluster.shared.locations.of("d", "x")
    assert (here.digest, here.size, here.form) == (there.digest, there.size, there.form)
    assert here.digest == put.digest


def test_names_of_any_text(cluster):
    a, b = cluster.nodes("nöde/../a", "%2e?&#\u202e")
    for name in (
        "a/b",
        "../../etc/passwd",
        "%2e%2e%2f",
        "ä\u202e🙂",
        "a\nb\r\nhost: x",
        "?x=1&y#z",
        "a+b c",
        "//",
        ".",
    ):
        a.results.put(name, name, name)
        assert b.results.fetch(name, name) == name
    assert b.locate("..", "nothing") == ()


def test_a_large_value_comes_in_pieces_and_as_a_file(cluster):
    a, b = cluster.nodes("a", "b")
    data = os.urandom((5 << 20) + 12345)
    a.results.put_stream("d", "big", iter([data[:1], b"", data[1:]]))
    with b.results.fetch_stream("d", "big") as file:
        assert file.read() == data
    assert b.results.fetch("d", "big") == data
    assert b.transfers == 1
    assert b.results.find("d", "big").digest == hashlib.sha256(data).hexdigest()


def test_memory_is_bounded_on_both_sides(alone):
    a, b = alone.nodes("a", "b")
    size, block = 100 << 20, os.urandom(1 << 20)
    a.results.put_stream("d", "big", (block for _ in range(size >> 20)))
    tracemalloc.start()
    try:
        b.results.fetch_stream("d", "big", timeout=120).close()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20, peak


def test_all_who_ask_share_one_transfer(alone):
    a, b = alone.nodes("a", "b")
    data = os.urandom(6 << 20)
    a.results.put("d", "x", data)
    ready, got = threading.Barrier(41), []

    def ask():
        ready.wait()
        got.append(b.results.fetch("d", "x") == data)

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    ready.wait()
    for thread in threads:
        thread.join()
    assert got == [True] * 40
    assert b.transfers == 1


def test_what_was_fetched_is_fetched_from_either(cluster):
    a, b, c = cluster.nodes("a", "b", "c")
    a.results.put("d", "x", [1])
    assert b.fetch("d", "x", node="a") == [1]
    a.stop()
    assert c.fetch("d", "x", node="a") == [1]
    assert c.locate("d", "x") == ("a", "b", "c")


def test_a_dead_node_is_skipped_and_serves_again_when_it_is_back(cluster):
    a, b = cluster.nodes("a", "b")
    a.results.put("d", "x", 5)
    a.stop()
    with pytest.raises(Unavailable) as caught:
        b.fetch("d", "x")
    assert list(caught.value.fields["tried"]) == ["a"]
    assert "no heartbeat" in caught.value.fields["tried"]["a"]
    assert "a: no heartbeat" in str(caught.value)
    assert b.locate("d", "x") == ("a",)
    cluster.node("a", local=a_store(cluster, "a"))
    assert b.fetch("d", "x") == 5


def a_store(cluster, name):
    """The local store of a node that was stopped."""
    return next(store for store in cluster._stores if store.url.endswith(f"{name}.db"))


def test_a_location_of_what_is_not_there_goes(cluster):
    a, b = cluster.nodes("a", "b")
    local = a_store(cluster, "a")
    a.results.put("d", "x", 5)
    a.results.put("d", "y", 6)
    local.results.delete("d", "x")
    with pytest.raises(NotFound):
        b.fetch("d", "x")
    assert b.locations("d") == {"y": ("a",)}
    local.results.delete("d", "y")
    with pytest.raises(NotFound):
        a.fetch("d", "y")
    assert b.locations("d") == {}


def test_registered_by_hand_and_fetched(cluster):
    _, b, c = cluster.nodes("a", "b", "c")
    a_store(cluster, "a").results.put("d", "x", {"by": "hand"})
    b.register("d", "x", "a")
    assert cluster.shared.locations.of("d", "x")[0].digest is None
    assert c.fetch("d", "x") == {"by": "hand"}
    a_store(cluster, "a").results.put("d", "y", 7)
    assert c.fetch("d", "y", node="a") == 7
    b.register("d", "z", "a")
    with pytest.raises(NotFound):
        c.fetch("d", "z")


def test_a_new_value_replaces_the_old_one_everywhere(cluster):
    a, b, c = cluster.nodes("a", "b", "c")
    a.results.put("d", "x", "old")
    assert b.fetch("d", "x") == "old"
    a.results.put("d", "x", "new")
    assert b.locate("d", "x") == ("a",)
    assert c.fetch("d", "x") == "new"
    assert b.fetch("d", "x") == "new"
    b.results.put("d", "x", "newest")
    assert a.fetch("d", "x") == c.fetch("d", "x") == "newest"


def test_deleting_here_leaves_the_others(cluster):
    a, b = cluster.nodes("a", "b")
    a.results.put("d", "x", 1)
    b.fetch("d", "x")
    assert a.results.delete("d", "x")
    assert not a.results.delete("d", "x")
    assert a.locate("d", "x") == ("b",)
    assert a.fetch("d", "x") == 1
    assert b.results.clear("d") == 1
    assert a.locate("d", "x") == ("a",)


def test_a_memoised_value_is_registered(cluster):
    a, b = cluster.nodes("a", "b")
    calls = []

    def double(inputs):
        calls.append(inputs)
        return inputs * 2

    assert a.results.memo("d", "double", 4, double) == a.results.memo("d", "double", 4, double) == 8
    assert calls == [4]
    ((id, nodes),) = b.locations("d").items()
    assert nodes == ("a",)
    assert b.fetch("d", id) == 8


def test_what_expires_expires_where_it_was_fetched_to(cluster):
    a, b = cluster.nodes("a", "b")
    put = a.results.put("d", "x", 1, ttl=3600)
    b.fetch("d", "x")
    assert b.results.find("d", "x").expires_at == put.expires_at
    assert all(location.expires_at == put.expires_at for location in cluster.shared.locations.of("d", "x"))


def test_who_was_away_clears_before_it_serves(cluster):
    a, b = cluster.nodes("a", "b")
    for node in (a, b):
        node.results.put("d", node.name, node.name)
        node.results.put("e", node.name, node.name)
    a.stop()
    assert b.clear_everywhere("d") == {"a": None, "b": 1}
    b.results.put("d", "b", "after")
    again = cluster.node("a", local=a_store(cluster, "a"))
    assert again.results.ids("d") == ()
    assert again.results.ids("e") == ("a",)
    assert b.locations("d") == {"b": ("b",)}
    with pytest.raises(NotFound):
        b.fetch("d", "a", node="a")
    assert again.fetch("d", "b") == "after"


def test_a_node_that_missed_a_clear_serves_nothing_from_before(cluster):
    a, b = cluster.nodes("a", "b")
    a.results.put("d", "x", "before")
    cluster.shared.locations.advance("d")  # as a node does that cannot reach this one
    b.register("d", "x", "a")
    with pytest.raises(NotFound):
        b.fetch("d", "x")
    assert a.results.ids("d") == ()
    a.results.put("d", "x", "after")
    assert b.fetch("d", "x") == "after"


def test_an_older_backup_serves_nothing_that_was_cleared(cluster, tmp_path):
    a, b = cluster.nodes("a", "b")
    local = a_store(cluster, "a")
    a.results.put("d", "x", "before")
    a.results.put("kept", "x", "kept")
    local.backup(str(tmp_path / "old.db"))
    a.results.put("kept", "y", "lost")
    assert b.clear_everywhere("d") == {"a": 1, "b": 0}
    a.stop()
    restored = cluster.node("a", local=cluster.open(str(tmp_path / "old.db")))
    assert restored.results.ids("d") == ()
    assert b.locations("d") == {}
    assert b.fetch("kept", "x") == "kept"
    with pytest.raises(NotFound):
        b.fetch("kept", "y")
    assert b.locate("kept", "y") == ()


def test_a_live_name_is_taken(cluster):
    (a,) = cluster.nodes("a")
    twin = cluster.make("a", local=cluster.local("twin"))
    with pytest.raises(AlreadyExists) as caught:
        twin.start()
    assert "'a'" in str(caught.value)
    a.stop()
    cluster.node("a", local=a_store(cluster, "twin"))


def test_nodes_are_listed(cluster):
    a, b = cluster.nodes("a", "b")
    assert [(node.name, node.address, node.alive) for node in a.nodes()] == [
        ("a", a.address, True),
        ("b", b.address, True),
    ]
    address = b.address
    b.stop()
    assert [(node.name, node.address, node.alive) for node in a.nodes()][1] == ("b", address, False)


def test_one_database_for_both_is_one_commit(cluster):
    node = cluster.node("a", local=cluster.shared)
    other = cluster.node("b")
    before = cluster.shared.stats().commits
    node.results.put("d", "x", {"v": 1})
    assert cluster.shared.stats().commits == before + 1
    assert other.fetch("d", "x") == {"v": 1}
    other.results.put("d", "y", 2)
    assert node.fetch("d", "y") == 2
    assert node.clear_everywhere("d") == {"a": 2, "b": 2}
    assert other.results.ids("d") == node.results.ids("d") == ()


def test_what_was_stored_while_a_node_was_down_is_registered_when_it_starts(cluster):
    local = cluster.local("a")
    local.results.put("d", "x", 1)
    cluster.shared.locations.register("d", "gone", "a", digest="a" * 64, size=1, form="bytes")
    _, b = cluster.node("a", local=local), cluster.node("b")
    assert b.locations("d") == {"x": ("a",)}
    assert b.fetch("d", "x") == 1


def test_a_node_that_is_not_running_says_so(cluster):
    node = cluster.make("a")
    with pytest.raises(Closed):
        node.address
    node.start()
    node.stop()
    node.stop()
    with pytest.raises(Closed):
        node.start()


BAD = [
    {"secret": b"short"},
    {"secret": "a plain text that is long enough to be a secret"},
    {"secret": "env:STATEROOM_NO_SUCH_SECRET"},
    {"secret": "file:/no/such/file"},
    {"secret": None},
    {"listen": "0.0.0.0:0"},
    {"listen": "127.0.0.1"},
    {"listen": "example.org:80"},
    {"listen": 5},
    {"advertise": "ftp://x:1"},
    {"ttl": 0},
    {"ttl": "10"},
    {"tls": 5},
    {"tls": {"cert": "x"}},
    {"tls": {"cert": "/no/such", "key": "/no/such"}},
    {"tls": {"cert": "a", "key": "b", "mutual": True}},
]


@pytest.mark.parametrize("options", BAD, ids=[f"{next(iter(one))}-{number}" for number, one in enumerate(BAD)])
def test_what_a_node_is_told_is_checked(alone, options):
    with pytest.raises(InvalidArgument) as caught:
        alone.make("a", **options)
    assert caught.value.what in options
    assert alone.shared.locations.nodes() == ()


@pytest.mark.parametrize("name", ["", " ", "a\0b", "x" * 257, 5])
def test_a_nodes_name_is_checked(alone, name):
    with pytest.raises(InvalidArgument):
        alone.make(name, local=alone.shared)


def test_what_is_asked_for_is_checked(cluster):
    (a,) = cluster.nodes("a")
    for call in (
        lambda: a.fetch("", "x"),
        lambda: a.fetch("d", "x\0"),
        lambda: a.fetch("d", "x", node=""),
        lambda: a.fetch("d", "x", timeout=-1),
        lambda: a.fetch("d", "x", timeout=float("nan")),
        lambda: a.wait("d", "x", timeout="1"),
        lambda: a.gather("d", "ids"),
        lambda: a.gather("d", 5),
        lambda: a.clear_everywhere(" "),
        lambda: a.register("d", "x", ""),
        lambda: a.locate("d", 5),
    ):
        with pytest.raises(InvalidArgument):
            call()
    with pytest.raises(InvalidArgument):
        a.results.put_stream("d", "x", "text")
    assert a.results.ids("d") == ()


def test_a_secret_from_a_file_and_from_the_environment(alone, tmp_path, monkeypatch):
    (tmp_path / "secret").write_bytes(alone.secret + b"\n")
    monkeypatch.setenv("NODE_SECRET", alone.secret.decode())
    (a,) = alone.nodes("a")
    a.results.put("d", "x", 1)
    for name, secret in (("b", f"file:{tmp_path / 'secret'}"), ("c", "env:NODE_SECRET")):
        assert alone.node(name, secret=secret).fetch("d", "x", node="a") == 1


def test_stores_of_another_face_are_refused(alone):
    from stateroom.node import AsyncNode, Node

    with pytest.raises(InvalidArgument):
        AsyncNode(alone.shared, alone.shared, "a", secret=alone.secret)
    with pytest.raises(InvalidArgument):
        Node(stateroom.AsyncStore.over(alone.shared), alone.shared, "a", secret=alone.secret)


def test_a_memoised_function_is_registered(cluster):
    a, b = cluster.nodes("a", "b")
    calls = []

    @a.results.memoized("d", name="double")
    def double(number):
        calls.append(number)
        return number * 2

    for _ in range(2):
        value = double(4)
        assert (cluster._thread.run(value) if cluster.asynchronous else value) == 8
    assert calls == [4]
    ((id, nodes),) = b.locations("d").items()
    assert nodes == ("a",)
    assert b.fetch("d", id) == 8


def test_many_are_stored_and_registered(cluster):
    a, b = cluster.nodes("a", "b")
    a.results.put_many("d", {f"i{number}": number for number in range(30)})
    assert b.gather("d", [f"i{number}" for number in range(31)]) == {f"i{number}": number for number in range(30)}
    with pytest.raises(InvalidArgument):
        a.results.put_many("e", {"x": 1, "y": object()})
    assert set(b.locations("e")) == set(a.results.ids("e"))


class Ahead:
    """A clock that is a minute ahead."""

    def now(self):
        return datetime.now(UTC) + timedelta(seconds=60)

    def monotonic(self):
        return time.monotonic()


def test_clocks_that_differ_are_seen_in_heartbeats(alone):
    from stateroom.cli.node import node_remarks

    a = alone.node("a", ttl=0.6)
    alone.node("b", ttl=0.6, shared=alone.open(alone.url, clock=Ahead()))
    seen = until(lambda: next(node for node in a.nodes() if node.name == "a").clocks)
    assert 50 < seen["b"] < 62
    remarks = "\n".join(node_remarks(a.nodes(), ()))
    assert "the clock of node b is" in remarks
    assert "node a sees other clocks than its own: b +" in remarks
