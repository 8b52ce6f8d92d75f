"""feed read and tail, check and stats."""

import json
from typing import Any

import pytest

import stateroom
from stateroom.cli import feed as verbs

from .conftest import Run


def test_read_pages_through_everything(run: Run) -> None:
    seen: list[str] = []
    after = "beginning"
    while items := (page := run("--json", "feed", "read", "--after", after, "--limit", "2").json)["items"]:
        seen += [f"{item['op']} {item['id']}" for item in items]
        after = page["next"]
    assert seen == [
        "create order-17",
        "create order-18",
        "create order-17/charge",
        "update order-17/charge",
        "create order-17/ship",
        "create order-17/mail",
        "update order-17/mail",
    ]


def test_read_filters(run: Run) -> None:
    page = run("--json", "feed", "read", "--family", "executions", "--op", "update", "--id", "order-17/mail").json
    assert [item["record"]["state"] for item in page["items"]] == ["completed"]


def test_read_shows_states_and_events(run: Run) -> None:
    ran = run("feed", "read", "--op", "update")
    assert "became completed" in ran.out
    assert ran.err.startswith("go on with --after ")


def test_tail_shows_the_newest(run: Run) -> None:
    ran = run("feed", "tail", "-n", "2")
    assert [line.split()[3] for line in ran.lines] == ["create", "update"]
    assert "order-17/mail" in ran.lines[1]
    assert run("feed", "tail", "-n", "0").out == ""


def test_tail_follows_until_it_is_interrupted(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = verbs.read_page
    waits: list[float] = []

    def read_page(store: stateroom.Store, after: str, filters: dict[str, Any], wait: float = 0.0) -> stateroom.Changes:
        waits.append(wait)
        if len(waits) == 3:
            raise KeyboardInterrupt
        with stateroom.open(url) as other:
            other.executions.update("order-17/ship", message=f"seen at read {len(waits)}")
        return real(store, after, filters, 0.0)

    monkeypatch.setattr(verbs, "read_page", read_page)
    ran = run("--json", "feed", "tail", "--follow", "-n", "0")
    assert waits == [verbs.WAIT] * 3
    assert ran.code == 130
    assert [json.loads(line)["record"]["message"] for line in ran.lines] == ["seen at read 1", "seen at read 2"]


def test_a_foreign_position_is_usage(run: Run) -> None:
    ran = run("feed", "read", "--after", "nonsense")
    assert ran.code == 2
    assert ran.err.startswith("invalid-argument: ")


def test_check_finds_nothing_wrong(run: Run) -> None:
    assert run("check").lines == ["no problems"]
    assert run("--json", "check").json == []


def test_stats_count(run: Run) -> None:
    run("checkpoint", "set", "mailer", "beginning")
    told = run("--json", "stats").json
    assert told["executions"] == {"completed": 1, "new": 1, "running": 1}
    assert [one["name"] for one in told["checkpoints"]] == ["mailer"]
    lines = [line.split() for line in run("stats").lines]
    assert ["executions", "running", "1"] in lines
    assert ["CONSUMER", "COMMITS", "BEHIND", "UPDATED"] in lines
