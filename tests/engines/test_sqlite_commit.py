"""Who commits, what one flush carries, and what happens when the disk will not."""

import contextlib
import threading

import apsw
import pytest

from engines.sqlite_helpers import Outcomes, Wrapped, counting_commits, held, run
from stateroom.engine import Batch, read_counter
from stateroom.engines.sqlite import connect, connections, writer
from stateroom.errors import Closed, Conflict, InvalidArgument, OutcomeUnknown, Unavailable
from stateroom.testing.harness import Running


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "test.db")


@pytest.fixture
def engine(path):
    engine = connect(path)
    yield engine
    engine.close()


def queued(engine, number):
    """Come back when so many batches wait."""
    while len(engine._writer._queue) < number:
        threading.Event().wait(0.001)


def test_64_submitted_batches_take_one_flush_and_keep_their_own_versions(path):
    with counting_commits() as commits:
        engine = connect(path)
        outcomes = Outcomes(64)
        with held(path):
            for number in range(64):
                engine.submit(0, Batch(write={b"%d" % number: b""}, add={b"n": 1}), outcomes(number))
            commits.clear()
        assert outcomes.all() == list(range(1, 65))
        assert len(commits) == 1
    assert [engine.read(0, [b"%d" % number])[0].version for number in range(64)] == list(range(1, 65))
    assert read_counter(engine.read(0, [b"n"])[0].value) == 64
    engine.close()


def test_blocking_callers_that_meet_share_a_flush(path):
    with counting_commits() as commits:
        engine = connect(path)
        with held(path):
            running = [Running(lambda: engine.commit(0, Batch(add={b"n": 1}))) for _ in range(8)]
            queued(engine, 8)
            commits.clear()
        assert sorted(each.result() for each in running) == list(range(1, 9))
        assert len(commits) == 1
    engine.close()


def test_a_lone_blocking_caller_starts_no_thread(engine):
    before = threading.active_count()
    engine.commit(0, Batch(write={b"a": b"1"}))
    assert threading.active_count() == before


def test_a_refused_batch_of_a_group_harms_no_other(engine, path):
    outcomes = Outcomes(5)
    engine.commit(0, Batch(write={b"a": b"1"}, add={b"full": (1 << 63) - 1}))
    with held(path):
        engine.submit(0, Batch(expect={b"a": 1}, write={b"a": b"2"}), outcomes(0))
        engine.submit(0, Batch(expect={b"a": 1}, write={b"a": b"3", b"c": b"3"}), outcomes(1))
        engine.submit(0, Batch(add={b"full": 1}, write={b"b": b"4"}), outcomes(2))
        engine.submit(0, Batch(write={"text": b"5"}), outcomes(3))
        engine.submit(0, Batch(expect={b"a": 2}, write={b"a": b"6"}), outcomes(4))
    first, conflict, overflow, text, last = outcomes.all()
    assert (first, last) == (2, 3)
    assert isinstance(conflict, Conflict)
    assert (conflict.key, conflict.expected, conflict.actual) == (b"a", 1, 2)
    assert isinstance(overflow, InvalidArgument)
    assert isinstance(text, InvalidArgument)
    assert [row and row.value for row in engine.read(0, [b"a", b"b", b"c"])] == [b"6", None, None]


def test_within_a_group_each_batch_sees_what_the_earlier_ones_left(engine, path):
    outcomes = Outcomes(6)
    engine.commit(0, Batch(write={b"a1": b"", b"a2": b"", b"b": b"0"}))
    with held(path):
        engine.submit(0, Batch(write={b"a3": b"x", b"b": None}), outcomes(0))
        engine.submit(0, Batch(expect={b"b": 0, b"a3": 2}, clear=[(b"a", b"a3")], write={b"a1": b"new"}), outcomes(1))
        engine.submit(0, Batch(expect={b"a2": 0, b"a1": 3}, add={b"a2": 5}), outcomes(2))
        engine.submit(0, Batch(add={b"a2": 2}, append=[(b"l", b"4")]), outcomes(3))
        engine.submit(0, Batch(clear=[(b"a2", b"a3")], add={b"a2": 1}), outcomes(4))
        engine.submit(0, Batch(write={b"a2": (9).to_bytes(8, "big")}, add={b"a2": 1}), outcomes(5))
    assert outcomes.all() == [2, 3, 4, 5, 6, 7]
    rows = {row.key: (row.value, row.version) for row in engine.scan(0, b"", b"\xff", limit=10)}
    assert rows == {
        b"a1": (b"new", 3),
        b"a2": ((10).to_bytes(8, "big"), 7),
        b"a3": (b"x", 2),
        b"l" + (5).to_bytes(8, "big") + b"\0\0": (b"4", 5),
    }


