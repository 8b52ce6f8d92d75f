"""Waiting, closing, reopening, and the optional `submit` and `read_many`."""

from contextlib import suppress

import pytest

from ..engine import Batch, Engine, Gathering, Range, Row, Submitting, read_counter
from ..errors import Closed, Conflict, InvalidArgument
from .harness import (
    FOREVER,
    EngineTests,
    Running,
    at_once,
    everything,
    nothing_changes,
    put,
    submitted,
    value_of,
    version_of,
)


class Waiting(EngineTests):
    """`wait` is a hint that something moved on."""

    def test_wait_returns_at_once_when_the_version_has_passed(self, engine: Engine) -> None:
        put(engine, a=b"1")
        Running(lambda: engine.wait(0, 0, FOREVER)).result()
        Running(lambda: engine.wait(0, -1, FOREVER)).result()
        Running(lambda: engine.wait(None, 0, FOREVER)).result()

    def test_wait_returns_when_time_is_up(self, engine: Engine) -> None:
        put(engine, a=b"1")
        for part in (0, None):
            for version in (1, 2, 1000):
                for timeout in (0, 0.01, -1):
                    waiting = Running(lambda p=part, v=version, t=timeout: engine.wait(p, v, t))  # type: ignore[misc]
                    assert waiting.result() is None
        assert version_of(engine) == 1

    def test_a_commit_wakes_who_waits_for_its_part(self, engine: Engine) -> None:
        for part in range(engine.parts):
            waiting = [Running(lambda part=part: engine.wait(part, 0, FOREVER)) for _ in range(3)]  # type: ignore[misc]
            Running(lambda part=part: engine.commit(part, Batch(write={b"a": b""}))).result()  # type: ignore[misc]
            for thread in waiting:
                thread.result()

    def test_a_commit_to_any_part_wakes_who_waits_for_all(self, engine: Engine) -> None:
        for number in range(engine.parts):
            waiting = Running(lambda number=number: engine.wait(None, number, FOREVER))  # type: ignore[misc]
            engine.commit(number, Batch())
            waiting.result()

    def test_wait_for_all_parts_counts_their_versions_together(self, engine: Engine) -> None:
        for part in range(engine.parts):
            for _ in range(3):
                engine.commit(part, Batch())
        Running(lambda: engine.wait(None, 3 * engine.parts - 1, FOREVER)).result()
        engine.wait(None, 3 * engine.parts, 0)

    def test_closing_ends_a_wait(self) -> None:
        with self.fresh() as engine:
            waiting = Running(lambda: engine.wait(0, 0, FOREVER))
            engine.wait(0, 0, 0.01)  # lets the thread begin to wait; nothing depends on it
            engine.close()
            with suppress(Closed):
                waiting.result()


class Closing(EngineTests):
    """The life of an engine."""

    def test_parts_is_a_number_from_one(self, engine: Engine) -> None:
        assert isinstance(engine.parts, int)
        assert engine.parts >= 1

    def test_closing_twice_does_nothing(self, engine: Engine) -> None:
        put(engine, a=b"1")
        engine.close()
        engine.close()

    def test_after_close_every_call_raises_closed(self, engine: Engine) -> None:
        put(engine, a=b"1")
        engine.close()
        with pytest.raises(Closed):
            engine.read(0, [b"a"])
        for part in (0, None):
            with pytest.raises(Closed):
                engine.scan(part, b"", b"z", limit=1)
            with pytest.raises(Closed):
                engine.wait(part, 0, 0)
        with pytest.raises(Closed):
            engine.commit(0, Batch(write={b"a": b"2"}))

    def test_what_was_committed_is_there_after_reopening(self) -> None:
        reopen = getattr(self.factory, "reopen", None)
        if reopen is None:
            pytest.skip("this engine keeps nothing")
        with self.fresh() as engine:
            for part in range(engine.parts):
                engine.commit(part, Batch(write={b"a": b"1", b"b": b"x" * 10_000}, add={b"n": 7}))
                engine.commit(part, Batch(write={b"a": b"2"}, append=[(b"f", b"y")]))
            parts, before = engine.parts, [everything(engine, part) for part in range(engine.parts)]
            engine.close()
            reopened: Engine = reopen(engine)
            try:
                assert reopened.parts == parts
                assert [everything(reopened, part) for part in range(parts)] == before
                assert [version_of(reopened, part) for part in range(parts)] == [2] * parts
                assert reopened.commit(0, Batch(expect={b"a": 2}, add={b"n": 1})) == 3
                assert read_counter(value_of(reopened, b"n")) == 8
            finally:
                reopened.close()


