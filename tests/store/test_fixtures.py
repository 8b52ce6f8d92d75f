"""The fixtures themselves: both faces do the same, and both clients see one database."""

import os

import pytest

import stateroom
from kit.databases import checked
from stateroom import Execution, Instance, keys
from stateroom.engine import Batch
from stateroom.errors import AlreadyExists, InvalidArgument, NotFound


def test_a_store_on_every_engine_and_face(store, other, clock):
    made = store.instances.start(Instance("a", "w"))
    assert other.instances.get("a") == made
    assert made.created_at == clock.now()
    clock.advance(5)
    assert store.instances.cancel("a").updated_at == clock.now()
    assert [one.id for one in store.instances.scan()] == ["a"]
    with pytest.raises(NotFound):
        store.instances.get("b")


def test_transactions_and_functions(store):
    with store.transaction() as tx:
        tx.instances.put(Instance("r/a", "w"))
        tx.executions.create(Execution("r/b", "j"))
        assert [one.id for one in tx.instances.scan()] == ["r/a"]
    assert store.executions.get("r/b").revision == 1
    assert store.transact(lambda tx: tx.instances.get("r/a").revision) == 1
    with pytest.raises(AlreadyExists), store.transaction() as tx:
        tx.executions.create(Execution("r/c", "j"))
        tx.executions.create(Execution("r/b", "j"))
    assert store.executions.find("r/c") is None


def test_reopened(store, reopen):
    store.instances.put(Instance("a", "w"))
    assert reopen().instances.get("a").workflow == "w"


def test_a_bad_argument_changes_nothing(store):
    with pytest.raises(InvalidArgument):
        store.instances.put(Instance("", "w"))
    assert store.instances.count() == 0


def test_what_check_finds_is_kept_and_its_place_said(database, store, tmp_path):
    store.instances.put(Instance("a", "w"))
    engine, prefix = database.raw(), keys.namespace(database.namespace)
    part = next(part for part in range(engine.parts) if engine.scan(part, prefix, prefix + keys.END, limit=1))
    row = next(
        row for row in engine.scan(part, prefix, prefix + keys.END, limit=100) if row.key[len(prefix) :][:1] == b"X"
    )
    engine.commit(part, Batch(write={row.key: None}))
    with pytest.raises(AssertionError, match="index-missing") as failed:
        checked(database, tmp_path)
    database.codec = None
    kept = str(failed.value).rpartition("kept in ")[2]
    if database.engine != "sqlite":
        with stateroom.open(kept, namespace=database.namespace) as copy:
            assert copy.instances.get("a").workflow == "w"
    assert os.path.exists(kept)
