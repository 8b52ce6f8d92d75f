"""Reads and scans."""

from typing import Any

import pytest

from ..engine import Batch, Engine, Row
from ..errors import InvalidArgument
from .harness import EngineTests, everything, put, version_of


def names(rows: list[Row]) -> list[str]:
    return [row.key.decode() for row in rows]


class Reads(EngineTests):
    """Rows by their keys."""

    def test_rows_come_in_the_order_of_the_keys_asked(self, engine: Engine) -> None:
        put(engine, a=b"1", b=b"2")
        a, b = Row(b"a", b"1", 1), Row(b"b", b"2", 1)
        assert engine.read(0, [b"b", b"x", b"a", b"b", b"x"]) == [b, None, a, b, None]
        assert engine.read(0, (b"a",)) == [a]

    def test_no_keys_give_no_rows(self, engine: Engine) -> None:
        assert engine.read(0, []) == []

    def test_thousands_of_keys_can_be_read_at_once(self, engine: Engine) -> None:
        keys = [b"%05d" % number for number in range(0, 5000, 2)]
        engine.commit(0, Batch(write={key: key for key in keys}))
        row_keys = [b"%05d" % number for number in range(5000, -1, -1)]
        rows = engine.read(0, row_keys)
        present = set(keys)
        assert rows == [Row(key, key, 1) if key in present else None for key in row_keys]

    def test_the_empty_key_gives_the_version_of_the_part(self, engine: Engine) -> None:
        put(engine, a=b"1")
        put(engine, b=b"1")
        rows = engine.read(0, [b"", b"a", b""])
        assert [row and (row.key, row.version) for row in rows] == [(b"", 2), (b"a", 1), (b"", 2)]

    def test_the_version_of_the_part_is_no_row(self, engine: Engine) -> None:
        put(engine, a=b"1")
        assert names(engine.scan(0, b"", b"\xff", limit=9)) == ["a"]
        engine.commit(0, Batch(clear=[(b"", b"\xff")]))
        assert version_of(engine) == 2

    def test_what_was_read_does_not_change_afterwards(self, engine: Engine) -> None:
        put(engine, a=b"1")
        read, scanned = engine.read(0, [b"a"]), everything(engine)
        engine.commit(0, Batch(write={b"a": b"2", b"b": b"2"}))
        assert read == scanned == [Row(b"a", b"1", 1)]


class Scans(EngineTests):
    """Rows by their range."""

    def test_rows_come_in_the_order_of_their_bytes(self, engine: Engine) -> None:
        keys = [b"a", b"\0", b"a\0", b"B", b"\xfe", b"aa", b"\x80", b"a\xff", b"\0\0"]
        for key in keys:
            engine.commit(0, Batch(write={key: b""}))
        assert [row.key for row in everything(engine)] == sorted(keys)

    def test_start_is_included_and_stop_is_not(self, engine: Engine) -> None:
        put(engine, a=b"", b=b"", bb=b"", c=b"")
        assert names(engine.scan(0, b"b", b"c", limit=9)) == ["b", "bb"]
        assert names(engine.scan(0, b"b", b"c\0", limit=9)) == ["b", "bb", "c"]
        assert names(engine.scan(0, b"aa", b"bb", limit=9)) == ["b"]
        assert names(engine.scan(0, b"", b"b", limit=9)) == ["a"]

    def test_an_empty_range_gives_nothing(self, engine: Engine) -> None:
        put(engine, a=b"", b=b"", c=b"")
        for start, stop in ((b"b", b"b"), (b"c", b"a"), (b"d", b"z"), (b"", b""), (b"b\0", b"c")):
            assert engine.scan(0, start, stop, limit=9) == []
            assert engine.scan(0, start, stop, limit=9, reverse=True) == []

    def test_at_most_limit_rows_come(self, engine: Engine) -> None:
        put(engine, a=b"", b=b"", c=b"")
        for limit, expected in ((0, []), (1, ["a"]), (2, ["a", "b"]), (3, ["a", "b", "c"]), (100_000, ["a", "b", "c"])):
            assert names(engine.scan(0, b"", b"z", limit=limit)) == expected

    def test_a_limit_is_mandatory_and_not_negative(self, engine: Engine) -> None:
        put(engine, a=b"")
        unlimited: Any = engine.scan
        with pytest.raises(TypeError):
            unlimited(0, b"", b"z")
        with pytest.raises(InvalidArgument):
            engine.scan(0, b"", b"z", limit=-1)

    def test_reverse_starts_at_the_high_end(self, engine: Engine) -> None:
        put(engine, a=b"", b=b"", c=b"", d=b"")
        assert names(engine.scan(0, b"a", b"d", limit=9, reverse=True)) == ["c", "b", "a"]
        assert names(engine.scan(0, b"a", b"d", limit=2, reverse=True)) == ["c", "b"]

    def test_a_scan_gives_the_rows_that_read_gives(self, engine: Engine) -> None:
        put(engine, a=b"1", b=b"1")
        engine.commit(0, Batch(write={b"b": b"2"}, add={b"n": 2}, append=[(b"f", b"3")]))
        rows = everything(engine)
        assert len(rows) == 4
        assert engine.read(0, [row.key for row in rows]) == rows

    def test_a_long_scan_can_be_taken_in_pages(self, engine: Engine) -> None:
        keys = [b"%05d" % number for number in range(5000)]
        engine.commit(0, Batch(write=dict.fromkeys(reversed(keys), b"")))
        result: list[bytes] = []
        start = b""
        while rows := engine.scan(0, start, b"\xff", limit=999):
            result += [row.key for row in rows]
            start = rows[-1].key + b"\0"
        assert result == keys
        assert [row.key for row in engine.scan(0, b"", b"\xff", limit=5000, reverse=True)] == keys[::-1]

    def test_a_scan_of_all_parts_is_merged_in_key_order(self, engine: Engine) -> None:
        keys = [b"%03d" % (number * 7 % 100) for number in range(100)]
        for number, key in enumerate(keys):
            engine.commit(number % engine.parts, Batch(write={key: b"%d" % number}))
        expected = sorted(keys)
        for limit in (1, 7, 50, 100, 1000):
            assert [row.key for row in engine.scan(None, b"", b"\xff", limit=limit)] == expected[:limit]
            rows = engine.scan(None, b"", b"\xff", limit=limit, reverse=True)
            assert [row.key for row in rows] == expected[::-1][:limit]
        assert [row.key for row in engine.scan(None, b"020", b"030", limit=99)] == expected[20:30]
        assert engine.scan(None, b"5", b"4", limit=9) == engine.scan(None, b"", b"\xff", limit=0) == []

    def test_a_scan_of_all_parts_is_full_though_one_part_has_most(self, engine: Engine) -> None:
        last = engine.parts - 1
        engine.commit(0, Batch(write={b"a%03d" % number: b"" for number in range(300)}))
        engine.commit(last, Batch(write={b"b%03d" % number: b"" for number in range(300)}))
        rows = engine.scan(None, b"a150", b"\xff", limit=400)
        assert [row.key for row in rows] == [b"%c%03d" % (97 + at // 300, at % 300) for at in range(150, 550)]
