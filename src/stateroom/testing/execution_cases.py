"""Bacalhau's execution store, point by point (BAC), with what went wrong there shown absent."""

from typing import Any

import pytest

from ..errors import AlreadyExists, InvalidArgument, NotFound, StaleRevision, WrongState
from ..families.executions.record import Event, Execution, ExecutionState
from .family_harness import StoreTests, changes, ids, nothing_changes

NOT_ENDED: tuple[ExecutionState, ...] = (
    "new", "ask_for_bid", "ask_for_bid_accepted", "bid_accepted", "running", "publishing",
)  # fmt: skip
ENDED: tuple[ExecutionState, ...] = ("ask_for_bid_rejected", "bid_rejected", "completed", "failed", "cancelled")
LIVE = ("bid_accepted", "running", "publishing")


def in_state(store: Any, id: str, state: str, **fields: Any) -> Execution:
    """An execution that was brought into a state."""
    store.executions.create(Execution(id, "j", **fields))
    execution: Execution = store.executions.update(id, state=state)
    return execution


class Creating(StoreTests):
    """BAC-01 to 06: create and get."""

    def test_bac_01_states_to_begin_in(self, store: Any) -> None:
        for first in (Execution("new", "j", state="new"), Execution("bid_accepted", "j", state="bid_accepted")):
            assert store.executions.create(first).state == first.state
        with nothing_changes(store):
            others: set[Any] = {*NOT_ENDED, *ENDED}.difference({"new", "bid_accepted"})
            for state in others:
                with pytest.raises(WrongState) as caught:
                    store.executions.create(Execution("a", "j", state=state))
                assert caught.value.actual == state
                assert set(caught.value.expected) == {"new", "bid_accepted"}

    def test_bac_02_fields_that_are_refused(self, store: Any) -> None:
        wrong: list[dict[str, Any]] = [
            {"id": ""}, {"id": " "}, {"id": "a\0"}, {"id": "x" * 257}, {"id": 5}, {"id": "\udc80"},
            {"job_id": ""}, {"job_id": "\n"}, {"job_id": None}, {"node_id": ""}, {"node_id": 7},
            {"partition_index": -1}, {"partition_index": "0"}, {"partition_index": 1 << 63},
            {"state": "undefined"}, {"state": None}, {"desired_state": "dead"}, {"desired_state": ["running"]},
            {"message": None}, {"details": None}, {"details": [1]}, {"details": {"x": object()}}, {"data": object},
        ]  # fmt: skip
        with nothing_changes(store):
            for fields in wrong:
                with pytest.raises(InvalidArgument):
                    store.executions.create(Execution(**{"id": "a", "job_id": "j", **fields}))
            for value in ({"id": "a", "job_id": "j"}, None, "a"):
                with pytest.raises(InvalidArgument):
                    store.executions.create(value)

    def test_bac_03_an_id_that_is_taken(self, store: Any) -> None:
        store.executions.create(Execution("a", "j"))
        with nothing_changes(store), pytest.raises(AlreadyExists) as caught:
            store.executions.create(Execution("a", "j2"), events=[Event("again")])
        assert caught.value.id == "a"

    def test_bac_04_what_create_sets(self, store: Any) -> None:
        original = Execution("a", "j", details={"n": 1}, revision=9)
        stored = store.executions.create(original)
        assert (stored.revision, stored.created_at) == (1, stored.updated_at)
        assert stored.created_at is not None
        assert (original.revision, original.created_at) == (9, None)
        assert store.executions.get("a") == stored

    def test_bac_05_one_change_with_its_events(self, store: Any) -> None:
        store.executions.create(Execution("a", "j"), events=[Event("asked", "bid"), Event("took")])
        (change,) = changes(store)
        assert (change.op, change.family, change.id, change.key) == ("create", "executions", "a", ("a",))
        assert change.previous is None
        assert change.record == store.executions.get("a")
        assert [(event.message, event.topic, event.seq) for event in change.events] == [
            ("asked", "bid", 1),
            ("took", "", 2),
        ]
        assert change.events == store.executions.events("a")

    def test_bac_06_get(self, store: Any) -> None:
        with pytest.raises(NotFound) as caught:
            store.executions.get("a")
        assert (caught.value.kind, caught.value.id) == ("executions", "a")
        assert store.executions.find("a") is None

    def test_bac_07_every_field_is_kept(self, store: Any) -> None:
        execution = Execution(
            "a", "j", state="bid_accepted", desired_state="running", message="m", node_id="n1", partition_index=3,
            details={"k": {"x": [1, None, True]}}, data=b"\x00\xff", result=[1.5, "é"],
        )  # fmt: skip
        store.executions.create(execution)
        got = store.executions.get("a")
        for name in ("id", "job_id", "state", "desired_state", "message", "node_id", "partition_index", "details"):
            assert getattr(got, name) == getattr(execution, name)
        assert (got.data, got.result) == (b"\x00\xff", [1.5, "é"])


