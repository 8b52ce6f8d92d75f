"""RocksDB beside SQLite and one flush, in turns in one run: ``python bench/engine_rocksdb.py [FOLDER] [ROUNDS]``.

Medians over the rounds; ids in the order of time (`new_id`), every change durable.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time

import stateroom
from stateroom import Event, Execution, new_id

CREATES, GETS, TASKS, THREADS, EACH = 200, 2000, 64, 8, 20


def flush(folder):
    """Microseconds of one fdatasync of 4 KiB more in a file."""
    with open(os.path.join(folder, "flush"), "ab", buffering=0) as file:
        times = []
        for _ in range(CREATES):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def lone(store):
    """Microseconds of one create with an event, and of one get."""
    creates, gets, ids = [], [], []
    for _ in range(CREATES):
        ids.append(new_id())
        began = time.perf_counter()
        store.executions.create(Execution(ids[-1], "job"), events=[Event("made")])
        creates.append(time.perf_counter() - began)
    for number in range(GETS):
        began = time.perf_counter()
        store.executions.get(ids[number % CREATES])
        gets.append(time.perf_counter() - began)
    return statistics.median(creates) * 1e6, statistics.median(gets) * 1e6


def threads(store):
    """Creates a second by 8 threads."""

    def work():
        for _ in range(EACH * 4):
            store.executions.create(Execution(new_id(), "job"), events=[Event("made")])

    workers = [threading.Thread(target=work) for _ in range(THREADS)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return THREADS * EACH * 4 / (time.perf_counter() - began)


async def tasks(url):
    """Creates a second by 64 tasks."""
    async with stateroom.open_async(url) as store:

        async def work():
            for _ in range(EACH):
                await store.executions.create(Execution(new_id(), "job"), events=[Event("made")])

        await work()
        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(TASKS)))
        return TASKS * EACH / (time.perf_counter() - began)


def measure(url):
    with stateroom.open(url) as store:
        create, get = lone(store)
        by_threads = threads(store)
    return create, get, by_threads, asyncio.run(tasks(url))


def main(folder=None, rounds="3"):
    with tempfile.TemporaryDirectory(dir=folder) as place:
        urls = {"SQLite": f"{place}/runs.db", "RocksDB": f"rocksdb:///{place}/runs"}
        results = {name: [] for name in urls}
        flushes = []
        for _ in range(int(rounds)):
            flushes.append(flush(place))
            for name, url in urls.items():
                results[name].append(measure(url))
    print(f"one flush {statistics.median(flushes):.0f} us")
    print(f"{'':10}{'create us':>12}{'get us':>10}{'8 threads/s':>14}{'64 tasks/s':>13}")
    for name, rows in results.items():
        create, get, by_threads, by_tasks = map(statistics.median, zip(*rows, strict=True))
        print(f"{name:10}{create:12.0f}{get:10.1f}{by_threads:14,.0f}{by_tasks:13,.0f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
