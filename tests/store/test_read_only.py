"""A store that is only read: nothing is made or changed, by no call, on every engine and face."""

import asyncio
import inspect
import os
import stat
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import stateroom
from engines.sqlite_helpers import environment, run
from stateroom import BEGINNING, Event, Execution, Instance, Policy
from stateroom.engines import read_only
from stateroom.engines.sqlite import reader
from stateroom.errors import Closed, Conflict, Damaged, InvalidArgument, NotFound, ReadOnly, Refused


def fill(store):
    store.instances.put(Instance("a", "wf", business_key="a"))
    store.executions.create(Execution("e", "job"), events=[Event("x")])
    store.machines.save("m", "a", "idle", {"n": 1})
    store.results.put("d", "large", "x" * 200_000)
    store.savepoints.init("run")
    store.savepoints.save("run", 1, {"k": 1})
    store.checkpoints.set("c", store.feed.latest())
    store.retention.set(Policy("feed", older_than=timedelta(days=1)))


WRITES = {
    "put": lambda store: store.instances.put(Instance("b", "wf")),
    "delete": lambda store: store.instances.delete("a"),
    "create": lambda store: store.executions.create(Execution("f", "job")),
    "update": lambda store: store.executions.update("e", message="m"),
    "add_events": lambda store: store.executions.add_events("e", Event("y")),
    "save": lambda store: store.machines.save("m", "a", "run", {}),
    "results": lambda store: store.results.put("d", "r", 1),
    "large": lambda store: store.results.put("d", "r", "y" * 200_000),
    "memo": lambda store: store.results.memo("d", "f", 1, lambda: 1),
    "clear": lambda store: store.results.clear("d"),
    "savepoint": lambda store: store.savepoints.save("run", 2, {"k": 2}),
    "lease": lambda store: store.leases.acquire("k", "w", 9),
    "timer": lambda store: store.timers.set("t", datetime.now(UTC)),
    "checkpoint": lambda store: store.checkpoints.set("c2", BEGINNING),
    "emit": lambda store: store.feed.emit("note", {"n": 1}),
    "policy": lambda store: store.retention.set(Policy("instances", keep_latest=1)),
    "transact": lambda store: store.transact(lambda tx: tx.instances.put(Instance("b", "wf"))),
}


def read_everything(store):
    assert store.instances.get("a").workflow == "wf"
    assert [each.id for each in store.instances.scan()] == ["a"]
    assert store.executions.count("new") == 1
    assert len(store.executions.events("e")) == 1
    assert store.machines.load("m", "a").payload == {"n": 1}
    assert store.results.get("d", "large") == "x" * 200_000
    assert dict(store.savepoints.latest("run").entities()) == {"k": 1}
    assert store.checkpoints.get("c")
    changes = store.feed.read(after=BEGINNING)
    assert len(changes.items) >= 5
    assert not store.feed.read(after=changes.next).items
    assert store.check() == []
    assert store.stats()
    assert store.leases.holder("k") is None
    with store.transaction() as tx:
        assert tx.instances.get("a").workflow == "wf"


def contents(folder):
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns, stat.S_IMODE(path.stat().st_mode))
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def refuse_all(store):
    for name, write in WRITES.items():
        with pytest.raises(ReadOnly) as caught:
            write(store)
        assert isinstance(caught.value, Refused), name
        assert caught.value.code == "read-only"
        assert "read_only" in caught.value.message


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = str(folder / "a.db")
    with stateroom.open(path) as store:
        fill(store)
    return path


def test_nothing_is_changed_by_any_call(path):
    before = contents(os.path.dirname(path))
    with stateroom.open(path, read_only=True) as store:
        read_everything(store)
        refuse_all(store)
        assert store.compact() == 0
        assert contents(os.path.dirname(path)) == before
    assert contents(os.path.dirname(path)) == before
    with pytest.raises(Closed):
        store.instances.find("a")


def test_the_same_for_an_event_loop(path):
    before = contents(os.path.dirname(path))

    async def main():
        store = await stateroom.open_async(path, read_only=True)
        assert (await store.instances.get("a")).workflow == "wf"
        assert len((await store.feed.read()).items) >= 5
        assert await store.check() == []
        for name in ("put", "create", "lease", "emit"):
            with pytest.raises(ReadOnly):
                await WRITES[name](store)
        await store.close()

    asyncio.run(main())
    assert contents(os.path.dirname(path)) == before


