"""A file that is replaced, deleted or overwritten under a live store, and logs of other files: refused, and nothing is spoilt."""

import os
import shutil
import stat
import threading
from contextlib import closing

import apsw
import pytest

import stateroom
from engines.sqlite_helpers import run
from stateroom import Execution, Instance
from stateroom.engine import Batch, read_counter
from stateroom.engines import sqlite
from stateroom.engines.sqlite import place
from stateroom.errors import Damaged, InvalidArgument

SOURCES = {
    "backup": lambda path, copy: backup(path, copy),
    "older copy": shutil.copyfile,
    "another store": lambda path, copy: make(copy),
}


def backup(path, copy):
    with stateroom.open(path) as store:
        store.backup(copy)


def make(path):
    with stateroom.open(path) as store:
        for number in range(30):
            store.executions.create(Execution(f"other{number}", "job"))


def ids(path):
    with stateroom.open(path, create=False) as store:
        assert store.check() == []
        return {each.id for each in store.executions.scan(job_id="job")}


@pytest.fixture(params=list(SOURCES))
def files(request, tmp_path):
    """A file with 100 records, and another that is to take its place."""
    path, copy = str(tmp_path / "runs.db"), str(tmp_path / "copy.db")
    with stateroom.open(path) as store:
        for number in range(50):
            store.executions.create(Execution(f"old{number}", "job"))
    SOURCES[request.param](path, copy)
    with stateroom.open(path) as store:
        for number in range(50, 100):
            store.executions.create(Execution(f"old{number}", "job"))
    return path, copy


def move(copy, path):
    os.rename(copy, path)


def move_aside(copy, path):
    os.rename(path, f"{path}.aside")
    os.rename(copy, path)


def write_over(copy, path):
    with open(copy, "rb") as source, open(path, "r+b") as target:  # as `cp` does: the same file, another content
        target.truncate(0)
        shutil.copyfileobj(source, target)


def delete(copy, path):
    os.unlink(path)


def delete_folder(copy, path):
    shutil.rmtree(os.path.dirname(path))


@pytest.mark.parametrize("act", [move, move_aside, write_over], ids=lambda act: act.__name__)
@pytest.mark.parametrize("commits", [0, 1, 40])
def test_another_file_in_its_place_is_noticed_at_the_next_commit_and_kept_whole(files, act, commits):
    path, copy = files
    expected = ids(copy)
    with stateroom.open(path) as store:
        for number in range(commits):
            store.executions.create(Execution(f"live{number}", "job"))
        act(copy, path)
        for number in range(3):
            with pytest.raises(Damaged, match=r"while it was in use.*-wal"):
                store.executions.create(Execution(f"lost{number}", "job"))
        with pytest.raises(Damaged, match="while it was in use"):
            store.executions.find("old1")
    for suffix in ("-wal", "-shm"):  # as the error says
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    assert ids(path) == expected


def test_the_log_that_the_live_store_left_is_not_replayed_into_a_backup(tmp_path):
    path, copy = str(tmp_path / "runs.db"), str(tmp_path / "copy.db")
    with stateroom.open(path) as store:
        store.executions.create(Execution("a", "job"))
        store.backup(copy)
        store.executions.create(Execution("b", "job"))
        move(copy, path)
        with pytest.raises(Damaged):
            store.executions.create(Execution("c", "job"))
        with pytest.raises(Damaged, match=r"-wal is the log of another database"):
            stateroom.open(path)
    with pytest.raises(Damaged, match=r"-wal is the log of another database"):
        stateroom.open(path)
    assert os.path.getsize(f"{path}-wal"), "it is left, for whoever wants what was in it"
    for suffix in ("-wal", "-shm"):
        os.rename(path + suffix, f"{path}.before{suffix}")
    assert ids(path) == {"a"}


@pytest.mark.parametrize("act", [delete, delete_folder], ids=lambda act: act.__name__)
def test_a_deleted_file_acknowledges_nothing(tmp_path, act):
    folder = tmp_path / "folder"
    folder.mkdir()
    with stateroom.open(str(folder / "runs.db")) as store:
        store.executions.create(Execution("a", "job"))
        act(None, str(folder / "runs.db"))
        with pytest.raises(Damaged, match="was deleted while it was in use"):
            store.executions.create(Execution("b", "job"))
    assert not (folder / "runs.db").exists()


