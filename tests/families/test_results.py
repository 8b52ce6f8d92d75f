"""Results: Handoff's cases in one process (HND-..), its hazards absent, and what the API adds."""

import io
import pickle
import threading
from datetime import timedelta
from hashlib import sha256

import pytest

from kit.aging import keys_left
from kit.databases import BLOCKING
from kit.faults import over
from stateroom import OMITTED, Result
from stateroom.core.bridge import run_now
from stateroom.engine import Batch
from stateroom.engines.memory import MemoryEngine
from stateroom.engines.wrap import Recording
from stateroom.errors import Closed, Conflict, InvalidArgument, NotFound, Timeout
from stateroom.families.results.clear import expire
from stateroom.values import wrapper

LIMIT = 64 << 10


# --- what Handoff does ---


def test_hnd_s01_the_same_id_under_two_dags(store):
    store.results.put("dag-a", "x", 1)
    store.results.put("dag-b", "x", 2)
    assert (store.results.get("dag-a", "x"), store.results.get("dag-b", "x")) == (1, 2)


def test_hnd_s02_another_dag_or_an_unknown_id(store):
    store.results.put("dag-a", "x", 1)
    for dag, id in (("dag-b", "x"), ("dag-a", "y")):
        with pytest.raises(NotFound) as caught:
            store.results.get(dag, id)
        assert caught.value.id == f"{dag}/{id}"
        assert store.results.find(dag, id) is None


def test_hnd_s03_has_is_scoped(store):
    store.results.put("dag-a", "x", None)
    assert store.results.has("dag-a", "x") is True
    assert store.results.has("dag-b", "x") is False
    assert store.results.has("dag-a", "y") is False


def test_hnd_s04_clear_removes_one_dag_only(store):
    """Handoff matches patterns: there a DAG named like a wildcard empties the store."""
    dags = ("a", "a/b", "a%", "a_", "_", "%", "A", "ab", "a*", ":_", "a b", "é")
    for dag in dags:
        store.results.put(dag, "x", dag)
        store.results.put(dag, "y/z", dag, ttl=5)
    left = set(dags)
    for dag in ("a", "_", "%", ":_", "a/b"):
        assert store.results.clear(dag) == 2
        assert store.results.clear(dag) == 0
        left.remove(dag)
        assert {one.dag for one in store.results.scan()} == left
    for dag in left:
        assert store.results.gather(dag, ["x", "y/z"]) == {"x": dag, "y/z": dag}
        assert store.results.ids(dag) == ("x", "y/z")


def test_hnd_s05_values_of_each_dag(store, reopen):
    for dag in ("a", "b"):
        for id in ("x", "y"):
            store.results.put(dag, id, [dag, id])
    again = reopen()
    assert [[again.results.get(dag, id) for id in ("x", "y")] for dag in ("a", "b")] == [
        [["a", "x"], ["a", "y"]],
        [["b", "x"], ["b", "y"]],
    ]


def test_hnd_s06_an_id_of_another_dag_is_not_waited_for(store):
    store.results.put("a", "x", 1)
    with pytest.raises(Timeout):
        store.results.wait("b", "x", timeout=0)


def test_hnd_d06_a_result_that_is_there_is_returned(store):
    store.results.put("a", "x", None)
    assert store.results.wait("a", "x", timeout=0) is None


def test_hnd_d07_a_missing_one_times_out(store):
    with pytest.raises(Timeout):
        store.results.wait("a", "x", timeout=0.01)
    with pytest.raises(InvalidArgument):
        store.results.wait("a", "x", timeout=-1)


def test_hnd_d08_stored_later_it_is_waited_for(store, other):
    """Handoff looks every 100 ms; here the write wakes the waiting call, which may wait for a minute."""
    got = []
    waiting = threading.Thread(target=lambda: got.append(store.results.wait("a", "x", timeout=60)))
    waiting.start()
    other.results.put("a", "other", 1)
    assert got == []
    other.results.put("a", "x", False)
    waiting.join(60)
    assert got == [False]


@pytest.mark.parametrize("value", [None, False, 0, "", b"", [], {}, 0.0, (), 1.5, {"a": (1, b"x")}])
def test_any_value_is_a_value(store, reopen, value):
    store.results.put("a", "x", value)
    again = reopen()
    found = again.results.get("a", "x")
    assert (found, type(found)) == (value, type(value))
    assert again.results.has("a", "x")


def test_ids_compare_exactly(store):
    for id in ("1", "1.0", "x", "X", "x ", "x/y", "x%", "x*"):
        store.results.put("a", id, id)
    assert store.results.ids("a") == tuple(sorted(("1", "1.0", "x", "X", "x ", "x/y", "x%", "x*")))
    assert store.results.delete("a", "x") is True
    assert store.results.delete("a", "x") is False
    assert len(store.results.ids("a")) == 7
    with pytest.raises(InvalidArgument):
        store.results.get("a", 1)


