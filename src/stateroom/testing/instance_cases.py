"""Hephaestus' cases for instances: its storage tests (HEP-S), and what an instance is (HEP-I, HEP-C)."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest

from ..errors import InvalidArgument, NotFound
from ..families.instances.record import Context, HistoryEntry, Instance, InstanceStatus
from .family_harness import StoreTests, ids, nothing_changes, together

UUID = "5f0c1f2e-8d5b-4e0e-9c9a-3f6b0f6f2b11"


class Storage(StoreTests):
    """HEP-S01 to S13: put, get, delete, query."""

    def test_hep_s01_put_then_get(self, store: Any) -> None:
        put = store.instances.put(Instance("a", "w", context=Context({"n": 1})))
        got = store.instances.get("a")
        assert got == put
        assert (got.id, got.context.initial) == ("a", {"n": 1})

    def test_hep_s02_get_of_an_unknown_id(self, store: Any) -> None:
        with pytest.raises(NotFound) as caught:
            store.instances.get("a")
        assert (caught.value.kind, caught.value.id) == ("instances", "a")
        assert store.instances.find("a") is None

    def test_hep_s03_put_twice_overwrites(self, store: Any) -> None:
        store.instances.put(Instance("a", "w", metadata={"kept": False}))
        store.instances.put(Instance("a", "w", status="completed"))
        got = store.instances.get("a")
        assert (got.status, got.metadata, got.revision) == ("completed", {}, 2)
        assert store.instances.count() == 1

    def test_hep_s04_delete(self, store: Any) -> None:
        store.instances.put(Instance("a", "w"))
        assert store.instances.delete("a") is True
        with pytest.raises(NotFound):
            store.instances.get("a")
        assert store.instances.count() == 0

    def test_hep_s05_delete_of_an_unknown_id(self, store: Any) -> None:
        assert store.instances.delete("a") is False

    def test_hep_s06_query_without_filters(self, store: Any) -> None:
        store.instances.put(Instance("b", "w"))
        store.instances.put(Instance("a", "w"))
        assert ids(store.instances.query()) == ["a", "b"]

    def test_hep_s07_query_by_status(self, store: Any) -> None:
        store.instances.put(Instance("a", "w", status="running"))
        store.instances.put(Instance("b", "w", status="completed"))
        assert ids(store.instances.query(status="running")) == ["a"]

    def test_hep_s08_query_by_workflow(self, store: Any) -> None:
        store.instances.put(Instance("a", "w"))
        store.instances.put(Instance("b", "w2"))
        assert ids(store.instances.query(workflow="w")) == ["a"]

    def test_hep_s09_query_without_a_match(self, store: Any) -> None:
        store.instances.put(Instance("a", "w"))
        assert store.instances.query(status="failed").items == ()
        assert store.instances.query(workflow="x").items == ()

    def test_hep_s10_query_by_id(self, store: Any) -> None:
        for id in ("a", "ab", "b"):
            store.instances.put(Instance(id, "w"))
        assert ids(store.instances.query(id="a")) == ["a"]
        assert ids(store.instances.query(id="c")) == []

    def test_hep_s11_query_by_several_statuses(self, store: Any) -> None:
        statuses: dict[str, InstanceStatus] = {"a": "pending", "b": "running", "c": "completed"}
        for id, status in statuses.items():
            store.instances.put(Instance(id, "w", status=status))
        assert ids(store.instances.query(status_in=["pending", "running"])) == ["a", "b"]
        assert ids(store.instances.query(status_in=[])) == []

    def test_hep_s12_query_by_workflow_version(self, store: Any) -> None:
        store.instances.put(Instance("a", "w", workflow_version=1))
        store.instances.put(Instance("b", "w", workflow_version=2))
        assert ids(store.instances.query(workflow_version=2)) == ["b"]

    def test_hep_s13_filters_are_all_required(self, store: Any) -> None:
        store.instances.put(Instance("a", "w", status="running"))
        store.instances.put(Instance("b", "w", status="running"))
        store.instances.put(Instance("c", "w2", status="running"))
        query = store.instances.query
        assert ids(query(id="a", workflow="w", status_in=["pending", "running"])) == ["a"]
        assert ids(query(id="a", workflow="w2", status_in=["running"])) == []
        assert ids(query(id="a", workflow="w", status_in=["pending"])) == []

    def test_a_misspelt_filter_is_an_error(self, store: Any) -> None:
        """Hephaestus matched everything."""
        for ask in (store.instances.query, store.instances.count):
            with pytest.raises(TypeError):
                ask(statsu="running")
        with pytest.raises(TypeError):
            list(store.instances.scan(statsu="running"))

    def test_a_filter_of_the_wrong_type_is_an_error(self, store: Any) -> None:
        """Hephaestus' Ecto store ignored it."""
        for wrong in ({"id": 5}, {"status": 5}, {"status_in": "running"}, {"workflow_version": "2"}):
            with pytest.raises(InvalidArgument):
                store.instances.query(**wrong)

    def test_every_status_is_stored(self, store: Any) -> None:
        """Hephaestus' Ecto store answered ok to a cancelled instance and kept nothing of it."""
        for status in ("pending", "running", "waiting", "completed", "failed", "cancelled"):
            store.instances.put(Instance(status, "w", status=status))
            assert store.instances.get(status).status == status

    def test_a_replaced_workflow_version_is_stored(self, store: Any) -> None:
        """Hephaestus' Ecto store kept the version of the first put."""
        store.instances.put(Instance("a", "w", workflow_version=1))
        store.instances.put(Instance("a", "w", workflow_version=2))
        assert store.instances.get("a").workflow_version == 2
        assert ids(store.instances.query(workflow_version=2)) == ["a"]


