"""What reaches the screen: whole ids at every width, no characters that steer a terminal, times with their zone."""

import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import stateroom
from stateroom import Event, Execution, Instance
from stateroom.cli import (
    checkpoint,
    deadletter,
    execution,
    feed,
    instance,
    lease,
    machine,
    namespace,
    node,
    result,
    savepoint,
    timer,
    watcher,
)
from stateroom.cli.output import Output
from stateroom.cli.safe import masked, safe, safe_json
from stateroom.codec import Codec

from .conftest import Run

WIDTHS = [60, 80, 120, 200]
LONG = "order-2026-11-25/charge-card-of-the-customer/attempt-0000000017"


@dataclass
class Order:
    n: int


@pytest.fixture
def store() -> Iterator[stateroom.Store]:
    """Long ids in every family."""
    with stateroom.open("memory:") as opened:
        opened.instances.put(Instance(LONG, "a-workflow-with-a-long-name", status="running", current_step="charging"))
        opened.executions.create(
            Execution(LONG, "order-2026-11-25", node_id="node-with-a-long-name.example.org", message="words " * 20),
            events=[Event("became something " * 5, topic="topic")],
        )
        opened.machines.save("machine-with-a-long-name", LONG, "open", None, event="turn")
        opened.results.put(LONG, LONG[::-1], 1, producer="somebody", ttl=3600)
        opened.savepoints.init(LONG)
        opened.savepoints.save(LONG, 1000, {LONG: 1})
        opened.timers.set(LONG, datetime.now(UTC), {"a": 1}, every=timedelta(days=1))
        opened.leases.acquire(LONG, LONG[::-1], 60)
        opened.checkpoints.set(LONG, "beginning")
        yield opened


def tables(store: stateroom.Store) -> dict[str, tuple[Any, list[Any]]]:
    letter = stateroom.DeadLetter(
        LONG, LONG[::-1], "p", "b", "executions", (LONG,), "update", "ValueError: no", 4, datetime.now(UTC)
    )
    lag = {"name": LONG, "commits_behind": 7, "dead_letters": 3, "held_by": LONG[::-1], "updated_at": datetime.now(UTC)}
    info = stateroom.NodeInfo(LONG, "http://127.0.0.1:1", True, datetime.now(UTC))  # type: ignore[call-arg]
    return {
        "instance": (instance.COLUMNS, list(store.instances.scan())),
        "execution": (execution.COLUMNS, list(store.executions.scan())),
        "machine": (machine.COLUMNS, list(store.machines.scan())),
        "result": (result.COLUMNS, list(store.results.scan())),
        "run": (savepoint.RUNS, list(store.savepoints.runs())),
        "entity": (savepoint.ENTITIES, list(store.savepoints.latest(LONG).entities())),
        "timer": (timer.COLUMNS, list(store.timers.scan())),
        "lease": (lease.COLUMNS, list(store.leases.scan())),
        "checkpoint": (checkpoint.COLUMNS, list(store.checkpoints.list())),
        "watcher": (watcher.COLUMNS, [lag]),
        "deadletter": (deadletter.COLUMNS, [letter]),
        "namespace": (namespace.COLUMNS, [LONG]),
        "feed": (feed.COLUMNS, list(store.feed.read().items)),
        "node": (node.NODES, [info]),
    }


@pytest.mark.parametrize("width", WIDTHS)
def test_every_id_is_whole_or_folded(store: stateroom.Store, width: int) -> None:
    for name, (columns, items) in tables(store).items():
        written = io.StringIO()
        output = Output(False)
        output.console = Console(file=written, width=width, highlight=False, markup=False, emoji=False)
        output.errors = Console(file=io.StringIO(), width=width)
        output.table(columns, items)
        lines = written.getvalue().splitlines()
        assert max(map(len, map(str.rstrip, lines))) <= width, name
        folded = column_texts(lines)
        for column in columns:
            if column.fold:
                for item in items:
                    cell = output.cell(column.cell(item), whole=True).plain
                    assert any(cell.replace(" ", "") in text for text in folded), (name, width, column.title, lines)