def test_the_others_of_a_group_are_told_too_and_who_waits(tmp_path):
    path = str(tmp_path / "runs.db")
    with stateroom.open(path) as store:
        store.instances.put(Instance("a", "wf"))
        outcomes = []

        def wait():
            try:
                outcomes.append(store.instances.wait("a", lambda each: each.status == "completed", timeout=60))
            except Damaged as error:
                outcomes.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        os.unlink(path)
        thread.join(30)
        assert isinstance(outcomes[0], Damaged)
        with pytest.raises(Damaged):
            store.instances.find("a")


def test_checkpoints_of_this_and_other_processes_are_no_overwriting(tmp_path):
    path = str(tmp_path / "runs.db")
    engine = sqlite.connect(path, durability="normal")
    other = """
import sys
from stateroom.engine import Batch
from stateroom.engines.sqlite import connect
engine = connect(sys.argv[1], durability="normal")
for number in range(40):
    engine.commit(0, Batch(write={b"%d" % number: bytes(1000)}, add={b"n": 1}))
    engine._checkpoints.run()
engine.close()
"""
    looks = []
    look = place.read_parts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, "read_parts", lambda *given, **named: looks.append(1) or look(*given, **named))
        thread = threading.Thread(target=run, args=(other, path))
        thread.start()
        commits = 0
        while thread.is_alive() or commits < 100:
            engine.commit(0, Batch(write={b"x%d" % (commits % 50): bytes(1000)}, add={b"n": 1}))
            commits += 1
            if commits % 7 == 0:
                engine._checkpoints.run()
        thread.join()
    assert read_counter(engine.read(0, [b"n"])[0].value) == commits + 40
    assert len(looks) > 5, "the file was looked into"
    engine.close()


def test_a_file_nobody_wrote_to_is_not_looked_into_again(tmp_path, monkeypatch):
    engine = sqlite.connect(str(tmp_path / "runs.db"))
    engine.commit(0, Batch(add={b"n": 1}))
    monkeypatch.setattr(place, "read_parts", None)
    assert engine.commit(0, Batch(add={b"n": 1})) == 2
    engine.close()


