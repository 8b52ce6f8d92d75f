"""Which file, whose file, and who may open it."""

import os
import tempfile

import apsw
import pytest

from engines.sqlite_helpers import run
from stateroom.engine import Batch
from stateroom.engines.sqlite import connect, local_path
from stateroom.engines.sqlite.location import refuse_network
from stateroom.engines.sqlite.opening import APPLICATION_ID, check_library, connection, prepare
from stateroom.errors import InvalidArgument, NotFound, UnsupportedFormat


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "test.db")


def made(path, **options):
    engine = connect(path, **options)
    engine.commit(0, Batch(write={b"a": b"1"}))
    engine.close()
    return path


def content(path):
    with open(path, "rb") as file:
        return file.read()


def test_every_form_of_a_url_names_the_same_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = os.path.realpath(tmp_path / "a.db")
    assert {local_path(url) for url in ("a.db", "./a.db", "sqlite:///a.db", f"sqlite:///{tmp_path}/a.db")} == {expected}
    os.symlink("a.db", "link.db")
    assert local_path("link.db") == expected
    connect("sqlite:///a.db").close()
    assert os.path.exists(expected)


@pytest.mark.parametrize(
    "url", ["", "sqlite:", "sqlite://host/a.db", "sqlite:///", "sqlite:///a.db?mode=ro", "pg://x", ":memory:", "a\0b"]
)
def test_a_url_that_names_no_file_is_refused(url):
    with pytest.raises(InvalidArgument):
        connect(url)


@pytest.mark.parametrize("options", [{"durability": "none"}, {"parts": 0}, {"parts": 65537}])
def test_an_option_out_of_range_is_refused_and_makes_no_file(path, options):
    with pytest.raises(InvalidArgument):
        connect(path, **options)
    assert not os.path.exists(path) or os.path.getsize(path) == 0


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InvalidArgument, match="is a folder"):
        connect(str(tmp_path))


def test_a_missing_folder_is_named_and_not_made(tmp_path):
    with pytest.raises(InvalidArgument, match=str(tmp_path / "no")):
        connect(str(tmp_path / "no" / "a.db"))
    assert not (tmp_path / "no").exists()


def test_without_create_an_absent_or_empty_file_is_not_found_and_stays(path):
    with pytest.raises(NotFound):
        connect(path, create=False)
    assert not os.path.exists(path)
    open(path, "w").close()
    with pytest.raises(NotFound):
        connect(path, create=False)
    assert content(path) == b""
    connect(path).close()


def test_a_file_that_is_no_database_is_refused_and_unchanged(path):
    with open(path, "wb") as file:
        file.write(b"important" * 1000)
    with pytest.raises(InvalidArgument, match="not a database"):
        connect(path)
    assert content(path) == b"important" * 1000


@pytest.mark.parametrize("mark", ["CREATE TABLE theirs (a)", "PRAGMA application_id = 7", "PRAGMA user_version = 7"])
def test_the_database_of_another_program_is_refused_and_unchanged(path, mark):
    other = apsw.Connection(path)
    other.execute(mark)
    other.close()
    before = content(path)
    with pytest.raises(InvalidArgument, match="another program"):
        connect(path)
    assert content(path) == before


def test_a_newer_format_is_refused_and_unchanged(path):
    made(path)
    other = connection(path, 1.0, "")
    assert other.pragma("application_id") == APPLICATION_ID
    other.pragma("user_version", 2)
    other.close()
    before = content(path)
    with pytest.raises(UnsupportedFormat) as caught:
        connect(path)
    assert (caught.value.found, caught.value.supported) == (2, 1)
    assert content(path) == before


def test_the_number_of_parts_is_fixed_when_the_file_is_made(path):
    made(path, parts=3)
    assert connect(path).parts == 3
    assert connect(path, parts=3).parts == 3
    with pytest.raises(InvalidArgument, match="3 parts"):
        connect(path, parts=4)


