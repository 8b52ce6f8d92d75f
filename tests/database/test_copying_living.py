"""Copies of stores in use: consistent, complete for every consumer, and nothing half done where they fail."""

import asyncio
import threading
from datetime import timedelta

import pytest

import stateroom
from kit.databases import SUSPENDING
from kit.faults import over
from stateroom import Execution, Instance, Policy
from stateroom.core.bridge import run_now
from stateroom.database.copying import copy_database
from stateroom.engine import Batch
from stateroom.engines.memory import MemoryEngine
from stateroom.engines.wrap import Faulty, Slow
from stateroom.errors import AlreadyExists, Damaged, StoreError, Unavailable
from stateroom.store.moving import copy_stores
from stateroom.testing.postgres import postgres_url  # noqa: F401


def fill(store, number=12):
    for n in range(number):
        store.executions.create(Execution(f"r{n}/e", "j"))
        store.feed.emit("note", n, id=f"r{n}")
    store.results.put("d", "large", "x" * 200_000)


@pytest.mark.parametrize("to", [1, 3])
def test_a_consumer_of_several_parts_misses_nothing_after_the_copy(to):
    """Wherever it stood: in every part it sees all that it had not seen, and perhaps some again."""
    source = over(MemoryEngine(5))
    fill(source)
    changes = source.feed.read(limit=1000).items
    for number, change in enumerate(changes):
        source.checkpoints.set(f"c{number}", change.position)
    target = over(MemoryEngine(to))
    copy_stores(source, target)
    for number in range(len(changes)):
        left = {(change.op, change.id) for change in source.feed.read(source.checkpoints.get(f"c{number}")).items}
        again = [(change.op, change.id) for change in target.feed.read(target.checkpoints.get(f"c{number}")).items]
        assert left <= set(again), number
        assert len(again) == len(set(again))
    assert target.check() == []


@pytest.mark.parametrize("parts", [1, 3])
def test_a_copy_is_of_one_moment_while_others_write(parts):
    memory, numbers = MemoryEngine(parts), []
    fill(over(memory))
    other = over(memory)

    def write(name, part):
        if name == "scan":
            numbers.append(len(numbers))
            other.instances.put(Instance(f"new{len(numbers)}", "w"))

    class Writing(Slow):
        def snapshot(self):
            return self.engine.snapshot()

    target = over(MemoryEngine())
    copy_stores(over(Writing(memory, write)), target)
    assert target.check() == []
    assert target.executions.count("new") == 12


def test_from_a_server_that_is_written_to(postgres_url, tmp_path):  # noqa: F811
    with stateroom.open(postgres_url, parts=3) as store:
        fill(store)
        stop = threading.Event()

        def write(number=0):
            while not stop.is_set():
                with store.transaction() as tx:  # both or neither
                    tx.executions.create(Execution(f"n{number}/a", "j"))
                    tx.instances.put(Instance(f"n{number}/b", "w"))
                number += 1

        thread = threading.Thread(target=write)
        thread.start()
        try:
            store.backup(tmp_path / "backup.db")
            stateroom.copy(postgres_url, tmp_path / "copy.db")
        finally:
            stop.set()
            thread.join()
    for name in ("backup.db", "copy.db"):
        with stateroom.open(tmp_path / name) as copied:
            assert copied.check() == []
            assert copied.executions.count("new") == 12 + copied.instances.count()


def rows(engine):
    return [row.key for part in range(engine.parts) for row in engine.scan(part, b"\0", b"\xff" * 3, limit=10_000)]


def test_a_copy_that_fails_leaves_nothing():
    """At whatever call of the target."""
    source, number = over(MemoryEngine(2)), 0
    fill(source, 3)
    while True:
        number += 1
        engine = MemoryEngine(3)
        faulty = Faulty(engine, number, once=True)
        try:
            copy_stores(source, over(faulty))
        except StoreError:
            assert not [key for key in rows(engine) if key[:1] != b"\0"], number
        else:
            break
    assert number > 20
    assert over(engine).check() == []


def test_a_copy_that_was_interrupted_is_taken_away_by_the_next():
    source, engine = over(MemoryEngine(2)), MemoryEngine(3)
    fill(source)
    with pytest.raises(Unavailable):  # and from then on: as for a process that was killed
        copy_stores(source, over(Faulty(engine, 12)))
    assert rows(engine)
    copy_stores(source, over(engine))
    assert over(engine).check() == []
    assert over(engine).executions.count("new") == 12
    with pytest.raises(AlreadyExists):
        copy_stores(source, over(engine))


def test_what_differs_is_not_left_there(monkeypatch):
    source, engine = over(MemoryEngine()), MemoryEngine()
    fill(source)

    class Losing(Slow):
        def commit(self, part, batch, /):
            write = {key: value for key, value in batch.write.items() if b"r3/e" not in key}
            batch = Batch(batch.expect, write, batch.add, batch.append, batch.clear)
            return super().commit(part, batch)

    losing = over(Losing(engine, lambda name, part: None))
    with pytest.raises(Damaged, match="differs after the copy"):
        run_now(copy_database(source._scope, losing._scope, verify=True))
    assert not [key for key in rows(engine) if key[:1] != b"\0"]


async def turns_during(call):
    """How often the event loop came round to another task."""
    turns = 0

    async def tick():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await call()
    ticking.cancel()
    return turns


@SUSPENDING
def test_long_work_gives_the_event_loop_its_turns(alone, tmp_path):
    """Counted in turns of the loop, not by a clock: none of these looks at more than some hundred rows between two."""

    async def work(store):
        await store.executions.create_many([Execution(f"e{n}", "j") for n in range(1500)])
        for call in (store.check, lambda: store.backup(tmp_path / f"{alone.name}.db")):
            assert await turns_during(call) > 10

    alone.run(work)


def test_a_damaged_checkpoint_or_policy_stops_no_other(database, store, clock):
    for number in range(3):
        store.feed.emit("note", number, id="r")
    end = store.feed.latest()
    store.checkpoints.set("bad", end)
    store.checkpoints.set("good", end)
    store.retention.set(Policy("instances", keep_latest=1))
    store.retention.set(Policy("feed", older_than=timedelta(days=1)))
    engine, prefix = database.raw(), database.namespace.encode() + b"\0"
    for tail in (b"Wbad\0", b"Pinstances\0"):
        (part,) = [part for part in range(engine.parts) if engine.read(part, [prefix + tail])[0] is not None]
        (row,) = engine.read(part, [prefix + tail])
        engine.commit(part, Batch(write={row.key: row.value[:-1]}))
    database.codec = None
    clock.advance(10 * 86400)
    assert [checkpoint.name for checkpoint in store.checkpoints.list()] == ["bad", "good"]
    assert [policy.family for policy in store.retention.list()] == ["feed"]
    store.retention.run()
    assert len(store.feed.read().items) == 3  # what nobody can say to be seen is kept
    assert {(problem.code, problem.family, problem.id) for problem in store.check()} == {
        ("damaged", "checkpoints", "bad"), ("damaged", "retention", "instances"),
    }  # fmt: skip
    assert [lag.name for lag in store.stats().checkpoints] == ["bad", "good"]
