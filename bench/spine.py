"""The spine's operations beside what they cannot be faster than: raw apsw writing the same rows, a bare dict, one flush.

Medians of interleaved rounds, in one process, in a folder of its own (STATEROOM_BENCH_DIR, else the system's).
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

import apsw

import stateroom
from stateroom import AsyncStore, Event, Execution
from stateroom.codec import default as codec
from stateroom.engines.wrap import Recording
from stateroom.families.executions.record import EXECUTIONS

ROUNDS, CALLS = 15, 40
numbers = count()


def timed(work, calls, clock):
    """Seconds of one call, of several in a row."""
    started = clock()
    for _ in range(calls):
        work()
    return (clock() - started) / calls


def interleaved(works, rounds=ROUNDS, calls=CALLS, clock=time.perf_counter):
    """Name to the median of its rounds; one round of each in turn, so that noise hits all alike.

    What never waits is measured in processor time, which a busy machine changes less.
    """
    found = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(timed(work, calls, clock))
    return {name: statistics.median(times) for name, times in found.items()}


def show(title, rows, base=None):
    """A table: microseconds, and how often `base` fits in."""
    print(title)
    for name, seconds in rows.items():
        ratio = f"{seconds / rows[base]:8.2f}x" if base else ""
        print(f"   {name:<52}{seconds * 1e6:11.1f} us{ratio}")


def execution(id):
    """The record that is written here: a usual one."""
    return Execution(id, "job-7", node_id="node-1", details={"attempt": 1, "image": "python:3.12"}, data={"n": 5})


class Raw:
    """apsw alone, set up as the SQLite engine is."""

    def __init__(self, path):
        self.db = apsw.Connection(str(path))
        self.db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0")
        self.db.execute("CREATE TABLE rows (key BLOB PRIMARY KEY, value BLOB, version INTEGER) WITHOUT ROWID")
        self.at = count(1)

    def write(self, batch):
        """The same rows as a batch, under keys that are new each time where they were new."""
        at = next(self.at)
        stamp = at.to_bytes(8, "big")
        rows = [(key + stamp, value, at) for key, value in batch.write.items() if value is not None]
        rows += [(prefix + stamp + n.to_bytes(2, "big"), value, at) for n, (prefix, value) in enumerate(batch.append)]
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("REPLACE INTO rows VALUES (?, ?, ?)", rows)
        for key, amount in batch.add.items():
            self.db.execute(
                "INSERT INTO rows VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET value = value + ?2, version = ?3",
                (key, amount, at),
            )
        self.db.execute("COMMIT")

    def get(self, key):
        return self.db.execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()[0]


def batches():
    """What a create and an update with one event each write."""
    recording = Recording(stateroom.open("memory:")._engine)
    store = stateroom.Store(recording, "memory:", namespace="default", codec=codec, clock=stateroom.clock.SystemClock())
    store.executions.create(execution("a"), events=[Event("made")])
    store.executions.update("a", state="running", events=[Event("went")])
    return recording.batches


def writes(folder):
    store = stateroom.open(folder / "writes.db")
    raw = Raw(folder / "raw.db")
    made, went = batches()
    file = os.open(folder / "flushed", os.O_CREAT | os.O_RDWR)
    ids = []

    def create():
        ids.append(f"e{next(numbers)}")
        store.executions.create(execution(ids[-1]), events=[Event("made")])

    def flush():
        os.pwrite(file, b"x" * 4096, 0)
        getattr(os, "fdatasync", os.fsync)(file)

    rows = interleaved(
        {
            "raw apsw, the rows of a create": lambda: raw.write(made),
            "create with one event": create,
            "raw apsw, the rows of an update": lambda: raw.write(went),
            "update with one event": lambda: store.executions.update(
                ids.pop(), state="running", events=[Event("went")]
            ),
            "one flush (fdatasync)": flush,
        }
    )
    show("Durable writes, SQLite", rows, "raw apsw, the rows of a create")
    os.close(file)
    store.close()


def reads(folder):
    memory, file = stateroom.open("memory:"), stateroom.open(folder / "reads.db")
    raw = Raw(folder / "rawreads.db")
    for n in range(2000):
        memory.executions.create(execution(f"e{n}"))
    for n in range(200):
        file.executions.create(execution(f"e{n}"))
    stored = memory.executions.get("e77")
    body = codec.encode([1, 1, 0, 0, *EXECUTIONS.pack(stored)])

    def decode(data):
        _, revision, _, _, *fields = codec.decode(data)
        return EXECUTIONS.unpack(fields, revision, stored.created_at, stored.updated_at)

    rows = {f"default\0Ree{n}\0".encode(): body for n in range(2000)}
    raw.db.execute("BEGIN")
    raw.db.executemany("INSERT INTO rows VALUES (?, ?, 1)", list(rows.items())[:200])
    raw.db.execute("COMMIT")
    key = b"default\0Ree77\0"
    found = interleaved(
        {
            "a dict get, and decoding": lambda: decode(rows[key]),
            "get, memory": lambda: memory.executions.get("e77"),
        },
        calls=500,
        clock=time.process_time,
    )
    show("Reading one (processor time)", found, "a dict get, and decoding")
    found = interleaved(
        {
            "raw apsw get, and decoding": lambda: decode(raw.get(key)),
            "get, SQLite": lambda: file.executions.get("e77"),
        },
        calls=500,
        clock=time.process_time,
    )
    show("", found, "raw apsw get, and decoding")
    memory.close()
    file.close()


def lists():
    for total in (1_000, 100_000):
        with stateroom.open("memory:") as store:
            for n in range(total):
                store.executions.create(Execution(f"e{n}", f"j{n % 50}", state="bid_accepted" if n % 10 else "new"))
            executions = store.executions
            works = {
                f"live(limit=100) of {total:,}": partial(executions.live, limit=100),
                f"count of {total:,}": partial(executions.count, "new"),
            }
            show(
                "Looking for some (processor time)" if total == 1000 else "",
                interleaved(works, rounds=7, calls=5, clock=time.process_time),
            )


def callers(folder):
    async def tasks(store, number, each):
        async def one():
            for _ in range(each):
                await store.executions.create(execution(f"e{next(numbers)}"))

        started = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(number)))
        return number * each / (time.perf_counter() - started)

    async def rates():
        store = await stateroom.open_async(folder / "callers.db")
        assert isinstance(store, AsyncStore)
        found = {}
        for _ in range(5):
            for number, each in ((1, 40), (8, 30), (64, 20)):
                found.setdefault(f"{number} asyncio callers", []).append(await tasks(store, number, each))
        await store.close()
        return found

    found = asyncio.run(rates())
    store = stateroom.open(folder / "threads.db")

    def each(_):
        for _ in range(30):
            store.executions.create(execution(f"e{next(numbers)}"))

    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            started = time.perf_counter()
            list(pool.map(each, range(8)))
            found.setdefault("8 threads", []).append(240 / (time.perf_counter() - started))
    store.close()
    print("Durable creates per second, SQLite")
    one = statistics.median(found["1 asyncio callers"])
    for name, speeds in found.items():
        speed = statistics.median(speeds)
        print(f"   {name:<52}{speed:11.0f} /s{speed / one:8.2f}x")


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get("STATEROOM_BENCH_DIR")) as name:
        folder = Path(name)
        writes(folder)
        reads(folder)
        lists()
        callers(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
