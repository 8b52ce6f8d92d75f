"""Machines and results beside a plain file and bare apsw: ``python bench/families.py [rounds [folder]]``.

All take turns in each round, so that a slow minute of the machine meets every row; medians in milliseconds over the
rounds, the first of which is not counted, and how many times the floor each one is. A write counts when it is durable:
the file is written anew and fsynced with its folder's entry, SQLite runs with synchronous=FULL. Bare apsw rows are one
row (a value of up to 1 MiB) or rows of 256 KiB in one transaction, without checksums, hashes, indexes or a feed.
"""

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

import apsw

import stateroom
from stateroom import Store

RUN = 256 << 10
SIZES = {"1 KB": 1_000, "1 MB": 1_000_000, "100 MB": 100_000_000}


class Plain:
    """A file for each value."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "value.bin")

    def put(self, value: bytes) -> None:
        with open(self._path, "wb") as file:
            file.write(value)
            file.flush()
            os.fsync(file.fileno())

    def get(self) -> bytes:
        with open(self._path, "rb") as file:
            return file.read()


class Rows:
    """Rows of a table, as apsw writes them."""

    def __init__(self, folder: str) -> None:
        self._db = apsw.Connection(os.path.join(folder, "rows.db"))
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=0"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("CREATE TABLE rows (key INTEGER PRIMARY KEY, value BLOB)")

    def put(self, value: bytes) -> None:
        pieces = [value[at : at + RUN] for at in range(0, len(value), RUN)] if len(value) > 1 << 20 else [value]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("DELETE FROM rows")
        self._db.executemany("INSERT INTO rows VALUES (?, ?)", enumerate(pieces))
        self._db.execute("COMMIT")

    def get(self) -> bytes:
        return b"".join(row[0] for row in self._db.execute("SELECT value FROM rows ORDER BY key"))

    def rest(self) -> None:
        self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


class Stream:
    """Bytes in blocks of 1 MiB, as they come from somewhere else."""

    def __init__(self, value: bytes) -> None:
        self._value = memoryview(value)

    def __iter__(self) -> "Stream":
        self._at = 0
        return self

    def __next__(self) -> bytes:
        if self._at >= len(self._value):
            raise StopIteration
        block = bytes(self._value[self._at : self._at + (1 << 20)])
        self._at += 1 << 20
        return block


def results(folder: str, size: int, rounds: int) -> dict[str, list[float]]:
    """Put and get of one size by each; a fresh value in each round, so that nothing is there already."""
    found: dict[str, list[float]] = {}
    plain, rows = Plain(folder), Rows(folder)
    with stateroom.open(os.path.join(folder, "store.db")) as store:
        for number in range(rounds + 1):
            value = random.Random(number).randbytes(size)
            turns: list[tuple[str, Callable[[], object]]] = [
                ("put: file and fsync", partial(plain.put, value)),
                ("put: apsw rows", partial(rows.put, value)),
                ("put: stateroom", partial(store.results.put, "dag", "put", value)),
                ("put: stateroom, streamed", partial(store.results.put_stream, "dag", "stream", Stream(value))),
                ("get: file", plain.get),
                ("get: apsw rows", rows.get),
                ("get: stateroom", lambda: store.results.get("dag", "put")),
                ("get: stateroom, streamed", lambda: read_all(store)),
            ]
            for name, turn in turns:
                if name.startswith("put"):
                    store.results.delete("dag", "stream" if "streamed" in name else "put")
                    os.sync()  # no one's flushes fall into another's turn
                took = timed(turn)
                if number:
                    found.setdefault(name, []).append(took)
            rows.rest()
    return found


def read_all(store: Store) -> None:
    with store.results.open("dag", "stream") as file:
        while file.read(1 << 20):
            pass


def machines(folder: str, rounds: int) -> dict[str, list[float]]:
    """One machine that goes back and forth between two states, with and without rules."""
    found: dict[str, list[float]] = {}
    plain, rows = Plain(folder), Rows(folder)
    payload = {"order": 17, "items": ["a", "b", "c"], "total": 12.5, "note": "n" * 200}
    packed = stateroom.codec.default.encode(payload)
    with stateroom.open(os.path.join(folder, "store.db")) as store:
        store.machines.define("ruled", {"a": {"go": "b"}, "b": {"go": "a"}}, initial="a")
        for number in range(150):  # so that a save also removes the oldest of its history
            for machine in ("free", "ruled"):
                store.machines.save(machine, "m", "ab"[number % 2], payload)
        for number in range(rounds * 20):
            state = "ab"[number % 2]
            turns: list[tuple[str, Callable[[], object]]] = [
                ("save: file and fsync", lambda: plain.put(packed)),
                ("save: apsw row", lambda: rows.put(packed)),
                ("save: stateroom", partial(store.machines.save, "free", "m", state, payload)),
                ("save: stateroom, with rules", partial(store.machines.save, "ruled", "m", state, payload, event="go")),
                ("load: apsw row", rows.get),
                ("load: stateroom", lambda: store.machines.load("ruled", "m")),
            ]
            for name, turn in turns:
                found.setdefault(name, []).append(timed(turn))
    return found


def table(title: str, found: dict[str, list[float]]) -> None:
    print(f"\n{title:32}{'ms':>10}{'lowest':>10}{'highest':>10}{'times the first':>17}")
    floors: dict[str, float] = {}
    for name, times in found.items():
        median = statistics.median(times)
        floor = floors.setdefault(name.partition(":")[0], median)
        print(f"{name:32}{median:>10.3f}{min(times):>10.3f}{max(times):>10.3f}{median / floor:>17.2f}")


def main(rounds: int, where: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=where) as folder:
        table("machines", machines(folder, rounds))
    for name, size in SIZES.items():
        with tempfile.TemporaryDirectory(dir=where) as folder:
            table(f"results of {name}", results(folder, size, rounds if size > 10_000_000 else rounds * 5))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2] if len(sys.argv) > 2 else None)
