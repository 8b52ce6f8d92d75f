"""The PostgreSQL engine beside plain statements through psycopg: ``python bench/engine_postgres.py [rounds]``.

Rounds are interleaved, so that a busy moment of the machine meets every row of the table; medians over the rounds are
shown, with the smallest and the largest. The server is durable (fsync on). The floor is a plain insert of one row and
a plain select by primary key, as psycopg does them by itself: autocommit, prepared after five runs.
"""

import os
import statistics
import sys

import psycopg
from _rounds import THREADS, Rounds

from stateroom.engine import Batch
from stateroom.engines.postgres import connect
from stateroom.testing.postgres import Server

CALLS = 300
RECORD = os.urandom(300)


def batch(name: str, number: int) -> Batch:
    """What making one record costs: itself, its index and unique rows, two counters and a feed entry."""
    key = f"{name}/{number:08d}".encode()
    return Batch(
        expect={b"r/" + key: 0, b"u/" + key: 0},
        write={b"r/" + key: RECORD, b"u/" + key: key, b"i/status/" + key: b"", b"i/updated/" + key: b""},
        add={b"c/all": 1, b"c/pending": 1},
        append=[(b"feed/", RECORD[:120])],
    )


class Bench(Rounds):
    """One server, one engine and one plain connection, and what was measured."""

    def __init__(self, url: str) -> None:
        super().__init__(CALLS)
        self.url, self.engine = url, connect(url + f"?connections={THREADS}")
        self.plain = psycopg.connect(url, autocommit=True)
        self.plain.execute("CREATE TABLE plain (part int, key bytea, value bytea NOT NULL, PRIMARY KEY (part, key))")

    def insert(self, connection, name):
        sql = "INSERT INTO plain VALUES (%s, %s, %s)"
        return lambda number: connection.execute(sql, (0, f"{name}/{number:08d}".encode(), RECORD))

    def round(self) -> None:
        name, engine, plain = self.fresh(), self.engine, self.plain
        self.calls("plain insert of one row", self.insert(plain, name))
        self.calls("commit of 7 small rows", lambda number: engine.commit(0, batch(name, number)))
        self.calls("commit of 1 row", lambda n: engine.commit(0, Batch(write={f"{name}/{n}".encode(): RECORD})))
        select = "SELECT value FROM plain WHERE part = %s AND key = %s"
        keys = [f"{name}/{number:08d}".encode() for number in range(CALLS)]
        self.calls("plain select by primary key", lambda number: plain.execute(select, (0, keys[number])).fetchone())
        self.calls("read of one key", lambda number: engine.read(0, [b"r/" + keys[number]]))
        page = "SELECT key, value FROM plain WHERE part = %s AND key >= %s ORDER BY key LIMIT 100"
        self.calls("plain select of 100 rows", lambda n: plain.execute(page, (0, keys[0])).fetchall(), calls=100)
        start = b"r/" + name.encode()
        self.calls("scan of 100", lambda _: engine.scan(0, start, start + b"0", limit=100), calls=100)
        self.calls("scan of 100 over all parts", lambda _: engine.scan(None, start, start + b"0", limit=100), calls=50)
        self.in_threads()

    def in_threads(self) -> None:
        connections = [psycopg.connect(self.url, autocommit=True) for _ in range(THREADS)]
        self.together(
            f"plain inserts, {THREADS} threads", lambda thread: self.insert(connections[thread], self.fresh())
        )
        for connection in connections:
            connection.close()

        def committer(thread, parts):
            name = self.fresh()
            return lambda number: self.engine.commit(thread % parts, batch(name, number))

        self.together(f"commits, {THREADS} threads, 16 parts", lambda thread: committer(thread, 16))
        self.together(f"commits, {THREADS} threads, one part", lambda thread: committer(thread, 1))

    def table(self) -> str:
        floors = {
            "commit of": "plain insert of one row",
            "read": "plain select by primary key",
            "scan of": "plain select of 100 rows",
            "commits,": f"plain inserts, {THREADS} threads",
        }
        lines = ["| | µs a call | smallest-largest | a second | times the plain one |", "|---|---|---|---|---|"]
        for name, times in self.times.items():
            median = statistics.median(times)
            floor = next((floors[start] for start in floors if name.startswith(start)), None)
            ratio = f"{median / statistics.median(self.times[floor]):.2f}" if floor else ""
            span = f"{min(times) * 1e6:.0f}-{max(times) * 1e6:.0f}"
            lines.append(f"| {name} | {median * 1e6:.0f} | {span} | {1 / median:,.0f} | {ratio} |")
        return "\n".join(lines)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    server = Server(settings={"fsync": "on", "full_page_writes": "on"})
    try:
        server.init().start()
        bench = Bench(server.url())
        for _ in range(rounds):
            bench.round()
        bench.engine.close()
        bench.plain.close()
        print(bench.table())
    finally:
        server.remove()


if __name__ == "__main__":
    main()
