"""A value whose type is unknown here is shown as what it is in lists, and blocks nothing else; nothing is lost."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import stateroom
from kit.databases import SEVERAL
from stateroom import Context, Event, Execution, Instance
from stateroom.codec import Codec, Raw
from stateroom.errors import Undecodable


@dataclass
class Order:
    amount: int


def fill(store: Any) -> None:
    for number in range(5):
        store.executions.create(Execution(f"r/e{number}", "job", data=Order(5) if number == 2 else number))
    store.instances.put(Instance("r/i", "wf", context=Context({"order": Order(7)})))
    store.feed.emit("note", Order(9), "r")
    store.feed.emit("note", "plain", "r")


@pytest.fixture
def filled(database: Any) -> Any:
    """A database with records of a type that only `knowing()` knows, among others."""
    database.codec = knowing()
    with database.open(codec=knowing()) as store:
        fill(store)
    return database


def knowing() -> Codec:
    codec = Codec()
    codec.register(Order, name="shop.order", version=2)
    return codec


@SEVERAL
def test_only_its_own_record_is_refused_with_path_and_tag(filled: Any) -> None:
    with filled.open() as store:
        assert store.executions.get("r/e1").data == 1
        with pytest.raises(Undecodable) as caught:
            store.executions.get("r/e2")
        assert (caught.value.kind, caught.value.id, caught.value.tag) == ("executions", "r/e2", "shop.order")
        assert caught.value.path == "$.data"
        with pytest.raises(Undecodable) as caught:
            store.instances.get("r/i")
        assert caught.value.path == "$.context.initial.order"


@SEVERAL
def test_raw_reads_the_envelope(filled: Any) -> None:
    with filled.open() as store:
        found = store.executions.get("r/e2", raw=True)
        assert (found.state, found.revision) == ("new", 1)
        assert isinstance(found.data, Raw)
        assert (found.data.name, found.data.version) == ("shop.order", 2)
        assert store.executions.find("r/e2", raw=True) == found
        assert store.instances.find("r/i", raw=True) is not None


@SEVERAL
def test_lists_show_the_envelope(filled: Any) -> None:
    with filled.open() as store:
        page = store.executions.query(job_id="job")
        assert [record.id for record in page] == [f"r/e{number}" for number in range(5)]
        assert page.undecodable == 0
        for records in (
            page,
            store.executions.scan(),
            store.executions.for_job("job"),
            store.executions.get_many([f"r/e{number}" for number in range(5)]).values(),
        ):
            (envelope,) = [record.data for record in records if record.id == "r/e2"]
            assert (envelope.name, envelope.version) == ("shop.order", 2)
        (run,) = store.instances.orphans()
        assert run.context.initial["order"].name == "shop.order"


@SEVERAL
def test_what_is_written_back_is_what_it_was(filled: Any) -> None:
    with filled.open() as store:
        store.executions.update("r/e2", state="running")
        store.executions.add_events("r/e2", Event("seen"))
        store.instances.update("r/i", status="running", labels={"a": "b"})
        store.instances.cancel("r/i")
    with filled.open(codec=knowing()) as store:
        assert store.executions.get("r/e2").data == Order(5)
        assert store.instances.get("r/i").context.initial == {"order": Order(7)}


@SEVERAL
def test_the_feed_goes_on_and_names_the_error(filled: Any) -> None:
    with filled.open() as store:
        changes = store.feed.read(limit=1000).items
        assert len(changes) == 8
        bad = [change for change in changes if change.error is not None]
        assert [change.family for change in bad] == ["executions", "instances", "note"]
        execution, instance, note = [change.record for change in bad]
        assert all(isinstance(value, Raw) for value in (execution.data, instance.context.initial["order"], note))
        assert changes[-1].record == "plain"


@pytest.mark.parametrize("parts", [None, 5])
def test_copy_and_backup_bring_it_along(tmp_path: Path, parts: int | None) -> None:
    source, target = tmp_path / "a.db", tmp_path / "b.db"
    with stateroom.open(source, codec=knowing()) as store:
        fill(store)
    stateroom.copy(source, target, parts=parts)
    with stateroom.open(target) as store:
        store.backup(tmp_path / "c.db")
    for copied in (target, tmp_path / "c.db"):
        with stateroom.open(copied, codec=knowing()) as store:
            assert store.executions.get("r/e2").data == Order(5)
            assert store.instances.get("r/i").context.initial == {"order": Order(7)}
            assert store.executions.count("new") == 5
            assert store.check() == []


@SEVERAL
def test_check_lists_it_and_deletes_nothing(filled: Any) -> None:
    with filled.open() as store:
        found = [(problem.code, problem.id) for problem in store.check() if problem.code == "undecodable"]
    assert {id for _, id in found} >= {"r/e2", "r/i"}
    with filled.open(codec=knowing()) as store:
        assert store.executions.get("r/e2").data == Order(5)


@SEVERAL
def test_it_can_be_deleted_without_being_understood(filled: Any) -> None:
    with filled.open() as store:
        assert store.executions.delete("r/e2")
        assert store.instances.delete("r/i")
        assert store.executions.count("new") == 4
        left = [(problem.code, problem.family, problem.id) for problem in store.check()]
        assert left == [("undecodable", "note", "r")]  # what was emitted stays in the feed
