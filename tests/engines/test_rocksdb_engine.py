"""What the contract does not ask: locks, readers of other processes, forks, damage, full disks, copies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stateroom
from engines.rocksdb_helpers import Folders, connect
from engines.sqlite_helpers import environment
from stateroom import Execution, open
from stateroom.engine import Batch
from stateroom.engines.rocksdb.logs import is_torn_tail
from stateroom.engines.rocksdb.place import Folder, Settings
from stateroom.engines.rocksdb.secondary import RocksReader
from stateroom.errors import Closed, Damaged, InUse, InvalidArgument, NotFound, ReadOnly, UnsupportedFormat


@pytest.fixture
def url(tmp_path):
    return f"rocksdb:///{tmp_path}/store"


def run(code: str, *arguments: str) -> str:
    """What a process of its own prints, in which `code` runs."""
    program = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert program.returncode == 0, program.stderr
    return program.stdout.strip()


OPENS = """
import sys, stateroom
try:
    stateroom.open(sys.argv[1])
except stateroom.errors.InUse as error:
    print(error.pid)
"""

DIES = """
import os, sys
from stateroom.engine import Batch
from stateroom.engines.rocksdb import connect
engine = connect(sys.argv[1], durability=sys.argv[2])
for number in range(400):
    engine.commit(0, Batch(write={b"%06d" % number: b"x" * 200}))
os._exit(0)
"""


def test_a_second_process_is_told_who_writes(url):
    with open(url):
        assert run(OPENS, url) == str(os.getpid())
    assert run(OPENS, url) == ""


def test_a_second_store_of_this_process_is_told_so(url):
    with open(url), pytest.raises(InUse, match="this process") as refused:
        open(url)
    assert refused.value.pid == os.getpid()


FORKS = """
import os, sys, stateroom
from stateroom.errors import InUse, Unavailable
from stateroom import Execution
store = stateroom.open(sys.argv[1])
store.executions.create(Execution("a", "job"))
reader = stateroom.open(sys.argv[1], read_only=True)
parent = os.getpid()
child = os.fork()
if child == 0:
    refused = []
    for call in (
        lambda: store.executions.create(Execution("b", "job")),
        lambda: store.executions.get("a"),
        lambda: reader.executions.get("a"),
        lambda: stateroom.open(sys.argv[1], read_only=True),
        lambda: stateroom.open(sys.argv[1] + "-other"),
    ):
        try:
            call()
        except InUse as error:
            refused.append(error.pid == parent)
        except Unavailable as error:
            refused.append(str(parent) in error.message)
    store.close()
    reader.close()
    sys.exit(0 if refused == [True] * 5 else 9)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