READ_ONLY = """
import os, sys
from stateroom.engines.sqlite import connect
from stateroom.errors import InvalidArgument
connect(sys.argv[1] + "/warm.db").close()
os.chmod(sys.argv[1] + "/data.db", 0o444)
if sys.argv[2] == "folder":
    os.chmod(sys.argv[1] + "/data.db", 0o666)
    os.chmod(sys.argv[1], 0o555)
if os.getuid() == 0:
    os.setuid(65534)
try:
    connect(sys.argv[1] + "/data.db")
except InvalidArgument as refusal:
    assert "data.db" in str(refusal) and "may not" in str(refusal), refusal
    print("refused")
"""


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_this_user_may_not_write_is_refused_and_unchanged(what):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = made(os.path.join(folder, "data.db"))
        before = content(path)
        assert run(READ_ONLY, folder, what) == ["refused"]
        os.chmod(folder, 0o755)
        assert content(path) == before


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused_before_anything_is_made(path, kind):
    folder = os.path.dirname(path)
    with pytest.raises(InvalidArgument, match=f"network file system \\({kind}"):
        prepare(path, create=True, parts=None, patience=1.0, vfs="", mounts=lambda: [("/", "ext4"), (folder, kind)])
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    "table",
    [
        [("/", "ext4")],
        [("/", "nfs"), ("/data", "ext4")],
        [("/", "ext4"), ("/da", "nfs")],
        [("/data", "nfs"), ("/data", "ext4")],
        [],
    ],
)
def test_the_mount_that_counts_is_the_innermost_and_last(table):
    refuse_network("/data/a.db", lambda: table)


def test_this_machine_tells_its_mounts(path):
    connect(path).close()


@pytest.mark.parametrize("version", ["3.51.2", "3.40.1", "3.50.7"])
def test_a_sqlite_known_to_lose_commits_is_refused(version):
    with pytest.raises(InvalidArgument, match=version):
        check_library(version)
    check_library("3.51.3")


FIRST_OPENS = """
import os, sys
from stateroom.engine import Batch
from stateroom.engines.sqlite import connect
go_read, go_write = os.pipe()
children = []
for number in range(160):
    child = os.fork()
    if child == 0:
        os.close(go_write)
        os.read(go_read, 1)
        try:
            engine = connect(sys.argv[1])
            engine.commit(0, Batch(add={b"opened": 1}))
            engine.close()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    children.append(child)
os.close(go_write)
print(sum(os.waitpid(child, 0)[1] == 0 for child in children))
"""


def test_160_processes_may_open_a_new_file_at_once(path):
    assert run(FIRST_OPENS, path) == ["160"]
    engine = connect(path, create=False)
    assert engine.read(0, [b"opened", b""])[0].value == (160).to_bytes(8, "big")
    engine.close()
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


def test_a_file_made_under_the_former_name_says_so_and_is_unchanged(path):
    made(path)
    other = connection(path, 1.0, "")
    other.pragma("application_id", 0x48464454)
    other.close()
    before = content(path)
    for options in ({}, {"read_only": True}):
        with pytest.raises(UnsupportedFormat, match="before the project had its present name"):
            connect(path, **options)
    assert content(path) == before


@pytest.mark.parametrize("url", ["sqlite://u:secret@host/a.db", "sqlite:u:secret@host", "other://u:secret@h/a.db"])
def test_a_password_in_a_mistyped_url_is_not_shown(url):
    with pytest.raises(InvalidArgument) as caught:
        connect(url)
    assert "secret" not in repr((caught.value, caught.value.fields))


WITHOUT = """
import sys
for name in ("fcntl", "pwd", "resource", "grp", "termios"):
    sys.modules[name] = None
{more}
import stateroom, stateroom.engines.postgres
with stateroom.open("memory:") as store:
    store.instances.put(stateroom.Instance("a", "wf"))
    assert store.check() == []
try:
    with stateroom.open(sys.argv[1]) as store:
        store.instances.put(stateroom.Instance("a", "wf"))
    with stateroom.open(sys.argv[1], create=False) as store:
        print(store.instances.get("a").id)
except stateroom.errors.InvalidArgument as error:
    print("fcntl" in str(error) and "memory:" in str(error))
"""

WINDOWS = """
import asyncio, subprocess, types
locked = set()
def locking(handle, mode, size):
    assert mode == 2 and size == 1
    locked.add(handle)
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
"""


def test_without_fcntl_a_file_is_refused_by_name_and_the_rest_works(path):
    assert run(WITHOUT.format(more=""), path) == ["True"]
    assert not os.path.exists(path)


def test_where_there_is_msvcrt_its_locks_are_used(path):
    assert run(WITHOUT.format(more=WINDOWS), path) == ["a"]
    assert os.path.exists(f"{path}.lock")
