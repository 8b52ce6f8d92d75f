"""What each wrapper is for."""

import pytest

from engines.test_wrap_suite import Submitting
from stateroom.engine import Batch, Row
from stateroom.engines.memory import MemoryEngine
from stateroom.engines.wrap import Conflicting, Faulty, Prefixed, Recording, Slow, Span, Traced, Wrapper
from stateroom.errors import Conflict, InvalidArgument, OutcomeUnknown, Unavailable

A = Batch(write={b"a": b"1"})


def submitted(engine, batch):
    outcomes = []
    engine.submit(0, batch, outcomes.append)
    assert len(outcomes) == 1
    return outcomes[0]


class WithExtras(MemoryEngine):
    def verify(self):
        return ["fine"]


def test_other_attributes_come_from_the_engine_below():
    assert Wrapper(Prefixed(WithExtras(3), b"x")).verify() == ["fine"]
    assert not hasattr(Wrapper(MemoryEngine()), "verify")
    assert not hasattr(Wrapper(MemoryEngine()), "submit")
    assert not hasattr(Wrapper(MemoryEngine()), "_parts")


class TestFaulty:
    def test_the_nth_call_and_all_later_ones_fail_and_do_nothing(self):
        memory = MemoryEngine()
        engine = Faulty(memory, 3)
        engine.commit(0, A)
        engine.read(0, [b"a"])
        with pytest.raises(Unavailable):
            engine.commit(0, Batch(write={b"b": b""}))
        for call in (
            lambda: engine.scan(0, b"", b"z", limit=1),
            lambda: engine.read(0, []),
            lambda: engine.wait(0, 0, 0),
        ):
            with pytest.raises(Unavailable):
                call()
        assert memory.read(0, [b"b", b""]) == [None, Row(b"", b"", 1)]
        assert engine.count == 6

    def test_only_the_nth_fails_with_once(self):
        engine = Faulty(MemoryEngine(), 2, once=True)
        assert engine.commit(0, A) == 1
        with pytest.raises(Unavailable):
            engine.commit(0, A)
        assert engine.commit(0, A) == 2

    def test_a_lost_commit_was_carried_out(self):
        memory = MemoryEngine()
        engine = Faulty(memory, 1, lost=True, once=True)
        with pytest.raises(OutcomeUnknown):
            engine.commit(0, A)
        assert memory.read(0, [b"a"]) == [Row(b"a", b"1", 1)]

    def test_a_call_refused_for_its_own_sake_is_refused_as_such(self):
        engine = Faulty(MemoryEngine(), 1, lost=True)
        with pytest.raises(InvalidArgument):
            engine.commit(5, A)

    def test_only_calls_named_count_and_the_error_can_be_chosen(self):
        error = Conflict("mine")
        engine = Faulty(MemoryEngine(), 1, error=error, calls=("commit",))
        engine.read(0, [b"a"])
        with pytest.raises(Conflict) as caught:
            engine.commit(0, A)
        assert caught.value is error
        engine.heal()
        assert engine.commit(0, A) == 1

    def test_a_submitted_batch_counts_as_a_commit(self):
        memory = Submitting()
        assert isinstance(submitted(Faulty(memory), A), Unavailable)
        assert memory.read(0, [b"a"]) == [None]
        assert isinstance(submitted(Faulty(memory, lost=True), A), OutcomeUnknown)
        assert memory.read(0, [b"a"]) == [Row(b"a", b"1", 1)]
        assert submitted(Faulty(memory, 2), A) == 2


class TestConflicting:
    def test_chosen_commits_are_refused_untried(self):
        memory = Submitting()
        engine = Conflicting(memory, refuse=lambda number, part, batch: number in (1, 3))
        with pytest.raises(Conflict) as caught:
            engine.commit(0, Batch(expect={b"a": 0}, write={b"a": b""}))
        assert (caught.value.key, caught.value.expected) == (b"a", 0)
        assert engine.commit(0, A) == 1
        assert isinstance(submitted(engine, A), Conflict)
        assert submitted(engine, A) == 2

    def test_another_client_commits_first(self):
        memory = Submitting()
        other = {1: Batch(write={b"a": b"other"}), 2: None, 3: Batch(write={b"a": b"again"})}
        engine = Conflicting(memory, interfere=lambda number, part, batch: other[number])
        with pytest.raises(Conflict):
            engine.commit(0, Batch(expect={b"a": 0}, write={b"a": b"mine"}))
        assert memory.read(0, [b"a"]) == [Row(b"a", b"other", 1)]
        assert engine.commit(0, Batch(expect={b"a": 1}, write={b"a": b"mine"})) == 2
        assert isinstance(submitted(engine, Batch(expect={b"a": 2})), Conflict)
        assert memory.read(0, [b"a"]) == [Row(b"a", b"again", 3)]