class Running(StoreTests):
    """HEP-S14 to S16: many at once."""

    def test_hep_s14_parallel_puts(self, store: Any) -> None:
        together(12, lambda n: store.instances.put(Instance(f"p{n:02}", "w")), 48)
        assert ids(store.instances.query()) == [f"p{n:02}" for n in range(48)]
        assert store.instances.count() == 48

    def test_hep_s15_readers_see_nothing_or_all_of_it(self, store: Any) -> None:
        expected = {f"r{n}": {"n": n, "text": "x" * 200} for n in range(24)}
        reads = count()

        def step(number: int) -> None:
            id = f"r{number // 3}"
            if number % 3 == 1:
                store.instances.put(Instance(id, "w", context=Context(expected[id])))
                return
            got = store.instances.find(id)
            if got is not None:
                assert got.context.initial == expected[id]
                next(reads)

        together(8, step, 72)
        assert {instance.id: instance.context.initial for instance in store.instances.scan()} == expected

    def test_hep_s16_counts_during_writes(self, store: Any) -> None:
        def step(number: int) -> None:
            if number % 7 == 0 and number // 7 < 12:
                store.instances.put(Instance(f"c{number // 7}", "w", status="completed"))
            elif number % 7 == 3 and number // 7 < 12:
                store.instances.put(Instance(f"d{number // 7}", "w", status="running"))
            else:
                completed = len(store.instances.query(status="completed"))
                everything = len(store.instances.query())
                assert completed <= everything <= 24
                assert completed <= 12

        together(8, step, 84)
        assert (store.instances.count(), store.instances.count(status="completed")) == (24, 12)
        assert len(store.instances.query()) == 24


def refused() -> Iterator[tuple[str, dict[str, Any]]]:
    """Instances that are none: HEP-I06 and the like."""
    yield "hep_i06a a number as id", {"id": 5}
    yield "an empty id", {"id": ""}
    yield "a blank id", {"id": " \t"}
    yield "an id with NUL", {"id": "a\0b"}
    yield "an id of 257 bytes", {"id": "é" * 128 + "x"}
    yield "an id that is no Unicode", {"id": "a\ud800"}
    yield "hep_i06b a number as workflow", {"workflow": 5}
    yield "an empty workflow", {"workflow": ""}
    yield "hep_i06c version 0", {"workflow_version": 0}
    yield "hep_i06d version -1", {"workflow_version": -1}
    yield "a version that is no int", {"workflow_version": 1.5}
    yield "a version that is a bool", {"workflow_version": True}
    yield "an unknown status", {"status": "resting"}
    yield "no status", {"status": None}
    yield "a context that is none", {"context": {"initial": {}}}
    yield "steps that are a str", {"active_steps": "ab"}
    yield "steps that are numbers", {"completed_steps": frozenset({1})}
    yield "a history of something else", {"history": ("started",)}
    yield "a label that is a number", {"labels": {"team": 5}}
    yield "labels that are no mapping", {"labels": ["team"]}
    yield "metadata that is no mapping", {"metadata": [1]}
    yield "a business key of 201 bytes", {"id": "k" * 201, "business_key": "k" * 201}
    yield "a business key with another root", {"business_key": "other"}
    yield "a value that cannot be stored", {"metadata": {"x": [object()]}}


