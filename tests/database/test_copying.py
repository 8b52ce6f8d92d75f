"""A database moves whole between engines and numbers of parts, and a consumer misses nothing."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import stateroom
from stateroom import BEGINNING, Context, Event, Execution, Instance
from stateroom.errors import AlreadyExists, Compacted, InvalidArgument, NotFound
from stateroom.store.moving import copy_stores
from stateroom.testing.postgres import postgres_url  # noqa: F401


def fill(store: stateroom.Store) -> None:
    """Something of every family, with history, deletions and recreations."""
    for number in range(40):
        id = f"order-{number}/charge"
        store.executions.create(Execution(id, f"job-{number % 3}", node_id="n"), events=[Event("made")])
        if number % 2:
            store.executions.update(id, state="running", data=["x" * 50] * number, events=[Event("began")])
        if number % 5 == 0:
            store.executions.delete(id)
        if number % 10 == 0:
            store.executions.create(Execution(id, "again"))
        if number == 20:
            store.checkpoints.set("half", store.feed.latest())
    store.executions.create(Execution("large", "job", data="y" * 300_000))
    store.checkpoints.set("start", BEGINNING)
    store.instances.start(Instance("k/1", "wf", business_key="k", labels={"a": "b"}, context=Context({"n": 1})))
    store.machines.save("m", "light", "red", {"since": 1})
    store.machines.save("m", "light", "green", {"since": 2})
    store.machines.fail("m", "light", ValueError("stuck"))
    store.timers.set("t", datetime(2030, 1, 1, tzinfo=UTC), {"wake": True})
    store.leases.acquire("k/1", "worker", 1000)
    store.transact(lambda tx: tx.executions.create(Execution("once/1", "job")).id, once="key")
    store.feed.emit("note", {"a": 1})
    for number in range(8):
        store.locations.register(f"dag-{number}", "f", "n1", digest="a" * 64, size=3, form="bytes")
        store.locations.register(f"dag-{number}", "f", "n2")
    store.locations.advance("dag-3")
    store.locations.settle("dag-3", "n1", 1)
    store.locations.join("n1", "http://127.0.0.1:1", "process", 1000)
    other = store.namespace("tenant")
    other.instances.put(Instance("k/1", "other"))
    if hasattr(store, "results"):
        store.results.put("dag", "f", [1, 2, 3])
        store.results.put("dag", "big", "z" * 200_000)
    if hasattr(store, "savepoints"):
        store.savepoints.init("run")
        store.savepoints.save("run", 1000, {f"entity-{n}": n for n in range(100)})


def view(store: stateroom.Store) -> list[Any]:
    """What a reader sees of it."""
    seen: list[Any] = [
        list(store.executions.scan()),
        [store.executions.events(record.id) for record in store.executions.scan()],
        [store.executions.history(record.id).items for record in store.executions.scan()],
        list(store.instances.scan(order="updated")),
        store.instances.active("k"),
        store.machines.load("m", "light"),
        store.machines.history("m", "light").items,
        store.machines.last_error("m", "light"),
        store.timers.due(datetime(2031, 1, 1, tzinfo=UTC)),
        store.leases.holder("k/1"),
        sorted(
            (change.id, change.op, change.family, str(change.record), str(change.previous), str(change.events))
            for change in store.feed.read(limit=1000).items
        ),
        list(store.namespace("tenant").instances.scan()),
        list(store.locations.scan()),
        list(store.locations.scan(node="n2")),
        store.locations.nodes(),
        store.locations.generations(),
        store.locations.generation("dag-3", "n1"),
        store.stats().locations,
        {state: store.executions.count(state) for state in ("new", "running")},
    ]
    if hasattr(store, "results"):
        seen += [store.results.get("dag", "f"), store.results.get("dag", "big")]
    if hasattr(store, "savepoints"):
        seen.append(dict(store.savepoints.latest("run").entities()))
    return seen


@pytest.fixture
def source(tmp_path: Path) -> Iterator[stateroom.Store]:
    with stateroom.open(tmp_path / "source.db") as store:
        fill(store)
        yield store


def same(source: stateroom.Store, target: stateroom.Store) -> None:
    assert view(target) == view(source)
    assert target.check() == []
    assert target.namespace("tenant").check() == []


@pytest.mark.parametrize("parts", [1, 7])
def test_a_copy_reads_like_its_source_whatever_its_parts(source: stateroom.Store, tmp_path: Path, parts: int) -> None:
    stateroom.copy(tmp_path / "source.db", tmp_path / "target.db", parts=parts)
    with stateroom.open(tmp_path / "target.db") as target:
        same(source, target)
        assert target.transact(lambda tx: tx.executions.create(Execution("once/1", "job")), once="key") == "once/1"


def test_a_copy_of_a_copy_comes_back_to_one_part(source: stateroom.Store, tmp_path: Path) -> None:
    with stateroom.open(tmp_path / "many.db", parts=5) as many, stateroom.open(tmp_path / "one.db") as one:
        copy_stores(source, many)
        copy_stores(many, one)
        same(source, one)


def test_a_copy_goes_on_living(source: stateroom.Store, tmp_path: Path) -> None:
    with stateroom.open(tmp_path / "target.db", parts=3) as target:
        copy_stores(source, target)
        before = target.executions.get("order-1/charge")
        target.executions.update("order-1/charge", state="completed", events=[Event("done")])
        assert [event.seq for event in target.executions.events("order-1/charge")] == [1, 2, 3]
        assert target.executions.history("order-1/charge").items[1] == before
        with pytest.raises(AlreadyExists):
            target.instances.start(Instance("k/2", "wf", business_key="k"))
        target.executions.delete("large")
        assert target.check() == []


@pytest.mark.parametrize("parts", [1, 4])
def test_a_consumer_sees_every_change_it_had_not_seen(source: stateroom.Store, tmp_path: Path, parts: int) -> None:
    with stateroom.open(tmp_path / "target.db", parts=parts) as target:
        copy_stores(source, target)
        for name in ("half", "start"):
            missed = source.feed.read(source.checkpoints.get(name), limit=1000).items
            again = target.feed.read(target.checkpoints.get(name), limit=1000).items
            wanted = {(change.id, change.op, str(change.record)) for change in missed}
            assert wanted <= {(change.id, change.op, str(change.record)) for change in again}
        if parts == 1:
            assert len(target.feed.read(target.checkpoints.get("half"), limit=1000).items) == len(
                source.feed.read(source.checkpoints.get("half"), limit=1000).items
            )


def test_a_position_of_the_source_is_foreign(source: stateroom.Store, tmp_path: Path) -> None:
    with stateroom.open(tmp_path / "target.db") as target:
        copy_stores(source, target)
        with pytest.raises(InvalidArgument, match="another database"):
            target.feed.read(source.feed.latest())


def test_what_was_compacted_stays_compacted(source: stateroom.Store, tmp_path: Path) -> None:
    from stateroom.engine import Batch

    source._engine.commit(0, Batch(write={source._scope.key(b"G"): (60).to_bytes(8, "big") + bytes(2)}))
    with stateroom.open(tmp_path / "target.db") as target:
        copy_stores(source, target)
        with pytest.raises(Compacted):
            target.feed.read(target.checkpoints.get("half"))
        assert target.feed.read(BEGINNING).items


def test_a_backup_is_made_while_others_write_and_restores(source: stateroom.Store, tmp_path: Path) -> None:
    before = view(source)
    source.backup(tmp_path / "backup.db")
    source.executions.create(Execution("later", "job"))
    stateroom.restore(tmp_path / "backup.db", tmp_path / "restored.db")
    with stateroom.open(tmp_path / "restored.db") as restored:
        assert view(restored) == before
        assert restored.check() == []


def test_bad_calls_say_what_is_wrong_and_change_nothing(source: stateroom.Store, tmp_path: Path) -> None:
    path = tmp_path / "source.db"
    with pytest.raises(NotFound):
        stateroom.copy(tmp_path / "absent.db", tmp_path / "x.db")
    assert not (tmp_path / "x.db").exists()
    with pytest.raises(InvalidArgument):
        stateroom.copy(path, path)
    with pytest.raises(NotFound):
        stateroom.restore(tmp_path / "absent.db", tmp_path / "x.db")
    with pytest.raises(InvalidArgument):
        source.backup(path)
    with stateroom.open(tmp_path / "full.db") as full:
        full.executions.create(Execution("a", "job"))
    with pytest.raises(AlreadyExists):
        stateroom.copy(path, tmp_path / "full.db")
    with stateroom.open(tmp_path / "full.db") as full:
        assert [record.id for record in full.executions.scan()] == ["a"]


def test_a_store_in_memory_can_be_backed_up(tmp_path: Path) -> None:
    with stateroom.open("memory:") as store:
        fill(store)
        store.backup(tmp_path / "backup.db")
        with stateroom.open(tmp_path / "backup.db") as saved:
            same(store, saved)


def test_to_a_server_and_back(source: stateroom.Store, tmp_path: Path, postgres_url: str) -> None:  # noqa: F811
    stateroom.copy(tmp_path / "source.db", postgres_url, verify=True)
    with stateroom.open(postgres_url) as server:
        same(source, server)
        server.backup(tmp_path / "backup.db")
    with stateroom.open(tmp_path / "backup.db") as back:
        same(source, back)
