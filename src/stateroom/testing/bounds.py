"""Limits: what fits is taken, what does not is refused and changes nothing."""

from typing import Any

import pytest

from ..engine import Batch, Engine, stamped
from ..errors import InvalidArgument
from ..limits import BATCH_BYTES, BATCH_KEYS, KEY_BYTES, VALUE_BYTES
from .harness import EngineTests, everything, nothing_changes, put, value_of, version_of


class Limits(EngineTests):
    """Sizes of keys, values and batches."""

    def refuses(self, engine: Engine, **fields: Any) -> None:
        """The batch, and one that has something good beside it, are refused."""
        with nothing_changes(engine), pytest.raises(InvalidArgument):
            engine.commit(0, Batch(**fields))

    def test_a_key_of_1023_bytes_is_taken_and_a_longer_one_refused(self, engine: Engine) -> None:
        put(engine, other=b"")
        longest = b"k" * (KEY_BYTES - self.overhead)
        engine.commit(0, Batch(expect={longest: 0}, write={longest: b"1"}, add={b"n" * len(longest): 1}))
        assert value_of(engine, longest) == b"1"
        assert [len(row.key) for row in engine.scan(0, b"k", b"o", limit=9)] == [len(longest)] * 2
        self.refuses(engine, write={b"a": b"", longest + b"k": b""})
        self.refuses(engine, write={b"a": b"", longest + b"k": None})
        self.refuses(engine, write={b"a": b""}, expect={longest + b"k": 0})
        self.refuses(engine, write={b"a": b""}, add={longest + b"k": 1})

    def test_a_prefix_of_1013_bytes_is_taken_and_a_longer_one_refused(self, engine: Engine) -> None:
        longest = b"f" * (KEY_BYTES - 10 - self.overhead)
        engine.commit(0, Batch(append=[(longest, b"1")]))
        assert [row.key for row in everything(engine)] == [stamped(longest, 1, 0)]
        self.refuses(engine, write={b"a": b""}, append=[(b"f", b""), (longest + b"f", b"")])

    def test_an_empty_key_is_refused(self, engine: Engine) -> None:
        put(engine, other=b"")
        self.refuses(engine, write={b"a": b"", b"": b""})
        self.refuses(engine, write={b"a": b""}, expect={b"": 1})
        self.refuses(engine, write={b"a": b""}, add={b"": 1})
        self.refuses(engine, write={b"a": b""}, append=[(b"", b"")])

    def test_a_value_of_one_mebibyte_is_taken_and_a_longer_one_refused(self, engine: Engine) -> None:
        longest = bytes(range(256)) * (VALUE_BYTES // 256)
        engine.commit(0, Batch(write={b"a": longest}, append=[(b"f", longest)]))
        assert [row.value == longest for row in everything(engine)] == [True, True]
        self.refuses(engine, write={b"a": b"", b"b": longest + b"x"})
        self.refuses(engine, write={b"a": b""}, append=[(b"f", longest + b"x")])

    def test_a_batch_of_10000_keys_is_taken_and_a_larger_one_refused(self, engine: Engine) -> None:
        write: dict[bytes, bytes | None] = {b"w%d" % number: b"" for number in range(BATCH_KEYS - 4)}
        fields: dict[str, Any] = {
            "expect": {b"a": 0},
            "add": {b"n": 1},
            "append": [(b"f", b"")],
            "clear": [(b"x", b"y")],
        }
        self.refuses(engine, **{**fields, "write": {**write, b"one more": None}})
        assert everything(engine) == []
        engine.commit(0, Batch(**{**fields, "write": write}))
        assert len(everything(engine)) == BATCH_KEYS - 2
        for field, contents in (
            ("expect", {b"e%d" % number: 0 for number in range(BATCH_KEYS + 1)}),
            ("add", {b"n%d" % number: 1 for number in range(BATCH_KEYS + 1)}),
            ("append", [(b"f", b"")] * (BATCH_KEYS + 1)),
            ("clear", [(b"x", b"y")] * (BATCH_KEYS + 1)),
        ):
            self.refuses(engine, **{field: contents})

    def test_a_batch_of_8_mebibytes_is_taken_and_a_larger_one_refused(self, engine: Engine) -> None:
        keys = [b"%d" % number for number in range(8)]
        value = b"x" * (VALUE_BYTES - 1 - self.overhead)
        write = dict.fromkeys(keys, value)
        assert sum(len(key) + self.overhead + len(value) for key in keys) == BATCH_BYTES
        self.refuses(engine, write=write, expect={b"e": 0})
        self.refuses(engine, write=write, append=[(b"f", b"")])
        self.refuses(engine, write=write, add={b"n": 1})
        assert engine.commit(0, Batch(write=dict(write))) == 1
        assert [row.value == value for row in everything(engine)] == [True] * 8

    def test_after_a_refusal_the_engine_works_on(self, engine: Engine) -> None:
        self.refuses(engine, write={b"": b""})
        assert put(engine, a=b"1") == 1
        assert version_of(engine) == 1
