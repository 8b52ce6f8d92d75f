"""backup, restore, copy and compact."""

from pathlib import Path

import pytest

import stateroom
from stateroom import codec

from .conftest import Run


def states(url: str) -> dict[str, str]:
    with stateroom.open(url, create=False) as store:
        assert store.check() == []
        return {one.id: one.state for one in store.executions.scan()}


def test_a_backup_comes_back_equal(run: Run, url: str, tmp_path: Path) -> None:
    path, target = str(tmp_path / "copy.db"), str(tmp_path / "new.db")
    assert run("--json", "backup", path).json == {"backup": path}
    run("execution", "delete", "order-17/mail", "--yes")
    ran = run("--json", "restore", path, url=target)
    assert (ran.code, ran.json["records"]) == (0, 5)
    assert states(target) == {"order-17/charge": "running", "order-17/mail": "completed", "order-17/ship": "new"}
    assert "order-17/mail" not in states(url)


def test_nothing_is_overwritten(run: Run, url: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    assert run("backup", str(path)).code == 2
    assert path.read_text() == "precious"
    run("backup", str(tmp_path / "copy.db"))
    ran = run("restore", str(tmp_path / "copy.db"))
    assert (ran.code, ran.err.split(":")[0]) == (1, "already-exists")
    assert run("restore", str(tmp_path / "absent.db"), url=str(tmp_path / "new.db")).code == 1


@pytest.mark.parametrize("options", [(), ("--no-verify",)])
def test_copy_takes_its_source_from_either_place(run: Run, url: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert run("copy", str(tmp_path / "a.db"), *options).code == 0
    assert run("copy", url, str(tmp_path / "b.db"), *options, url="memory:").code == 0
    assert states(str(tmp_path / "a.db")) == states(str(tmp_path / "b.db")) == states(url)
    assert run("copy", "a", "b", "c").code == 2


def test_compact_says_what_it_gave_back(run: Run, url: str) -> None:
    assert run("compact").lines == ["0 bytes given back"]
    assert run("--json", "compact").json == {"freed": 0}


def test_encrypted_databases_move_under_their_key_ring(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring, secret = tmp_path / "ring", str(tmp_path / "secret.db")
    codec.KeyRing.generate(ring)
    with stateroom.open(secret, key_ring=codec.KeyRing.from_file(ring)) as store:
        store.instances.put(stateroom.Instance("a", "w", metadata={"card": "4711"}))
    monkeypatch.setenv("STATEROOM_KEY_RING", str(ring))
    assert run("backup", str(tmp_path / "copy.db"), url=secret).code == 0
    assert run("restore", str(tmp_path / "copy.db"), url=str(tmp_path / "new.db")).code == 0
    assert run("copy", secret, str(tmp_path / "third.db")).code == 0
    for moved in ("new.db", "third.db"):
        assert run("--json", "instance", "show", "a", url=str(tmp_path / moved)).json["metadata"] == {"card": "4711"}
        assert b"4711" not in (tmp_path / moved).read_bytes()
    monkeypatch.delenv("STATEROOM_KEY_RING")
    assert run("instance", "show", "a", url=str(tmp_path / "new.db")).code == 1
