"""The feed: reading it beside a raw scan, followers, wake-ups, and writers while retention runs."""

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from statistics import median

import apsw
import ormsgpack

import holdfast
from holdfast import BEGINNING, Change, Instance, Policy
from holdfast.clock import from_micros
from holdfast.entry import OPS
from holdfast.families.instance_record import INSTANCES

RUNS = 9


def fill(store: holdfast.Store, count: int, status: str = "running") -> None:
    """Instances of some hundred bytes."""
    for at in range(0, count, 200):
        with store.transaction(any_root=True) as tx:
            for number in range(at, min(at + 200, count)):
                tx.instances.put(Instance(f"i{number}", "w", status=status, metadata={"number": number}))


def fill_updates(store: holdfast.Store, count: int) -> None:
    """Runs that go from step to step: ten changes of each instance, beside those of others, as a worker makes them."""
    made = 0
    while made < count:
        for step in range(10):
            with store.transaction(any_root=True) as tx:
                for number in range(made // 10, made // 10 + 20):
                    metadata = {"number": number, "step": step}
                    tx.instances.put(Instance(f"i{number}", "w", current_step=f"s{step}", metadata=metadata))
        made += 200


def drain(store: holdfast.Store, limit: int = 1000) -> int:
    """Read the whole feed."""
    after, seen = BEGINNING, 0
    while items := (page := store.feed.read(after, limit=limit)).items:
        seen += len(items)
        after = page.next
    return seen


_ROWS = "SELECT key, value, version FROM rows WHERE part = 0 AND key >= ? AND key < ? ORDER BY key LIMIT 1000"


def raw(store: holdfast.Store, file: apsw.Connection) -> int:
    """Scan the same rows with bare apsw and decode entries and records to plain values, with nothing around it."""
    decode, unpack = store._scope.codec.decode, ormsgpack.unpackb
    start, stop, seen = b"default\0F", b"default\0F\xff", 0
    while rows := file.execute(_ROWS, (start, stop)).fetchall():
        for row in rows:
            decode(unpack(row[1][5:])[7][1:])
        seen += len(rows)
        start = rows[-1][0] + b"\0"
    return seen


def raw_both(store: holdfast.Store, file: apsw.Connection) -> int:
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


def raw_objects(store: holdfast.Store, file: apsw.Connection) -> int:
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
        with holdfast.open(path, durability="normal") as store:
            make(store, count)
            compare(name, store, apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY), count)
            if name == "creates":
                for followers in (1, 10):
                    rate = count * followers / follow(store, followers, count)
                    print(f"{followers:2} watchers                        {rate:10,.0f} changes/s")


def compare(name: str, store: holdfast.Store, file: apsw.Connection, count: int) -> None:
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


def follow(store: holdfast.Store, followers: int, count: int) -> float:
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


def spread(found: list[float]) -> str:
    """Middle and worst of a hundred, in milliseconds."""
    found.sort()
    return f"p50 {found[len(found) // 2] * 1e3:7.2f} ms   p99 {found[int(len(found) * 0.99)] * 1e3:7.2f} ms"


def condition(times: int) -> list[float]:
    """A bare hand-over between two threads."""
    told, box, found = threading.Condition(), [0.0], []
    ready = threading.Semaphore(0)

    def wait() -> None:
        for _ in range(times):
            with told:
                ready.release()
                told.wait()
            found.append(time.perf_counter() - box[0])

    thread = threading.Thread(target=wait)
    thread.start()
    for _ in range(times):
        ready.acquire()
        time.sleep(0.002)
        with told:
            box[0] = time.perf_counter()
            told.notify()
    thread.join()
    return found


def woken(store: holdfast.Store, times: int) -> list[float]:
    """From just after a commit returned, to the reader having the change; never less than nothing."""
    found, sent, ready = [], [0.0], threading.Semaphore(0)

    def wait() -> None:
        at = store.feed.latest()
        for _ in range(times):
            ready.release()
            page = store.feed.read(at, wait=30)
            found.append(max(0.0, time.perf_counter() - sent[0]))
            at = page.next

    thread = threading.Thread(target=wait)
    thread.start()
    for _ in range(times):
        ready.acquire()
        time.sleep(0.005)
        sent[0] = time.perf_counter()
        store.feed.emit("note", 1)
    thread.join()
    return found


WRITER = """
import sys, time, holdfast
with holdfast.open(sys.argv[1], durability="normal") as store:
    for _ in range(int(sys.argv[2])):
        time.sleep(0.02)
        store.feed.emit("note", time.time())
"""


def woken_across(url: str, times: int) -> list[float]:
    """From the writer's emit in another process, to the reader having the change."""
    found = []
    with holdfast.open(url, durability="normal") as store:
        at = store.feed.latest()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        writer = subprocess.Popen([sys.executable, "-c", WRITER, url, str(times)], env=environment)
        while len(found) < times:
            page = store.feed.read(at, wait=30)
            found += [time.time() - change.record for change in page.items]
            at = page.next
        writer.wait()
    return found


def idle(folder: str) -> None:
    with holdfast.open(f"{folder}/idle.db") as store:
        watcher = store.watch("idle", lambda change: None)
        watcher.start()
        time.sleep(0.5)
        began = time.process_time()
        time.sleep(3)
        print(f"idle watcher         {(time.process_time() - began) / 3:10.2%} of a core")
        watcher.stop()


def retention(folder: str, count: int) -> None:
    with holdfast.open(f"{folder}/old.db", durability="normal") as store:
        fill(store, count, "completed")
        before = writing(store, lambda: time.sleep(2))
        store.retention.set(Policy("instances", terminal_older_than=timedelta(0)))
        store.retention.set(Policy("feed", older_than=timedelta(0)))
        took = [0.0]

        def run() -> None:
            began = time.perf_counter()
            while not store.retention.run(max_records=10_000_000, max_seconds=600).complete:
                pass
            took[0] = time.perf_counter() - began

        during = writing(store, run)
        print(f"retention            {count / took[0]:10,.0f} records/s with their changes, {count:,} in all")
        print(f"a writer without it  {spread(before)}")
        print(f"a writer beside it   {spread(during)}")


def writing(store: holdfast.Store, work) -> list[float]:
    """Seconds of each commit of a writer while something runs."""
    found: list[float] = []
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            began = time.perf_counter()
            store.feed.emit("note", 1)
            found.append(time.perf_counter() - began)
            time.sleep(0.002)

    thread = threading.Thread(target=write)
    thread.start()
    work()
    done.set()
    thread.join()
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--changes", type=int, default=10_000)
    options.add_argument("--records", type=int, default=20_000)
    options.add_argument("--wakes", type=int, default=200)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reading(folder, given.changes)
        print(f"bare condition       {spread(condition(given.wakes))}")
        with holdfast.open(f"{folder}/wake.db", durability="normal") as store:
            print(f"wake-up, same process {spread(woken(store, given.wakes))}  (the commit included)")
        print(f"wake-up, across      {spread(woken_across(f'{folder}/wake.db', given.wakes))}  (the commit included)")
        idle(folder)
        retention(folder, given.records)


if __name__ == "__main__":
    main()