def column_texts(lines: list[str]) -> list[str]:
    """What stands below each title, without the ends of lines and without spaces, which a fold may end in."""
    starts = [match.start() for match in re.finditer(r"(?<!\S)(?:\S+ )*\S+(?=\s{2,}|\s*$)", lines[0])]
    ends = [*starts[1:], None]
    return [
        "".join(line[start:end].replace(" ", "") for line in lines[1:]) for start, end in zip(starts, ends, strict=True)
    ]


HOSTILE = "w\x1b[31mred\x9b2J\u202egnp\u2066\x7f"


@pytest.fixture
def hostile(url: str) -> str:
    with stateroom.open(url) as opened:
        opened.instances.put(Instance(f"i{HOSTILE}\nx", HOSTILE, metadata={HOSTILE: HOSTILE}, labels={"a": HOSTILE}))
        opened.executions.create(
            Execution(f"e{HOSTILE}", HOSTILE, message=HOSTILE, details={HOSTILE: 1}), events=[Event(HOSTILE)]
        )
        opened.machines.save(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
        opened.machines.fail(HOSTILE, HOSTILE, HOSTILE)
        opened.results.put(HOSTILE, HOSTILE, HOSTILE, producer=HOSTILE)
        opened.savepoints.init(HOSTILE)
        opened.savepoints.save(HOSTILE, 1, {HOSTILE: HOSTILE})
        opened.timers.set(HOSTILE, datetime.now(UTC), HOSTILE)
        opened.leases.acquire(HOSTILE, HOSTILE, 60)
        opened.checkpoints.set(HOSTILE, "beginning")
        opened.feed.emit("type" + HOSTILE, HOSTILE, HOSTILE)
    return url


COMMANDS = [
    ("instance", "list"), ("instance", "show", f"i{HOSTILE}\nx"), ("instance", "show", f"none{HOSTILE}"),
    ("instance", "delete", f"i{HOSTILE}\nx", "--dry-run"), ("instance", "delete", f"i{HOSTILE}\nx", "--yes"),
    ("instance", HOSTILE), ("instance", "history", f"i{HOSTILE}\nx"), ("instance", "orphans"),
    ("execution", "list"), ("execution", "show", f"e{HOSTILE}"), ("execution", "events", f"e{HOSTILE}"),
    ("machine", "list"), ("machine", "show", HOSTILE, HOSTILE), ("machine", "history", HOSTILE, HOSTILE),
    ("result", "list"), ("result", "show", HOSTILE, HOSTILE),
    ("savepoint", "runs"), ("savepoint", "list", HOSTILE), ("savepoint", "show", HOSTILE),
    ("timer", "list"), ("timer", "show", HOSTILE), ("lease", "list"), ("lease", "show", HOSTILE),
    ("checkpoint", "list"), ("watcher", "list"), ("feed", "read"), ("feed", "tail"), ("stats",), ("doctor",),
    ("timer", "cancel", HOSTILE, "--yes"), ("docs", HOSTILE), ("import", HOSTILE),
]  # fmt: skip


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(map(ascii, command))[:40])
def test_nothing_that_is_stored_steers_the_terminal(
    run: Run, hostile: str, command: tuple[str, ...], form: tuple[str, ...]
) -> None:
    ran = run(*form, *command)
    for text in (ran.out, ran.err):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), ascii(text)
    if form and ran.code == 0 and ran.out:
        for line in ran.lines if command == ("feed", "tail") else [ran.out]:
            json.loads(line)


