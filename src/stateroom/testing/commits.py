"""Versions, what a batch does, and what may stop it."""

import threading

import pytest

from ..engine import Batch, Engine, Row, read_counter, stamped, write_counter
from ..errors import Conflict, InvalidArgument
from ..limits import INT64_MAX
from .harness import EngineTests, Running, at_once, everything, nothing_changes, put, value_of, version_of


class Commits(EngineTests):
    """Versions and atomicity."""

    def test_a_new_part_is_at_version_zero(self, engine: Engine) -> None:
        for part in range(engine.parts):
            assert version_of(engine, part) == 0
            assert everything(engine, part) == []

    def test_versions_of_a_part_rise_by_one(self, engine: Engine) -> None:
        assert [put(engine, a=b"%d" % number) for number in range(1, 6)] == [1, 2, 3, 4, 5]
        assert version_of(engine) == 5

    def test_an_empty_batch_commits_and_raises_the_version(self, engine: Engine) -> None:
        put(engine, a=b"1")
        assert engine.commit(0, Batch()) == 2
        assert version_of(engine) == 2
        assert everything(engine) == [Row(b"a", b"1", 1)]

    def test_a_row_bears_the_version_of_the_commit_that_wrote_it(self, engine: Engine) -> None:
        put(engine, a=b"1", b=b"1")
        put(engine, b=b"1")
        assert engine.read(0, [b"a", b"b"]) == [Row(b"a", b"1", 1), Row(b"b", b"1", 2)]

    def test_a_read_after_a_returned_commit_sees_it(self, engine: Engine) -> None:
        for number in range(1, 20):
            value = b"%d" % number
            put(engine, a=value)
            assert value_of(engine, b"a") == value
            assert Running(lambda: (value_of(engine, b"a"), everything(engine)[0].value)).result() == (value, value)

    def test_nobody_sees_half_a_batch(self, engine: Engine) -> None:
        keys = [b"k%d" % number for number in range(5)]
        ended = threading.Event()

        def write() -> None:
            try:
                for number in range(60):
                    engine.commit(0, Batch(write=dict.fromkeys(keys, b"%06d" % number), add={b"n": 1}))
            finally:
                ended.set()

        def look() -> int:
            looks = 0
            while not ended.is_set() or not looks:
                looks += 1
                read: list[Row | None] = engine.read(0, [*keys, b"n"])
                scanned = engine.scan(0, b"k", b"o", limit=9)
                assert len({row and row.version for row in read}) == 1, f"half a batch in one read: {read}"
                assert len({row.version for row in scanned}) <= 1, f"half a batch in one scan: {scanned}"
                assert len(scanned) in (0, 6), f"half a batch in one scan: {scanned}"
                first, last = value_of(engine, keys[0]), value_of(engine, keys[-1])
                assert (first or b"") <= (last or b""), "a commit was seen in part: first its start, then not its end"
                last, first = value_of(engine, keys[-1]), value_of(engine, keys[0])
                assert (last or b"") <= (first or b""), "a commit was seen in part: first its end, then not its start"
            return looks

        running = [Running(look), Running(look), Running(write)]
        assert running[0].result()
        assert running[1].result()
        running[2].result()

    def test_versions_are_handed_out_once_when_threads_commit_together(self, engine: Engine) -> None:
        outcomes = at_once(
            8, lambda number: [engine.commit(0, Batch(append=[(b"f", b"%d" % number)])) for _ in range(5)]
        )
        versions = sorted(
            version for versions_of in outcomes if isinstance(versions_of, list) for version in versions_of
        )
        assert versions == list(range(1, 41))
        assert [row.key for row in everything(engine)] == [stamped(b"f", version, 0) for version in versions]

    def test_parts_are_apart(self, engine: Engine) -> None:
        if engine.parts == 1:
            pytest.skip("one part")
        engine.commit(0, Batch(write={b"a": b"0"}))
        engine.commit(0, Batch(write={b"b": b"0"}))
        assert engine.commit(1, Batch(expect={b"a": 0}, write={b"a": b"1"}, add={b"n": 1})) == 1
        assert engine.read(0, [b"a", b"n"]) == [Row(b"a", b"0", 1), None]
        assert everything(engine, 1) == [Row(b"a", b"1", 1), Row(b"n", write_counter(1), 1)]
        engine.commit(1, Batch(clear=[(b"", b"\xff")]))
        assert [version_of(engine, part) for part in (0, 1)] == [2, 2]
        assert [row.key for row in everything(engine)] == [b"a", b"b"]

    def test_an_unknown_part_is_refused(self, engine: Engine) -> None:
        for part in (-1, engine.parts):
            with pytest.raises(InvalidArgument):
                engine.read(part, [b"a"])
            with pytest.raises(InvalidArgument):
                engine.scan(part, b"", b"b", limit=1)
            with pytest.raises(InvalidArgument):
                engine.commit(part, Batch(write={b"a": b"1"}))
            with pytest.raises(InvalidArgument):
                engine.wait(part, 0, 0)
        assert [everything(engine, part) for part in range(engine.parts)] == [[]] * engine.parts