def test_a_group_of_refused_batches_writes_nothing(engine, path):
    engine.commit(0, Batch(write={b"a": b"1"}))
    watch = apsw.Connection(path)
    before = watch.pragma("data_version")
    with pytest.raises(Conflict):
        engine.commit(0, Batch(expect={b"a": 0}, write={b"a": b"2"}))
    assert watch.pragma("data_version") == before
    engine.commit(0, Batch())
    assert watch.pragma("data_version") != before
    watch.close()


def test_more_than_one_group_holds_is_committed_in_several(engine, path, monkeypatch):
    monkeypatch.setattr(writer, "GROUP_BATCHES", 3)
    outcomes = Outcomes(7)
    with held(path):
        for number in range(7):
            engine.submit(0, Batch(add={b"n": 1}), outcomes(number))
    assert outcomes.all() == [1, 2, 3, 4, 5, 6, 7]


def test_a_group_ends_when_it_has_enough_bytes(path, monkeypatch):
    monkeypatch.setattr(writer, "GROUP_BYTES", 1000)
    with counting_commits() as commits:
        engine = connect(path)
        outcomes = Outcomes(4)
        with held(path):
            for number in range(4):
                engine.submit(0, Batch(write={b"a": bytes(600)}), outcomes(number))
            commits.clear()
        assert outcomes.all() == [1, 2, 3, 4]
        assert len(commits) == 2
    engine.close()


def test_a_callback_that_raises_keeps_nobody_else_from_its_outcome(engine, path, caplog):
    def broken(outcome):
        raise RuntimeError("the loop is gone")

    outcomes = Outcomes(2)
    with held(path):
        engine.submit(0, Batch(add={b"n": 1}), outcomes(0))
        engine.submit(0, Batch(add={b"n": 1}), broken)
        engine.submit(0, Batch(add={b"n": 1}), outcomes(1))
    assert outcomes.all() == [1, 3]
    engine.submit(0, Batch(add={b"n": 1}), outcomes(2))
    engine.close()
    assert "the loop is gone" in caplog.text


def test_who_holds_the_lock_for_too_long_makes_it_unavailable(path, monkeypatch):
    monkeypatch.setattr("stateroom.engines.sqlite.PATIENCE", 0.0)
    engine = connect(path)
    engine.commit(0, Batch(write={b"a": b"1"}))
    with held(path):
        with pytest.raises(Unavailable) as caught:
            engine.commit(0, Batch(write={b"a": b"2"}))
        assert isinstance(caught.value.__cause__, apsw.BusyError)
        assert engine.read(0, [b"a"])[0].value == b"1"
    assert engine.commit(0, Batch(write={b"a": b"3"})) == 2
    engine.close()


def test_a_full_disk_refuses_the_group_and_the_engine_goes_on(engine, path):
    engine.commit(0, Batch(write={b"a": b"1"}))
    connection = engine._connections.writer()
    connection.pragma("max_page_count", connection.pragma("page_count"))
    outcomes = Outcomes(2)
    with held(path):
        engine.submit(0, Batch(write={b"b": b"small"}), outcomes(0))
        engine.submit(0, Batch(write={b"c": bytes(1 << 20)}), outcomes(1))
    for refused in outcomes.all():
        assert isinstance(refused, Unavailable)
        assert "full" in refused.message
        assert isinstance(refused.__cause__, apsw.FullError)
    assert [row and row.version for row in engine.read(0, [b"", b"a", b"b", b"c"])] == [1, 1, None, None]
    assert engine.commit(0, Batch(write={b"b": b"small"})) == 2
    connection.pragma("max_page_count", 1 << 20)
    assert engine.commit(0, Batch(write={b"c": bytes(1 << 20)})) == 3
    assert engine.verify() == []