class Gathers(EngineTests):
    """`read_many` and `scan_many` are optional; where they are there, they give what the calls for one part give."""

    def gathering(self, engine: Engine) -> Gathering:
        if not isinstance(engine, Gathering):
            pytest.skip("this engine looks at one part at a time")
        for number in range(5):
            for part in range(engine.parts):
                engine.commit(part, Batch(write={b"%d" % number: b"%d" % part}))
        return engine

    def test_several_parts_are_read_at_once(self, engine: Engine) -> None:
        many = self.gathering(engine)
        requests = [(part, [b"0", b"x", b"", b"4"]) for part in reversed(range(engine.parts))]
        requests += [(0, []), (0, [b"1"]), (0, [b"1"])]
        assert many.read_many(requests) == [engine.read(part, keys) for part, keys in requests]
        assert many.read_many([]) == []

    def test_several_parts_are_scanned_at_once(self, engine: Engine) -> None:
        many = self.gathering(engine)
        ranges = [Range(part, b"1", b"9", 2 + part) for part in reversed(range(engine.parts))]
        ranges += [Range(0, b"1", b"1", 5), Range(0, b"1", b"3", 0), Range(0, b"", b"9", 9)]
        expected = [engine.scan(part, start, stop, limit=limit) for part, start, stop, limit in ranges]
        assert many.scan_many(ranges) == expected
        assert many.scan_many([]) == []

    def test_one_bad_request_refuses_all(self, engine: Engine) -> None:
        many = self.gathering(engine)
        with pytest.raises(InvalidArgument):
            many.read_many([(0, [b"0"]), (engine.parts, [b"0"])])
        with pytest.raises(InvalidArgument):
            many.scan_many([Range(0, b"", b"9", 1), Range(0, b"", b"9", -1)])
        engine.close()
        with pytest.raises(Closed):
            many.read_many([(0, [b"0"]), (0, [b"1"])])


class Submits(EngineTests):
    """`submit` is optional; where it is there, it gives what `commit` gives."""

    def submitting(self, engine: Engine) -> Engine:
        if not isinstance(engine, Submitting):
            pytest.skip("this engine has no submit")
        return engine

    def test_without_submit_there_is_none_of_it(self, engine: Engine) -> None:
        if isinstance(engine, Submitting):
            assert callable(engine.submit)
        else:
            assert not hasattr(engine, "submit")
            assert put(engine, a=b"1") == 1

    def test_submit_gives_the_version_and_a_read_sees_the_batch(self, engine: Engine) -> None:
        self.submitting(engine)
        assert submitted(engine, 0, Batch(write={b"a": b"1"})) == 1
        assert engine.read(0, [b"a"]) == [Row(b"a", b"1", 1)]
        assert put(engine, a=b"2") == 2
        assert submitted(engine, 0, Batch()) == 3

    def test_submit_gives_the_conflict(self, engine: Engine) -> None:
        self.submitting(engine)
        put(engine, a=b"1")
        with nothing_changes(engine):
            conflict = submitted(engine, 0, Batch(expect={b"a": 0}, write={b"b": b""}))
            assert isinstance(conflict, Conflict)
            assert (conflict.key, conflict.expected, conflict.actual) == (b"a", 0, 1)

    def test_submit_refuses_what_commit_refuses(self, engine: Engine) -> None:
        self.submitting(engine)
        with nothing_changes(engine):
            assert isinstance(submitted(engine, 0, Batch(write={b"": b""})), InvalidArgument)
            assert isinstance(submitted(engine, engine.parts, Batch()), InvalidArgument)
        engine.close()
        assert isinstance(submitted(engine, 0, Batch()), Closed)

    def test_a_refused_batch_harms_none_submitted_with_it(self, engine: Engine) -> None:
        self.submitting(engine)
        put(engine, a=b"1")

        def send(number: int) -> object:
            bad = number % 2 == 1
            return submitted(engine, 0, Batch(expect={b"a": 0 if bad else 1}, write={b"k%d" % number: b""}))

        outcomes = at_once(10, send)
        assert sorted(outcome for outcome in outcomes if isinstance(outcome, int)) == [2, 3, 4, 5, 6]
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 5
        assert [row.key for row in everything(engine)] == [b"a", b"k0", b"k2", b"k4", b"k6", b"k8"]
