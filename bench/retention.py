"""Retention of many records while writers run: how fast they go, what the writers feel, what memory and disk it takes."""

import argparse
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import stateroom
from stateroom import Instance, Policy, codec
from stateroom.clock import SystemClock
from stateroom.engines import sqlite
from stateroom.engines.wrap import Span, Traced

PAUSE = 0.002


def fill(store: stateroom.Store, count: int) -> None:
    """Instances of some hundred bytes that have come to their end."""
    for at in range(0, count, 200):
        with store.transaction(any_root=True) as tx:
            for number in range(at, min(at + 200, count)):
                tx.instances.put(Instance(f"i{number}", "w", status="completed", metadata={"number": number}))


def spread(found: list[float]) -> str:
    """Middle, worst of a hundred, and worst, in milliseconds."""
    found.sort()
    p50, p99, most = found[len(found) // 2], found[int(len(found) * 0.99)], found[-1]
    return f"p50 {p50 * 1e3:7.2f} ms   p99 {p99 * 1e3:7.2f} ms   worst {most * 1e3:7.2f} ms   of {len(found):,}"


def writing(store: stateroom.Store, writers: int, work: Callable[[], object]) -> list[float]:
    """Seconds of each commit of some writers while something runs."""
    found: list[float] = []
    done = threading.Event()

    def write(number: int) -> None:
        while not done.is_set():
            began = time.perf_counter()
            store.instances.put(Instance(f"live-{number}", "live", status="running"))
            found.append(time.perf_counter() - began)
            time.sleep(PAUSE)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    work()
    done.set()
    for thread in threads:
        thread.join()
    return found


def holding(path: Path, records: int) -> None:
    """How long retention's own commits take: nobody waits for one of them longer than that."""
    spans: list[Span] = []
    engine = Traced(sqlite.connect(str(path)), spans.append)
    with stateroom.Store(engine, str(path), namespace="default", codec=codec.default, clock=SystemClock()) as store:
        fill(store, records)
        store.retention.set(Policy("instances", terminal_older_than=timedelta(0)))
        store.retention.set(Policy("feed", older_than=timedelta(0)))
        spans.clear()
        while not store.retention.run(max_records=20_000, max_seconds=60).complete:
            pass
    print(f"its own commits, alone     {spread([span.seconds for span in spans if span.name == 'commit'])}", flush=True)


def memory() -> float:
    """The most memory this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def size(path: Path) -> str:
    logged = Path(f"{path}-wal")
    return f"{path.stat().st_size / 1e6:,.0f} MB, log {logged.stat().st_size / 1e6 if logged.exists() else 0:,.0f} MB"


def measure(path: Path, records: int, writers: int, durability: str) -> None:
    with stateroom.open(str(path), durability=durability) as store:
        began = time.perf_counter()
        fill(store, records)
        print(f"{records:,} records written in {time.perf_counter() - began:,.0f} s: {size(path)}", flush=True)
        before = writing(store, writers, lambda: time.sleep(10))
        print(f"{writers} writers without it   {spread(before)}; {memory():,.0f} MiB", flush=True)
        store.retention.set(Policy("instances", terminal_older_than=timedelta(0)))
        store.retention.set(Policy("feed", older_than=timedelta(0)))
        took, removed = [0.0], [0, 0]

        def run() -> None:
            began = time.perf_counter()
            while not (done := store.retention.run(max_records=20_000, max_seconds=60)).complete:
                removed[0] += done.families["instances"]
                removed[1] += done.bytes
            removed[0] += done.families["instances"]
            removed[1] += done.bytes
            took[0] = time.perf_counter() - began

        during = writing(store, writers, run)
        rate = f"{removed[0] / took[0]:,.0f} records/s with their changes"
        print(f"{removed[0]:,} records removed in {took[0]:,.0f} s: {rate}; {removed[1] / 1e6:,.0f} MB given back")
        print(f"{writers} writers beside it    {spread(during)}; {memory():,.0f} MiB; {size(path)}")
    print(f"closed: {size(path)}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--records", type=int, default=20_000)
    options.add_argument("--writers", type=int, default=2)
    options.add_argument("--durability", choices=("full", "normal"), default="full")
    options.add_argument("--folder", help="where the file is made, about 2 GB for a million records")
    given = options.parse_args()
    print(f"process {os.getpid()}, durability {given.durability}")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        holding(Path(folder) / "alone.db", min(given.records, 50_000))
        measure(Path(folder) / "old.db", given.records, given.writers, given.durability)


if __name__ == "__main__":
    main()
