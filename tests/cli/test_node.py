"""`stateroom node`: listing, forgetting, and a node in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import stateroom

from .conftest import Run


def test_no_nodes(run: Run) -> None:
    ran = run("node", "list")
    assert ran.code == 0
    assert "no nodes" in ran.err
    assert run("--json", "node", "list").json == []


def test_dead_and_unknown_nodes_are_named(run: Run, url: str) -> None:
    with stateroom.open(url) as store:
        store.locations.leave(store.locations.join("a", "http://127.0.0.1:1", "p", 10))
        store.locations.join("b", "http://127.0.0.1:2", "p", 1000)
        for node in ("a", "b", "stranger"):
            store.locations.register("d", "x", node)
    listed = {node["name"]: node["alive"] for node in run("--json", "node", "list").json}
    assert listed == {"a": False, "b": True}
    assert "http://127.0.0.1:2" in run("node", "list").out
    told = run("--json", "doctor").json
    assert len(told["remarks"]) == 2
    assert "node a is dead" in told["remarks"][0]
    assert "stranger" in told["remarks"][1]
    assert "stranger" in run("doctor").out
    counted = run("--json", "stats").json
    assert (counted["nodes"], counted["locations"]) == ({"alive": 1, "dead": 1}, 3)


def test_forgetting_asks_and_takes_the_locations(run: Run, url: str) -> None:
    with stateroom.open(url) as store:
        store.locations.leave(store.locations.join("a", "http://127.0.0.1:1", "p", 10))
        store.locations.register("d", "x", "a")
        store.locations.register("d", "x", "b")
    assert run("node", "forget", "a").code == 2
    assert run("node", "forget", "a", "--dry-run").code == 0
    with stateroom.open(url) as store:
        assert len(store.locations.of("d", "x")) == 2
    assert run("node", "forget", "a", "--yes").code == 0
    with stateroom.open(url) as store:
        assert [location.node for location in store.locations.of("d", "x")] == ["b"]
        assert store.locations.nodes() == ()
    assert run("node", "forget", "nobody", "--yes").code == 1


def test_a_node_of_its_own_serves_what_its_file_holds(url: str, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="nodes need the extra `server`")
    from stateroom.node import Node

    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(32).hex().encode())
    with stateroom.open(tmp_path / "worker.db") as own:
        own.results.put("d", "x", {"made": "elsewhere"})
    command = [sys.executable, "-m", "stateroom", "--url", url, "--json", "node", "run", "--name", "worker"]
    command += ["--local", str(tmp_path / "worker.db"), "--secret-file", str(secret), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        with stateroom.open(url) as shared, stateroom.open("memory:") as local:
            with Node(shared, local, "here", secret=f"file:{secret}") as node:
                assert [(info.name, info.address) for info in node.nodes()][1] == ("worker", told["address"])
                assert node.fetch("d", "x") == {"made": "elsewhere"}
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
                assert [info.alive for info in node.nodes()] == [True, False]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_a_node_is_told_is_checked(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="nodes need the extra `server`")
    (tmp_path / "short").write_bytes(b"short")
    common = ["node", "run", "--name", "a", "--local", str(tmp_path / "a.db")]
    for words in (
        ["--secret-file", str(tmp_path / "short")],
        ["--secret-file", str(tmp_path / "none")],
        ["--secret-file", str(tmp_path / "short"), "--tls-cert", "x"],
    ):
        ran = run(*common, *words)
        assert ran.code == 2
        assert ran.err.startswith("invalid-argument: ")
