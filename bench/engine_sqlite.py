"""What the SQLite engine costs beside bare apsw on the same rows: ``python bench/engine_sqlite.py [folder]``.

Medians of interleaved rounds, in microseconds: the systems take turns inside each round, so that a slow minute of the
machine hits all of them. The first round is not counted.
"""

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import apsw

from stateroom.engine import Batch
from stateroom.engines.sqlite import SqliteEngine, connect
from stateroom.engines.sqlite.opening import connection

ROUNDS = 9
COMMITS = 150
CALLERS = 64
PUT = (
    "INSERT INTO rows VALUES (?, ?, ?, ?)"
    " ON CONFLICT (part, key) DO UPDATE SET value = excluded.value, version = excluded.version"
)


def rows(number: int, rnd: random.Random) -> list[tuple[bytes, bytes]]:
    """What creating one record with one event writes: 8 rows of 8 to 400 bytes."""
    record, at = b"%026d" % (number * 1009), b"%020d" % number
    make = rnd.randbytes
    return [
        (b"default\0x\0record\0" + record, make(300)),
        (b"default\0x\0state\0new\0" + at, make(20)),
        (b"default\0x\0job\0" + record[-4:] + at, make(20)),
        (b"default\0x\0count\0new", number.to_bytes(8, "big")),
        (b"default\0x\0count\0all", number.to_bytes(8, "big")),
        (b"default\0x\0event\0" + record + at, make(150)),
        (b"default\0feed\0" + at, make(400)),
        (b"default\0x\0head\0" + record, make(50)),
    ]


class Numbers:
    """Rows nobody has written yet, the same kind for every system."""

    def __init__(self) -> None:
        self.next = 0
        self.random = random.Random(1)

    def rows(self) -> list[tuple[bytes, bytes]]:
        self.next += 1
        return rows(self.next, self.random)

    def batch(self) -> Batch:
        made = dict(self.rows())
        first = next(iter(made))
        return Batch(expect={first: 0}, write=made)


def raw_commits(raw: apsw.Connection, numbers: Numbers) -> float:
    """The same statements in one transaction."""
    batches = [numbers.rows() for _ in range(COMMITS)]
    times = []
    for made in batches:
        start = time.perf_counter()
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("SELECT version FROM rows WHERE part = ? AND key = ?", (0, made[0][0])).get  # noqa: B018
        version = raw.execute("SELECT version FROM parts WHERE part = ?", (0,)).get + 1
        raw.executemany(PUT, [(0, key, value, version) for key, value in made])
        raw.execute("UPDATE parts SET version = ? WHERE part = ?", (version, 0))
        raw.execute("COMMIT")
        times.append(time.perf_counter() - start)
    raw.wal_checkpoint()
    return statistics.median(times)


def engine_commits(engine: SqliteEngine, numbers: Numbers) -> float:
    batches = [numbers.batch() for _ in range(COMMITS)]
    times = []
    for batch in batches:
        start = time.perf_counter()
        engine.commit(0, batch)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def callers(engine: SqliteEngine, numbers: Numbers) -> float:
    """Seconds a batch takes when 64 tasks each wait for theirs before the next; the loop is woken once per group."""
    each = 24
    batches = [[numbers.batch() for _ in range(each)] for _ in range(CALLERS)]

    async def run() -> float:
        loop = asyncio.get_running_loop()
        arrived: list[tuple[asyncio.Future[object], object]] = []

        def settle() -> None:
            while arrived:
                future, outcome = arrived.pop()
                future.set_result(outcome)

        def done(future: asyncio.Future[object], outcome: object) -> None:
            first = not arrived
            arrived.append((future, outcome))
            if first:
                loop.call_soon_threadsafe(settle)

        async def caller(own: list[Batch]) -> None:
            for batch in own:
                future = loop.create_future()
                engine.submit(0, batch, lambda outcome, future=future: done(future, outcome))
                assert isinstance(await future, int)

        start = time.perf_counter()
        await asyncio.gather(*map(caller, batches))
        return (time.perf_counter() - start) / (each * CALLERS)

    return asyncio.run(run())


def repeated(call: Callable[[int], object], times: int) -> float:
    start = time.perf_counter()
    for number in range(times):
        call(number)
    return (time.perf_counter() - start) / times


def floor(folder: str) -> float:
    """One 4 KiB write over written blocks and its flush."""
    handle = os.open(os.path.join(folder, "floor"), os.O_RDWR | os.O_CREAT)
    os.pwrite(handle, bytes(4096 * COMMITS), 0)
    os.fsync(handle)
    times = []
    for number in range(COMMITS):
        start = time.perf_counter()
        os.pwrite(handle, bytes([number]) * 4096, 4096 * number)
        os.fdatasync(handle)
        times.append(time.perf_counter() - start)
    os.close(handle)
    return statistics.median(times)


def measure(folder: str) -> dict[str, float]:
    """Seconds per operation, medians over the rounds."""
    made = connect(os.path.join(folder, "raw.db"))
    made.close()
    raw = connection(made.path, 30.0, "")
    engine = connect(os.path.join(folder, "engine.db"))
    one, other = Numbers(), Numbers()
    get, scan = "SELECT value, version FROM rows WHERE part = ? AND key = ?", b"default\0feed\0"
    between = "SELECT key, value, version FROM rows WHERE part = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?"
    known = [b"default\0x\0record\0" + b"%026d" % (number * 1009) for number in range(1, COMMITS)]
    key = [known[number * 31 % len(known)] for number in range(3000)]
    tasks: dict[str, Callable[[], float]] = {
        "one write and fdatasync": lambda: floor(folder),
        "raw apsw, 8 rows": lambda: raw_commits(raw, one),
        "commit, 8 rows": lambda: engine_commits(engine, other),
        "64 submitting, each": lambda: callers(engine, other),
        "raw apsw, one row by key": lambda: repeated(lambda n: raw.execute(get, (0, key[n])).fetchone(), 3000),
        "read of one key": lambda: repeated(lambda n: engine.read(0, [key[n]]), 3000),
        "read of 8 keys": lambda: repeated(lambda n: engine.read(0, key[n : n + 8]), 500),
        "raw apsw, 100 rows": lambda: repeated(
            lambda n: raw.execute(between, (0, scan, scan + b"\xff", 100)).fetchall(), 200
        ),
        "scan of 100": lambda: repeated(lambda n: engine.scan(0, scan, scan + b"\xff", limit=100), 200),
    }
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(ROUNDS + 1):
        for name, task in tasks.items():
            took = task()
            if number:
                found[name].append(took)
    engine.close()
    raw.close()
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        found = measure(folder)
    for name, seconds in found.items():
        print(f"{name:28}{seconds * 1e6:10.1f}")
    print()
    for what, over in (
        ("commit, 8 rows", "raw apsw, 8 rows"),
        ("read of one key", "raw apsw, one row by key"),
        ("scan of 100", "raw apsw, 100 rows"),
        ("commit, 8 rows", "64 submitting, each"),
    ):
        print(f"{what} / {over}: {found[what] / found[over]:.2f}")


if __name__ == "__main__":
    main()
