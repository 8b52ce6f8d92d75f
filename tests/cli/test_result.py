"""result list, show and delete."""

from pathlib import Path

import pytest

import stateroom

from .conftest import Run


@pytest.fixture
def url(tmp_path: Path) -> str:
    path = str(tmp_path / "results.db")
    with stateroom.open(path) as store:
        store.results.put("build", "compile", {"objects": 12}, producer="node-1")
        store.results.put("build", "link", None)
        store.results.put("build%", "compile", "x" * 100_000)
    return path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["build compile", "build link", "build% compile"]),
        (("build",), ["build compile", "build link"]),
        (("build%",), ["build% compile"]),
        (("nothing",), []),
    ],
)
def test_results_are_listed(run: Run, options: tuple[str, ...], expected: list[str]) -> None:
    ran = run("--json", "result", "list", *options)
    assert sorted(f"{item['dag']} {item['id']}" for item in ran.json) == expected


def test_a_list_leaves_large_values_out(run: Run) -> None:
    ran = run("--json", "result", "list", "build%")
    assert len(ran.out) < 1000
    assert ran.json[0]["size"] >= 100_000
    assert "place" not in ran.json[0]


def test_a_result_is_shown_with_its_value(run: Run) -> None:
    shown = run("--json", "result", "show", "build", "compile").json
    assert (shown["value"], shown["producer"]) == ({"objects": 12}, "node-1")
    assert run("--json", "result", "show", "build%", "compile").json["value"] == "x" * 100_000
    assert run("--json", "result", "show", "build", "link").json["value"] is None
    assert '{"objects": 12}' in run("result", "show", "build", "compile").out


def test_delete_takes_one_result_alone(run: Run) -> None:
    assert run("result", "delete", "build", "compile", "--yes").code == 0
    assert run("result", "delete", "build", "compile", "--yes").code == 1
    assert run("result", "show", "build", "compile").err.startswith("not-found: ")
    assert run("result", "show", "build%", "compile").code == 0
