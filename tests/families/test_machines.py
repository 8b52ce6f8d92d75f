"""Machines: what Finitomata's persistency does (FIN-..), its defects absent, and what the API adds."""

import pytest

import stateroom
from kit.faults import over
from stateroom import OMITTED, Failure, Snapshot
from stateroom.codec import ErrorRecord
from stateroom.core.bridge import run_now
from stateroom.engines.memory import MemoryEngine
from stateroom.errors import AlreadyExists, Closed, InvalidArgument, NotFound, StaleRevision, Timeout, WrongState
from stateroom.records.dependents import sweep

RULES = {"idle": {"start": "running"}, "running": {"pause": "idle", "finish": "done", "retry": "running"}}


def define(store, **options):
    return store.machines.define("order", RULES, initial="idle", final=("done",), **options)


# --- what Finitomata does ---


def test_fin_01_what_was_saved_is_loaded_after_a_restart(store, reopen):
    saved = store.machines.save("order", "o-1", "paid", {"amount": 5}, event="pay", event_payload=("card", 5))
    assert saved == Snapshot(
        "order", "o-1", "paid", {"amount": 5}, event="pay", event_payload=("card", 5),
        revision=1, created_at=saved.created_at, updated_at=saved.updated_at,
    )  # fmt: skip
    assert reopen().machines.load("order", "o-1") == saved


def test_fin_02_the_last_save_wins_and_remembers_where_it_came_from(store, other, clock):
    first = store.machines.save("order", "o-1", "idle", None)
    clock.advance(3)
    second = other.machines.save("order", "o-1", "running", False, event="start")
    assert (first.previous_state, second.previous_state) == (None, "idle")
    assert (second.revision, second.created_at, second.updated_at) == (2, first.created_at, clock.now())
    assert store.machines.load("order", "o-1") == second


def test_fin_03_nothing_there(store):
    assert store.machines.find("order", "o-1") is None
    with pytest.raises(NotFound) as caught:
        store.machines.load("order", "o-1")
    assert caught.value.id == "order/o-1"


def test_fin_04_equal_names_of_different_machines_are_different_records(store):
    """Finitomata keys by the bare name: there the second machine loads and overwrites the first."""
    pairs = [("order", "x"), ("ship", "x"), ("order", "x/y"), ("order/x", "y"), ("orde", "rx"), ("order", "X")]
    for machine, name in pairs:
        store.machines.save(machine, name, "on", [machine, name])
        store.machines.fail(machine, name, machine + name)
    for machine, name in pairs:
        assert store.machines.load(machine, name).payload == [machine, name]
        assert store.machines.last_error(machine, name).reason == machine + name
        assert len(store.machines.history(machine, name)) == 1
    assert store.machines.purge("order", "x")
    assert [(one.machine, one.name) for one in store.machines.scan()] == sorted(set(pairs) - {("order", "x")})
    assert store.machines.last_error("ship", "x").reason == "shipx"
    assert len(store.machines.history("ship", "x")) == 1


def test_fin_05_a_failure_keeps_the_good_snapshot(store, reopen, clock):
    good = store.machines.save("order", "o-1", "running", {"n": 1})
    clock.advance(1)
    try:
        raise ValueError("no stock")
    except ValueError as error:
        failure = store.machines.fail("order", "o-1", error, event="ship", event_payload=7, info={"try": 2})
    assert (failure.machine, failure.name, failure.event, failure.event_payload) == ("order", "o-1", "ship", 7)
    assert (failure.state, failure.payload, failure.info, failure.at) == ("running", {"n": 1}, {"try": 2}, clock.now())
    assert isinstance(failure.reason, ErrorRecord)
    assert (failure.reason.type, failure.reason.message) == ("ValueError", "no stock")
    assert "test_machines.py" in failure.reason.traceback
    again = reopen()
    assert again.machines.load("order", "o-1") == good
    assert again.machines.last_error("order", "o-1") == failure


def test_fin_06_a_success_does_not_clear_the_last_error(store):
    store.machines.save("order", "o-1", "idle", 1)
    store.machines.fail("order", "o-1", "first")
    store.machines.fail("order", "o-1", "second")
    store.machines.save("order", "o-1", "running", 2)
    assert store.machines.last_error("order", "o-1").reason == "second"
    assert store.machines.clear_error("order", "o-1") is True
    assert store.machines.last_error("order", "o-1") is None
    assert store.machines.clear_error("order", "o-1") is False
    assert store.machines.load("order", "o-1").revision == 2


