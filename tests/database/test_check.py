"""`check` finds the same, however much there is, and reads what is little at once."""

import itertools

from kit.aging import blocking
from stateroom import Event, Execution, Instance
from stateroom.database import few
from stateroom.engine import Batch
from stateroom.engines.wrap import Recording

LARGE = "large" * 20_000


def fill(store, clock):
    store.executions.create(Execution("r/e", "j", data=LARGE), events=[Event("one")])
    store.instances.start(Instance("r/i", "w", business_key="r", labels={"a": "b"}))
    store.machines.save("m", "r", "idle", LARGE)
    store.results.put("r", "x", LARGE, ttl=60)
    store.savepoints.init("r")
    store.savepoints.save("r", 5, {f"e{number}": "x" * 100 for number in range(100)})
    store.timers.set("r", clock.now(), "payload")
    store.leases.acquire("r", "me", 60)


def rows_of(engine, prefix):
    return [
        (part, row)
        for part in range(engine.parts)
        for row in engine.scan(part, prefix, prefix + b"\xff", limit=1000)
    ]  # fmt: skip


def found(store):
    return sorted((problem.code, problem.family or "", problem.part) for problem in store.check())


def test_rows_that_go_one_after_another_are_missed_whether_there_are_few_or_many(database, clock, monkeypatch):
    store, engine, prefix = database.open(), database.raw(), database.namespace.encode() + b"\0"
    fill(store, clock)
    told = [[]]
    for number, (part, row) in enumerate(rows_of(engine, prefix)):
        engine.commit(part, Batch(write={row.key: None}))
        if number % 3:
            continue
        told.append(found(store))
        with monkeypatch.context() as patch:
            patch.setattr(few, "MANY", 1)
            assert found(store) == told[-1], row.key
    assert sum(before != after for before, after in itertools.pairwise(told)) > 12
    assert found(store) == []


def test_what_is_little_is_read_at_once(database, clock):
    store = database.open()
    fill(store, clock)
    engine = Recording(database.raw())
    assert database.over(engine).check() == []
    few = engine.count("scan") + engine.count("read")
    for number in range(50):
        blocking(database).instances.put(Instance(f"r/{number}", "w"))
    engine.clear()
    assert database.over(engine).check() == []
    assert engine.count("scan") + engine.count("read") == few
    assert few < 15 * engine.parts + 10
