"""Hephaestus' cases for business keys (HEP-U) and for cancelling (HEP-F), with what went wrong there shown absent."""

from typing import Any

import msgspec
import pytest

from ..clock import new_id
from ..errors import AlreadyExists, InvalidArgument, NotFound, StaleRevision, WrongState
from ..families.instances.record import Instance
from .family_harness import StoreTests, changes, ids, nothing_changes, together

REPLACE = msgspec.structs.replace


def run(key: str, workflow: str = "w", version: int = 1, **fields: Any) -> Instance:
    """A new run under a business key."""
    return Instance(new_id(key), workflow, workflow_version=version, business_key=key, **fields)


class Uniqueness(StoreTests):
    """HEP-U01 and U09 to U12: `start(unique=...)`."""

    def test_hep_u01_scopes(self, store: Any) -> None:
        assert store.instances.start(run("default")).unique == "workflow"
        for unique in ("workflow", "version", "global", None):
            assert store.instances.start(run(f"k{unique}"), unique=unique).unique == unique

    def test_hep_u03_unknown_scopes(self, store: Any) -> None:
        with nothing_changes(store):
            for unique in ("tenant", "", 5, True):
                with pytest.raises(InvalidArgument):
                    store.instances.start(run("k"), unique=unique)

    def test_hep_u09_not_checked(self, store: Any) -> None:
        first, second = store.instances.start(run("k")), store.instances.start(run("k"), unique=None)
        assert ids(store.instances.query(business_key="k")) == [first.id, second.id]

    def test_hep_u10_one_of_a_workflow(self, store: Any) -> None:
        first = store.instances.start(run("k"))
        store.instances.start(run("k", "other"))
        store.instances.start(run("k2"))
        with nothing_changes(store):
            for version in (1, 2):
                with pytest.raises(AlreadyExists) as caught:
                    store.instances.start(run("k", version=version))
                assert caught.value.id == first.id

    def test_hep_u11_one_of_a_version(self, store: Any) -> None:
        """In Hephaestus v2 overwrote the record of v1, which was still running."""
        first = store.instances.start(run("k", status="running"), unique="version")
        second = store.instances.start(run("k", version=2), unique="version")
        assert first.id != second.id
        assert store.instances.get(first.id).status == "running"
        with pytest.raises(AlreadyExists) as caught:
            store.instances.start(run("k", version=2), unique="version")
        assert caught.value.id == second.id

    def test_hep_u12_one_anywhere(self, store: Any) -> None:
        first = store.instances.start(run("k", "other", version=7))
        with pytest.raises(AlreadyExists) as caught:
            store.instances.start(run("k"), unique="global")
        assert caught.value.id == first.id

    def test_without_a_business_key_nothing_is_checked(self, store: Any) -> None:
        for n in range(3):
            store.instances.start(Instance(f"a{n}", "w"), unique="global")
        assert store.instances.count() == 3

    def test_a_taken_id(self, store: Any) -> None:
        store.instances.put(Instance("a", "w", status="completed"))
        with nothing_changes(store), pytest.raises(AlreadyExists) as caught:
            store.instances.start(Instance("a", "w"))
        assert caught.value.id == "a"

    @pytest.mark.parametrize("ending", ["completed", "failed", "cancelled", "deleted"])
    def test_the_key_is_free_again(self, store: Any, ending: str) -> None:
        first = store.instances.start(run("k"))
        if ending == "deleted":
            store.instances.delete(first.id)
        else:
            store.instances.put(REPLACE(first, status=ending))
        second = store.instances.start(run("k"))
        assert store.instances.active("k") == second
        if ending != "deleted":
            assert store.instances.get(first.id).status == ending

    @pytest.mark.parametrize("how", ["put", "reactivated", "another scope"])
    def test_however_it_became_active(self, store: Any, how: str) -> None:
        instance = run("k", status="completed" if how == "reactivated" else "running")
        if how == "another scope":
            store.instances.start(instance, unique=None)
        else:
            instance = store.instances.put(instance)
        if how == "reactivated":
            store.instances.put(REPLACE(instance, status="waiting"), expected_revision=1)
        with pytest.raises(AlreadyExists) as caught:
            store.instances.start(run("k"))
        assert caught.value.id == instance.id

    def test_reactivating_checks_again(self, store: Any) -> None:
        old = store.instances.start(run("k"))
        old = store.instances.put(REPLACE(old, status="failed"))
        new = store.instances.start(run("k"))
        with nothing_changes(store), pytest.raises(AlreadyExists) as caught:
            store.instances.put(REPLACE(old, status="running"), expected_revision=2)
        assert caught.value.id == new.id

    def test_the_scope_is_kept_through_puts(self, store: Any) -> None:
        old = store.instances.start(run("k"), unique="global")
        store.instances.put(Instance(old.id, "w", business_key="k", status="failed"))
        assert store.instances.get(old.id).unique == "global"
        second = store.instances.start(run("k", "other"), unique=None)
        with pytest.raises(AlreadyExists) as caught:
            store.instances.put(Instance(old.id, "w", business_key="k"), expected_revision=2)
        assert caught.value.id == second.id

    def test_a_first_put_is_not_checked_and_counts(self, store: Any) -> None:
        store.instances.start(run("k"))
        second = store.instances.put(run("k", "w2"))
        with pytest.raises(AlreadyExists) as caught:
            store.instances.start(run("k", "w2"))
        assert caught.value.id == second.id

    def test_a_workflow_that_changes_while_active(self, store: Any) -> None:
        first = store.instances.start(run("k", "a"))
        store.instances.put(REPLACE(first, workflow="b"))
        store.instances.start(run("k", "a"))
        with pytest.raises(AlreadyExists):
            store.instances.start(run("k", "b"))

    def test_the_business_key_cannot_change(self, store: Any) -> None:
        first = store.instances.start(run("k"))
        with nothing_changes(store):
            for key in (None, f"{first.id}"):
                with pytest.raises(InvalidArgument):
                    store.instances.put(REPLACE(first, business_key=key))

    def test_active(self, store: Any) -> None:
        assert store.instances.active("k") is None
        first = store.instances.start(run("k"), unique=None)
        second = store.instances.start(run("k", version=2), unique=None)
        sibling = store.instances.start(run("k", "other"), unique=None)
        active = store.instances.active
        assert active("k", workflow="w") == second
        assert active("k", workflow="w", workflow_version=1) == first
        assert active("k", workflow="other") == sibling
        assert active("k", workflow="w", workflow_version=3) is None
        assert active("k/x") is None

    def test_the_newest_of_several(self, store: Any) -> None:
        instances = [store.instances.start(run("k"), unique=None) for _ in range(3)]
        assert store.instances.active("k") == instances[2]
        store.instances.cancel(instances[2].id)
        assert store.instances.active("k") == instances[1]

    def test_a_terminal_start(self, store: Any) -> None:
        with nothing_changes(store):
            for status in ("completed", "failed", "cancelled"):
                with pytest.raises(WrongState):
                    store.instances.start(run("k", status=status))

    def test_one_of_many_starts_wins(self, store: Any) -> None:
        """Hephaestus checked and then inserted."""

        def start(_: int) -> str:
            try:
                return str(store.instances.start(run("k")).id)
            except AlreadyExists as error:
                return f"lost to {error.id}"

        outcomes = together(8, start, 16)
        (winner,) = [outcome for outcome in outcomes if not outcome.startswith("lost")]
        assert set(outcomes) == {winner, f"lost to {winner}"}
        assert store.instances.count() == 1