def test_fin_07_a_failure_before_the_first_snapshot(store):
    failure = store.machines.fail("order", "o-1", "did not start")
    assert (failure.state, failure.payload) == (None, None)
    assert store.machines.last_error("order", "o-1") == failure
    assert store.machines.find("order", "o-1") is None
    assert store.feed.read().items == ()
    assert store.machines.purge("order", "o-1") is True
    assert store.machines.last_error("order", "o-1") is None


def test_fin_08_purge_removes_everything_and_may_be_repeated(store):
    store.machines.save("order", "o-1", "idle", 1)
    store.machines.save("order", "o-1", "running", 1)
    store.machines.fail("order", "o-1", "x")
    before = store.feed.latest()
    assert store.machines.purge("order", "o-1") is True
    assert store.machines.find("order", "o-1") is None
    assert store.machines.last_error("order", "o-1") is None
    assert len(store.machines.history("order", "o-1")) == 0
    assert store.machines.count("order") == 0
    assert [(change.op, change.key) for change in store.feed.read(before).items] == [("delete", ("order", "o-1"))]
    assert store.machines.purge("order", "o-1") is False
    assert store.machines.save("order", "o-1", "idle", 1).revision == 1
    assert [one.revision for one in store.machines.history("order", "o-1")] == [1]


def test_fin_09_a_final_state_reloads_as_final(store, reopen):
    define(store)
    for state in ("idle", "running", "done"):
        store.machines.save("order", "o-1", state, None)
    again = reopen()
    assert again.machines.load("order", "o-1").state == "done"
    for state, event in (("idle", None), ("running", "pause"), ("done", "finish")):
        with pytest.raises(WrongState) as caught:
            again.machines.save("order", "o-1", state, None, event=event)
        assert (caught.value.actual, caught.value.terminal) == ("done", True)
    assert again.machines.save("order", "o-1", "done", "late note").payload == "late note"


def test_fin_10_a_store_that_is_not_open_is_an_error(store, database):
    """Finitomata answers ok or nil for a missing table, and the data is lost."""
    gone = database.open()
    gone.close()
    for call in (
        lambda: gone.machines.save("order", "o-1", "idle", 1),
        lambda: gone.machines.load("order", "o-1"),
        lambda: gone.machines.find("order", "o-1"),
        lambda: gone.machines.fail("order", "o-1", "x"),
        lambda: gone.machines.last_error("order", "o-1"),
        lambda: gone.machines.clear_error("order", "o-1"),
        lambda: gone.machines.purge("order", "o-1"),
        lambda: gone.machines.history("order", "o-1"),
        lambda: gone.machines.count("order"),
        lambda: gone.machines.query(),
        lambda: gone.machines.define("order", {}),
        lambda: gone.machines.definition("order"),
        lambda: gone.machines.wait("order", "o-1", bool, timeout=0),
    ):
        with pytest.raises(Closed):
            call()
    assert store.machines.find("order", "o-1") is None


def test_fin_11_a_refused_transition_writes_nothing(store):
    """Finitomata 0.41 stores only what is allowed; 0.40 stored first and went back in memory alone."""
    define(store)
    good = store.machines.save("order", "o-1", "idle", 1)
    position = store.feed.latest()
    with pytest.raises(WrongState) as caught:
        store.machines.save("order", "o-1", "done", 2)
    assert (caught.value.actual, caught.value.expected, caught.value.terminal) == (
        "idle",
        frozenset({"running"}),
        False,
    )
    assert store.machines.load("order", "o-1") == good
    assert [one.revision for one in store.machines.history("order", "o-1")] == [1]
    assert store.feed.read(position).items == ()


def test_fin_12_a_payload_that_cannot_be_kept_is_refused_with_its_path(store):
    store.machines.save("order", "o-1", "idle", 1)
    with pytest.raises(InvalidArgument) as caught:
        store.machines.save("order", "o-1", "idle", {"a": [1, object()]})
    assert caught.value.path == "$.payload.a[1]"
    with pytest.raises(InvalidArgument):
        store.machines.fail("order", "o-1", "x", info=object())
    assert store.machines.load("order", "o-1").payload == 1
    assert store.machines.last_error("order", "o-1") is None


