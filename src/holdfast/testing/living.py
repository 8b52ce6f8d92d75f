"""Waiting, closing, reopening, and the optional `submit`."""

from contextlib import suppress

import pytest

from ..engine import Batch, Engine, Row, Submitting, read_counter
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
            for each in waiting:
                each.result()

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
            again: Engine = reopen(engine)
            try:
                assert again.parts == parts
                assert [everything(again, part) for part in range(parts)] == before
                assert [version_of(again, part) for part in range(parts)] == [2] * parts
                assert again.commit(0, Batch(expect={b"a": 2}, add={b"n": 1})) == 3
                assert read_counter(value_of(again, b"n")) == 8
            finally:
                again.close()


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
        assert sorted(each for each in outcomes if isinstance(each, int)) == [2, 3, 4, 5, 6]
        assert sum(isinstance(each, Conflict) for each in outcomes) == 5
        assert [row.key for row in everything(engine)] == [b"a", b"k0", b"k2", b"k4", b"k6", b"k8"]
