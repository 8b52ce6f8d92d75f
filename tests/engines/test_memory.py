"""The memory engine, beyond what every engine is asked."""

import os

import pytest

from engines.kit import failing
from stateroom.engine import Batch, Row
from stateroom.engines import memory
from stateroom.engines.memory import MemoryEngine, connect
from stateroom.errors import InvalidArgument, NotFound
from stateroom.testing import engine_suite
from stateroom.testing.harness import Running


def test_each_connect_is_a_fresh_store():
    one, other = connect("memory:"), connect("memory:")
    one.commit(0, Batch(write={b"a": b"1"}))
    assert other.read(0, [b"a"]) == [None]


@pytest.mark.parametrize("arguments", [{"durability": "none"}, {"parts": 0}])
def test_what_it_does_not_know_is_refused(arguments):
    with pytest.raises(InvalidArgument):
        connect("memory:", **arguments)


def test_another_url_is_refused():
    with pytest.raises(InvalidArgument):
        connect("memory:name")


def test_there_is_never_a_store_to_find():
    with pytest.raises(NotFound):
        connect("memory:", create=False)


def test_many_keys_stay_in_order_when_blocks_split_and_empty():
    engine = connect("memory:")
    keys = [(number * 7919 % 20011).to_bytes(4, "big") for number in range(20011)]
    for at in range(0, len(keys), 500):
        engine.commit(0, Batch(write=dict.fromkeys(keys[at : at + 500], b"")))
        engine.scan(0, b"", b"\xff", limit=1)
    assert [row.key for row in engine.scan(0, b"", b"\xff", limit=30000)] == sorted(keys)
    engine.commit(0, Batch(clear=[(keys[0], (15000).to_bytes(4, "big"))]))
    assert [row.key for row in engine.scan(0, b"", b"\xff", limit=30000)] == sorted(keys)[15000:]


def test_without_a_gil_reads_take_the_lock(monkeypatch):
    monkeypatch.setattr("stateroom.engines.memory._GIL", False)
    engine = MemoryEngine()
    engine.commit(0, Batch(write={b"a": b"1"}))
    with engine._changed:
        reading = Running(lambda: engine.read(0, [b"a"]))
        assert not reading._outcome
    assert reading.result() == [Row(b"a", b"1", 1)]
    assert failing(engine_suite(lambda: MemoryEngine(2))) == set()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork_the_child_has_a_copy_of_its_own():
    engine = MemoryEngine()
    engine.commit(0, Batch(write={b"a": b"1", b"b": b"1"}))
    engine.scan(0, b"", b"z", limit=9)
    engine._parts[0].order.discard(b"a")  # as if another thread were half-way through sorting
    reader, writer = os.pipe()
    with engine._changed:  # as if another thread were committing
        child = os.fork()
    if child == 0:
        try:
            engine.commit(0, Batch(write={b"c": b"2"}))
            engine.wait(0, 1, 0)
            os.write(writer, repr(engine.scan(0, b"", b"z", limit=9)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        expected = [Row(b"a", b"1", 1), Row(b"b", b"1", 1), Row(b"c", b"2", 2)]
        assert answer.read().decode() == repr(expected)
    os.waitpid(child, 0)
    assert engine.read(0, [b"c"]) == [None]


def test_an_interrupt_between_the_steps_of_a_commit_leaves_a_whole_state(monkeypatch):
    engine = MemoryEngine()
    engine.commit(0, Batch(write={b"a": b"1"}))
    rows = engine._parts[0].rows

    class Interrupting(set):
        def update(self, keys):
            super().update(keys)
            raise KeyboardInterrupt

    engine._parts[0].unsorted = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        engine.commit(0, Batch(write={b"a": None, b"b": b"2"}))
    assert engine._parts[0].rows is rows
    assert engine.scan(0, b"", b"z", limit=9) == [Row(b"a", b"1", 1)]
    assert engine.commit(0, Batch(write={b"b": b"2"})) == 2
    assert [row.key for row in engine.scan(0, b"", b"z", limit=9)] == [b"a", b"b"]


def test_removed_keys_are_let_go_though_nobody_scans():
    engine = MemoryEngine()
    for number in range(10_000):
        key = b"%d" % number
        engine.commit(0, Batch(write={key: b""}))
        engine.commit(0, Batch(write={key: None}))
    assert len(engine._parts[0].rows) < 2_000
    assert len(engine._parts[0].unsorted) < 2_000


def test_a_handler_that_writes_while_keys_are_sorted_does_not_lose_its_own(monkeypatch):
    engine = MemoryEngine()
    engine.commit(0, Batch(write={b"a": b""}))
    sort, writing = memory.OrderedKeys, [b"b"]

    def interrupted(keys):
        order = sort(keys)
        if writing:  # as a signal's handler would, before the order that was made is kept
            engine.commit(0, Batch(write={writing.pop(): b""}))
        return order

    monkeypatch.setattr(memory, "OrderedKeys", interrupted)
    engine.scan(0, b"", b"c", limit=9)
    assert [row.key for row in engine.scan(0, b"a", b"c", limit=9)] == [b"a", b"b"]