def test_what_is_escaped_in_json_still_reads_as_the_same() -> None:
    value = {"a": HOSTILE, "b": ["\U000e0041\ud800", 1]}
    shown = safe_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(shown) == value
    assert shown.isascii()
    assert safe("a\x1b\n\u202e\U000e0041") == "a\\x1b\\n\\u202e\\U000e0041"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3@cr3t@host/db",
        "postgresql://u:s3:cr3t@host/db",
        "postgresql:u:s3/cr3t@host/db",
        "sqlite://u:s3cr3t@h",
        "postgresql://host/db?user=u&password=s3cr3t",
        "host=h password='s3 cr3t'",
    ],
)
def test_no_part_of_a_password_is_shown(url: str) -> None:
    assert "s3" not in masked(url)
    assert "cr3t" not in masked(url)
    assert masked("postgresql://host/db") == "postgresql://host/db"


def test_times_have_one_zone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    if not hasattr(time, "tzset"):
        pytest.skip("this system cannot change its zone")
    time.tzset()
    try:
        for option, zone in ((), "UTC"), (("--utc",), "UTC"), (("--local",), "JST"):
            for command in ("execution", "show", "order-17/charge"), ("feed", "read"), ("feed", "tail"):
                text = run(*command, *option).out
                times = re.findall(r"\d\d:\d\d:\d\d\.\d{3}(?: (\w+))?", text)
                assert times
                assert set(times) == {zone}
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.fixture
def typed(url: str) -> str:
    codec = Codec()
    codec.register(Order, name="order", version=1)
    with stateroom.open(url, codec=codec) as opened:
        opened.executions.create(Execution("odd", "job", data=Order(4), details={"order": Order(5)}))
        opened.instances.put(Instance("odd", "w", metadata={"order": Order(4)}))
        opened.machines.save("m", "odd", "s", Order(4))
        opened.machines.fail("m", "odd", "why", info=Order(4))
        opened.results.put("d", "odd", Order(4))
        opened.savepoints.init("r")
        opened.savepoints.save("r", 1, {"a": Order(4)})
        opened.timers.set("t", datetime.now(UTC), Order(4))
    return url


@pytest.mark.parametrize(
    "command",
    [
        ("execution", "show", "odd"),
        ("instance", "show", "odd"),
        ("machine", "show", "m", "odd"),
        ("machine", "history", "m", "odd"),
        ("result", "show", "d", "odd"),
        ("timer", "list"),
        ("timer", "show", "t"),
    ],
)
def test_values_of_unknown_types_are_shown(run: Run, typed: str, command: tuple[str, ...]) -> None:
    ran = run(*command)
    assert (ran.code, ran.err) == (0, "")
    assert "order{n: 4}" in ran.out
    assert run("--json", *command).code == 0


def test_what_has_values_of_unknown_types_is_listed_and_deleted(run: Run, typed: str) -> None:
    assert "odd" in [item["id"] for item in run("--json", "execution", "list").json]
    assert run("check").code == 0
    for command in (
        ("execution", "delete", "odd"),
        ("instance", "delete", "odd"),
        ("machine", "delete", "m", "odd"),
        ("result", "delete", "d", "odd"),
        ("savepoint", "delete", "r"),
        ("timer", "cancel", "t"),
    ):
        assert run(*command, "--yes").code == 0
    assert run("doctor").code == 0


def test_import_gives_the_real_type(run: Run, typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "import dataclasses, stateroom\n@dataclasses.dataclass\nclass Thing:\n    n: int\n"
    (tmp_path / "types_of_mine.py").write_text(f"{module}stateroom.codec.register(Thing, name='order', version=1)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registered = set(sys.modules)
    default = stateroom.codec.default
    assert run("--import", "no_such_module_at_all", "execution", "list").code == 2
    monkeypatch.setenv("STATEROOM_IMPORT", "no_such_module_at_all")
    assert run("execution", "list").code == 2
    monkeypatch.delenv("STATEROOM_IMPORT")
    monkeypatch.setattr(default, "register", lambda *_, **__: None)
    assert run("execution", "list", "--import", "types_of_mine").code == 0
    assert set(sys.modules) - registered >= {"types_of_mine"}