class Cancelling(StoreTests):
    """HEP-F09, F10, and the update that Hephaestus lost."""

    def test_hep_f09_cancel(self, store: Any) -> None:
        for status in ("pending", "running", "waiting"):
            store.instances.put(Instance(status, "w", status=status))
            assert store.instances.cancel(status).status == "cancelled"
            assert store.instances.get(status).status == "cancelled"
        with pytest.raises(NotFound):
            store.instances.cancel("unknown")

    def test_hep_f10_cancel_of_an_ended_one(self, store: Any) -> None:
        for status in ("completed", "failed", "cancelled"):
            store.instances.put(Instance(status, "w", status=status))
            with nothing_changes(store), pytest.raises(WrongState) as caught:
                store.instances.cancel(status)
            assert (caught.value.terminal, caught.value.actual) == (True, status)

    def test_a_runner_cannot_undo_a_cancel(self, store: Any) -> None:
        running = store.instances.put(Instance("a", "w", status="running"))
        store.instances.cancel("a")
        with nothing_changes(store):
            with pytest.raises(WrongState) as caught:
                store.instances.put(REPLACE(running, status="waiting"))
            assert caught.value.terminal is True
            with pytest.raises(StaleRevision):
                store.instances.put(REPLACE(running, status="completed"), expected_revision=running.revision)

    def test_a_resurrection_that_is_meant(self, store: Any) -> None:
        store.instances.put(Instance("a", "w", status="running"))
        cancelled = store.instances.cancel("a")
        resurrected = store.instances.put(REPLACE(cancelled, status="running"), expected_revision=cancelled.revision)
        assert (resurrected.status, resurrected.revision) == ("running", 3)

    def test_a_cancel_is_in_the_feed(self, store: Any) -> None:
        store.instances.put(Instance("a", "w"))
        store.instances.cancel("a")
        store.instances.delete("a")
        log = [(change.op, getattr(change.record, "status", None)) for change in changes(store)]
        assert log == [("create", "pending"), ("update", "cancelled"), ("delete", None)]
        previous = changes(store)[-1].previous
        assert isinstance(previous, Instance)
        assert previous.status == "cancelled"