# --- the record ---


def test_put_and_find(store, other, clock):
    made = store.results.put("a", "x", {"n": 1}, producer="worker-1", inputs=["raw", 3], ttl=timedelta(seconds=9))
    assert made.revision == 1
    assert (made.producer, made.inputs, made.expires_at) == ("worker-1", ["raw", 3], clock.now() + timedelta(seconds=9))
    assert other.results.find("a", "x") == made
    clock.advance(1)
    again = other.results.put("a", "x", {"n": 2})
    assert (again.revision, again.created_at, again.updated_at) == (2, made.created_at, clock.now())
    assert (again.producer, again.inputs, again.expires_at) == (None, None, None)
    assert store.results.find("a", "x") == again
    assert store.results.put("b", "y", {"n": 2}).digest == again.digest != made.digest


def test_digest_and_size(store):
    made = store.results.put("a", "x", b"payload")
    assert (made.digest, made.size) == (sha256(b"payload").hexdigest(), 7)
    assert store.results.put_stream("a", "y", io.BytesIO(b"payload")).digest == made.digest


@pytest.mark.parametrize(
    "arguments",
    [
        {"dag": ""}, {"id": " "}, {"id": "a\0"}, {"dag": "d" * 257}, {"id": 3}, {"dag": None}, {"ttl": 0}, {"ttl": -1},
        {"ttl": True}, {"ttl": "5"}, {"ttl": timedelta()}, {"value": object()}, {"inputs": object()},
        {"producer": object()},
    ],
)  # fmt: skip
def test_arguments_that_are_not_allowed(store, arguments):
    with pytest.raises(InvalidArgument):
        store.results.put(**{"dag": "a", "id": "x", "value": 1, **arguments})
    assert store.results.query().items == ()


def test_a_refused_value_says_where(store):
    with pytest.raises(InvalidArgument) as caught:
        store.results.put("a", "x", {"k": [1, object()]})
    assert caught.value.path == "$.value.k[1]"


# --- large values ---


@pytest.mark.parametrize("make", [lambda size: b"v" * size, lambda size: "v" * (size - 3)], ids=["bytes", "text"])
def test_a_value_over_64_kib_is_omitted_from_pages_and_changes(store, make):
    """A text of n bytes under 64 KiB is encoded in n + 3."""
    small, large = make(LIMIT), make(LIMIT + 1)
    first = store.results.put("a", "small", small, inputs=["i" * 1000])
    second = store.results.put("a", "large", large)
    assert (first.value, second.value) == (small, large)
    assert second.size == LIMIT + 1
    assert [one.value for one in store.results.query()] == [OMITTED, small]
    assert [one.value for one in store.results.scan(dag="a")] == [OMITTED, small]
    page = store.results.query().items[0]
    assert (page.digest, page.size) == (second.digest, second.size)
    assert store.results.get("a", "large") == large
    assert store.results.find("a", "large") == second
    assert store.results.gather("a", ["large", "none"]) == {"large": large}
    told = [change.record for change in store.feed.read(families=["results"]).items]
    assert [one.value for one in told] == [small, OMITTED]
    assert told[1].digest == second.digest


def test_omitted_is_itself_everywhere():
    assert pickle.loads(pickle.dumps(OMITTED)) is OMITTED
    assert repr(OMITTED) == str(OMITTED) == "OMITTED"
    assert bool(OMITTED) is True


def test_paging_reads_no_chunk():
    engine = Recording(MemoryEngine())
    store = over(engine)
    for number in range(5):
        store.results.put("a", f"x{number}", bytes([number]) * 200_000)
    engine.clear()
    assert len(store.results.query(dag="a")) == 5
    assert len(store.feed.read().items) == 5
    touched = [str(call.what) for call in engine.calls]
    assert not any("BC" in what for what in touched), touched
    store.results.get("a", "x1")
    assert any("BC" in str(call.what) for call in engine.calls)


def _chunks(engine):
    return sum(row.key.startswith((b"n\0BC", b"n\0BN", b"n\0BU")) for row in engine.scan(0, b"", b"\xff", limit=10_000))


def test_chunks_go_with_what_refers_to_them():
    engine = MemoryEngine()
    store = over(engine)
    store.results.put("a", "x", b"v" * 300_000)
    store.results.put("b", "y", b"v" * 300_000)
    shared = _chunks(engine)
    store.results.put("a", "x", "small")
    assert _chunks(engine) == shared
    assert store.results.get("b", "y") == b"v" * 300_000
    store.results.delete("b", "y")
    assert _chunks(engine) == 0
    store.results.put("a", "x", b"w" * 300_000, ttl=5)
    store.results.put("a", "y", "i" * 300_000, inputs="i" * 300_000)
    assert store.check() == []
    store.results.clear("a")
    assert store.check() == []


