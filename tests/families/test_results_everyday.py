"""Results as programs use them every day: many at once, expected revisions, ids that begin alike, unknown types."""

import asyncio
from dataclasses import dataclass

import pytest

import stateroom
from kit.aging import Sizes, keys_left
from kit.databases import BLOCKING, SEVERAL
from kit.faults import over
from stateroom import OMITTED, Result
from stateroom.codec import Codec, Raw
from stateroom.core import turns
from stateroom.engine import Batch
from stateroom.engines.memory import MemoryEngine
from stateroom.errors import AlreadyExists, InvalidArgument, StaleRevision, Undecodable


def test_a_revision_may_be_expected(store):
    results = store.results
    with pytest.raises(StaleRevision) as caught:
        results.put("d", "x", 1, expected_revision=1)
    assert (caught.value.actual, caught.value.expected, caught.value.id) == (0, 1, "d/x")
    assert results.put("d", "x", 1, expected_revision=0).revision == 1
    with pytest.raises(AlreadyExists, match="at revision 1"):
        results.put("d", "x", 2, expected_revision=0)
    assert results.put("d", "x", 2, expected_revision=1).revision == 2
    for expected in (1, 3):
        with pytest.raises(StaleRevision):
            results.put("d", "x", "v" * 300_000, expected_revision=expected)
    for expected in (-1, "1", True, 1.0):
        with pytest.raises(InvalidArgument):
            results.put("d", "x", 3, expected_revision=expected)
    assert (results.get("d", "x"), results.find("d", "x").revision) == (2, 2)


def test_what_has_expired_counts_as_absent(store, clock):
    store.results.put("d", "x", 1, ttl=10)
    clock.advance(10)
    with pytest.raises(StaleRevision):
        store.results.put("d", "x", 2, expected_revision=1)
    assert store.results.put("d", "x", 2, expected_revision=0).revision == 1


def test_many_at_once(store):
    values = {f"r{number}": number for number in range(30)} | {"large": "v" * 100_000, "none": None}
    stored = store.results.put_many("d", values, producer="p", inputs={"a": 1}, ttl=60)
    assert [one.id for one in stored] == list(values)
    assert {one.id: one.value for one in stored} == values
    assert {(one.producer, one.revision) for one in stored} == {("p", 1)}
    assert store.results.gather("d", values) == values
    assert store.results.find("d", "r3") == stored[3]
    assert store.results.count("d") == 32
    assert [one.revision for one in store.results.put_many("d", {"r1": 5, "new": 6})] == [2, 1]
    assert store.results.put_many("d", {}) == ()


def test_what_is_refused_among_many_is_named_and_how_many_were_stored(store, monkeypatch):
    monkeypatch.setattr("stateroom.families.results.family.BATCH_RESULTS", 2)
    values = {"a": 1, "b": 2, "c": 3, "bad": object(), "e": 5}
    with pytest.raises(InvalidArgument, match="'bad'") as caught:
        store.results.put_many("d", values)
    assert caught.value.fields["written"] == 2
    assert caught.value.path == "$.value"
    assert store.results.ids("d") == ("a", "b")
    with pytest.raises(InvalidArgument) as caught:
        store.results.put_many("d", {"": 1})
    assert caught.value.fields["written"] == 0
    for values in ([1], "ab", None, {5: 1}):
        with pytest.raises(InvalidArgument):
            store.results.put_many("d", values)
    with pytest.raises(InvalidArgument):
        store.results.put_many("", {"a": 1})
    with pytest.raises(RuntimeError), store.transaction() as tx:
        assert len(tx.results.put_many("d", {"c": 1, "f": 2, "g": 3})) == 3
        assert tx.results.get("d", "g") == 3
        raise RuntimeError
    assert store.results.ids("d") == ("a", "b")


@BLOCKING
def test_many_take_one_commit_for_a_thousand_and_for_a_mebibyte(database):
    sizes = Sizes(database.raw())
    store = database.over(sizes)
    store.results.put_many("d", {f"r{number}": number for number in range(2500)})
    assert len(sizes.sizes) == 3
    sizes.sizes.clear()
    store.results.put_many("e", {f"r{number}": "v" * 50_000 for number in range(45)})
    assert len(sizes.sizes) == 3