FILE_TOO_LARGE = """
import os, resource, sys
from stateroom.engine import Batch
from stateroom.engines.sqlite import connect
from stateroom.errors import Unavailable
engine = connect(sys.argv[1])
for number in range(10):
    engine.commit(0, Batch(write={b"%d" % number: bytes(1000)}, add={b"n": 1}))
most = os.path.getsize(sys.argv[1] + "-wal") + 3000
resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
refused = 0
for number in range(10, 15):
    try:
        engine.commit(0, Batch(write={b"%d" % number: bytes(100_000)}, add={b"n": 1}))
    except Unavailable:
        refused += 1
assert engine.read(0, [b"", b"10"]) == [(b"", b"", 10), None]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(refused, engine.commit(0, Batch(write={b"10": bytes(100_000)}, add={b"n": 1})), *engine.verify())
"""


def test_a_write_the_kernel_refuses_leaves_everything_as_it_was(path):
    assert run(FILE_TOO_LARGE, path) == ["5", "11"]
    engine = connect(path)
    assert read_counter(engine.read(0, [b"n"])[0].value) == 11
    assert engine.verify() == []
    engine.close()


def test_after_a_failed_flush_the_outcome_is_unknown_and_the_engine_is_closed(engine, path, monkeypatch):
    engine.commit(0, Batch(write={b"a": b"1"}))
    engine.read(0, [b"a"])
    failing = Wrapped(engine._connections.writer(), "COMMIT", apsw.exception_for(apsw.SQLITE_IOERR_FSYNC))
    monkeypatch.setattr(connections.Connections, "writer", lambda self: failing)
    waiting = Running(lambda: engine.wait(0, 1, 600.0))
    outcomes = Outcomes(3)
    with held(path):
        engine.submit(0, Batch(write={b"a": b"2"}), outcomes(0))
        engine.submit(0, Batch(expect={b"a": 0}), outcomes(1))
        engine.submit(0, Batch(write={b"b": b"2"}), outcomes(2))
    first, conflict, last = outcomes.all()
    assert isinstance(first, OutcomeUnknown)
    assert isinstance(conflict, Conflict)
    assert isinstance(last, OutcomeUnknown)
    monkeypatch.undo()
    for call in (
        lambda: engine.commit(0, Batch()),
        lambda: engine.read(0, [b"a"]),
        lambda: engine.scan(0, b"", b"z", limit=1),
        lambda: engine.wait(0, 0, 0),
        waiting.result,
    ):
        with pytest.raises(Closed, match="flush"):
            call()
    engine.close()
    again = connect(path)
    assert again.read(0, [b"", b"a"]) == [(b"", b"", 1), (b"a", b"1", 1)]
    again.close()


def test_a_refused_write_at_commit_is_no_failed_flush(engine, monkeypatch):
    engine.commit(0, Batch(write={b"a": b"1"}))
    failing = Wrapped(engine._connections.writer(), "COMMIT", apsw.exception_for(apsw.SQLITE_IOERR_WRITE))
    with monkeypatch.context() as patch:
        patch.setattr(connections.Connections, "writer", lambda self: failing)
        with pytest.raises(Unavailable, match="nothing was written"):
            engine.commit(0, Batch(write={b"a": b"2"}))
    assert engine.commit(0, Batch(expect={b"a": 1}, write={b"a": b"3"})) == 2


def test_ctrl_c_while_a_group_is_written_puts_the_others_back(engine, path, monkeypatch):
    failing = Wrapped(engine._connections.writer(), "COMMIT", KeyboardInterrupt())
    outcomes = Outcomes(1)
    with monkeypatch.context() as patch:
        patch.setattr(connections.Connections, "writer", lambda self: failing)
        patch.setattr(engine._writer, "_start", lambda: None)
        engine.submit(0, Batch(add={b"n": 1}), outcomes(0))
        with pytest.raises(KeyboardInterrupt):
            engine.commit(0, Batch(add={b"n": 1}))
    assert engine.read(0, [b"n"]) == [None]
    assert engine.commit(0, Batch(add={b"n": 1})) == 2
    assert outcomes.all() == [1]
    assert read_counter(engine.read(0, [b"n"])[0].value) == 2


def test_close_refuses_what_is_queued_and_lets_the_running_commit_end(engine, path):
    outcomes = Outcomes(2)
    with held(path):
        running = Running(lambda: engine.commit(0, Batch(write={b"a": b"1"})))
        queued(engine, 1)
        engine.submit(0, Batch(write={b"b": b"1"}), outcomes(0))
        closing = Running(engine.close)
    closing.result()
    with contextlib.suppress(Closed):
        assert running.result() == 1
    engine.submit(0, Batch(write={b"b": b"1"}), outcomes(1))
    assert isinstance(outcomes.all()[1], Closed)
