"""Three nodes in processes of their own over one shared store: killed, paused, rotten, cut off."""

import os
import signal
import socket
import threading

import pytest

import stateroom
from stateroom.engine import Batch
from stateroom.errors import AlreadyExists, LostLease, NotFound, Unavailable

from .conftest import Cluster
from .processes import CLIENT, SERVER, Gate, Process, filled, until

SIZE = 6 << 20


@pytest.fixture
def cluster(shared_url, tmp_path):
    """A cluster of the blocking face: what is in other processes has no face."""
    made = Cluster(shared_url, f"t{os.urandom(8).hex()}", "Node", tmp_path)
    made.started, made.gates = [], []
    yield made
    for one in made.started:
        one.end()
    for one in made.gates:
        one.shut()
    made.close()


def start(cluster, name, **options):
    process = Process(cluster, name, **options)
    cluster.started.append(process)
    return process


def behind_a_gate(cluster, name, values, **options):
    """A process that others reach through a gate."""
    filled(cluster, name, values)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    gate = Gate(address)
    cluster.gates.append(gate)
    return start(cluster, name, listen=address, advertise=gate.address, **options), gate


def test_killed_in_the_middle_another_goes_on_where_it_stopped(cluster):
    data = os.urandom(SIZE)
    first, gate = behind_a_gate(cluster, "first", {"x": data})
    second, other = behind_a_gate(cluster, "second", {"x": data})
    node = cluster.node("here")
    gate.arm(SERVER, SIZE // 2)
    assert node.fetch("d", "x", node="first") == data
    assert gate.cut_happened.is_set()
    # What came from the first one came once: not again from the same, nor from the other.
    assert gate.passed[SERVER] + other.passed[SERVER] < SIZE + SIZE // 4
    first.kill()
    node.results.delete("d", "x")
    gate.passed[SERVER] = other.passed[SERVER] = 0
    assert node.fetch("d", "x", node="first") == data
    assert other.passed[SERVER] > SIZE
    assert second.process.poll() is None


def test_killed_and_nobody_else_has_it(cluster):
    data = os.urandom(SIZE)
    process, gate = behind_a_gate(cluster, "first", {"x": data}, ttl=1)
    node = cluster.node("here")
    gate.arm(SERVER, SIZE // 2)
    killed = threading.Thread(target=lambda: (gate.cut_happened.wait(30), process.kill()))
    killed.start()
    gate.shut_after_cut = True
    with pytest.raises(Unavailable) as caught:
        node.fetch("d", "x")
    killed.join()
    assert list(caught.value.fields["tried"]) == ["first"]
    assert not node.results.has("d", "x")
    assert node.locate("d", "x") == ("first",)
    until(lambda: not next(info for info in node.nodes() if info.name == "first").alive)
    again = start(cluster, "first", ttl=1)
    assert again.address
    assert node.fetch("d", "x") == data


def test_paused_beyond_its_lease_it_clears_before_it_serves(cluster):
    filled(cluster, "paused", {"x": "before"})
    process = start(cluster, "paused", ttl=1)
    node = cluster.node("here")
    assert node.fetch("d", "x") == "before"
    process.send(signal.SIGSTOP)
    until(lambda: not next(info for info in node.nodes() if info.name == "paused").alive)
    assert node.clear_everywhere("d") == {"here": 1, "paused": None}
    node.results.put("d", "y", "after")
    process.send(signal.SIGCONT)
    with pytest.raises((NotFound, Unavailable)):
        node.fetch("d", "x", node="paused", timeout=10)
    until(lambda: next(info for info in node.nodes() if info.name == "paused").alive)
    with pytest.raises(NotFound):
        node.fetch("d", "x", node="paused")
    assert node.locations("d") == {"y": ("here",)}


def test_a_name_that_was_taken_over_is_not_served_by_the_one_that_wakes(cluster):
    filled(cluster, "n", {"x": "old"})
    paused = start(cluster, "n", ttl=1)
    node = cluster.node("here")
    paused.send(signal.SIGSTOP)
    until(lambda: not next(info for info in node.nodes() if info.name == "n").alive)
    filled(cluster, "twin", {"z": "of the twin"})
    twin = start(cluster, "n", local=cluster.folder / "twin.db", ttl=1)
    paused.send(signal.SIGCONT)
    assert node.fetch("d", "z", node="n") == "of the twin"
    with pytest.raises(NotFound):
        node.fetch("d", "x", node="n")
    assert next(info for info in node.nodes() if info.name == "n").address == twin.address


def test_a_node_that_was_superseded_writes_nothing_under_the_name(cluster, monkeypatch):
    node = cluster.node("n", ttl=0.5)
    presence = node.inner._presence
    monkeypatch.setattr(presence, "_renew", _lost)
    monkeypatch.setattr(presence, "_join", _taken)
    until(lambda: presence.superseded)
    for call in (lambda: node.results.put("d", "x", 1), lambda: node.fetch("d", "x")):
        with pytest.raises(LostLease) as caught:
            call()
        assert "'n'" in str(caught.value)
    assert cluster.shared.locations.of_dag("d") == {}


async def _lost():
    raise LostLease("lost")


async def _taken():
    raise AlreadyExists("taken")


def rot(store, number):
    """Spoil one chunk of a store."""
    rows = store._scope.engine.engine.scan(0, store._scope.key(b"BC"), store._scope.key(b"BD"), limit=1000)
    row = [row for row in rows if len(row.value) > 200_000][number]
    spoiled = bytes([row.value[0]]) + bytes(len(row.value) - 1)
    store._scope.engine.engine.commit(0, Batch(write={row.key: spoiled}))
    return row


def test_a_rotten_chunk_is_noticed_where_it_is(cluster):
    data = os.urandom(SIZE)
    rotten = cluster.node("rotten")
    rotten.results.put("d", "x", data)
    store = next(store for store in cluster._stores if store.url.endswith("rotten.db"))
    row = rot(store, 10)
    node = cluster.node("here")
    with pytest.raises(Unavailable) as caught:
        node.fetch("d", "x")
    assert "rotten" in caught.value.fields["tried"]
    assert not node.results.has("d", "x")
    sound = cluster.node("sound")
    sound.results.put("d", "x", data)
    cluster.shared.locations.register(
        "d", "x", "rotten", digest=sound.results.find("d", "x").digest, size=SIZE, form="bytes"
    )
    assert node.fetch("d", "x", node="rotten") == data
    store._scope.engine.engine.commit(0, Batch(write={row.key: row.value}))


def test_cut_at_every_message_of_a_transfer(cluster):
    data = os.urandom((1 << 20) + 77)
    process, gate = behind_a_gate(cluster, "first", {"x": data, "small": [1, 2]})
    node = cluster.node("here")
    points = [0, 1, 50, 200, 400, *(at + more for at in range(0, len(data) - 1000, 256 << 10) for more in (399, 600))]
    cut = 0
    for side, after in [(SERVER, after) for after in points] + [(CLIENT, after) for after in (0, 1, 100, 300)]:
        gate.arm(side, after)
        assert node.fetch("d", "x") == data
        cut += gate.cut_happened.is_set()
        assert node.results.delete("d", "x")
    assert cut == len(points) + 4
    for after in (0, 1, 100, 300, 420):
        gate.arm(SERVER, after)
        assert node.fetch("d", "small") == [1, 2]
        node.results.delete("d", "small")
    assert process.process.poll() is None


def test_the_shared_store_away_for_a_while(tmp_path, postgresql):
    """Local reads go on, fetches of what is known do, and what was stored is registered when it is back."""
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(postgresql)
    gate = Gate(f"{parts.hostname}:{parts.port}")
    through = urlunsplit(parts._replace(netloc=parts.netloc.rpartition(":")[0] + f":{gate.port}"))
    namespace = f"t{os.urandom(8).hex()}"
    direct = Cluster(postgresql, namespace, "Node", tmp_path)
    a = direct.node("a", ttl=1)
    a.results.put("d", "x", "known")
    a.results.put("d", "y", "unknown")
    with stateroom.open(through, namespace=namespace) as shared:
        node = direct.make("b", shared=shared, ttl=1)
        with node:
            node.results.put("d", "own", 1)
            assert node.locate("d", "x") == ("a",)
            gate.shut()
            assert node.results.get("d", "own") == 1
            assert node.fetch("d", "x") == "known"
            with pytest.raises(Unavailable):
                node.fetch("d", "y")
            node.results.put("d", "made", "meanwhile")
            assert node.results.get("d", "made") == "meanwhile"
            assert a.locate("d", "made") == ()
            gate.open()
            until(lambda: a.locations("d").get("made") == ("b",))
            until(lambda: a.locate("d", "x") == ("a", "b"))
            assert a.fetch("d", "made") == "meanwhile"
            assert node.fetch("d", "y") == "unknown"
    gate.shut()
    direct.close()