class Updating(StoreTests):
    """BAC-11 to 20: conditional updates."""

    def test_bac_11_a_missing_one_comes_first(self, store: Any) -> None:
        with pytest.raises(NotFound):
            store.executions.update("a", state="running", expected_states={"new"}, expected_revision=7)

    def test_bac_12_expected_states(self, store: Any) -> None:
        in_state(store, "a", "running")
        with nothing_changes(store), pytest.raises(WrongState) as caught:
            store.executions.update("a", state="completed", expected_states=["new", "publishing"])
        assert (caught.value.actual, caught.value.terminal) == ("running", False)
        assert set(caught.value.expected) == {"new", "publishing"}
        assert store.executions.update("a", state="completed", expected_states={"running"}).state == "completed"

    def test_bac_13_expected_revision(self, store: Any) -> None:
        in_state(store, "a", "running")
        with nothing_changes(store), pytest.raises(StaleRevision) as caught:
            store.executions.update("a", message="m", expected_revision=1)
        assert (caught.value.actual, caught.value.expected) == (2, 1)
        assert store.executions.update("a", message="m", expected_revision=2).revision == 3

    def test_bac_14_unexpected_states(self, store: Any) -> None:
        in_state(store, "a", "running")
        with nothing_changes(store), pytest.raises(WrongState) as caught:
            store.executions.update("a", state="failed", unexpected_states={"running", "publishing"})
        assert (caught.value.actual, len(caught.value.expected)) == ("running", 0)
        store.executions.update("a", state="failed", unexpected_states={"publishing"})

    def test_bac_15_the_condition_is_reported_before_terminal(self, store: Any) -> None:
        in_state(store, "a", "completed")
        update = store.executions.update
        with nothing_changes(store):
            with pytest.raises(WrongState) as caught:
                update("a", state="running", expected_states={"running"}, expected_revision=1)
            assert caught.value.terminal is False
            with pytest.raises(StaleRevision):
                update("a", state="running", expected_states={"completed"}, expected_revision=1)
            with pytest.raises(StaleRevision):
                update("a", state="running", unexpected_states={"completed"}, expected_revision=1)
            with pytest.raises(WrongState) as caught:
                update("a", state="running", expected_states={"completed"}, expected_revision=2)
            assert caught.value.terminal is True

    def test_bac_16_terminal(self, store: Any) -> None:
        for state in ENDED:
            in_state(store, state, state)
            with nothing_changes(store), pytest.raises(WrongState) as caught:
                store.executions.update(state, state="running", events=[Event("again")])
            assert (caught.value.terminal, caught.value.actual) == (True, state)

    def test_bac_17_what_is_named_changes(self, store: Any) -> None:
        """Bacalhau's merge could not clear a field, set a number to 0 or drop a key of a map."""
        store.executions.create(
            Execution(
                "a",
                "j",
                desired_state="running",
                message="m",
                node_id="n",
                partition_index=4,
                details={"a": 1, "b": 2},
                data=[1],
                result="r",
            )
        )
        stored = store.executions.update("a", state="running")
        assert (stored.message, stored.node_id, stored.details, stored.data) == ("m", "n", {"a": 1, "b": 2}, [1])
        assert (stored.revision, stored.job_id) == (2, "j")
        changed = store.executions.update("a", message="", partition_index=0, details={"b": 3})
        assert (changed.message, changed.partition_index, changed.details) == ("", 0, {"b": 3})
        cleared = store.executions.update(
            "a", state=None, desired_state=None, message=None, node_id=None, partition_index=None, details=None,
            data=None, result=None,
        )  # fmt: skip
        assert store.executions.get("a") == cleared
        plain = Execution("a", "j", revision=4, created_at=cleared.created_at, updated_at=cleared.updated_at)
        assert cleared == plain

    def test_bac_18_what_cannot_change(self, store: Any) -> None:
        """In Bacalhau an update could write under another id."""
        store.executions.create(Execution("a", "j"))
        with nothing_changes(store):
            for name in ("job_id", "revision", "created_at", "updated_at", "stat", "seq"):
                with pytest.raises(InvalidArgument) as caught:
                    store.executions.update("a", **{name: "b"})
                assert caught.value.what == name
            for fields in ({"state": "done"}, {"desired_state": "x"}, {"node_id": ""}, {"details": 5}, {"message": 5}):
                with pytest.raises(InvalidArgument):
                    store.executions.update("a", **fields)
            with pytest.raises(InvalidArgument):
                store.executions.update("a", expected_states={"done"}, message="m")
            with pytest.raises(InvalidArgument):
                store.executions.update("a", unexpected_states="new", message="m")

    def test_bac_19_one_change_with_both_records(self, store: Any) -> None:
        before = store.executions.create(Execution("a", "j"))
        after = store.executions.update("a", state="running", events=[Event("went", details={"n": 1})])
        change = changes(store)[-1]
        assert (change.op, change.record, change.previous) == ("update", after, before)
        assert [(event.message, event.details, event.seq) for event in change.events] == [("went", {"n": 1}, 1)]

    def test_bac_20_any_state_follows_any_that_is_not_terminal(self, store: Any) -> None:
        for n, start in enumerate(NOT_ENDED):
            for m, end in enumerate((*NOT_ENDED, *ENDED)):
                id = f"{n}-{m}"
                store.executions.create(Execution(id, "j", state="bid_accepted"))
                store.executions.update(id, state=start)
                assert store.executions.update(id, state=end).state == end