def test_slow_calls_before_each_call():
    seen = []
    memory = Submitting(2)
    engine = Slow(memory, lambda name, part: seen.append((name, part, memory.read(0, [b"a"]) == [None])))
    engine.commit(0, A)
    engine.read(0, [b"a"])
    engine.scan(None, b"", b"z", limit=1)
    engine.wait(1, -1, 0)
    submitted(engine, A)
    engine.close()
    expected = [("commit", 0), ("read", 0), ("scan", None), ("wait", 1), ("commit", 0), ("close", None)]
    assert seen == [(*call, number == 0) for number, call in enumerate(expected)]


class TestRecording:
    def test_calls_are_kept_and_counted(self):
        engine = Recording(Submitting())
        engine.commit(0, A)
        submitted(engine, Batch(write={b"b": b"2"}))
        engine.read(0, [b"a", b"x"])
        engine.scan(0, b"", b"z", limit=5)
        with pytest.raises(Conflict):
            engine.commit(0, Batch(expect={b"a": 7}))
        assert [call.name for call in engine.calls] == ["commit", "commit", "read", "scan", "commit"]
        assert (engine.reads, engine.rows, engine.commits) == (2, 3, 2)
        assert engine.batches == [A, Batch(write={b"b": b"2"})]
        assert engine.calls[2] == ("read", 0, [b"a", b"x"], [Row(b"a", b"1", 1), None])
        assert isinstance(engine.calls[4].outcome, Conflict)
        engine.clear()
        assert (engine.calls, engine.reads, engine.rows, engine.commits) == ([], 0, 0, 0)


def test_traced_reports_each_call_when_it_has_ended():
    spans, ticks = [], iter(range(100))
    engine = Traced(Submitting(), spans.append, clock=lambda: next(ticks))
    engine.commit(0, A)
    with pytest.raises(Conflict) as caught:
        engine.commit(0, Batch(expect={b"a": 7}))
    submitted(engine, A)
    refused = submitted(engine, Batch(expect={b"a": 7}))
    engine.scan(None, b"", b"z", limit=1)
    assert spans == [
        Span("commit", 0, 0, 1, None),
        Span("commit", 0, 2, 1, caught.value),
        Span("commit", 0, 4, 1, None),
        Span("commit", 0, 6, 1, refused),
        Span("scan", None, 8, 1, None),
    ]


class TestPrefixed:
    def test_two_share_an_engine_and_see_nothing_of_each_other(self):
        memory = MemoryEngine()
        one, other = Prefixed(memory, b"one/"), Prefixed(memory, b"two/")
        for engine, value in ((one, b"1"), (other, b"2")):
            engine.commit(0, Batch(write={b"a": value}, add={b"n": 1}, append=[(b"f", value)]))
        assert [row.value for row in one.scan(0, b"", b"\xff" * 9, limit=9)][:2] == [b"1", b"1"]
        other.commit(0, Batch(clear=[(b"", b"\xff" * 9)]))
        assert other.scan(None, b"", b"\xff" * 9, limit=9) == []
        assert [row.key[:4] for row in memory.scan(0, b"", b"\xff", limit=9)] == [b"one/"] * 3

    def test_errors_show_nothing_of_the_prefix(self):
        engine = Prefixed(Submitting(), b"mine/")
        with pytest.raises(Conflict) as caught:
            engine.commit(0, Batch(expect={b"a": 1}))
        assert caught.value.key == b"a"
        conflict = submitted(engine, Batch(expect={b"a": 1}))
        assert conflict.key == b"a"
        with pytest.raises(InvalidArgument) as long:
            engine.commit(0, Batch(write={b"k" * 1020: b""}))
        assert long.value.value == b"k" * 59
        assert "mine" not in f"{caught.value} {conflict} {long.value}"

    def test_an_empty_key_does_not_become_a_good_one(self):
        memory = Submitting()
        engine = Prefixed(memory, b"mine/")
        with pytest.raises(InvalidArgument):
            engine.commit(0, Batch(write={b"": b""}))
        assert isinstance(submitted(engine, Batch(write={b"": b""})), InvalidArgument)
        assert memory.read(0, [b""]) == [Row(b"", b"", 0)]
