"""The store on PostgreSQL beside one-row statements through psycopg and beside langgraph: python bench/store_postgres.py

Rounds are interleaved; medians are shown, with the smallest and the largest. The server is durable (fsync on). langgraph's
rows are left out where langgraph-checkpoint-postgres is not installed.
"""

import asyncio
import os
import statistics
import sys
import time

import psycopg
from _rounds import THREADS, Rounds

import stateroom
from stateroom import Event, Execution
from stateroom.testing.postgres import Server

CALLS, TASKS, LIVE = 150, 64, 100
RECORD = os.urandom(300)


class Bench(Rounds):
    """One server, a store, a plain connection, a saver, and what was measured."""

    def __init__(self, url):
        super().__init__(CALLS)
        self.store = stateroom.open(url + f"?connections={THREADS}")
        self.url = url
        self.plain = psycopg.connect(url, autocommit=True)
        self.plain.execute("CREATE TABLE plain (key text PRIMARY KEY, value bytea NOT NULL)")
        self.saver = saver(url)

    def insert(self, connection, name):
        sql = "INSERT INTO plain VALUES (%s, %s)"
        return lambda number: connection.execute(sql, (f"{name}/{number:08d}", RECORD))

    def round(self):
        name, store = self.fresh(), self.store.executions
        self.calls("plain insert of one row", self.insert(self.plain, name))
        self.calls("create", lambda number: store.create(Execution(f"{name}-{number}", "job", data={"n": number})))
        self.calls(
            "create with one event",
            lambda number: store.create(Execution(f"{name}-e{number}", "job"), events=[Event("made")]),
        )
        self.calls("update", lambda number: store.update(f"{name}-{number}", message="on its way"))
        select = "SELECT value FROM plain WHERE key = %s"
        self.calls(
            "plain select by key", lambda number: self.plain.execute(select, (f"{name}/{number:08d}",)).fetchone()
        )
        self.calls("get", lambda number: store.get(f"{name}-{number}"))
        self.calls("query of 100 by job", lambda number: store.query(job_id="job", limit=LIVE), calls=20)
        if self.saver is not None:
            self.langgraph(name)
        connections = [psycopg.connect(self.url, autocommit=True) for _ in range(THREADS)]
        self.together("16 threads, plain insert", lambda thread: self.insert(connections[thread], f"{name}t{thread}"))
        for connection in connections:
            connection.close()
        self.together(
            "16 threads, create in many parts",
            lambda thread: lambda number: store.create(Execution(f"{name}-t{thread}-{number}", "job")),
        )
        self.together(
            "16 threads, create in one part",
            lambda thread: lambda number: store.create(Execution(f"{name}/t{thread}-{number}", "job")),
        )
        for kind, separator in (("many parts", "-"), ("one part", "/")):
            start = name + separator
            self.times[f"64 tasks, create in {kind}"].append(asyncio.run(tasks(self.url, f"{start}a")))
        self.times["64 tasks, plain insert"].append(asyncio.run(plain_tasks(self.url, name)))

    def langgraph(self, name):
        from langgraph.checkpoint.base import empty_checkpoint

        checkpoint = {**empty_checkpoint(), "channel_values": {"n": 1}, "channel_versions": {"n": 1}}

        def config(number):
            return {"configurable": {"thread_id": f"{name}-{number}", "checkpoint_ns": ""}}

        self.calls("langgraph put", lambda number: self.saver.put(config(number), checkpoint, {}, {"n": 1}))
        self.calls("langgraph get_tuple", lambda number: self.saver.get_tuple(config(number)))


async def timed(each):
    """The time a call is the whole time over all calls of all tasks."""
    begin = time.perf_counter()
    await asyncio.gather(*(each(task) for task in range(TASKS)))
    return (time.perf_counter() - begin) / (TASKS * (CALLS // 10))


async def tasks(url, name):
    """Creating on asyncio."""
    async with await stateroom.open_async(url + f"?connections={THREADS}") as store:

        async def each(task):
            for number in range(CALLS // 10):
                await store.executions.create(Execution(f"{name}{task}-{number}", "job"))

        await store.executions.count("new")
        return await timed(each)


async def plain_tasks(url, name):
    """One-row inserts on as many connections as the store may have."""
    free = asyncio.Queue()
    for _ in range(THREADS):
        free.put_nowait(await psycopg.AsyncConnection.connect(url, autocommit=True))

    async def each(task):
        for number in range(CALLS // 10):
            connection = await free.get()
            await connection.execute("INSERT INTO plain VALUES (%s, %s)", (f"{name}a{task}/{number}", RECORD))
            free.put_nowait(connection)

    spent = await timed(each)
    while not free.empty():
        await free.get_nowait().close()
    return spent


def saver(url):
    """langgraph's saver on the same server; None where it is not installed."""
    try:
        from langgraph.checkpoint.postgres import PostgresSaver
    except ImportError:
        return None
    found = PostgresSaver(psycopg.connect(url, autocommit=True, prepare_threshold=0, row_factory=psycopg.rows.dict_row))
    found.setup()
    return found


FLOOR = {
    "create": "plain insert of one row",
    "create with one event": "plain insert of one row",
    "update": "plain insert of one row",
    "get": "plain select by key",
    "langgraph put": "plain insert of one row",
    "langgraph get_tuple": "plain select by key",
    "16 threads, create in many parts": "16 threads, plain insert",
    "16 threads, create in one part": "16 threads, plain insert",
    "64 tasks, create in many parts": "64 tasks, plain insert",
    "64 tasks, create in one part": "64 tasks, plain insert",
}


def table(times):
    """Microseconds a call, and how often the plain statement fits in."""
    for name, found in times.items():
        median = statistics.median(found)
        ratio = f"{median / statistics.median(times[FLOOR[name]]):7.2f}x" if name in FLOOR else ""
        span = f"{min(found) * 1e6:.0f}-{max(found) * 1e6:.0f}"
        print(f"   {name:<36}{median * 1e6:9.0f} us  {span:>14} {ratio}")


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    server = Server(settings={"fsync": "on", "full_page_writes": "on"})
    try:
        server.init().start()
        bench = Bench(server.url())
        for _ in range(rounds):
            bench.round()
        bench.store.close()
        bench.plain.close()
        if bench.saver is not None:
            bench.saver.conn.close()
        table(bench.times)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