def test_memory_refuses_too():
    with stateroom.open("memory:", read_only=True) as store:
        for name in ("put", "create", "results", "lease", "timer", "emit", "policy", "transact"):
            with pytest.raises(ReadOnly):
                WRITES[name](store)
        assert store.feed.read().items == ()
        assert store.check() == []


def test_a_medium_that_cannot_be_written(path, tmp_path):
    """As another user, since root may write anything."""
    program = """
import os, sys, stateroom
with stateroom.open(sys.argv[2]) as store:  # imports what is imported late, which that user may be unable to read
    store.instances.put(stateroom.Instance("a", "wf")); store.check(); store.feed.read()
stateroom.open(sys.argv[2], read_only=True).close()
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
with stateroom.open(sys.argv[1], read_only=True) as store:
    print(store.instances.get("a").id, len(store.check()), len(store.feed.read().items) >= 5)
try:
    stateroom.open(sys.argv[1])
except Exception as error:
    print(type(error).__name__)
"""
    folder = os.path.dirname(path)
    os.chmod(path, 0o444)
    os.chmod(folder, 0o555)
    for parent in Path(folder).parents:
        if Path(tempfile.gettempdir()) in parent.parents:
            os.chmod(parent, 0o755)
    before = contents(folder)
    try:
        printed = subprocess.run(
            [sys.executable, "-c", program, path, str(tmp_path / "warm.db")],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert printed.stdout.split() == ["a", "0", "True", "InvalidArgument"], printed.stderr[-800:]
    finally:
        os.chmod(folder, 0o755)
    assert contents(folder) == before


def test_it_follows_a_writer_of_another_process(path):
    with stateroom.open(path, read_only=True) as reading:
        before = reading.feed.read().next
        with stateroom.open(path) as writing:
            writing.instances.put(Instance("b", "wf"))
            assert reading.instances.get("b").id == "b", "from the log"
            assert [change.id for change in reading.feed.read(after=before, wait=30).items] == ["b"]
            writing.instances.put(Instance("c", "wf"))
        assert reading.instances.get("c").id == "c", "from what is left of the log, or from the file"
        with stateroom.open(path) as writing:
            writing.instances.delete("c")
            assert reading.instances.find("c") is None
        assert {each.id for each in reading.instances.scan()} == {"a", "b"}
        assert reading.check() == []


def test_a_file_that_changes_in_the_middle_of_a_read_is_read_again(path, monkeypatch):
    engine = reader.open_reader(path, parts=None, verify=True)
    calls = []

    def read_rows(connection, part, keys):
        if not calls:
            run(
                "import sys, stateroom\nwith stateroom.open(sys.argv[1]) as s: s.instances.put(stateroom.Instance('b', 'wf'))",
                path,
            )
        calls.append(1)
        return usual(connection, part, keys)

    usual = reader.read_rows
    version = engine.read(0, [b""])[0].version
    monkeypatch.setattr(reader, "read_rows", read_rows)
    assert engine.read(0, [b""])[0].version == version + 1
    assert len(calls) == 2
    engine.close()


def test_what_a_killed_process_left_in_the_log_is_seen(path):
    killed = """
import os, sys, stateroom
store = stateroom.open(sys.argv[1])
store.instances.put(stateroom.Instance("late", "wf"))
os._exit(0)
"""
    run(killed, path)
    assert os.path.getsize(f"{path}-wal")
    file, log = Path(path).read_bytes(), Path(f"{path}-wal").read_bytes()
    with stateroom.open(path, read_only=True) as store:
        assert store.instances.get("late").id == "late"
    assert (Path(path).read_bytes(), Path(f"{path}-wal").read_bytes()) == (file, log)


def test_nothing_is_made_where_there_is_nothing(tmp_path):
    for create in (True, False):
        with pytest.raises(NotFound):
            stateroom.open(str(tmp_path / "none.db"), read_only=True, create=create)
    (tmp_path / "empty.db").touch()
    with pytest.raises(NotFound):
        stateroom.open(str(tmp_path / "empty.db"), read_only=True)
    (tmp_path / "other.db").write_bytes(b"no database" * 500)
    with pytest.raises((InvalidArgument, Damaged)):
        stateroom.open(str(tmp_path / "other.db"), read_only=True)
    with pytest.raises(InvalidArgument):
        stateroom.open(str(tmp_path), read_only=True)
    assert sorted(os.listdir(tmp_path)) == ["empty.db", "other.db"]


def test_a_backup_of_what_is_only_read(path, tmp_path):
    with stateroom.open(path, read_only=True) as store:
        store.backup(str(tmp_path / "copy.db"))
    with stateroom.open(str(tmp_path / "copy.db")) as store:
        read_everything(store)


def test_positions_of_a_database_that_never_gave_one(tmp_path):
    path = str(tmp_path / "a.db")
    with stateroom.open(path) as store:
        store.instances.put(Instance("a", "wf"))
    with stateroom.open(path, read_only=True) as reading:
        position = reading.feed.read().next
        assert not reading.feed.read(after=position).items
        with stateroom.open(path) as writing:
            writing.instances.put(Instance("b", "wf"))
            assert [each.id for each in writing.feed.read(after=position).items] == ["b"]
            known = writing.feed.latest()
        assert [each.id for each in reading.feed.read(after=position).items] == ["b"]
        assert not reading.feed.read(after=known).items


@pytest.fixture(scope="module")
def reader_url():
    """PostgreSQL with a database in it, and the url of a role that may SELECT, and nothing else."""
    import psycopg

    from stateroom.testing.postgres import fresh_schema

    with fresh_schema("18") as url:
        with stateroom.open(url, parts=2) as store:
            fill(store)
        from stateroom.engines.postgres import dsn

        schema = dsn.parse(url).schema
        role = f"reader_{os.getpid()}"
        base = url.partition("?")[0]
        with psycopg.connect(base, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute(f'GRANT USAGE ON SCHEMA "{schema}" TO {role}')
            connection.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA "{schema}" TO {role}')
            yield url, role
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")


def as_role(url, role):
    head, _, options = url.partition("?")
    scheme, _, place = head.partition("://")
    return f"{scheme}://{role}@{place.rpartition('@')[2]}?{options}"


def test_a_role_that_may_only_select(reader_url):
    url = as_role(*reader_url)
    with stateroom.open(url, read_only=True) as store:
        read_everything(store)
        refuse_all(store)

    async def main():
        store = await stateroom.open_async(url, read_only=True)
        assert (await store.instances.get("a")).workflow == "wf"
        assert len((await store.feed.read()).items) >= 5
        for name in ("put", "create", "lease", "emit"):
            with pytest.raises(ReadOnly):
                await WRITES[name](store)
        await store.close()

    asyncio.run(main())


def test_an_engine_of_somebody_elses_is_not_told_and_not_written_to(monkeypatch):
    from stateroom.engines import memory, urls

    given = []

    def connect(url, *, durability="full", create=True, parts=None):
        given.append(create)
        return memory.MemoryEngine()

    monkeypatch.setattr(urls, "connect", lambda url: connect)
    with stateroom.open("theirs:", read_only=True) as store, pytest.raises(ReadOnly):
        store.instances.put(Instance("a", "wf"))
    assert given == [False]


def test_a_batch_that_changes_nothing_is_checked():
    from stateroom.engine import Batch
    from stateroom.engines import memory

    below = memory.connect("memory:")
    below.commit(0, Batch(write={b"a": b"1"}))
    engine = read_only.ReadOnlyEngine(below)
    assert engine.commit(0, Batch(expect={b"a": 1, b"b": 0})) == 1
    with pytest.raises(Conflict):
        engine.commit(0, Batch(expect={b"a": 2}))
    for change in (
        Batch(write={b"a": b""}),
        Batch(add={b"a": 0}),
        Batch(append=[(b"a", b"")]),
        Batch(clear=[(b"a", b"b")]),
    ):
        with pytest.raises(ReadOnly):
            engine.commit(0, change)
    assert below.read(0, [b""])[0].version == 1


def test_both_doors_take_it():
    assert "read_only" in inspect.signature(stateroom.open).parameters
    assert "read_only" in inspect.signature(stateroom.open_async).parameters


def test_a_named_watcher_is_refused_and_an_ephemeral_one_is_not(path):
    changes = []
    with stateroom.open(path, read_only=True) as store:
        with pytest.raises(ReadOnly, match="ephemeral"):
            store.watch("named", changes.append).start()
        watcher = store.watch("other", changes.append, ephemeral=True)
        watcher.start()
        watcher.stop(5)
