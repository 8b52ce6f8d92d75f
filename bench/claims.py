"""Claims a second beside a job queue's fetch, and many records at once: ``python bench/claims.py [rounds]``.

Work is taken by 1, 8 and 64 workers of one process, one piece at a time, until none is left: threads on a file, tasks on
PostgreSQL, where procrastinate's workers fetch from the same server in the same round (if it is installed). A claim
writes the execution's new state, its lease and a change of the feed. The server and the file are durable. Rounds are
interleaved; medians are shown, with the smallest and the largest.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import stateroom
from stateroom import Execution
from stateroom.testing.postgres import Server

WORKERS = (1, 8, 64)
CLAIMS = 400
RECORDS = 1000
Figures = dict[str, list[float]]


def keep(figures: Figures, what: str, value: float) -> None:
    figures.setdefault(what, []).append(value)


def work(prefix: str, count: int) -> list[Execution]:
    """Executions of many roots, as jobs have them."""
    return [Execution(f"{prefix}{number}", "job") for number in range(count)]


def on_a_file(figures: Figures, folder: Path, number: int) -> None:
    with stateroom.open(folder / f"claims-{number}.db") as store:
        for workers in WORKERS:
            store.executions.create_many(work(f"{workers}-", CLAIMS))

            def worker(name: int, store: stateroom.Store = store) -> int:
                count = 0
                while store.executions.claim(f"w{name}", 600):
                    count += 1
                return count

            started = time.perf_counter()
            with ThreadPoolExecutor(workers) as pool:
                taken = sum(pool.map(worker, range(workers)))
            keep(figures, f"SQLite, claims/s, {workers} threads", taken / (time.perf_counter() - started))
            if taken != CLAIMS:
                raise SystemExit(f"{taken} of {CLAIMS} were taken")
        idle(figures, store, "SQLite")
        at_once(figures, store, "SQLite")


def idle(figures: Figures, store: stateroom.Store, engine: str) -> None:
    """The processor time of a worker that finds nothing."""
    spent, started = time.process_time(), time.perf_counter()
    store.executions.claim("idle", 600, wait=2.0)
    share = (time.process_time() - spent) / (time.perf_counter() - started)
    keep(figures, f"{engine}, an idle worker, % of a core", 100 * share)


def at_once(figures: Figures, store: stateroom.Store, engine: str) -> None:
    started = time.perf_counter()
    for record in work("one-", RECORDS):
        store.executions.create(record)
    single = time.perf_counter() - started
    started = time.perf_counter()
    store.executions.create_many(work("many-", RECORDS))
    many = time.perf_counter() - started
    keep(figures, f"{engine}, {RECORDS} creates, ms", single * 1000)
    keep(figures, f"{engine}, create_many of {RECORDS}, ms", many * 1000)
    keep(figures, f"{engine}, create_many / creates", many / single)


async def on_postgresql(figures: Figures, url: str, number: int) -> None:
    store = await stateroom.open_async(url)
    async with store.namespace(f"round-{number}") as tenant:
        for workers in WORKERS:
            await tenant.executions.create_many(work(f"{workers}-", CLAIMS))

            async def worker(name: int, tenant: stateroom.AsyncStore = tenant) -> int:
                count = 0
                while await tenant.executions.claim(f"w{name}", 600):
                    count += 1
                return count

            started = time.perf_counter()
            taken = sum(await asyncio.gather(*map(worker, range(workers))))
            keep(figures, f"PostgreSQL, claims/s, {workers} tasks", taken / (time.perf_counter() - started))
            if taken != CLAIMS:
                raise SystemExit(f"{taken} of {CLAIMS} were taken")
    await store.close()


async def with_procrastinate(figures: Figures, url: str) -> None:
    try:
        import procrastinate
    except ImportError:
        return
    connector = procrastinate.PsycopgConnector(conninfo=url.partition("?")[0], min_size=10, max_size=10)
    app = procrastinate.App(connector=connector)
    task = app.task(name="work", pass_context=False)(lambda n: n)
    async with app.open_async():
        if not figures.get(f"procrastinate, fetches/s, {WORKERS[-1]} tasks"):
            await app.schema_manager.apply_schema_async()
        for workers in WORKERS:
            await task.batch_defer_async(*({"n": number} for number in range(CLAIMS)))
            ids = [await app.job_manager.register_worker() for _ in range(workers)]

            async def worker(id: int) -> int:
                count = 0
                while await app.job_manager.fetch_job(None, id):
                    count += 1
                return count

            started = time.perf_counter()
            taken = sum(await asyncio.gather(*map(worker, ids)))
            keep(figures, f"procrastinate, fetches/s, {workers} tasks", taken / (time.perf_counter() - started))


def main(rounds: int) -> None:
    figures: Figures = {}
    server = Server("18").init().start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(rounds):
                on_a_file(figures, Path(folder), number)
                asyncio.run(on_postgresql(figures, server.url(), number))
                asyncio.run(with_procrastinate(figures, server.url()))
                with stateroom.open(server.url()) as store, store.namespace(f"blocking-{number}") as tenant:
                    idle(figures, tenant, "PostgreSQL")
                    at_once(figures, tenant, "PostgreSQL")
    finally:
        server.stop()
    for what, values in figures.items():
        shown = [f"{value:,.3g}" for value in (statistics.median(values), min(values), max(values))]
        print(f"{what:45} {shown[0]:>10}   ({shown[1]} to {shown[2]})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
