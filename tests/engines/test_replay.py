"""Batches of many threads and tasks at once: one after another, in the order of their versions, they give the same rows.

The memory engine takes every batch that was accepted, in that order: it refuses what ought to have been refused.
"""

import asyncio
import contextlib
import random
import threading

import pytest

import stateroom
from stateroom.engine import Batch
from stateroom.engines.memory import MemoryEngine
from stateroom.errors import Conflict

KEYS = [b"k%d" % number for number in range(6)]
COUNTERS = [b"c0", b"c1"]
CLIENTS = 6


@contextlib.contextmanager
def somewhere(kind, folder):
    """The url of a fresh database in one part."""
    if kind == "sqlite":
        yield str(folder / "store.db")
        return
    pytest.importorskip("psycopg")
    from stateroom.testing.postgres import fresh_schema

    with fresh_schema(kind) as url:
        yield url


def a_batch(draw, rows):
    """Some of everything; most expectations are what was just read."""
    known = {row.key: row.version for row in rows if row is not None}
    write = {key: None if draw.random() < 0.25 else draw.randbytes(9) for key in draw.sample(KEYS, draw.randint(0, 3))}
    return Batch(
        expect={
            key: known.get(key, 0) if draw.random() < 0.85 else draw.randint(0, 3)
            for key in draw.sample(KEYS, draw.randint(0, 2))
        },
        write=write,
        add={draw.choice(COUNTERS): draw.randint(-3, 5)} if draw.random() < 0.5 else {},
        append=[(b"f", draw.randbytes(5)) for _ in range(draw.choice([0, 0, 1, 2]))],
        clear=[(b"k1", b"k3")] if draw.random() < 0.1 else [],
    )


class Ledger:
    """What was answered."""

    def __init__(self):
        self.accepted, self.refused, self.errors = [], [], []

    def threads(self, engine, seeds, rounds):
        def work(seed):
            draw = random.Random(seed)
            try:
                for _ in range(rounds):
                    batch = a_batch(draw, engine.read(0, KEYS))
                    try:
                        self.accepted.append((engine.commit(0, batch), batch))
                    except Conflict as error:
                        self.refused.append(error)
            except BaseException as error:  # noqa: BLE001 - shown by the test
                self.errors.append(error)

        return [threading.Thread(target=work, args=(seed,)) for seed in seeds]

    async def tasks(self, url, seeds, rounds):
        async def work(seed):
            draw = random.Random(seed)
            for _ in range(rounds):
                batch = a_batch(draw, await engine.read(0, KEYS))
                try:
                    self.accepted.append((await engine.commit(0, batch), batch))
                except Conflict as error:
                    self.refused.append(error)

        async with await stateroom.open_async(url) as store:
            engine = store._scope.engine
            await asyncio.gather(*(work(seed) for seed in seeds))


@pytest.mark.parametrize("kind", ["sqlite", "18", "16"])
@pytest.mark.parametrize("rounds", [25, pytest.param(600, marks=pytest.mark.torture)])
def test_what_many_committed_at_once_is_as_if_they_had_come_one_after_another(kind, rounds, tmp_path):
    ledger = Ledger()
    with somewhere(kind, tmp_path) as url, stateroom.open(url, parts=1) as one, stateroom.open(url) as another:
        threads = ledger.threads(one._engine, range(CLIENTS), rounds)
        threads += ledger.threads(another._engine, range(10, 10 + CLIENTS // 2), rounds)
        for thread in threads:
            thread.start()
        asyncio.run(ledger.tasks(url, range(20, 20 + CLIENTS), rounds))
        for thread in threads:
            thread.join()
        assert ledger.errors == []
        assert [version for version, _ in sorted(ledger.accepted, key=lambda one: one[0])] == list(
            range(1, len(ledger.accepted) + 1)
        )
        assert len(ledger.accepted) + len(ledger.refused) == rounds * (2 * CLIENTS + CLIENTS // 2)
        assert len(ledger.refused) > rounds
        assert all(error.expected != error.actual for error in ledger.refused)
        model = MemoryEngine()
        for version, batch in sorted(ledger.accepted, key=lambda one: one[0]):
            assert model.commit(0, batch) == version
        every = (b"", b"\xff")
        assert list(one._engine.scan(0, *every, limit=100_000)) == model.scan(0, *every, limit=100_000)