class Contents(EngineTests):
    """Cases of what a batch does to the rows."""

    def test_a_write_replaces_and_none_removes(self, engine: Engine) -> None:
        put(engine, a=b"1", b=b"1", c=b"1")
        engine.commit(0, Batch(write={b"a": b"2", b"b": None}))
        assert everything(engine) == [Row(b"a", b"2", 2), Row(b"c", b"1", 1)]
        assert engine.read(0, [b"b"]) == [None]

    def test_removing_what_is_absent_is_no_error(self, engine: Engine) -> None:
        assert engine.commit(0, Batch(write={b"a": None}, clear=[(b"x", b"z")])) == 1
        assert everything(engine) == []

    def test_a_value_may_be_empty_and_hold_any_byte(self, engine: Engine) -> None:
        value = bytes(range(256))
        put(engine, a=b"", b=value)
        assert engine.read(0, [b"a", b"b"]) == [Row(b"a", b"", 1), Row(b"b", value, 1)]

    def test_a_key_may_hold_any_byte(self, engine: Engine) -> None:
        keys = [bytes([number]) for number in range(256)] + [b"\0\0", b"a\0", b"a\0b", b"\xff\xff"]
        engine.commit(0, Batch(write={key: key for key in keys}))
        assert [(row.key, row.value) for row in everything(engine)] == [(key, key) for key in sorted(keys)]
        assert engine.read(0, keys) == [Row(key, key, 1) for key in keys]

    def test_clear_takes_its_first_key_and_leaves_its_last(self, engine: Engine) -> None:
        put(engine, a=b"", b=b"", bb=b"", c=b"", d=b"")
        engine.commit(0, Batch(clear=[(b"b", b"c"), (b"d", b"e"), (b"d", b"d"), (b"z", b"a")]))
        assert everything(engine) == [Row(b"a", b"", 1), Row(b"c", b"", 1)]
        assert engine.read(0, [b"b", b"d"]) == [None, None]

    def test_clear_comes_before_write_add_and_append(self, engine: Engine) -> None:
        engine.commit(0, Batch(write={b"a": b"1", b"b": b"1"}, add={b"n": 5}))
        clear = [(b"a", b"z")]
        engine.commit(0, Batch(clear=clear, write={b"a": b"2"}, add={b"n": 1}, append=[(b"f", b"x")]))
        rows = [Row(b"a", b"2", 2), Row(stamped(b"f", 2, 0), b"x", 2), Row(b"n", write_counter(1), 2)]
        assert everything(engine) == rows

    def test_write_comes_before_add(self, engine: Engine) -> None:
        engine.commit(0, Batch(add={b"n": 100, b"m": 100}))
        engine.commit(0, Batch(write={b"n": write_counter(7), b"m": None}, add={b"n": 3, b"m": 3}))
        assert everything(engine) == [Row(b"m", write_counter(3), 2), Row(b"n", write_counter(10), 2)]

    def test_append_comes_last(self, engine: Engine) -> None:
        key = stamped(b"f", 1, 0)
        engine.commit(0, Batch(write={key: b"written"}, append=[(b"f", b"appended")]))
        assert everything(engine) == [Row(key, b"appended", 1)]

    def test_appended_keys_are_stamped_with_version_and_index(self, engine: Engine) -> None:
        for _ in range(3):
            engine.commit(0, Batch(append=[(b"f", b"x"), (b"g", b"y"), (b"f", b"z")]))
        expected = [(b"f", version, index) for version in (1, 2, 3) for index in (0, 2)]
        assert [row.key for row in engine.scan(0, b"f", b"g", limit=99)] == [stamped(*pair) for pair in expected]
        assert engine.scan(0, b"g", b"h", limit=1) == [Row(b"g" + bytes([0] * 7 + [1]) + b"\0\1", b"y", 1)]

    def test_an_absent_counter_is_zero(self, engine: Engine) -> None:
        engine.commit(0, Batch(add={b"n": 5, b"zero": 0}))
        assert engine.read(0, [b"n", b"zero"]) == [
            Row(b"n", b"\0\0\0\0\0\0\0\5", 1),
            Row(b"zero", b"\0\0\0\0\0\0\0\0", 1),
        ]

    def test_counters_are_eight_bytes_and_signed(self, engine: Engine) -> None:
        engine.commit(0, Batch(add={b"n": -3}))
        assert value_of(engine, b"n") == b"\xff\xff\xff\xff\xff\xff\xff\xfd"
        engine.commit(0, Batch(add={b"n": 2}))
        assert read_counter(value_of(engine, b"n")) == -1
        engine.commit(0, Batch(add={b"big": INT64_MAX, b"small": -INT64_MAX}))
        values = [read_counter(value_of(engine, key)) for key in (b"big", b"small")]
        assert values == [INT64_MAX, -INT64_MAX]

    def test_add_sets_the_version_of_its_row(self, engine: Engine) -> None:
        engine.commit(0, Batch(add={b"n": 1}))
        put(engine, a=b"")
        engine.commit(0, Batch(add={b"n": 0}))
        assert engine.read(0, [b"n"]) == [Row(b"n", write_counter(1), 3)]

    def test_a_counter_beyond_64_bits_is_refused_and_nothing_changes(self, engine: Engine) -> None:
        engine.commit(0, Batch(write={b"a": b"1"}, add={b"big": INT64_MAX, b"small": -INT64_MAX}))
        for add in ({b"big": 1}, {b"small": -1}, {b"new": 1 << 64}):
            batch = Batch(clear=[(b"a", b"b")], write={b"c": b""}, add={b"m": 1, **add}, append=[(b"f", b"")])
            with nothing_changes(engine), pytest.raises(InvalidArgument):
                engine.commit(0, batch)
        assert put(engine, a=b"2") == 2

    def test_adds_never_conflict(self, engine: Engine) -> None:
        def add(_: int) -> None:
            for _ in range(5):
                engine.commit(0, Batch(add={b"n": 1, b"m": -2}))

        assert at_once(8, add) == [None] * 8
        values = [read_counter(value_of(engine, key)) for key in (b"n", b"m")]
        assert (values, version_of(engine)) == ([40, -80], 40)


