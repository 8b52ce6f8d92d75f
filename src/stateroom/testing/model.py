"""Random batches, compared with what a dict makes of them."""

from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ..engine import Batch, Engine, Row, read_counter, stamped, write_counter
from ..errors import Conflict
from .harness import EngineTests, version_of

KEYS = st.sampled_from([b"a", b"a\0", b"ab", b"b", b"c", b"c\xff", b"d"])
COUNTERS = st.sampled_from([b"b", b"n", b"nn"])
AMOUNTS = st.integers(-(10**12), 10**12)
VALUES = st.binary(max_size=8)
NUMBERS = AMOUNTS.map(write_counter)
EXPECTED = st.sampled_from(["absent", "actual", "stale"])

BATCHES = st.fixed_dictionaries(
    {
        "expect": st.dictionaries(KEYS, EXPECTED, max_size=2),
        # b"b" is written as a counter as well, so that add meets written, cleared and absent rows.
        "write": st.dictionaries(KEYS.filter(lambda key: key != b"b"), st.none() | VALUES, max_size=4).flatmap(
            lambda writes: st.one_of(
                st.just(writes), (st.none() | NUMBERS).map(lambda number: {**writes, b"b": number})
            )
        ),
        "add": st.dictionaries(COUNTERS, AMOUNTS, max_size=2),
        "append": st.lists(st.tuples(st.sampled_from([b"f", b"c", b"g"]), VALUES), max_size=3),
        "clear": st.lists(st.tuples(KEYS, KEYS | st.just(b"o")), max_size=1),
    }
)


class Model:
    """One part, as the contract has it."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.rows: dict[bytes, Row] = {}

    def commit(self, batch: Batch) -> int | None:
        """The new version; None for a conflict."""
        for key, expected in batch.expect.items():
            if (self.rows[key].version if key in self.rows else 0) != expected:
                return None
        self.version += 1
        for start, stop in batch.clear:
            for key in [key for key in self.rows if start <= key < stop]:
                del self.rows[key]
        for key, value in batch.write.items():
            self.rows.pop(key, None)
            if value is not None:
                self.rows[key] = Row(key, value, self.version)
        for key, amount in batch.add.items():
            number = read_counter(self.rows[key].value) if key in self.rows else 0
            self.rows[key] = Row(key, write_counter(number + amount), self.version)
        for index, (prefix, value) in enumerate(batch.append):
            key = stamped(prefix, self.version, index)
            self.rows[key] = Row(key, value, self.version)
        return self.version

    def batch(self, drawn: dict[str, Any], prefix: bytes) -> Batch:
        """The batch drawn, for keys under `prefix`; what it expects depends on what there is."""
        expect = {}
        for name, kind in drawn["expect"].items():
            row = self.rows.get(prefix + name)
            actual = row.version if row else 0
            expect[prefix + name] = {"absent": 0, "actual": actual, "stale": actual + 1}[kind]
        return Batch(
            expect=expect,
            write={prefix + name: value for name, value in drawn["write"].items()},
            add={prefix + name: amount for name, amount in drawn["add"].items()},
            append=[(prefix + name, value) for name, value in drawn["append"]],
            clear=[(prefix + start, prefix + stop) for start, stop in drawn["clear"]],
        )


class Random(EngineTests):
    """Everything together."""

    examples = 40
    """How often random batches are tried; a derived class may ask for another number."""
    draws = settings(deadline=None, database=None)
    """How they are made otherwise."""

    def test_random_batches_do_what_they_do_to_a_dict(self, engine: Engine) -> None:
        # One engine for all examples, since some are slow to make; each example has keys of its own.
        fresh = count()

        @settings(self.draws, max_examples=self.examples)
        @given(st.lists(st.tuples(st.integers(0, 2), BATCHES), min_size=1, max_size=8), KEYS, KEYS, st.integers(0, 5))
        def check(steps: list[tuple[int, dict[str, Any]]], start: bytes, stop: bytes, limit: int) -> None:
            prefix = b"%06d" % next(fresh)
            models = {part: Model(version_of(engine, part)) for part in range(min(engine.parts, 3))}
            for number, drawn in steps:
                part = number % len(models)
                self.step(engine, part, models[part], models[part].batch(drawn, prefix))
            for part, model in models.items():
                self.compare(engine, part, model, prefix, (start, stop, limit))

        check()

    def step(self, engine: Engine, part: int, model: Model, batch: Batch) -> None:
        expected = model.commit(batch)
        if expected is None:
            with pytest.raises(Conflict):
                engine.commit(part, batch)
        else:
            assert engine.commit(part, batch) == expected

    def compare(self, engine: Engine, part: int, model: Model, prefix: bytes, bounds: tuple[bytes, bytes, int]) -> None:
        rows = [model.rows[key] for key in sorted(model.rows)]
        assert version_of(engine, part) == model.version
        assert engine.scan(part, prefix, prefix + b"\xff", limit=1000) == rows
        start, stop, limit = prefix + bounds[0], prefix + bounds[1], bounds[2]
        inside = [row for row in rows if start <= row.key < stop]
        assert engine.scan(part, start, stop, limit=limit) == inside[:limit]
        assert engine.scan(part, start, stop, limit=limit, reverse=True) == inside[::-1][:limit]
        keys = [prefix + name for name in (b"a", b"b", b"c", b"n", b"absent")]
        assert engine.read(part, keys) == [model.rows.get(key) for key in keys]