@pytest.mark.parametrize("parts", [1, 3, 250, 3000])
def test_what_is_read_of_a_page_is_what_sqlite_reads(tmp_path, parts):
    path = str(tmp_path / "runs.db")
    engine = sqlite.connect(path, parts=parts)
    for part in range(0, parts, max(1, parts // 9)):
        for _ in range(1 + part % 130):
            engine.commit(part, Batch())
    engine.close()
    engine = sqlite.connect(path)
    with closing(engine._connections.open()) as connection:
        expected = dict(connection.execute("SELECT part, version FROM parts"))
        assert place.read_parts(connection) == (expected if parts < 300 else None)
    engine.close()


@pytest.mark.parametrize(
    "value", [0, 1, 2, 127, 128, 32767, 32768, 2**23 - 1, 2**23, 2**31, 2**47 - 1, 2**47, 2**62, 2**63 - 1]
)
def test_versions_of_every_size_are_read(tmp_path, value):
    path = str(tmp_path / "a.db")
    with closing(apsw.Connection(path)) as connection:
        connection.execute("CREATE TABLE parts (part INTEGER PRIMARY KEY, version INTEGER NOT NULL)")
        connection.executemany("INSERT INTO parts VALUES (?, ?)", [(-1, value), (0, value // 3), (200, 1)])
        assert place.read_parts(connection) == {-1: value, 0: value // 3, 200: 1}


def test_a_plain_look_that_takes_the_log_away_is_told_before_anything_is_lost(tmp_path):
    import sqlite3

    path = str(tmp_path / "runs.db")
    with stateroom.open(path) as store:
        store.executions.create(Execution("a", "job"))
        store.executions._scope.direct._checkpoints.run()
        with closing(sqlite3.connect(path)) as other:  # of this process: it does not see our locks
            assert other.execute("SELECT count(*) FROM rows").fetchone()[0] > 0
        acknowledged, refused = set(), 0
        for number in range(5):
            try:
                store.executions.create(Execution(f"b{number}", "job"))
                acknowledged.add(f"b{number}")
            except Damaged:
                refused += 1
    assert refused + len(acknowledged) == 5
    for suffix in ("-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    with stateroom.open(f"sqlite:///{path}?page_checksums=ignore") as store:
        assert {each.id for each in store.executions.scan(job_id="job")} >= acknowledged | {"a"}


def test_a_backup_leaves_alone_what_is_somebody_elses(tmp_path):
    path, target = str(tmp_path / "runs.db"), tmp_path / "copy.db"
    partial = tmp_path / "copy.db.partial"
    partial.write_text("somebody's")
    with stateroom.open(path) as store:
        store.executions.create(Execution("a", "job"))
        store.backup(str(target))
    assert partial.read_text() == "somebody's"
    assert ids(str(target)) == {"a"}
    assert sorted(os.listdir(tmp_path)) == ["copy.db", "copy.db.partial", "runs.db"]


def test_a_backup_takes_no_name_that_was_taken_meanwhile(tmp_path, monkeypatch):
    from stateroom.engines.sqlite import upkeep

    target, copy = tmp_path / "copy.db", upkeep._copy

    def slow(*arguments):
        copy(*arguments)
        target.write_text("somebody's")

    monkeypatch.setattr(upkeep, "_copy", slow)
    engine = sqlite.connect(str(tmp_path / "runs.db"))
    with pytest.raises(InvalidArgument, match="exists"):
        engine.backup(str(target))
    assert target.read_text() == "somebody's"
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".partial")]
    engine.close()


@pytest.mark.skipif(os.name == "nt", reason="no modes here")
def test_files_are_for_their_user_alone(tmp_path):
    before = os.umask(0o022)
    try:
        path, copy = str(tmp_path / "runs.db"), str(tmp_path / "copy.db")
        with stateroom.open(path) as store:
            store.executions.create(Execution("a", "job"))
            store.backup(copy)
            for name in (path, f"{path}-wal", f"{path}-shm", copy):
                assert stat.S_IMODE(os.stat(name).st_mode) == 0o600, name
        shared = tmp_path / "shared.db"
        shared.touch(0o660)
        os.chmod(shared, 0o660)
        stateroom.open(str(shared)).close()
        assert stat.S_IMODE(os.stat(shared).st_mode) == 0o660, "a mode that was chosen stays"
    finally:
        os.umask(before)


def test_each_copy_has_a_number_of_its_own(tmp_path):
    path = str(tmp_path / "runs.db")
    numbers = []
    engine = sqlite.connect(path)
    for number in range(3):
        engine.backup(str(tmp_path / f"copy{number}.db"))
    engine.close()
    for name in ("runs.db", "copy0.db", "copy1.db", "copy2.db"):
        with closing(apsw.Connection(str(tmp_path / name))) as connection:
            numbers.append(connection.execute("SELECT version FROM parts WHERE part = -1").get)
    assert len(set(numbers)) == 4


def test_part_minus_one_is_no_part(tmp_path):
    engine = sqlite.connect(str(tmp_path / "runs.db"), parts=2)
    with pytest.raises(InvalidArgument):
        engine.commit(-1, Batch(add={b"n": 1}))
    engine.commit(1, Batch())
    engine.wait(None, 0, 0)
    assert engine._version(None) == 1
    engine.close()


def test_another_number_in_the_file_is_told_also_where_no_log_says_so(tmp_path):
    """Another store copied over this one after its log was taken into it: all that differs is the number."""
    path, other = str(tmp_path / "runs.db"), str(tmp_path / "other.db")
    for name, commits in ((path, 3), (other, 9)):
        engine = sqlite.connect(name)
        for _ in range(commits):
            engine.commit(0, Batch())
        engine.close()
    watched = place.Place(path)
    with closing(apsw.Connection(path)) as connection:
        watched.check(connection)
        watched.check(connection)
    with open(other, "rb") as source, open(path, "r+b") as target:  # in place: the file is the same
        target.write(source.read())
        target.truncate()
    os.utime(path, ns=(1, 1))
    with closing(apsw.Connection(path)) as connection, pytest.raises(Damaged, match="overwritten"):
        watched.check(connection)
