"""Timers, leases, watchers, dead letters, namespaces; counts, histories; what is deleted, and after which question."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import stateroom
from stateroom import Event, Execution, Instance

from .conftest import Run


@pytest.fixture
def store(url: str) -> Any:
    with stateroom.open(url) as opened:
        yield opened


def test_timers(run: Run, store: stateroom.Store) -> None:
    assert run("timer", "set", "a", "2h", "--payload", '{"n": 1}').code == 0
    assert run("timer", "set", "b", "2030-01-01T00:00:00+01:00", "--every", "1d").code == 0
    assert timedelta(hours=1) < store.timers.get("a").at - datetime.now(UTC) <= timedelta(hours=2)
    assert [item["id"] for item in run("--json", "timer", "list").json] == ["a", "b"]
    assert [item["id"] for item in run("--json", "timer", "list", "--before", "2029-01-01").json] == ["a"]
    assert run("--json", "timer", "show", "a").json["payload"] == {"n": 1}
    assert "2029-12-31 23:00:00.000 UTC" in run("timer", "list").out
    assert run("timer", "set", "c", "soon").code == 2
    assert run("timer", "set", "c", "1h", "--payload", "{").code == 2
    assert run("timer", "cancel", "a").code == 2
    assert run("timer", "cancel", "a", "--dry-run").code == 0
    assert store.timers.find("a") is not None
    assert run("timer", "cancel", "a", "--yes").code == 0
    assert run("timer", "cancel", "a", "--yes").code == 1
    assert store.timers.find("a") is None


def test_leases(run: Run, store: stateroom.Store) -> None:
    lease = store.leases.acquire("order-17", "worker-1", 600)
    assert [(item["key"], item["owner"]) for item in run("--json", "lease", "list").json] == [("order-17", "worker-1")]
    assert run("--json", "lease", "show", "order-17").json["token"] == lease.token
    assert run("--json", "instance", "orphans").json == []
    assert run("lease", "release", "order-17").code == 2
    assert run("lease", "release", "order-17", "--yes").code == 0
    assert store.leases.holder("order-17") is None
    assert run("lease", "release", "order-17", "--yes").code == 1
    assert [item["id"] for item in run("--json", "instance", "orphans").json] == ["order-17"]
    assert [item["id"] for item in run("--json", "execution", "orphans").json] == ["order-17/charge"]


def test_checkpoints_and_watchers(run: Run, store: stateroom.Store) -> None:
    store.checkpoints.set("mailer", "beginning")
    (watcher,) = run("--json", "watcher", "list").json
    assert (watcher["name"], watcher["commits_behind"] > 0) == ("mailer", True)
    assert run("checkpoint", "show", "mailer").lines == ["beginning"]
    assert run("checkpoint", "delete", "mailer").code == 2
    assert run("checkpoint", "delete", "mailer", "--yes").code == 0
    assert run("checkpoint", "delete", "mailer", "--yes").code == 1
    assert store.checkpoints.list() == ()


def test_dead_letters(run: Run, url: str) -> None:
    import threading

    def refuse(change: stateroom.Change) -> None:
        raise ValueError("no")

    with stateroom.open(url) as opened:
        done = threading.Event()
        watcher = opened.watch("mailer", refuse, on_error="skip", max_retries=0, backoff=(0, 0), families=["instances"])
        ender = opened.watch("end", lambda change: done.set() if letters(opened) == 2 else None)
        watcher.start()
        ender.start()
        while letters(opened) < 2:
            opened.feed.emit("tick", 1)
            done.wait(0.05)
        watcher.stop(10)
        ender.stop(10)
    listed = run("--json", "deadletter", "list").json
    assert [letter["watcher"] for letter in listed] == ["mailer", "mailer"]
    assert run("--json", "deadletter", "show", listed[0]["id"]).json["error"] == "ValueError: no"
    assert run("deadletter", "retry").code == 2
    assert run("--json", "deadletter", "retry", listed[0]["id"]).json == {"retried": 1}
    assert run("deadletter", "delete", "--all").code == 2
    assert run("deadletter", "delete", "--watcher", "mailer", "--yes").code == 0
    assert run("--json", "deadletter", "list").json == []
    assert run("deadletter", "show", listed[0]["id"]).code == 1


def letters(store: stateroom.Store) -> int:
    return len(store.dead_letters.list("mailer"))


def test_namespaces(run: Run, store: stateroom.Store) -> None:
    store.namespace("other").instances.put(Instance("a", "w"))
    assert run("--json", "namespace", "list").json == ["default", "other"]
    assert run("namespace", "delete", "other").code == 2
    assert run("namespace", "delete", "other", "--dry-run").code == 0
    assert run("namespace", "delete", "other", "--yes").code == 0
    assert run("namespace", "delete", "other", "--yes").code == 1
    assert run("--json", "namespace", "list").json == ["default"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("instance", "count"), 2),
        (("instance", "count", "--status", "running"), 1),
        (("execution", "count"), 3),
        (("execution", "count", "--state", "new"), 1),
        (("machine", "count", "none"), 0),
        (("result", "count", "none"), 0),
        (("savepoint", "count", "none"), 0),
    ],
)
def test_counts(run: Run, command: tuple[str, ...], expected: int) -> None:
    assert run("--json", *command).json == {"count": expected}
    assert run(*command).lines == [str(expected)]


def test_histories_and_events(run: Run, store: stateroom.Store) -> None:
    states = [item["state"] for item in run("--json", "execution", "history", "order-17/charge").json]
    assert states == ["running", "new"]
    assert len(run("--json", "instance", "history", "order-17").json) == 1
    store.executions.add_events("order-17/charge", Event("third"))
    events = run("--json", "execution", "events", "order-17/charge").json
    assert [event["message"] for event in events] == ["made", "became running", "third"]
    assert [event["message"] for event in run("--json", "execution", "events", "order-17/charge", "-n", "1").json] == [
        "third"
    ]
    after = run("--json", "execution", "events", "order-17/charge", "--after", str(events[0]["seq"])).json
    assert len(after) == 2
    assert run("execution", "events", "none").code == 1


def test_instances_are_started_and_cancelled(run: Run, store: stateroom.Store) -> None:
    words = ("instance", "start", "order-19", "checkout", "--input", '{"n": 1}', "--label", "tier=gold")
    assert run(*words, "--business-key", "order-19").code == 0
    made = store.instances.get("order-19")
    assert (made.status, made.context.initial, made.labels) == ("pending", {"n": 1}, {"tier": "gold"})
    assert run(*words, "--business-key", "order-19").code == 1
    assert run("instance", "start", "x", "w", "--input", "{").code == 2
    assert run("instance", "cancel", "order-19").code == 2
    assert run("instance", "cancel", "order-19", "--dry-run").code == 0
    assert store.instances.get("order-19").status == "pending"
    assert run("instance", "cancel", "order-19", "--yes").code == 0
    assert store.instances.get("order-19").status == "cancelled"
    assert run("instance", "cancel", "order-19", "--yes").code == 1


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (("--status", "completed"), {"order-17"}),
        (("--status", "failed"), {"order-17", "order-18"}),
        (("--older-than", "1h"), {"order-17", "order-18"}),
        (("--older-than", "0s"), set()),
        (("--workflow", "checkout", "--older-than", "0s"), {"order-18"}),
        (("--label", "tier=gold"), {"order-18"}),
        (("--id-prefix", "order-1"), set()),
        (("order-17", "order-18"), set()),
    ],
)
def test_instances_are_deleted_by_filters(
    run: Run, store: stateroom.Store, filters: tuple[str, ...], expected: set[str]
) -> None:
    everything = {"order-17", "order-18"}
    words = ("instance", "delete", *filters)
    dry = run("--json", *words, "--dry-run")
    assert set(dry.json["would_delete"]) == everything - expected
    if expected != everything:
        assert run(*words).code == 2
    assert {one.id for one in store.instances.scan()} == everything
    assert run(*words, "--yes").code == 0
    assert {one.id for one in store.instances.scan()} == expected


def test_other_records_are_deleted_by_filters(run: Run, store: stateroom.Store) -> None:
    for name in ("a", "b"):
        store.machines.save("door", name, "open" if name == "a" else "shut", None)
        store.results.put("dag", name, 1)
    assert run("execution", "delete", "--state", "new", "--state", "completed", "--yes").code == 0
    assert [one.id for one in store.executions.scan()] == ["order-17/charge"]
    assert run("machine", "delete", "door", "--state", "open", "--yes").code == 0
    assert [one.name for one in store.machines.scan()] == ["b"]
    assert run("machine", "delete", "door", "--older-than", "1h", "--yes").code == 0
    assert [one.name for one in store.machines.scan()] == ["b"]
    assert run("result", "delete", "dag", "--id-prefix", "a", "--yes").code == 0
    assert store.results.ids("dag") == ("b",)
    assert run("result", "delete", "dag", "--all", "--yes").code == 0
    assert store.results.ids("dag") == ()


@pytest.mark.parametrize(
    "words",
    [
        ("instance", "delete"),
        ("instance", "delete", "order-17", "--status", "failed"),
        ("execution", "delete"),
        ("machine", "delete"),
        ("machine", "delete", "door"),
        ("result", "delete", "dag"),
        ("instance", "delete", "--older-than", "soon"),
        ("instance", "delete", "--older-than", "999999999d"),
        ("instance", "delete", "--status", "bogus"),
    ],
)
def test_what_is_to_be_deleted_must_be_said(run: Run, store: stateroom.Store, words: tuple[str, ...]) -> None:
    ran = run(*words, "--yes")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert store.instances.count() == 2


def test_what_changes_meanwhile_is_left_alone(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from stateroom.cli import instance

    real = instance.agreed

    def agreed(*arguments: Any, **options: Any) -> bool:
        with stateroom.open(url) as other:
            other.instances.update("order-17", current_step="charging")
        return real(*arguments, **options)

    monkeypatch.setattr(instance, "agreed", agreed)
    ran = run("instance", "delete", "--older-than", "0s", "--yes")
    assert ran.lines == ["deleted 1 instance"]
    assert "1 changed or went meanwhile" in ran.err
    with stateroom.open(url) as store:
        assert [one.id for one in store.instances.scan()] == ["order-17"]


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 1), ("n\n", 130, 2), ("\n", 130, 2)])
def test_somebody_at_a_terminal_is_asked(
    run: Run, store: stateroom.Store, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, left: int
) -> None:
    import io
    import sys

    from stateroom.cli import confirm

    monkeypatch.setattr(confirm, "on_terminal", lambda output: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    ran = run("instance", "delete", "order-17")
    assert ran.code == code
    assert "Delete 1 instance (order-17)?" in ran.err
    assert store.instances.count() == left


def test_the_nouns_of_the_command_line_are_families(run: Run) -> None:
    for name in ("execution", "executions"):
        assert len(run("--json", "feed", "read", "--family", name, "--all", "-n", "1").json["items"]) == 5


def test_read_only_writes_nothing(run: Run, store: stateroom.Store) -> None:
    assert run("--read-only", "instance", "list").code == 0
    ran = run("instance", "delete", "order-17", "--yes", "--read-only")
    assert (ran.code, ran.err.split(":")[0]) == (1, "read-only")
    assert store.instances.find("order-17") is not None
    assert store.executions.create(Execution("new", "job")).revision == 1
