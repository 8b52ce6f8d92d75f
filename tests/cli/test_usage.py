"""Exit codes, errors, options, and a machine without typer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import stateroom
from stateroom.cli import main
from stateroom.cli.app import hoist
from stateroom.cli.output import ago
from stateroom.cli.values import brief, plain

from .conftest import Run


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("instance", "nonsense"),
        ("instance", "show"),
        ("instance", "list", "--nonsense"),
        ("instance", "list", "--limit", "0"),
        ("instance", "list", "--status", "nonsense"),
        ("instance", "list", "--label", "nonsense"),
        ("instance", "list", "--updated-after", "nonsense"),
        ("execution", "list", "--state", "nonsense"),
        ("execution", "show", "\0"),
    ],
)
def test_wrong_usage_is_code_2_and_one_line(run: Run, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert ran.err.split(":")[0] in {"usage", "invalid-argument"}


def test_errors_are_json_for_programs(run: Run) -> None:
    error = json.loads(run("--json", "instance", "show", "nothing").err)["error"]
    assert error["code"] == "not-found"
    assert error["id"] == "nothing"
    assert json.loads(run("--json", "instance", "show").err)["error"]["code"] == "usage"


def test_looking_never_makes_a_database(run: Run, tmp_path: Path) -> None:
    absent = tmp_path / "absent.db"
    ran = run("instance", "list", url=str(absent))
    assert (ran.code, absent.exists()) == (1, False)
    assert ran.err.startswith("not-found: ")


def test_an_unknown_scheme_is_usage(run: Run) -> None:
    assert run("instance", "list", url="nonsense://x").code == 2


def test_namespaces_are_apart(run: Run, url: str) -> None:
    with stateroom.open(url, namespace="other") as store:
        store.instances.put(stateroom.Instance("theirs", "w"))
    assert [item["id"] for item in run("--json", "--namespace", "other", "instance", "list").json] == ["theirs"]


def test_options_may_stand_anywhere_before_two_dashes() -> None:
    assert hoist(["instance", "list", "--json", "--url", "a.db"]) == ["--json", "--url", "a.db", "instance", "list"]
    assert hoist(["instance", "show", "--", "--json"]) == ["instance", "show", "--", "--json"]
    assert hoist(["check", "--url=a.db", "--namespace"]) == ["--url=a.db", "--namespace", "check"]


def test_the_url_comes_from_the_environment(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STATEROOM_URL", url)
    assert main(["instance", "list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_help_names_every_noun(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    for noun in (
        "instance",
        "machine",
        "result",
        "savepoint",
        "execution",
        "feed",
        "checkpoint",
        "check",
        "stats",
        "demo",
    ):
        assert noun in ran.out


def test_without_typer_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None\nfrom stateroom.cli import main\nsys.exit(main(['instance', 'list']))\n"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "unavailable: the command line needs typer and rich: pip install 'stateroom[cli]'\n"


def test_python_m_is_the_same_command(url: str) -> None:
    command = [sys.executable, "-m", "stateroom", "--url", url, "instance", "list", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(json.loads(ran.stdout)) == 2


def test_a_reader_that_has_seen_enough_is_no_error(url: str) -> None:
    command = f"'{sys.executable}' -m stateroom --url '{url}' feed read --json | head -c 1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("{0\n", "")


def test_times_are_told_by_their_distance() -> None:
    from datetime import UTC, datetime, timedelta

    now = datetime(2026, 1, 1, tzinfo=UTC)
    told = [ago(now - timedelta(seconds=s), now) for s in (0, 1, 59, 60, 3600, 86400, -90)]
    assert told == ["now", "1 s ago", "59 s ago", "1 min ago", "1 h ago", "1 d ago", "in 1 min"]


def test_values_become_json() -> None:
    from datetime import UTC, datetime, timedelta
    from decimal import Decimal

    value = {1: b"\x00", "at": datetime(2026, 1, 1, tzinfo=UTC), "d": Decimal("1.5"), "s": frozenset({"b", "a"})}
    assert plain(value) == {"1": "AA==", "at": "2026-01-01T00:00:00+00:00", "d": "1.5", "s": ["a", "b"]}
    assert plain([float("nan"), timedelta(seconds=2), (True, None)]) == ["nan", 2.0, [True, None]]
    assert brief("one\n two", 80) == "one two"
    assert brief("x" * 100, 10) == "x" * 9 + "…"
