"""savepoint list, show and delete."""

from pathlib import Path

import pytest

import stateroom

from .conftest import Run


@pytest.fixture
def url(tmp_path: Path) -> str:
    path = str(tmp_path / "savepoints.db")
    with stateroom.open(path) as store:
        store.savepoints.init("stream")
        for timestamp in (1000, 2000, 3000):
            store.savepoints.save("stream", timestamp, {"a": timestamp, "b": {"sum": timestamp + 1}})
    return path


def test_savepoints_are_listed_newest_first(run: Run) -> None:
    listed = run("--json", "savepoint", "list", "stream").json
    assert [(one["timestamp"], one["count"]) for one in listed] == [(3000, 2), (2000, 2), (1000, 2)]
    assert run("savepoint", "list", "stream").lines[1].split()[:2] == ["3000", "2"]
    assert run("--json", "savepoint", "list", "nothing").json == []


def test_a_savepoint_is_shown_with_its_entities(run: Run) -> None:
    assert run("--json", "savepoint", "show", "stream").json["entities"] == {"a": 3000, "b": {"sum": 3001}}
    assert run("--json", "savepoint", "show", "stream", "--at", "2999").json["timestamp"] == 2000
    ran = run("savepoint", "show", "stream", "--limit", "1")
    assert "a" in ran.out
    assert '{"sum": 3001}' not in ran.out
    assert "1 of 2" in ran.err
    assert run("savepoint", "show", "stream", "--at", "999").err.startswith("no-savepoint: ")


def test_delete_takes_a_run_or_its_older_savepoints(run: Run) -> None:
    assert run("savepoint", "delete", "stream", "--keep", "1", "--yes").lines == ["deleted 2 savepoints of stream"]
    assert len(run("--json", "savepoint", "list", "stream").json) == 1
    assert run("savepoint", "delete", "stream", "--yes").code == 0
    assert run("savepoint", "delete", "stream", "--yes").code == 1
    assert run("savepoint", "show", "stream").code == 1
