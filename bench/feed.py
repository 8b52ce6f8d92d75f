"""The feed: reading it beside a raw scan, and to several followers. See also `wakes.py` and `retention.py`."""

import argparse
import gc
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from statistics import median

import apsw
import ormsgpack

import stateroom
from stateroom import BEGINNING, Change, Instance
from stateroom.clock import from_micros
from stateroom.families.instances.record import INSTANCES
from stateroom.records.entry import OPS

RUNS = 9


def fill(store: stateroom.Store, count: int, status: str = "running") -> None:
    """Instances of some hundred bytes."""
    for at in range(0, count, 200):
        with store.transaction(any_root=True) as tx:
            for number in range(at, min(at + 200, count)):
                tx.instances.put(Instance(f"i{number}", "w", status=status, metadata={"number": number}))


def fill_updates(store: stateroom.Store, count: int) -> None:
    """Runs that go from step to step: ten changes of each instance, beside those of others, as a worker makes them."""
    made = 0
    while made < count:
        for step in range(10):
            with store.transaction(any_root=True) as tx:
                for number in range(made // 10, made // 10 + 20):
                    metadata = {"number": number, "step": step}
                    tx.instances.put(Instance(f"i{number}", "w", current_step=f"s{step}", metadata=metadata))
        made += 200


def drain(store: stateroom.Store, limit: int = 1000) -> int:
    """Read the whole feed."""
    after, seen = BEGINNING, 0
    while items := (page := store.feed.read(after, limit=limit)).items:
        seen += len(items)
        after = page.next
    return seen


_ROWS = "SELECT key, value, version FROM rows WHERE part = 0 AND key >= ? AND key < ? ORDER BY key LIMIT 1000"


def raw(store: stateroom.Store, file: apsw.Connection) -> int:
    """Scan the same rows with bare apsw and decode entries and records to plain values, with nothing around it."""
    decode, unpack = store._scope.codec.decode, ormsgpack.unpackb
    start, stop, seen = b"default\0F", b"default\0F\xff", 0
    while rows := file.execute(_ROWS, (start, stop)).fetchall():
        for row in rows:
            decode(unpack(row[1][5:])[7][1:])
        seen += len(rows)
        start = rows[-1][0] + b"\0"
    return seen


def raw_both(store: stateroom.Store, file: apsw.Connection) -> int:
    """The same, and the record before each change too, as the feed gives it, from the entry that came before."""
    decode, unpack = store._scope.codec.decode, ormsgpack.unpackb
    start, stop, seen = b"default\0F", b"default\0F\xff", 0
    bodies: dict[str, bytes] = {}
    while rows := file.execute(_ROWS, (start, stop)).fetchall():
        for row in rows:
            entry = unpack(row[1][5:])
            body = entry[7][1:]
            decode(body)
            before = bodies.get(entry[2])
            if before is not None:
                decode(before)
            bodies[entry[2]] = body
        seen += len(rows)
        start = rows[-1][0] + b"\0"
    return seen


def raw_objects(store: stateroom.Store, file: apsw.Connection) -> int:
    """The same, and each page as the tuple of changes that the feed gives: no checksums, no positions, nothing else."""
    decode, unpack, build = store._scope.codec.decode, ormsgpack.unpackb, INSTANCES.unpack
    start, stop, seen = b"default\0F", b"default\0F\xff", 0
    bodies: dict[str, bytes] = {}

    def record(body: bytes) -> Instance:
        _, revision, created, updated, *fields = decode(body)
        return build(fields, revision, from_micros(created), from_micros(updated))

    while rows := file.execute(_ROWS, (start, stop)).fetchall():
        page = []
        for row in rows:
            op, family, id, path, _, _, at, wrapped, _ = unpack(row[1][5:])
            before, bodies[id] = bodies.get(id), wrapped[1:]
            previous = None if before is None else record(before)
            now = record(wrapped[1:])
            page.append(Change("", "", OPS[op], family, id, tuple(path), now, previous, (), from_micros(at)))
        seen += len(tuple(page))
        start = rows[-1][0] + b"\0"
    return seen


def timed(works: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of this thread's processor time for each, the middle of some runs.

    In turns, so that what else the machine does meets all of them; nothing here waits, so no other time is left out.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(RUNS):
        for name, work in works.items():
            gc.collect()
            began = time.thread_time()
            work()
            found[name].append(time.thread_time() - began)
    return {name: median(each) for name, each in found.items()}


def reading(folder: str, count: int) -> None:
    for name, make in (("creates", fill), ("updates", fill_updates)):
        path = f"{folder}/{name}.db"
        with stateroom.open(path, durability="normal") as store:
            make(store, count)
            compare(name, store, apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY), count)
            if name == "creates":
                for followers in (1, 10):
                    rate = count * followers / follow(store, followers, count)
                    print(f"{followers:2} watchers                        {rate:10,.0f} changes/s")


def compare(name: str, store: stateroom.Store, file: apsw.Connection, count: int) -> None:
    """Reading the feed, beside a scan that decodes one record for each change, or two, or builds what the feed gives.

    The expectation is of the first. It decodes less than half of what the feed of updates gives, hence the second; the
    third is what a Python loop takes that does nothing but make the same objects.
    """
    took = timed(
        {
            "record": lambda: raw(store, file),
            "both": lambda: raw_both(store, file),
            "objects": lambda: raw_objects(store, file),
            "feed": lambda: drain(store),
            "page of 100": lambda: drain(store, 100),
        }
    )
    file.close()
    bases = ("record", "both", "objects")
    for label, base in zip(("scan, decode record", "and the one before", "as objects, bare"), bases, strict=True):
        print(f"{name}: {label:24} {count / took[base]:10,.0f} changes/s")
    for label, limit in (("feed", 1000), ("page of 100", 100)):
        times = ", ".join(f"{took[label] / took[base]:.1f}" for base in bases)
        print(f"{name}: feed.read(limit={limit:4})     {count / took[label]:10,.0f} changes/s   {times} times as long")


def follow(store: stateroom.Store, followers: int, count: int) -> float:
    """Seconds until each of some ephemeral watchers has seen everything."""
    left = threading.Semaphore(0)
    watchers = []
    for number in range(followers):
        seen = [0]

        def handle(change, seen=seen) -> None:
            seen[0] += 1
            if seen[0] == count:
                left.release()

        watchers.append(store.watch(f"w{followers}-{number}", handle, ephemeral=True, batch=1000))
    began = time.perf_counter()
    for watcher in watchers:
        watcher.start()
    for _ in watchers:
        left.acquire()
    took = time.perf_counter() - began
    for watcher in watchers:
        watcher.stop()
    return took


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--changes", type=int, default=10_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reading(folder, given.changes)


if __name__ == "__main__":
    main()