# --- conditions ---


def test_from_state(store):
    with pytest.raises(WrongState) as caught:
        store.machines.save("order", "o-1", "running", 1, from_state="idle")
    assert caught.value.actual is None
    store.machines.save("order", "o-1", "idle", 1)
    with pytest.raises(WrongState) as caught:
        store.machines.save("order", "o-1", "running", 1, from_state="paused")
    assert (caught.value.actual, caught.value.expected) == ("idle", frozenset({"paused"}))
    assert store.machines.save("order", "o-1", "running", 1, from_state="idle").revision == 2


def test_expected_revision(store):
    with pytest.raises(StaleRevision):
        store.machines.save("order", "o-1", "idle", 1, expected_revision=1)
    store.machines.save("order", "o-1", "idle", 1, expected_revision=0)
    with pytest.raises(AlreadyExists):
        store.machines.save("order", "o-1", "idle", 1, expected_revision=0)
    store.machines.fail("order", "o-1", "does not count as a change")
    store.machines.save("order", "o-1", "idle", 2, expected_revision=1)
    with pytest.raises(StaleRevision) as caught:
        store.machines.save("order", "o-1", "idle", 1, expected_revision=1)
    assert (caught.value.actual, caught.value.expected) == (2, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"machine": ""}, {"name": " "}, {"name": "a\0b"}, {"name": "n" * 257}, {"machine": 5}, {"state": ""},
        {"state": None}, {"state": 3}, {"event": ""}, {"event": 3}, {"from_state": 4}, {"expected_revision": -1},
        {"expected_revision": True},
    ],
)  # fmt: skip
def test_arguments_that_are_not_allowed(store, arguments):
    given = {"machine": "m", "name": "n", "state": "s", "payload": 1, **arguments}
    with pytest.raises(InvalidArgument):
        store.machines.save(**given)
    assert store.machines.query().items == ()


# --- history ---


def test_history_is_newest_first_in_pages(store):
    for number in range(7):
        store.machines.save("m", "n", f"s{number}", number, event=f"e{number}")
    store.machines.save("m", "other", "s", 1)
    first = store.machines.history("m", "n", limit=3)
    second = store.machines.history("m", "n", limit=3, cursor=first.cursor)
    third = store.machines.history("m", "n", limit=3, cursor=second.cursor)
    assert [[one.payload for one in page] for page in (first, second, third)] == [[6, 5, 4], [3, 2, 1], [0]]
    assert third.cursor is None
    assert first.items[0] == store.machines.load("m", "n")
    with pytest.raises(InvalidArgument):
        store.machines.history("m", "other", cursor=first.cursor)
    assert store.machines.history("m", "n", limit=7).cursor is None


def test_history_keeps_as_many_as_the_definition_says(store):
    store.machines.define("m", {"s": {}}, keep_history=3)
    for number in range(10):
        store.machines.save("m", "n", "s", number)
    assert [one.payload for one in store.machines.history("m", "n")] == [9, 8, 7]
    store.machines.define("m", {"s": {}}, keep_history=1)
    assert [one.payload for one in store.machines.history("m", "n")] == [9]
    store.machines.define("m", {"s": {}}, keep_history=5)
    store.machines.save("m", "n", "s", 10)
    assert [one.payload for one in store.machines.history("m", "n")] == [10, 9, 8, 7]
    store.machines.define("m", {"s": {}}, keep_history=0)
    store.machines.save("m", "n", "s", 11)
    assert len(store.machines.history("m", "n")) == 0
    assert store.machines.load("m", "n").payload == 11


def test_history_rows_are_bounded():
    engine = MemoryEngine()
    store = over(engine)
    for number in range(130):
        store.machines.save("m", "n", "s", number)
    assert len(store.machines.history("m", "n", limit=1000)) == 100
    assert sum(row.key.startswith(b"n\0MH") for row in engine.scan(0, b"", b"\xff", limit=10_000)) == 100