def test_ids_that_begin_alike(store):
    store.results.put_many("d", dict.fromkeys(("a", "ab", "ab/1", "abc", "b", "ż1", "ż2"), 1))
    store.results.put("e", "abx", 1)
    assert store.results.ids("d", id_prefix="ab") == ("ab", "ab/1", "abc")
    first = store.results.query(dag="d", id_prefix="ab", limit=2)
    assert [one.id for one in first] == ["ab", "ab/1"]
    assert [one.id for one in store.results.query(dag="d", id_prefix="ab", cursor=first.cursor)] == ["abc"]
    assert [one.id for one in store.results.scan(dag="d", id_prefix="ż")] == ["ż1", "ż2"]
    assert [(one.dag, one.id) for one in store.results.query(id_prefix="abc")] == [("d", "abc")]
    assert sorted(one.id for one in store.results.scan(id_prefix="ab")) == ["ab", "ab/1", "abc", "abx"]
    with pytest.raises(InvalidArgument):
        store.results.query(dag="d", id_prefix="b", cursor=first.cursor)
    for bad in (5, b"a", "a\0"):
        with pytest.raises(InvalidArgument):
            store.results.query(id_prefix=bad)


def test_a_result_shows_nothing_of_how_it_is_kept(store):
    small, large = store.results.put("d", "s", 1), store.results.put("d", "l", "v" * 100_000)
    assert len(store.results.ids("d", id_prefix="")) == len(store.results.ids("d", id_prefix=None)) == 2
    for one in (small, large, *store.results.query(), store.results.find("d", "l"), store.feed.read().items[1].record):
        assert type(one) is Result
        assert "apart" not in repr(one)
        assert not hasattr(one, "place")
    assert store.results.find("d", "l") == large
    shown = store.results.query(dag="d").items[0]
    assert (shown.value, shown.digest, shown.size) == (OMITTED, large.digest, large.size)


def test_nothing_is_left_of_a_dag_that_was_cleared(store, database):
    before = keys_left(database, b"C", b"V", b"R", b"X")
    for number in range(5):
        dag = f"run-{number}"
        store.results.put(dag, "a", 1, ttl=60)
        store.results.put(dag, "a", 2)
        store.results.put(dag, "b", "v" * 100_000)
        assert store.results.clear(dag) == 2
        store.results.put(dag, "a", 1)
        assert store.results.count(dag) == 1
        assert store.results.clear(dag) == 1
    left = [key for key in keys_left(database, b"C", b"V", b"R", b"X") if key not in before]
    assert left == [b"Cra"] * len(left)  # how many results there are: one row in each part that had any


def test_a_clear_in_a_transaction_with_puts_around_it(store, database):
    store.results.put("d", "old", 1)
    with store.transaction() as tx:
        tx.results.put("d", "x", 1)
        assert tx.results.clear("d") == 2
        assert tx.results.count("d") == 0
        tx.results.put("d", "y", 2)
        assert tx.results.count("d") == 1
    assert (store.results.ids("d"), store.results.count("d")) == (("y",), 1)


@dataclass
class Order:
    n: int


def knowing():
    codec = Codec()
    codec.register(Order, name="order", version=3)
    return codec


@pytest.fixture
def filled(database):
    database.codec = knowing()
    with database.open(codec=knowing()) as store:
        store.results.put("d", "a", 1)
        store.results.put("d", "small", Order(1))
        store.results.put("d", "large", [Order(2), "x" * 100_000])
        store.results.put("d", "inputs", "plain", inputs=Order(3), producer=Order(4))
    return database


@SEVERAL
def test_values_of_unknown_types_are_refused_or_shown_raw(filled):
    with filled.open() as store:
        for id in ("small", "large"):
            for read in (store.results.get, store.results.find):
                with pytest.raises(Undecodable) as caught:
                    read("d", id)
                assert (caught.value.kind, caught.value.id, caught.value.tag) == ("results", f"d/{id}", "order")
        raw = store.results.get("d", "small", raw=True)
        assert (type(raw), raw.name, raw.version, raw.data) == (Raw, "order", 3, {"n": 1})
        assert store.results.find("d", "small", raw=True).value == raw
        assert store.results.get("d", "large", raw=True)[0].data == {"n": 2}
        assert store.results.wait("d", "large", raw=True, timeout=0)[0].data == {"n": 2}
        assert store.results.get("d", "inputs") == "plain"
        assert store.results.find("d", "inputs", raw=True).inputs.data == {"n": 3}
        assert all(store.results.has("d", id) for id in ("small", "large", "inputs"))
        gathered = store.results.gather("d", ["a", "small", "large", "none"])
        assert (gathered["a"], gathered["small"], gathered["large"][0].data) == (1, raw, {"n": 2})
        assert list(gathered) == ["a", "small", "large"]


@SEVERAL
def test_a_raw_value_written_back_is_what_it_was(filled):
    with filled.open() as store:
        digest = store.results.find("d", "small", raw=True).digest
        again = store.results.put("d", "again", store.results.get("d", "small", raw=True))
        assert again.digest == digest
        large = store.results.find("d", "large", raw=True)
        assert store.results.put("d", "large again", large.value).digest == large.digest
    with filled.open(codec=knowing()) as store:
        assert store.results.get("d", "again") == Order(1)
        assert store.results.get("d", "large again")[0] == Order(2)