class Fields(StoreTests):
    """HEP-I: what a new instance is."""

    def test_hep_i01_a_new_instance(self, store: Any) -> None:
        instance = store.instances.start(Instance("a", "w", workflow_version=2, context=Context({"n": 1})))
        assert (instance.id, instance.workflow, instance.workflow_version) == ("a", "w", 2)
        assert (instance.status, instance.context.initial, instance.context.steps) == ("pending", {"n": 1}, {})
        assert (instance.revision, instance.created_at) == (1, instance.updated_at)

    def test_hep_i02_the_id_is_kept_exactly(self, store: Any) -> None:
        for id in (UUID, "Ä b/ü", "x" * 256):
            assert store.instances.put(Instance(id, "w")).id == id
            assert store.instances.get(id).id == id

    def test_hep_i03_nothing_has_happened_yet(self, store: Any) -> None:
        store.instances.put(Instance("a", "w"))
        got = store.instances.get("a")
        assert (got.active_steps, got.completed_steps, got.history) == (frozenset(), frozenset(), ())
        assert type(got.active_steps) is frozenset
        assert type(got.history) is tuple

    def test_hep_i04_the_version_is_kept(self, store: Any) -> None:
        store.instances.put(Instance("a", "w", workflow_version=3))
        assert store.instances.get("a").workflow_version == 3

    def test_hep_i05_what_is_not_given_is_empty(self, store: Any) -> None:
        store.instances.put(Instance("a", "w"))
        got = store.instances.get("a")
        assert (got.metadata, got.labels, got.step_configs) == ({}, {}, {})
        assert (got.current_step, got.business_key, got.unique) == (None, None, None)

    @pytest.mark.parametrize("wrong", [pytest.param(fields, id=name) for name, fields in refused()])
    def test_hep_i06_refused(self, store: Any, wrong: dict[str, Any]) -> None:
        good: dict[str, Any] = {"id": "a", "workflow": "w"}
        with nothing_changes(store):
            for write in (store.instances.put, store.instances.start):
                with pytest.raises(InvalidArgument):
                    write(Instance(**{**good, **wrong}))
            with pytest.raises(InvalidArgument):
                store.instances.put({**good, **wrong})

    def test_hep_i07_step_configs(self, store: Any) -> None:
        store.instances.put(Instance("a", "w", step_configs={"s1": {"retries": 3}, "s2": {"x": [1, 2]}}))
        assert store.instances.get("a").step_configs == {"s1": {"retries": 3}, "s2": {"x": [1, 2]}}
        store.instances.put(Instance("a", "w", step_configs={"s2": {"x": [1, 2]}}))
        assert store.instances.get("a").step_configs == {"s2": {"x": [1, 2]}}

    def test_hep_i08_defaults(self, store: Any) -> None:
        assert Instance("a", "w").workflow_version == 1
        assert store.instances.put(Instance("a", "w", context=Context())).context == Context({}, {})

    def test_hep_i09_steps(self, store: Any) -> None:
        at = datetime(2026, 1, 2, tzinfo=UTC)
        instance = Instance(
            "a",
            "w",
            status="waiting",
            current_step="s3",
            active_steps=frozenset({"s3", "s2"}),
            completed_steps=frozenset({"s1"}),
            history=(HistoryEntry("s1", "done", at), HistoryEntry("s2", "began", at, {"x": 1})),
            labels={"team": "red"},
        )
        store.instances.put(instance)
        got = store.instances.get("a")
        assert (got.current_step, got.active_steps, got.completed_steps) == (
            "s3",
            frozenset({"s2", "s3"}),
            frozenset({"s1"}),
        )
        assert got.history == instance.history
        assert (got.labels, got.status) == ({"team": "red"}, "waiting")

    def test_the_three_fields_that_writes_ignore(self, store: Any) -> None:
        at = datetime(2001, 1, 1, tzinfo=UTC)
        instance = store.instances.put(Instance("a", "w", revision=17, created_at=at, updated_at=at))
        assert instance.revision == 1
        assert instance.created_at is not None
        assert instance.created_at > at
        assert store.instances.put(instance).revision == 2


class Contexts(StoreTests):
    """HEP-C: what a run knows."""

    def test_hep_c01_initial_data(self, store: Any) -> None:
        assert Context({"a": 1}).initial == {"a": 1}
        assert Context({}).steps == {}

    def test_hep_c02_step_results(self, store: Any) -> None:
        first = Context({"a": 1}).with_step("s1", {"x": 1})
        second = first.with_step("s2", None).with_step("s1", [2])
        assert first.steps == {"s1": {"x": 1}}
        assert second.steps == {"s1": [2], "s2": None}
        assert second.initial == {"a": 1}
        store.instances.put(Instance("a", "w", context=second))
        assert store.instances.get("a").context == second

    def test_hep_c03_entries(self, store: Any) -> None:
        at = datetime(2026, 1, 2, tzinfo=UTC)
        assert HistoryEntry("s", "e", at).updates is None
        assert HistoryEntry("s", "e", at, {"a": 1}).updates == {"a": 1}
        with pytest.raises(TypeError):
            HistoryEntry(event="e", at=at)  # type: ignore[call-arg]