class Expectations(EngineTests):
    """Cases of what may stop a batch."""

    def test_a_met_expectation_lets_the_batch_commit(self, engine: Engine) -> None:
        put(engine, a=b"1", b=b"1")
        assert engine.commit(0, Batch(expect={b"a": 1, b"b": 1, b"c": 0}, write={b"a": b"2"})) == 2
        assert engine.commit(0, Batch(expect={b"a": 2, b"b": 1}, write={b"a": b"3"})) == 3
        assert value_of(engine, b"a") == b"3"

    def test_a_conflict_names_key_expected_and_actual(self, engine: Engine) -> None:
        put(engine, a=b"1", good=b"")
        put(engine, a=b"2")
        for key, expected, actual in ((b"a", 1, 2), (b"a", 3, 2), (b"a", 0, 2), (b"absent", 1, 0)):
            with pytest.raises(Conflict) as caught:
                engine.commit(0, Batch(expect={b"good": 1, key: expected}))
            error = caught.value
            assert (error.key, error.expected, error.actual) == (key, expected, actual)
            assert error.retry

    def test_a_conflict_writes_nothing(self, engine: Engine) -> None:
        engine.commit(0, Batch(write={b"a": b"1"}, add={b"n": 1}))
        put(engine, a=b"2")
        batch = Batch(
            expect={b"a": 1},
            write={b"a": b"3", b"b": b""},
            add={b"n": 1},
            append=[(b"f", b"")],
            clear=[(b"", b"\xff")],
        )
        with nothing_changes(engine), pytest.raises(Conflict):
            engine.commit(0, batch)
        assert put(engine, a=b"4") == 3

    def test_absent_means_absent(self, engine: Engine) -> None:
        assert engine.commit(0, Batch(expect={b"a": 0}, write={b"a": b""})) == 1
        with pytest.raises(Conflict):
            engine.commit(0, Batch(expect={b"a": 0}, write={b"a": b"2"}))
        engine.commit(0, Batch(write={b"a": None}))
        assert engine.commit(0, Batch(expect={b"a": 0}, write={b"a": b"3"})) == 3

    def test_a_row_made_again_is_another_row(self, engine: Engine) -> None:
        put(engine, a=b"1")
        engine.commit(0, Batch(write={b"a": None}))
        put(engine, a=b"1")
        with pytest.raises(Conflict):
            engine.commit(0, Batch(expect={b"a": 1}))

    def test_expect_looks_at_the_state_before_its_own_batch(self, engine: Engine) -> None:
        put(engine, a=b"1", b=b"1")
        batch = Batch(expect={b"a": 1, b"b": 1, b"n": 0}, write={b"a": b"2"}, add={b"n": 1}, clear=[(b"b", b"c")])
        assert engine.commit(0, batch) == 2
        with pytest.raises(Conflict):
            engine.commit(0, Batch(expect={b"a": 0}, write={b"a": None}, clear=[(b"a", b"b")]))

    def test_expect_holds_for_rows_written_in_every_way(self, engine: Engine) -> None:
        engine.commit(0, Batch(write={b"a": b""}, add={b"n": 1}, append=[(b"f", b"")]))
        keys = [b"a", b"n", stamped(b"f", 1, 0)]
        assert engine.commit(0, Batch(expect=dict.fromkeys(keys, 1), add={b"n": 1})) == 2
        for key in keys:
            with pytest.raises(Conflict):
                engine.commit(0, Batch(expect={key: 0}))
        with pytest.raises(Conflict):
            engine.commit(0, Batch(expect={b"n": 1}))

    def test_one_of_many_racing_on_a_row_wins(self, engine: Engine) -> None:
        for version in range(5):
            batches = [Batch(expect={b"a": version}, write={b"a": b"%d" % number}) for number in range(8)]
            outcomes = at_once(8, lambda number, batches=batches: engine.commit(0, batches[number]))  # type: ignore[misc]
            winners = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, int)]
            assert len(winners) == 1
            assert all(isinstance(answer, Conflict) for answer in outcomes if not isinstance(answer, int))
            assert engine.read(0, [b"a"]) == [Row(b"a", b"%d" % winners[0], version + 1)]
