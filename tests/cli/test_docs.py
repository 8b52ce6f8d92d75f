"""The pages that come with the package, and the page of the commands."""

import importlib.util
from pathlib import Path

import pytest

from stateroom.cli.docs import all_pages

from .conftest import Run

ROOT = Path(__file__).parents[2]
checkout = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="this is no checkout")


def test_pages_are_listed_and_shown(run: Run) -> None:
    listed = run("docs", "--list")
    assert listed.code == 0
    for name in ("guide/feed", "operate/retention", "reference/values"):
        assert any(line.startswith(name) for line in listed.lines)
    assert set(run("--json", "docs").json) == set(all_pages())
    shown = run("docs", "retention")
    assert shown.out == all_pages()["operate/retention"].read_text(encoding="utf-8")
    assert run("docs", "docs/operate/retention.md").out == shown.out
    assert run("--json", "docs", "retention").json["text"] == shown.out


def test_an_unknown_topic_names_those_there_are(run: Run) -> None:
    ran = run("docs", "nothing")
    assert (ran.code, ran.out) == (1, "")
    assert "guide/feed" in ran.err


@checkout
def test_every_page_ships_in_the_wheel() -> None:
    import tomllib

    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for name in all_pages():
        shelf = f"docs/{name.partition('/')[0]}"
        assert wheel["force-include"][shelf] == f"stateroom/{shelf}"


@checkout
def test_the_reference_is_that_of_the_commands() -> None:
    spec = importlib.util.spec_from_file_location("command_line", ROOT / "tools" / "command_line.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    written = set(tool.PAGE.read_text(encoding="utf-8").splitlines())
    said = {line for line in tool.page().splitlines() if line.startswith(("#", "`", "| `"))}
    assert {line.split(" | ")[0] for line in said} <= {line.split(" | ")[0] for line in written}, (
        "run: python tools/command_line.py"
    )
