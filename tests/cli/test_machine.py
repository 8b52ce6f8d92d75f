"""machine list, show and delete."""

from pathlib import Path

import pytest

import stateroom

from .conftest import Run


@pytest.fixture
def url(tmp_path: Path) -> str:
    path = str(tmp_path / "machines.db")
    with stateroom.open(path) as store:
        store.machines.save("door", "front", "open", {"by": "key"}, event="turn")
        store.machines.save("door", "front", "shut", {"by": "wind"}, event="slam")
        store.machines.save("door", "back", "open", None)
        store.machines.save("gate", "front", "open", None)
        store.machines.fail("door", "front", "hinge broke", event="pull")
        store.machines.fail("gate", "never saved", "no state yet")
    return path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), [("door", "back"), ("door", "front"), ("gate", "front")]),
        (("--machine", "door"), [("door", "back"), ("door", "front")]),
        (("--machine", "door", "--state", "shut"), [("door", "front")]),
        (("--state", "open"), [("door", "back"), ("gate", "front")]),
        (("--machine", "nothing"), []),
    ],
)
def test_machines_are_listed(run: Run, options: tuple[str, ...], expected: list[tuple[str, str]]) -> None:
    ran = run("--json", "machine", "list", *options)
    assert sorted((item["machine"], item["name"]) for item in ran.json) == expected


def test_a_machine_is_shown_with_error_and_history(run: Run) -> None:
    shown = run("--json", "machine", "show", "door", "front").json
    assert shown["snapshot"]["state"] == "shut"
    assert shown["last_error"]["reason"] == "hinge broke"
    assert [one["state"] for one in shown["history"]] == ["shut", "open"]
    text = run("machine", "show", "door", "front").out
    assert text.index("hinge broke") < text.index("history")
    assert run("--json", "machine", "show", "gate", "never saved").json["snapshot"] is None


def test_delete_takes_one_machine_alone(run: Run) -> None:
    assert run("machine", "delete", "door", "front", "--yes").code == 0
    assert run("machine", "delete", "door", "front", "--yes").code == 1
    assert run("machine", "show", "door", "front").err.startswith("not-found: ")
    assert run("machine", "show", "gate", "front").code == 0
