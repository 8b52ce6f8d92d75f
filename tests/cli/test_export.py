"""export and import."""

import json
from pathlib import Path

import pytest

import stateroom

from .conftest import Run


def test_an_exported_file_is_imported(run: Run, url: str, tmp_path: Path) -> None:
    path, target = str(tmp_path / "x.jsonl"), str(tmp_path / "new.db")
    ran = run("--json", "export", path)
    assert ran.code == 0
    assert ran.json["items"] > 3
    assert json.loads(Path(path).read_text().splitlines()[0])["stateroom"] == "export"
    with stateroom.open(target):
        pass
    assert run("--json", "import", path, url=target).json["written"] == ran.json["items"]
    assert run("--json", "import", path, url=target).json["written"] == 0
    with stateroom.open(url) as first, stateroom.open(target) as second:
        assert list(first.executions.scan()) == list(second.executions.scan())
    assert "records written" in run("import", path, url=target).out


def test_some_families(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "x.jsonl")
    assert run("export", path, "--family", "executions").code == 0
    families = {json.loads(line).get("family") for line in Path(path).read_text().splitlines()[1:-1]}
    assert families == {"executions"}


def test_parquet_by_the_name_of_the_file(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    path = tmp_path / "x.parquet"
    assert run("export", str(path)).code == 0
    assert path.read_bytes()[:4] == b"PAR1"


def test_what_cannot_be_exported_or_imported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("somebody's")
    for words in (
        ("export", str(tmp_path / "there")),
        ("export", str(tmp_path / "x"), "--family", "execution"),
        ("export", str(tmp_path / "x"), "--format", "csv"),
        ("import", str(tmp_path / "none")),
        ("import", str(tmp_path / "there")),
        ("import", "a", "b", "c"),
    ):
        ran = run(*words)
        assert ran.code in (1, 2)
        assert ran.err.count("\n") == 1
    assert (tmp_path / "there").read_text() == "somebody's"