store.executions.create(Execution("c", "job"))
reader.close()
store.close()
print(*sorted(each.id for each in stateroom.open(sys.argv[1]).executions.scan()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_refused_by_name_and_the_parent_goes_on(url):
    assert run(FORKS, url) == "a c"


class Time:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_reader_beside_the_writer_sees_what_is_older_than_a_second_and_says_so(tmp_path, url):
    time = Time()
    with open(url) as writer:
        writer.executions.create(Execution("a", "job"))
        reader = RocksReader(Folder(f"{tmp_path}/store"), Settings(), 1, clock=time)
        before = reader.read(0, [b""])[0].version
        assert "at most a second old" in reader.about
        writer.executions.create(Execution("b", "job"))
        assert reader.read(0, [b""])[0].version == before
        time.now += 1.0
        assert reader.read(0, [b""])[0].version > before
        reader.close()
        with pytest.raises(Closed):
            reader.read(0, [b"a"])


def test_a_store_that_only_reads_refuses_changes(url):
    with pytest.raises(NotFound):
        open(url, read_only=True)
    with open(url) as writer, open(url, read_only=True) as reader:
        with pytest.raises(ReadOnly):
            reader.executions.create(Execution("a", "job"))
        writer.executions.create(Execution("a", "job"))
        version = writer._scope.direct.version(None)
        reader._scope.direct.wait(None, version - 1, 30.0)  # takes in what is there before it waits
        assert reader.executions.get("a").desired_state == "pending"
        assert reader.check() == []


def test_backups_and_copies_go_both_ways(tmp_path, url):
    with open(url) as store:
        for number in range(50):
            store.executions.create(Execution(f"e{number}", "job"))
        store.results.put("e1", "value", b"x" * 300_000)
        store.backup(tmp_path / "copy.db")
        assert store.check() == []
        assert os.listdir(tmp_path / "store" / "moments") == []
    again = f"rocksdb:///{tmp_path}/again"
    stateroom.copy(tmp_path / "copy.db", again)
    stateroom.copy(again, tmp_path / "back.db")
    for copied in (str(tmp_path / "copy.db"), again, str(tmp_path / "back.db")):
        with open(copied, create=False) as copy:
            assert copy.results.get("e1", "value") == b"x" * 300_000
            assert copy.executions.find("e49") is not None
            assert copy.check() == []


def test_a_snapshot_shows_one_moment():
    factory = Folders()
    engine = factory()
    engine.commit(0, Batch(write={b"a": b"1"}))
    with engine.snapshot() as still:
        engine.commit(0, Batch(write={b"a": b"2", b"b": b"2"}))
        assert [row.value for row in still.scan(0, b"", b"z", limit=9)] == [b"1"]
    assert [row.value for row in engine.scan(0, b"", b"z", limit=9)] == [b"2", b"2"]
    with pytest.raises(Closed):
        still.read(0, [b"a"])
    engine.close()
    factory.destroy(engine)


def test_what_was_removed_is_given_back(url):
    engine = connect(url)
    for number in range(20):
        engine.commit(0, Batch(write={b"%d" % number: os.urandom(500_000)}))
    before = engine.size()
    engine.commit(0, Batch(clear=[(b"", b"\xff")]))
    assert engine.compact() > before // 2
    assert engine.size() < before // 2
    assert engine.verify() == []
    engine.close()


def log_of(folder: Path) -> Path:
    return max(folder.glob("data/*.log"), key=lambda path: path.stat().st_size)


def count(url: str) -> int:
    engine = connect(url)
    rows = engine.scan(0, b"", b"\xff", limit=1000)
    engine.close()
    return len(rows)


@pytest.mark.parametrize("cut", [1, 7, 100, 230])
def test_a_torn_last_write_is_left_out(tmp_path, url, cut):
    run(DIES, url, "full")
    log = log_of(tmp_path / "store")
    os.truncate(log, log.stat().st_size - cut)
    assert is_torn_tail(str(log.parent))
    assert count(url) == 399
    assert count(url) == 399


@pytest.mark.parametrize("place", [0, 4, 5, 6, 30])
@pytest.mark.parametrize("record", [3, 390])
def test_a_flipped_log_is_damage_and_no_acknowledged_commit_is_dropped_in_silence(tmp_path, url, record, place):
    run(DIES, url, "full")
    log = log_of(tmp_path / "store")
    content = bytearray(log.read_bytes())
    start = content.index(b"%06d" % record) - 30
    while content[start + 6] != 1 or not 200 < int.from_bytes(content[start + 4 : start + 6], "little") < 300:
        start += 1
    content[start + place] ^= 0x10
    log.write_bytes(content)
    with pytest.raises(Damaged):
        connect(url)


def test_a_log_that_was_not_flushed_may_miss_its_end(tmp_path, url):
    run(DIES, url, "normal")
    log = log_of(tmp_path / "store")
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)
    assert 0 < count(url) < 400


def test_a_damaged_block_is_never_the_end_of_a_scan(tmp_path, url):
    engine = connect(url)
    for number in range(20):
        engine.commit(0, Batch(write={b"%02d-%04d" % (number, row): os.urandom(200) for row in range(100)}))
    engine.compact()
    engine.close()
    file = max((tmp_path / "store" / "data").glob("*.sst"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    engine = connect(url)
    for reverse in (False, True):
        with pytest.raises(Damaged):
            engine.scan(0, b"", b"\xff", limit=10_000, reverse=reverse)
    assert "damaged" in engine.verify()[0]
    engine.close()


def test_a_folder_that_lost_its_files_is_not_made_anew(tmp_path, url):
    with open(url):
        pass
    shutil.rmtree(tmp_path / "store" / "data")
    with pytest.raises(Damaged, match="lost its files"):
        open(url)


@pytest.mark.parametrize(
    ("card", "error"),
    [
        ("", Damaged),
        ("{}", Damaged),
        ('{"format": 1, "parts": 0, "durability": "full", "made": true}', Damaged),
        ('{"format": 9, "parts": 1, "durability": "full", "made": true}', UnsupportedFormat),
    ],
)
def test_a_bad_card_is_refused(tmp_path, url, card, error):
    with open(url):
        pass
    (tmp_path / "store" / "stateroom.json").write_text(card)
    with pytest.raises(error):
        open(url)


@pytest.mark.parametrize(
    "bad",
    [
        *("rocksdb:", "rocksdb://", "rocksdb:///", "rocksdb://host/x", "rocksdb:///x?cash=1", "rocksdb:///x?cache=x"),
        *("rocksdb:///x?cache=0", "rocksdb:///x?buffer=9999999999999999999"),
    ],
)
def test_a_bad_url_is_refused_and_makes_nothing(tmp_path, monkeypatch, bad):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument):
        connect(bad)
    assert os.listdir(tmp_path) == []


def test_a_folder_of_something_else_and_a_file_are_refused(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    for name in ("other", "other/file", "missing/store"):
        with pytest.raises(InvalidArgument):
            connect(f"rocksdb:///{tmp_path}/{name}")
    with pytest.raises(NotFound):
        connect(f"rocksdb:///{tmp_path}/none", create=False)


def test_other_parts_than_there_are_are_refused(url):
    connect(url, parts=3).close()
    with pytest.raises(InvalidArgument, match="3 parts"):
        connect(url, parts=2)
    assert connect(url).parts == 3


FULL = """
import resource, sys
from stateroom.engine import Batch
from stateroom.engines.rocksdb import connect
from stateroom.errors import Unavailable
engine = connect(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
acknowledged = 0
try:
    while True:
        engine.commit(0, Batch(write={b"%06d" % acknowledged: b"x" * 30_000}))
        acknowledged += 1
except Unavailable as error:
    assert "nothing was written" in error.message, error
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    engine.commit(0, Batch(write={b"later": b""}))
except Unavailable as error:
    assert "open it again" in error.message, error
assert len(engine.scan(0, b"", b"z", limit=1000)) == acknowledged
engine.close()
engine = connect(sys.argv[1])
assert len(engine.scan(0, b"", b"z", limit=1000)) == acknowledged
engine.commit(0, Batch(write={b"later": b""}))
engine.close()
print(acknowledged)
"""


def test_a_full_disk_is_told_reads_go_on_and_opening_again_is_the_way_back(url):
    assert int(run(FULL, url)) > 10