# --- streams ---


@pytest.mark.parametrize("size", [0, 10, LIMIT, LIMIT + 1, 3_000_000])
def test_streams(store, size):
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    made = store.results.put_stream("a", "x", io.BytesIO(data), producer="p", ttl=60)
    assert (made.size, made.digest, made.producer) == (size, sha256(data).hexdigest(), "p")
    assert made.value == (data if size <= LIMIT else OMITTED)
    assert store.results.get("a", "x") == data
    file = store.results.open("a", "x")
    assert file.read(7) == data[:7]
    assert file.read() == data[7:]
    assert file.read() == b""
    file.close()
    blocks = [data[at : at + 1000] for at in range(0, size, 1000)]
    assert store.results.put_stream("a", "y", blocks).digest == made.digest
    assert store.results.open("a", "y").read() == data


def test_a_stream_that_breaks_changes_nothing(store):
    store.results.put("a", "x", "before")

    def source():
        yield b"v" * 300_000
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        store.results.put_stream("a", "x", source())
    for wrong in (5, "text", b"bytes", None, [b"a", "b"]):
        with pytest.raises(InvalidArgument):
            store.results.put_stream("a", "x", wrong)
    assert store.results.get("a", "x") == "before"
    assert store.feed.read().items[-1].op == "create"


def test_open_what_is_no_stream(store):
    store.results.put("a", "x", {"not": "bytes"})
    store.results.put("a", "large", "text" * LIMIT)
    for id in ("x", "large"):
        with pytest.raises(InvalidArgument):
            store.results.open("a", id)
    with pytest.raises(NotFound):
        store.results.open("a", "none")
    store.results.put("a", "bytes", b"z" * 200_000)
    assert store.results.open("a", "bytes").read() == b"z" * 200_000


def test_a_stream_in_a_transaction(store):
    with pytest.raises(ValueError, match="no"), store.transaction() as tx:
        tx.results.put_stream("a", "x", [b"v" * 300_000])
        assert tx.results.get("a", "x") == b"v" * 300_000
        raise ValueError("no")
    assert store.results.find("a", "x") is None
    with store.transaction() as tx:
        tx.results.put_stream("a", "x", [b"v" * 300_000])
        tx.results.put("a/y", "y", 1)
        with pytest.raises(InvalidArgument):
            tx.results.put_stream("b", "x", [b""])
    assert store.results.get("a", "x") == b"v" * 300_000


def test_replaced_while_it_is_read(store):
    store.results.put("a", "x", b"1" * 10_000_000)
    file = store.results.open("a", "x")
    assert file.read(1) == b"1"
    store.results.put("a", "x", b"2" * 10_000_000)
    with pytest.raises(Conflict):
        while file.read(1_000_000):
            pass


# --- expiry ---


def test_an_expired_result_is_absent_to_every_read(store, clock):
    store.results.put("a", "x", 1, ttl=10)
    store.results.put("a", "large", b"v" * 300_000, ttl=10)
    store.results.put("a", "y", 2)
    clock.advance(9.999)
    assert store.results.ids("a") == ("large", "x", "y")
    assert store.results.count("a") == 3
    clock.advance(0.001)
    assert store.results.find("a", "x") is None
    assert store.results.has("a", "x") is False
    for id in ("x", "large"):
        with pytest.raises(NotFound):
            store.results.get("a", id)
        with pytest.raises(NotFound):
            store.results.open("a", id)
    with pytest.raises(Timeout):
        store.results.wait("a", "x", timeout=0)
    assert store.results.ids("a") == ("y",)
    assert store.results.count("a") == 1
    assert [one.id for one in store.results.query(dag="a")] == ["y"]
    assert [one.id for one in store.results.scan()] == ["y"]
    assert store.results.gather("a", ["x", "y"]) == {"y": 2}
    assert store.results.delete("a", "x") is False
    anew = store.results.put("a", "x", 3)
    assert (anew.revision, store.results.ids("a")) == (1, ("x", "y"))
    assert store.results.clear("a") == 2


@BLOCKING
def test_expired_results_are_removed(store, clock):
    for number in range(250):
        store.results.put(
            f"dag{number % 7}", f"x{number}", b"v" * 70_000 if number % 50 == 0 else number, ttl=number + 1
        )
    store.results.put("dag0", "x0", "kept: it was written again")
    clock.advance(150)
    scope = store._scope
    assert run_now(expire(scope, clock.now(), limit=10)) == 10
    assert store.check() == []
    assert run_now(expire(scope, clock.now())) == 139
    assert run_now(expire(scope, clock.now())) == 0
    assert store.check() == []
    assert len(list(store.results.scan())) == 101
    assert sum(store.results.count(f"dag{number}") for number in range(7)) == 101
    assert [change.op for change in store.feed.read(ops=["delete"], limit=1000).items] == ["delete"] * 149


