"""What cannot be opened: each a named error that says what to do, and nothing is changed."""

import asyncio
import os
import stat

import apsw
import pytest

import stateroom
from stateroom import Instance
from stateroom.errors import Damaged, InvalidArgument, NotFound, StoreError, Unavailable


def both(url, **options):
    """Opened on either face."""
    yield lambda: stateroom.open(url, **options)
    yield lambda: asyncio.run(stateroom.open_async(url, **options))


@pytest.mark.parametrize(
    "url",
    ["", "  ", "a\0b", 5, b"path.db", "nosuch://x", "nosuch:x", "sqlite://", "memory:x", "a\ud800.db", ["x"]],
    ids=ascii,
)
def test_urls_that_are_none(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for opening in both(url):
        with pytest.raises(InvalidArgument):
            opening()
    assert os.listdir(tmp_path) == []


def test_an_unknown_scheme_lists_the_known_ones():
    with pytest.raises(InvalidArgument) as caught:
        stateroom.open("redis://x")
    assert all(name in str(caught.value) for name in ("memory:", "sqlite:", "postgresql:"))


def test_options_that_are_none(tmp_path):
    where = tmp_path / "s.db"
    for options in (
        {"namespace": ""},
        {"namespace": "x" * 65},
        {"namespace": 5},
        {"durability": "most"},
        {"codec": "json"},
        {"parts": 0},
        {"parts": -1},
        {"parts": 65537},
        {"parts": 2**70},
        {"parts": "3"},
        {"parts": 1.5},
        {"parts": True},
    ):
        for opening in (*both(where, **options), *both("memory:", **options)):
            with pytest.raises(InvalidArgument):
                opening()
    assert not where.exists()


def test_absent_and_not_to_be_made(tmp_path):
    for opening in both(tmp_path / "s.db", create=False):
        with pytest.raises(NotFound):
            opening()
    assert os.listdir(tmp_path) == []


def test_a_directory(tmp_path):
    for opening in both(tmp_path):
        with pytest.raises(StoreError) as caught:
            opening()
        assert caught.value.code in ("invalid-argument", "unavailable")
        assert str(tmp_path) in str(caught.value)


def test_a_file_that_is_no_database(tmp_path):
    where = tmp_path / "notes.txt"
    where.write_bytes(b"Dear diary, " * 1000)
    for opening in both(where):
        with pytest.raises((Damaged, InvalidArgument)):
            opening()
    assert where.read_bytes() == b"Dear diary, " * 1000
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_somebody_elses_database(tmp_path):
    where = tmp_path / "other.db"
    connection = apsw.Connection(str(where))
    connection.execute("CREATE TABLE people (name TEXT)")
    connection.close()
    for opening in both(where):
        with pytest.raises(StoreError):
            opening()
    connection = apsw.Connection(str(where))
    assert [row[0] for row in connection.execute("SELECT name FROM sqlite_schema")] == ["people"]
    connection.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any file")
def test_a_file_that_may_not_be_written(tmp_path):
    where = tmp_path / "s.db"
    with stateroom.open(where) as store:
        store.instances.put(Instance("a", "w"))
    where.chmod(stat.S_IRUSR)
    with pytest.raises((InvalidArgument, Unavailable)):
        stateroom.open(where).instances.put(Instance("b", "w"))


def test_the_environment_names_the_database(tmp_path, monkeypatch):
    monkeypatch.setenv("STATEROOM_URL", str(tmp_path / "named.db"))
    with stateroom.open() as store:
        store.instances.put(Instance("a", "w"))
    assert (tmp_path / "named.db").exists()
    monkeypatch.delenv("STATEROOM_URL")
    monkeypatch.chdir(tmp_path)
    stateroom.open().close()
    assert (tmp_path / "stateroom.db").exists()
    with stateroom.open(f"sqlite:///{tmp_path / 'named.db'}") as store:
        assert store.instances.count() == 1


def test_a_record_of_a_newer_layout_is_reported_and_blocks_nothing(tmp_path):
    from stateroom.codec import default, seal, unseal
    from stateroom.engine import Batch

    with stateroom.open(tmp_path / "s.db") as store:
        for id in ("a", "b"):
            store.instances.put(Instance(id, "w"))
        key = b"default\0Ria\0"
        (row,) = store._engine.read(0, [key])
        payload = unseal(key, row.value)
        layout, *rest = default.decode(payload[12:])
        newer = payload[:12] + default.encode([layout + 1, *rest])
        store._engine.commit(0, Batch(write={key: seal(key, newer)}))
        with pytest.raises(Damaged):
            store.instances.get("a")
        page = store.instances.query()
        assert [one.id for one in page] == ["b"]
        assert page.undecodable == 1
        assert "a" in " ".join(problem.id + problem.message for problem in store.check())
        flipped = bytearray(row.value)
        flipped[-1] ^= 1
        store._engine.commit(0, Batch(write={key: bytes(flipped)}))
        with pytest.raises(Damaged):
            store.instances.get("a")


def test_a_key_ring_that_is_none_and_a_folder_that_is_absent(tmp_path):
    with pytest.raises(InvalidArgument, match="key_ring must be"):
        stateroom.open("memory:", key_ring=5)
    with pytest.raises(NotFound):
        stateroom.open(tmp_path / "absent" / "a.db", create=False)
    with pytest.raises(InvalidArgument, match="no folder"):
        stateroom.open(tmp_path / "absent" / "a.db")
    for key in (5, b"x"):
        with pytest.raises(InvalidArgument, match="business_key must be a str"):
            stateroom.new_id(key)
