"""`check` while others write, of what this process cannot rebuild, and of more than it holds at once."""

import threading
from dataclasses import dataclass
from itertools import count

import pytest

from kit.aging import blocking
from kit.databases import SEVERAL
from kit.faults import over
from stateroom import Event, Execution, Instance
from stateroom.codec import Codec
from stateroom.database import entries, few, rows, shares
from stateroom.engine import Batch
from stateroom.engines.memory import MemoryEngine
from stateroom.engines.wrap import Recording, Slow


@dataclass
class Order:
    n: int


def knowing():
    codec = Codec()
    codec.register(Order, name="order")
    return codec


def test_nothing_is_wrong_while_others_write(database, store, monkeypatch):
    """Every look at a part sees writers between its scans."""
    monkeypatch.setattr(few, "MANY", 1)
    other = blocking(database)
    for number in range(30):
        store.executions.create(Execution(f"r/{number}", "j"), events=[Event("a")])
    numbers = count()
    writing = threading.Event()

    def write(name, part):
        if name in ("scan", "scan_many") and not writing.is_set():
            writing.set()
            number = next(numbers)
            other.executions.create(Execution(f"r/new{number}", "j"), events=[Event("a")])
            other.executions.update(f"r/{number % 30}", state="running")
            other.executions.delete(f"r/new{number - 3}")
            writing.clear()

    looking = database.over(Slow(database.raw(), write))
    for _ in range(3):
        assert looking.check() == []
    assert next(numbers) > 20, "nobody wrote"


def test_without_snapshots_what_lasts_is_reported_and_what_passes_is_not():
    class Bare:
        """An engine of the five methods alone."""

        def __init__(self, engine):
            self.parts = engine.parts
            for name in ("read", "scan", "commit", "wait", "close"):
                setattr(self, name, getattr(engine, name))

    memory = MemoryEngine()
    other, numbers = over(memory), count()
    other.executions.create(Execution("broken", "j"))
    index = next(row for row in memory.scan(0, b"n\0X", b"n\0Y", limit=1) if b"broken" in row.key)
    memory.commit(0, Batch(write={index.key: None}))

    class Writing(Bare):
        def __init__(self, engine):
            super().__init__(engine)
            self.scan = self._scan

        def _scan(self, *place, **options):
            other.executions.create(Execution(f"e{next(numbers)}", "j"))
            return memory.scan(*place, **options)

    assert {(problem.code, "broken" in problem.message) for problem in over(Writing(memory)).check()} == {
        ("index-missing", True)
    }


@SEVERAL
def test_what_this_process_cannot_rebuild_is_listed_and_nothing_else_is_wrong(database):
    database.codec = None
    large = [Order(1)] * 20_000
    with database.open(codec=knowing()) as store:
        store.instances.start(
            Instance("k", "wf", status="running", business_key="k", metadata={"o": Order(1)}, labels={"a": "b"})
        )
        store.executions.create(
            Execution("e", "j", data=Order(1)), events=[Event("a"), Event("b", details={"o": Order(2)})]
        )
        store.executions.create(Execution("f", "j"))
        store.executions.add_events("f", Event("c", details={"o": Order(3)}))
        for number in (0, 1):
            store.machines.save("m", "x", f"s{number}", Order(number))
        store.results.put("d", "small", Order(4))
        store.results.put("d", "large", large)
        store.savepoints.init("run")
        store.savepoints.save("run", 1, {"entity": Order(5)})
        store.feed.emit("note", Order(6), id="n")
        store.transact(lambda tx: (tx.results.put("d2", "x", 1), Order(7))[1], once="d2/key")
        assert store.check() == []
    with database.open(codec=Codec()) as store:
        problems = store.check()
    assert {problem.code for problem in problems} == {"undecodable"}
    listed = {(problem.family, problem.id) for problem in problems}
    assert listed >= {
        ("instances", "k"), ("executions", "e"), ("executions", "f"), ("machines", "m/x"), ("results", "d/small"),
        ("results", "d/large"), ("savepoints", "run/1"), ("note", "n"), ("once", "d2/d2/key"),
    }, listed  # fmt: skip
    assert not any("\0" in problem.id for problem in problems)


def fill(store, number):
    for n in range(number):
        store.executions.create(Execution(f"r{n}/e", f"j{n % 3}"), events=[Event("one"), Event("two")])
        store.instances.start(Instance(f"r{n}/i", "w", business_key=f"r{n}", labels={"a": "b"}))
        store.results.put(f"r{n}", "x", n, ttl=600)
        store.machines.save("m", f"r{n}", "s", n)
    for n in range(0, number, 3):
        store.executions.delete(f"r{n}/e")
        store.results.clear(f"r{n}")


def found(store):
    return sorted((problem.code, problem.family, problem.message) for problem in store.check())


@pytest.mark.parametrize("database", ["memory", "postgresql-async"], indirect=True)
def test_what_is_too_much_to_be_held_is_looked_at_in_shares_and_the_same_is_found(database, monkeypatch):
    store, engine, prefix = database.open(), database.raw(), database.namespace.encode() + b"\0"
    fill(store, 12)
    every = [
        (part, row) for part in range(engine.parts) for row in engine.scan(part, prefix, prefix + b"\xff", limit=10_000)
    ]
    told = [[]]
    database.codec = None  # it stays broken
    for part, row in every[::7]:
        engine.commit(part, Batch(write={row.key: None}))
        told.append(found(store))
        with monkeypatch.context() as patch:
            for module in (entries, rows, shares):
                patch.setattr(module, "SHARE", 3)
            assert found(store) == told[-1], row.key
    assert len({str(problems) for problems in told}) > 12


def test_the_rows_that_are_read_grow_as_the_records_do():
    """Twice as many records, twice as many rows: by the count, not by a clock."""
    read = []
    for number in (100, 200, 400):
        memory = MemoryEngine()
        fill(over(memory), number)
        engine = Recording(memory)
        assert over(engine).check() == []
        read.append(engine.rows)
    first, second = read[1] - read[0], read[2] - read[1]
    assert 1.8 * first < second < 2.2 * first, read


def test_who_asks_is_told_how_far_it_is(store):
    fill(store, 4)
    told = []
    store.check(progress=lambda what, rows: told.append((what, rows)))
    assert any("the feed" in what for what, _ in told)
    assert any("executions" in what for what, _ in told)
    assert all(rows > 0 for _, rows in told)