class Listing(StoreTests):
    """BAC-07, 08, 21, 22: lists, counts, delete."""

    def test_bac_21_executions_of_a_job(self, store: Any) -> None:
        for id in ("a", "b", "c"):
            store.executions.create(Execution(id, "j"))
        store.executions.create(Execution("d", "other"))
        store.executions.update("a", message="m")
        assert ids(store.executions.for_job("j")) == ["a", "c", "b"]
        assert ids(store.executions.for_job("j", limit=2)) == ["a", "c"]
        assert store.executions.for_job("none") == ()

    def test_bac_22_live_ones(self, store: Any) -> None:
        assert store.executions.live() == ()
        for state in (*NOT_ENDED, *ENDED):
            in_state(store, state, state)
        assert ids(store.executions.live()) == ["publishing", "running", "bid_accepted"]
        store.executions.update("running", message="m")
        assert ids(store.executions.live(limit=2)) == ["running", "publishing"]

    def test_bac_23_counts(self, store: Any) -> None:
        assert store.executions.count("running") == 0
        in_state(store, "a", "running")
        in_state(store, "b", "running")
        assert (store.executions.count("running"), store.executions.count("new")) == (2, 0)
        store.executions.update("b", state="failed")
        store.executions.delete("a")
        assert (store.executions.count("running"), store.executions.count("failed")) == (0, 1)
        with pytest.raises(InvalidArgument):
            store.executions.count("runing")

    def test_bac_24_delete(self, store: Any) -> None:
        """In Bacalhau no watcher learnt of it."""
        store.executions.create(Execution("a", "j", state="bid_accepted", node_id="n"), events=[Event("e")])
        last = store.executions.update("a", state="running")
        assert store.executions.delete("a") is True
        assert store.executions.delete("a") is False
        assert store.executions.find("a") is None
        assert store.executions.for_job("j") == store.executions.live() == ()
        assert store.executions.query(node_id="n").items == store.executions.query(state="running").items == ()
        with pytest.raises(NotFound):
            store.executions.events("a")
        change = changes(store)[-1]
        assert (change.op, change.id, change.record, change.previous) == ("delete", "a", None, last)

    def test_bac_25_a_recreated_id_inherits_nothing(self, store: Any) -> None:
        store.executions.create(Execution("a", "j", details={"x": 1}), events=[Event("old")])
        store.executions.delete("a")
        second = store.executions.create(Execution("a", "j2"))
        assert (second.revision, second.details) == (1, {})
        assert store.executions.events("a") == ()
        store.executions.add_events("a", Event("new"))
        assert [(event.message, event.seq) for event in store.executions.events("a")] == [("new", 1)]
        assert changes(store, families=["executions"])[-1].previous is None

    def test_a_misspelt_filter_is_an_error(self, store: Any) -> None:
        with pytest.raises(TypeError):
            store.executions.query(job="j")
        with pytest.raises(TypeError):
            list(store.executions.scan(job="j"))

    def test_queries(self, store: Any) -> None:
        for n in range(6):
            in_state(store, f"e{n}", "running" if n % 2 else "failed", node_id=f"n{n % 3}")
        query = store.executions.query
        assert ids(query(state="running")) == ["e1", "e3", "e5"]
        assert ids(query(state_in=["failed", "completed"])) == ["e0", "e2", "e4"]
        assert ids(query(state_in=[])) == []
        assert ids(query(state="running", state_in=["failed"])) == []
        assert ids(query(node_id="n1")) == ["e1", "e4"]
        assert ids(query(job_id="j", node_id="n1", state="failed")) == ["e4"]
        assert ids(store.executions.scan(job_id="j", state="running")) == ["e1", "e3", "e5"]