@SEVERAL
def test_values_of_unknown_types_are_replaced_and_deleted(filled):
    with filled.open() as store:
        assert store.results.put("d", "small", 5).revision == 2
        assert store.results.get("d", "small") == 5
        assert store.results.put("d", "large", 6, expected_revision=1).revision == 2
        assert store.results.delete("d", "inputs")
        assert not store.results.delete("d", "inputs")
    with filled.open(codec=knowing()) as store:
        store.results.put("d", "small", Order(1))
    with filled.open() as store:
        assert store.results.delete("d", "small")
        assert store.results.ids("d") == ("a", "large")


@SEVERAL
def test_values_of_unknown_types_expire_and_hold_up_no_other(database, clock):
    with database.open(codec=knowing()) as store:
        store.results.put("d", "first", Order(1), ttl=1)
        store.results.put_many("d", {f"r{number}": number for number in range(150)}, ttl=2)
        store.results.put("d", "kept", Order(2))
    clock.advance(3)
    with database.open() as store:
        store.retention.run()
        assert keys_left(database, b"VX") == []
        assert store.results.ids("d") == ("kept",)
        assert store.results.count("d") == 1
    database.codec = knowing()


def test_damaged_results_that_expired_hold_up_no_other(clock):
    engine = MemoryEngine()
    store = over(engine, clock)
    store.results.put_many("d", {f"r{number:03}": number for number in range(250)}, ttl=1)
    for number in (0, 7, 120, 249):
        (row,) = engine.read(0, [b"n\0Rrd\0r%03d\0" % number])
        engine.commit(0, Batch(write={row.key: row.value[:-1] + b"?"}))
    clock.advance(5)
    assert store.retention.run(max_records=10_000).families["expired"] == 246
    assert store.retention.run(max_records=10_000).families["expired"] == 0
    assert len(engine.scan(0, b"n\0Rr", b"n\0Rs", limit=1000)) == 4


def test_large_values_leave_the_event_loop(monkeypatch):
    calls = []
    original = asyncio.to_thread

    async def counted(function, *args):
        calls.append(function)
        return await original(function, *args)

    monkeypatch.setattr(turns.asyncio, "to_thread", counted)

    async def work():
        async with await stateroom.open_async("memory:") as store:
            value = [float(number) for number in range(300_000)]
            await store.results.put("d", "x", value)
            assert len(calls) == 1  # encoded
            assert await store.results.get("d", "x") == value
            assert len(calls) == 2  # decoded
            await store.results.put("d", "small", [1] * 100)
            assert len(calls) == 2

            async def compute():
                return 1

            await store.results.memo("d", "f", {"deep": value}, compute)
            assert len(calls) == 3  # inputs hashed and encoded

    asyncio.run(work())


def test_long_loops_give_way(monkeypatch):
    ways = []
    original = asyncio.sleep

    async def counted(seconds, *more):
        ways.append(seconds)
        await original(seconds, *more)

    monkeypatch.setattr(turns.asyncio, "sleep", counted)

    async def work():
        async with await stateroom.open_async("memory:") as store:
            await store.results.put_many("d", {f"r{number}": number for number in range(3000)})
            ways.clear()
            await store.results.ids("d")
            assert len(ways) >= 2
            ways.clear()
            assert await store.results.clear("d") == 3000
            assert len(ways) >= 3000 // 256
            value = bytes(range(256)) * (40 << 12)  # 40 MiB: ten steps of 4 MiB
            ways.clear()
            await store.results.put("d", "large", value)
            assert len(ways) >= 10
            ways.clear()
            assert await store.results.get("d", "large") == value
            assert len(ways) >= 10

    asyncio.run(work())


@pytest.mark.parametrize(
    ("value", "large"),
    [
        (1, False), ("x" * 100, False), (None, False), ([1] * 100, False), ({"a": [1, 2]}, False),
        ("x" * 2_000_000, True), (["x" * 600_000] * 2, True), ({"a": {"b": "x" * 2_000_000}}, True),
        ([1] * 10_000, True), ([[1] * 100] * 100, True), ({1: (2, {3})}, False), ({"x" * 2_000_000: 1}, True),
    ],
)  # fmt: skip
def test_what_is_large(value, large):
    assert turns.is_large(value) is large


def test_what_contains_itself_is_looked_at_no_longer_than_that():
    loop = []
    loop.append(loop)
    assert turns.is_large(loop)
