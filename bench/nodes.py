"""Fetching from another process on this machine, beside a plain socket copy with sha256, put_stream, and Dask.

Run ``python bench/nodes.py [--rounds 5]``. The shared store is a SQLite file: every fetch registers its copy there in one
commit, so what a flush of the disk costs is shown beside. Dask is measured where `distributed` is installed.
"""

import argparse
import hashlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import stateroom
from stateroom.node import Node

SIZES = {"1 KB": 1 << 10, "1 MB": 1 << 20, "100 MB": 100 << 20}
TIMES = {"1 KB": 60, "1 MB": 20, "100 MB": 1}
ASKERS = 1000
SECRET = b"only for measuring, not a secret"


def block(size: int, number: int) -> bytes:
    """Bytes that differ for each value."""
    return hashlib.shake_128(str(number).encode()).digest(min(size, 1 << 20)) * max(1, size >> 20)


def serve(folder: str, kind: str, rounds: int) -> None:
    """A node with values of every size, until stdin ends."""
    local = "memory:" if kind == "memory" else f"{folder}/{kind}-server.db"
    with stateroom.open(f"{folder}/shared.db") as shared, stateroom.open(local) as own:
        for name, size in SIZES.items():
            for number in range(rounds * TIMES[name]):
                own.results.put(name, str(number), block(size, number))
        own.results.put("shared by all", "x", block(1 << 20, 7))
        with Node(shared, own, f"{kind}-server", secret=SECRET):
            print("ready", flush=True)
            sys.stdin.read()


@contextmanager
def process(*words: str) -> Iterator[str]:
    """A process of this file; gives its first line."""
    child = subprocess.Popen(
        [sys.executable, __file__, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        yield child.stdout.readline().strip()
    finally:
        child.stdin.close()
        child.wait()
        child.stdout.close()


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1000


def nodes(folder: str, kind: str, rounds: int) -> dict[str, list[float]]:
    """Fetches by a node whose local store is of a kind."""
    times: dict[str, list[float]] = {}
    local = "memory:" if kind == "memory" else f"{folder}/{kind}-client.db"
    with (
        process("serve", folder, kind, str(rounds)),
        stateroom.open(f"{folder}/shared.db") as shared,
        stateroom.open(local) as own,
        Node(shared, own, f"{kind}-client", secret=SECRET) as node,
    ):
        for name, size in SIZES.items():
            for number in range(rounds * TIMES[name]):
                id = str(number)
                if kind == "memory":
                    times.setdefault(f"fetch into memory, {name}", []).append(
                        timed(lambda dag=name, key=id: node.fetch(dag, key))
                    )
                    own.results.delete(name, id) if size > 1 << 20 else None
                else:
                    times.setdefault(f"fetch into a file, {name}", []).append(
                        timed(lambda dag=name, key=id: node.results.fetch_stream(dag, key).close())
                    )
                    data = block(size, number + 10**6)
                    times.setdefault(f"put_stream into the file, {name}", []).append(
                        timed(lambda data=data, key=id: own.results.put_stream("put", key, iter([data])))
                    )
        if kind == "memory":
            times["a commit of the shared store"] = [
                timed(lambda number=number: shared.locations.register("t", str(number), "n")) for number in range(50)
            ]
            asked(node)
    return times


def asked(node: Node) -> None:
    """Many who ask for one value at once."""
    before, barrier = node.transfers, threading.Barrier(ASKERS + 1)

    def ask() -> None:
        barrier.wait()
        node.fetch("shared by all", "x")

    threads = [threading.Thread(target=ask) for _ in range(ASKERS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    spent = timed(lambda: [thread.join() for thread in threads])
    print(f"{ASKERS:,} who ask for one value of 1 MB at once: {node.transfers - before} transfer, {spent:,.0f} ms")


def copying(port_file: str) -> None:
    """The plain copy: sends as many bytes as it is asked for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Path(port_file).write_text(str(listener.getsockname()[1]))
        print("ready", flush=True)
        data = block(100 << 20, 1)
        connection, _ = listener.accept()
        with connection:
            while asked := connection.recv(8):
                connection.sendall(memoryview(data)[: int.from_bytes(asked, "big")])


def plain(folder: str, rounds: int) -> dict[str, list[float]]:
    """The same bytes over a socket, hashed as they come."""
    times: dict[str, list[float]] = {}
    file = f"{folder}/port"
    with (
        process("copy", file),
        socket.create_connection(("127.0.0.1", int(Path(file).read_text()))) as connection,
    ):
        for name, size in SIZES.items():

            def copy(size: int = size) -> None:
                connection.sendall(size.to_bytes(8, "big"))
                hashed, data, at = hashlib.sha256(), bytearray(size), 0
                view = memoryview(data)
                while at < size:
                    count = connection.recv_into(view[at : at + (1 << 18)])
                    hashed.update(view[at : at + count])
                    at += count
                hashed.digest()

            times[f"socket and sha256, {name}"] = [timed(copy) for _ in range(rounds * TIMES[name])]
    return times


def dask(rounds: int) -> dict[str, list[float]]:
    """Dask's gather of the same bytes from a worker in another process."""
    try:
        from distributed import Client, LocalCluster, wait
    except ImportError:
        print("distributed is not installed")
        return {}
    times: dict[str, list[float]] = {}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        for name, size in SIZES.items():
            for number in range(rounds * min(TIMES[name], 10)):
                made = client.submit(block, size, number, pure=False)

                wait(made)
                times.setdefault(f"Dask's gather, {name}", []).append(timed(lambda made=made: client.gather(made)))
                made.release()
    return times


def main() -> None:
    """Measure everything and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        times = nodes(folder, "memory", rounds) | nodes(folder, "file", rounds) | plain(folder, rounds)
    times |= dask(rounds)
    print(f"{'':<40}{'p50 ms':>10}{'worst':>10}{'times':>8}")
    for what, measured in times.items():
        print(f"{what:<40}{statistics.median(measured):>10.2f}{max(measured):>10.2f}{len(measured):>8}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1:2] == ["copy"]:
        copying(sys.argv[2])
    else:
        main()