# --- clear, feed, transactions ---


@BLOCKING
def test_clear_makes_one_change_however_many_there_are(store, database):
    with store.transaction() as tx:
        for number in range(1500):
            tx.results.put("a", f"x{number}", number, ttl=number + 1 if number % 3 == 0 else None)
    for number in range(150):
        store.results.put("a", f"large{number}", number.to_bytes(2, "big") * 40_000)
    store.results.put("a/b", "x", 1)
    before = store.feed.latest()
    recording = Recording(database.raw())
    assert database.over(recording).results.clear("a") == 1650
    assert recording.count("commit") == 1
    assert [(change.op, change.id, change.key, change.record) for change in store.feed.read(before).items] == [
        ("delete", "a", ("a",), None)
    ]
    assert store.results.ids("a") == ()
    assert store.results.get("a/b", "x") == 1
    codes = {problem.code for problem in store.check()}
    assert codes <= {"upload-expired"}

    run_now(wrapper.expire_uploads(store._scope, store._scope.clock.now()))
    assert store.check() == []
    assert keys_left(database, b"B") == []
    assert store.results.put("a", "x1", 1).revision == 1


def test_the_feed(store):
    first = store.results.put("a", "x", 1)
    second = store.results.put("a", "x", 2)
    store.results.delete("a", "x")
    changes = store.feed.read(families=["results"]).items
    assert [change.op for change in changes] == ["create", "update", "delete"]
    assert [(change.record, change.previous) for change in changes] == [(first, None), (second, first), (None, second)]
    assert {(change.id, change.key) for change in changes} == {("a", ("a", "x"))}
    assert store.feed.read(ids=[("a", "x")]).items == store.feed.read(ids=["a"]).items == changes


def test_in_a_transaction(store):
    store.results.put("a", "old", 0)
    with store.transaction() as tx:
        tx.results.put("a", "x", 1)
        tx.results.put("a/b", "x", b"v" * 300_000)
        assert tx.results.ids("a") == ("old", "x")
        assert tx.results.get("a/b", "x") == b"v" * 300_000
        assert tx.results.clear("a") == 2
        assert (tx.results.ids("a"), tx.results.count("a")) == ((), 0)
        tx.results.put("a", "y", 2)
        assert store.results.ids("a") == ("old",)
        for refused in (lambda: tx.results.wait("a", "x"), lambda: tx.results.memo("a", "f", 1, lambda: 1)):
            with pytest.raises(InvalidArgument):
                refused()
    assert store.results.ids("a") == ("y",)
    assert store.results.ids("a/b") == ("x",)


def test_query_pages(store):
    for dag in ("a", "ab", "b"):
        for number in range(5):
            store.results.put(dag, f"x{number}", number)
    pages, cursor = [], None
    while True:
        page = store.results.query(limit=4, cursor=cursor)
        pages.append([(one.dag, one.id) for one in page])
        cursor = page.cursor
        if cursor is None:
            break
    assert [len(page) for page in pages] == [4, 4, 4, 3]
    assert [one for page in pages for one in page] == sorted(
        (dag, f"x{number}") for dag in ("a", "ab", "b") for number in range(5)
    )
    assert [one.id for one in store.results.query(dag="a")] == [f"x{number}" for number in range(5)]
    with pytest.raises(TypeError):
        store.results.query(producer="x")


def test_closed(store, database):
    gone = database.open()
    gone.close()
    for call in (
        lambda: gone.results.put("a", "x", 1), lambda: gone.results.get("a", "x"), lambda: gone.results.clear("a"),
        lambda: gone.results.wait("a", "x"), lambda: gone.results.memo("a", "f", 1, lambda: 1),
        lambda: gone.results.put_stream("a", "x", [b"v" * 300_000]), lambda: gone.results.open("a", "x"),
    ):  # fmt: skip
        with pytest.raises(Closed):
            call()


def test_check_finds_a_result_that_would_never_expire():
    engine = MemoryEngine()
    store = over(engine)
    store.results.put("a", "x", 1, ttl=5)
    (row,) = engine.scan(0, b"n\0VX", b"n\0VY", limit=10)
    engine.commit(0, Batch(write={row.key: None}))
    assert [problem.code for problem in store.check()] == ["index-missing"]


def test_a_result_made_by_hand_has_no_revision():
    made = Result("a", "x", 1)
    assert (made.revision, made.created_at, made.updated_at, made.expires_at) == (0, None, None, None)
