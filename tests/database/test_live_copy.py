"""`backup` and `copy` of a database in use: as of one moment, whatever is committed meanwhile."""

import asyncio
import itertools

import pytest

import stateroom
from stateroom import Execution, Instance
from stateroom.errors import Unavailable
from stateroom.store.moving import copy_stores


class Busy:
    """A writer that commits before each row that the copy writes: in the middle of every copy."""

    def __init__(self, store):
        self._store, self._numbers = store, itertools.count()

    def __call__(self):
        number = next(self._numbers)
        self._store.executions.create(Execution(f"late/{number}", "late"))
        self._store.instances.put(Instance(f"i{number % 20}", "wf", metadata={"late": number}))

    @property
    def written(self):
        return next(self._numbers)


@pytest.fixture
def filled(alone):
    store = alone.open()
    for number in range(40):
        store.instances.put(Instance(f"i{number}", "wf", metadata={"n": number}))
        store.executions.create(Execution(f"job/{number}", f"job{number % 3}"))
    store.results.put("dag", "large", "x" * 300_000)
    return store


@pytest.fixture
def busy(alone, filled):
    with stateroom.open(alone.url, namespace=alone.namespace, clock=alone.clock) as store:
        yield Busy(store)


def while_copied(monkeypatch, busy):
    """Have somebody write whenever a copy commits to its target."""
    from stateroom.database import copying

    put = copying._Writer.put

    async def put_amid_writers(self, *args):
        busy()
        await put(self, *args)

    monkeypatch.setattr(copying._Writer, "put", put_amid_writers)


def check_copy(path, busy):
    with stateroom.open(path, create=False) as copy:
        assert copy.check() == []
        names = {name for name in copy_namespaces(copy) if name}
        found = [copy.namespace(name) for name in names]
        assert sum(store.executions.count("new") for store in found) == 40
        for store in found:
            for number in range(40):
                assert store.instances.get(f"i{number}").metadata == {"n": number}
            assert store.results.get("dag", "large") == "x" * 300_000
    assert busy.written > 20, "nobody wrote in the middle of the copy"


def copy_namespaces(store):
    from stateroom.core.bridge import run_now
    from stateroom.database.namespaces import namespaces

    return run_now(namespaces(store._scope))


@pytest.mark.parametrize("database", ["postgresql", "postgresql-async"], indirect=True)
def test_a_backup_of_a_database_in_use_is_that_of_one_moment(filled, busy, tmp_path, monkeypatch):
    while_copied(monkeypatch, busy)
    path = tmp_path / "backup.db"
    filled.backup(path)
    monkeypatch.undo()
    check_copy(path, busy)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_copy_of_a_database_in_use_is_that_of_one_moment(filled, busy, tmp_path, monkeypatch):
    while_copied(monkeypatch, busy)
    path = tmp_path / "copy.db"
    with stateroom.open(path) as target:
        copy_stores(filled, target)
    monkeypatch.undo()
    check_copy(path, busy)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_bridged_store_is_backed_up_in_use_as_well(filled, busy, tmp_path, monkeypatch):
    while_copied(monkeypatch, busy)
    path = tmp_path / "backup.db"
    asyncio.run(stateroom.AsyncStore.over(filled).backup(path))
    monkeypatch.undo()
    check_copy(path, busy)


@pytest.mark.parametrize("database", ["postgresql", "postgresql-async"], indirect=True)
def test_a_backup_that_loses_its_connection_leaves_nothing_and_says_so(filled, alone, tmp_path, monkeypatch):
    import psycopg

    def cut():
        with psycopg.connect(alone.url.partition("?")[0], autocommit=True) as server:
            server.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE state = 'idle in transaction'"
            )

    while_copied(monkeypatch, cut)
    with pytest.raises(Unavailable):
        filled.backup(tmp_path / "backup.db")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    filled.backup(tmp_path / "backup.db")
