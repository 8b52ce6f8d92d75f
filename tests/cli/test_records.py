"""list, show and delete of instances and executions."""

import pytest

import stateroom

from .conftest import Run


def ids(ran: object) -> list[str]:
    return [item["id"] for item in ran.json]  # type: ignore[attr-defined]


def test_instances_are_a_table_without_empty_columns(run: Run) -> None:
    ran = run("instance", "list")
    assert ran.code == 0
    assert ran.lines[0].split() == ["ID", "WORKFLOW", "V", "STATUS", "KEY", "REV", "UPDATED"]
    assert ran.lines[1].startswith("order-17  checkout")
    assert len(ran.lines) == 3


def test_columns_are_aligned(run: Run) -> None:
    header, *rows = run("execution", "list").lines
    at = header.index("STATE")
    assert {row[at:].split()[0] for row in rows} == {"running", "new", "completed"}


def test_without_a_terminal_nothing_is_coloured_or_cut(run: Run, url: str) -> None:
    long = "order-17/" + "x" * 200
    with stateroom.open(url) as store:
        store.executions.create(stateroom.Execution(long, "order-17"))
    ran = run("execution", "list")
    assert "\x1b" not in ran.out
    assert long in ran.out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["order-17", "order-18"]),
        (("--order", "updated"), ["order-18", "order-17"]),
        (("--status", "running"), ["order-17"]),
        (("--status", "running", "--status", "completed"), ["order-17", "order-18"]),
        (("--workflow", "refund"), ["order-18"]),
        (("--workflow-prefix", "check"), ["order-17"]),
        (("--business-key", "order-17"), ["order-17"]),
        (("--label", "tier=gold"), ["order-17"]),
        (("--label", "tier=tin"), []),
        (("--updated-after", "1h"), ["order-17", "order-18"]),
        (("--updated-before", "1h"), []),
        (("--updated-before", "2001-02-03"), []),
        (("--limit", "1"), ["order-17"]),
        (("-n", "1"), ["order-17"]),
        (("--limit", "1", "--all"), ["order-17", "order-18"]),
    ],
)
def test_instances_are_filtered(run: Run, options: tuple[str, ...], expected: list[str]) -> None:
    ran = run("--json", "instance", "list", *options)
    assert (ran.code, ids(ran)) == (0, expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["charge", "mail", "ship"]),
        (("--state", "new"), ["ship"]),
        (("--live",), ["charge"]),
        (("--live", "--state", "new"), ["charge", "ship"]),
        (("--job", "order-17"), ["charge", "mail", "ship"]),
        (("--job", "order-18"), []),
        (("--node", "n1", "--state", "completed"), ["mail"]),
        (("--updated-before", "1d"), []),
    ],
)
def test_executions_are_filtered(run: Run, options: tuple[str, ...], expected: list[str]) -> None:
    ran = run("--json", "execution", "list", *options)
    assert sorted(ids(ran)) == [f"order-17/{name}" for name in expected]


def test_a_cut_list_says_so(run: Run) -> None:
    assert "--all shows more" in run("instance", "list", "--limit", "1").err
    assert run("instance", "list", "--limit", "2").err == ""


def test_an_execution_is_shown_with_its_events(run: Run) -> None:
    ran = run("execution", "show", "order-17/charge")
    assert ran.code == 0
    assert "now running" in ran.out
    assert ran.out.index("made") < ran.out.index("became running")
    shown = run("--json", "execution", "show", "order-17/charge").json
    assert shown["execution"]["state"] == "running"
    assert [event["message"] for event in shown["events"]] == ["made", "became running"]


def test_an_instance_is_shown(run: Run) -> None:
    shown = run("--json", "instance", "show", "order-17").json
    assert (shown["workflow"], shown["labels"], shown["revision"]) == ("checkout", {"tier": "gold"}, 1)
    assert "gold" in run("instance", "show", "order-17").out


@pytest.mark.parametrize("noun", ["instance", "execution"])
def test_what_is_not_there_is_one_line_and_code_1(run: Run, noun: str) -> None:
    for verb in ("show", "delete"):
        ran = run(noun, verb, "nothing")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("not-found: ")
        assert ran.err.count("\n") == 1


def test_delete_deletes_once(run: Run, url: str) -> None:
    assert run("execution", "delete", "order-17/mail", "--yes").code == 0
    assert run("execution", "delete", "order-17/mail", "--yes").code == 1
    assert run("--json", "instance", "delete", "order-18", "--yes").json == {"deleted": "instance order-18"}
    with stateroom.open(url) as store:
        assert store.executions.find("order-17/mail") is None
        assert store.instances.find("order-18") is None
        assert store.executions.find("order-17/ship") is not None