def test_a_long_history_is_swept_after_a_purge():
    engine = MemoryEngine()
    store = over(engine)
    store.machines.define("m", {"s": {}}, keep_history=2000)
    for number in range(1005):
        store.machines.save("m", "n", "s", number)
    assert store.machines.purge("m", "n")
    store.machines.save("m", "n", "s", "anew")
    assert [one.payload for one in store.machines.history("m", "n")] == ["anew"]
    assert store.check() == []
    assert run_now(sweep(store._scope)) == 1005
    assert sum(row.key.startswith(b"n\0MH") for row in engine.scan(0, b"", b"\xff", limit=10_000)) == 1
    assert store.check() == []


def test_as_of(store, clock):
    store.machines.save("m", "n", "a", 1)
    position, when = store.feed.latest(), clock.now()
    store.machines.fail("m", "n", "x")
    clock.advance(1)
    store.machines.save("m", "n", "b", 2)
    assert store.machines.as_of("m", "n", position).payload == 1
    assert store.machines.as_of("m", "n", when).payload == 1
    assert store.machines.as_of("m", "n", store.feed.latest()).payload == 2
    with pytest.raises(NotFound):
        store.machines.as_of("m", "n", stateroom.BEGINNING)


# --- queries, counts, waiting, the feed ---


def test_query_and_count(store):
    for machine in ("a", "ab", "b"):
        for number in range(5):
            store.machines.save(machine, f"n{number}", "even" if number % 2 == 0 else "odd", number)

    def found(**filters):
        names = [(one.machine, one.name) for one in store.machines.scan(**filters)]
        pages, cursor = [], None
        while True:
            page = store.machines.query(**filters, limit=2, cursor=cursor)
            pages += [(one.machine, one.name) for one in page]
            cursor = page.cursor
            assert (cursor is None) or len(page) == 2
            if cursor is None:
                break
        assert pages == names == sorted(names)
        return names

    assert len(found()) == 15
    assert found(machine="a") == [("a", f"n{number}") for number in range(5)]
    assert found(machine="a", state="odd") == [("a", "n1"), ("a", "n3")]
    assert len(found(state="even")) == 9
    assert found(machine="zz") == found(state="zz") == []
    assert (store.machines.count("a"), store.machines.count("a", "odd"), store.machines.count("b", "x")) == (5, 2, 0)
    store.machines.save("a", "n1", "even", 1)
    assert (store.machines.count("a"), store.machines.count("a", "odd")) == (5, 1)
    with pytest.raises(TypeError):
        store.machines.query(status="x")
    with pytest.raises(InvalidArgument):
        store.machines.query(machine="b", cursor=store.machines.query(machine="a", limit=1).cursor)


def test_wait(store, other):
    store.machines.save("m", "n", "a", 1)
    assert store.machines.wait("m", "n", lambda one: one.state == "a", timeout=0).payload == 1
    with pytest.raises(Timeout):
        store.machines.wait("m", "n", lambda one: one.state == "b", timeout=0)
    with pytest.raises(InvalidArgument), store.transaction() as tx:
        tx.machines.wait("m", "n", bool)


def test_the_feed_tells_of_saves_failures_and_purges(store):
    first = store.machines.save("m", "n", "a", 1)
    failure = store.machines.fail("m", "n", "x", event="go")
    second = store.machines.save("m", "n", "b", 2)
    store.machines.clear_error("m", "n")
    store.machines.purge("m", "n")
    changes = store.feed.read(families=["machines"]).items
    assert [change.op for change in changes] == ["create", "update", "update", "update", "delete"]
    assert [change.record for change in changes] == [first, first, second, second, None]
    assert [change.previous for change in changes] == [None, first, first, second, second]
    assert [change.events for change in changes] == [(), (failure,), (), (), ()]
    assert {(change.id, change.key) for change in changes} == {("n", ("m", "n"))}


def test_a_large_failure_is_told_without_its_large_parts(store):
    store.machines.save("m", "n", "a", b"p" * 200_000)
    failure = store.machines.fail("m", "n", "reason", info={"small": 1}, event_payload="e" * 20_000)
    assert store.machines.last_error("m", "n") == failure
    (told,) = store.feed.read(ops=["update"]).items[0].events
    assert isinstance(told, Failure)
    assert (told.reason, told.info, told.payload, told.event_payload) == ("reason", {"small": 1}, OMITTED, OMITTED)
