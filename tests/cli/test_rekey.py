"""An encrypted store on the command line, and its rotation."""

from pathlib import Path

import pytest

import stateroom
from stateroom import Execution
from stateroom.codec import KeyRing

from .conftest import Run


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.json"
    KeyRing.generate(path, "2025")
    monkeypatch.setenv("STATEROOM_KEY_RING", str(path))
    return path


def test_rekey_without_a_key_ring_says_what_to_set(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATEROOM_KEY_RING", raising=False)
    ran = run("rekey")
    assert ran.code == 2
    assert "STATEROOM_KEY_RING" in ran.err


def test_a_plain_store_is_encrypted_and_an_encrypted_one_rotated(run: Run, url: str, keys: Path) -> None:
    assert b"now running" in Path(url).read_bytes()
    assert run("--json", "rekey").json["rows"] > 5
    KeyRing.rotate(keys, "2026")
    assert run("--json", "rekey").json["rows"] > 5
    assert run("--json", "rekey").json == {"rows": 0, "unreadable": 0}
    assert "now running" in run("execution", "show", "order-17/charge").out
    assert run("check").code == 0


def test_a_wrong_key_is_told_and_nothing_is_lost(
    run: Run, tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "secret.db")
    with stateroom.open(path, key_ring=KeyRing.from_file(keys)) as store:
        store.executions.create(Execution("a", "job"))
    KeyRing.generate(tmp_path / "other.json", "other")
    monkeypatch.setenv("STATEROOM_KEY_RING", str(tmp_path / "other.json"))
    ran = run("execution", "show", "a", url=path)
    assert (ran.code, ran.err.split(":")[0]) == (1, "undecodable")
    assert "2025" in ran.err
    assert run("rekey", url=path).code == 1
    monkeypatch.setenv("STATEROOM_KEY_RING", str(keys))
    assert run("execution", "show", "a", url=path).code == 0


def test_an_encrypted_backup_comes_back(run: Run, tmp_path: Path, keys: Path) -> None:
    path, copy, new = (str(tmp_path / name) for name in ("secret.db", "copy.db", "new.db"))
    with stateroom.open(path, key_ring=KeyRing.from_file(keys)) as store:
        store.executions.create(Execution("a", "job", message="hidden words"))
    assert run("backup", copy, url=path).code == 0
    assert run("restore", copy, url=new).code == 0
    assert "hidden words" in run("execution", "show", "a", url=new).out
    assert b"hidden words" not in Path(new).read_bytes()