class Reporting(StoreTests):
    """BAC-09, 10, 26: an execution's own events; transactions."""

    def test_bac_09_events_in_write_order(self, store: Any) -> None:
        store.executions.create(Execution("a", "j"))
        assert store.executions.events("a") == ()
        with pytest.raises(NotFound):
            store.executions.events("b")
        store.executions.update("a", state="running", events=[Event("z")])
        store.executions.add_events("a", Event("b", "t", {"n": 1}), Event("a"))
        got = store.executions.events("a")
        assert [(event.seq, event.message, event.topic, event.details) for event in got] == [
            (1, "z", "", {}),
            (2, "b", "t", {"n": 1}),
            (3, "a", "", {}),
        ]
        assert all(event.at is not None for event in got)

    def test_bac_10_add_events(self, store: Any) -> None:
        with pytest.raises(NotFound):
            store.executions.add_events("a", Event("e"))
        before = in_state(store, "a", "completed")
        store.executions.add_events("a", Event("one"), Event("two"))
        assert store.executions.get("a") == before
        log = changes(store, families=["execution_events"])
        assert [(change.op, change.id, change.key, getattr(change.record, "message", None)) for change in log] == [
            ("create", "a", ("a", 1), "one"),
            ("create", "a", ("a", 2), "two"),
        ]
        assert tuple(change.record for change in log) == store.executions.events("a")

    def test_events_that_are_none(self, store: Any) -> None:
        store.executions.create(Execution("a", "j"))
        wrong: list[Any] = ["text", None, Event(5), Event("m", topic=None), Event("m", details=[1])]  # type: ignore[arg-type]
        wrong += [Event("m", details={"x": object()})]
        with nothing_changes(store):
            for event in wrong:
                with pytest.raises(InvalidArgument):
                    store.executions.add_events("a", event)
                with pytest.raises(InvalidArgument):
                    store.executions.update("a", events=[event])

    def test_bac_26_a_transaction_is_one(self, store: Any) -> None:
        """Bacalhau's BeginTx was ignored by every method of the store, and a write under it hung."""

        def undone(tx: Any) -> None:
            tx.executions.create(Execution("r/a", "j"), events=[Event("e")])
            tx.executions.update("r/a", state="running")
            assert tx.executions.count("running") == 1
            raise LookupError

        with nothing_changes(store), pytest.raises(LookupError), store.transaction() as tx:
            undone(tx)
        with store.transaction() as tx:
            tx.executions.create(Execution("r/a", "j"), events=[Event("e")])
            tx.executions.create(Execution("r/b", "j"))
        assert ids(store.executions.for_job("j")) == ["r/b", "r/a"]
