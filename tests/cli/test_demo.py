"""The demo: a real worker process, really killed."""

import ast
from pathlib import Path

import pytest

import stateroom
from stateroom import Change, Event, Execution
from stateroom.cli.demo import sources
from stateroom.cli.demo.tally import Tally

from .conftest import Run

FILES = 60


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "demo.db")


def test_a_killed_worker_loses_and_repeats_nothing(run: Run, url: str) -> None:
    ran = run("--json", "demo", "--files", str(FILES), "--kills", "2", "--seed", "7", "--pace", "0.05")
    assert ran.code == 0, ran.err
    told = ran.json
    assert told["files"] == told["expected"]["files"] == FILES
    assert told["kills_survived"] == 2
    assert told["lease_takeovers"] >= 2  # more where a worker was kept waiting for longer than its lease
    assert told["executions_completed_twice"] == 0
    assert told["differences"] == []
    with stateroom.open(url, create=False) as store:
        completed = list(store.executions.scan(job_id=told["run"], state="completed"))
        assert len(completed) == FILES
        assert store.instances.get(told["run"]).status == "completed"
        assert sum(one.result["lines"] for one in completed) == told["lines"]
        restarted = 0
        for one in completed:
            events = store.executions.events(one.id)
            assert [event.message for event in events].count("completed") == 1
            restarted += sum(event.topic == "recovery" for event in events)
        assert restarted == told["attempts_restarted"]
        assert store.check() == []
    assert told["run"] in run("instance", "list").out
    assert run("execution", "show", completed[0].id).code == 0


def test_it_runs_on_a_server(run: Run) -> None:
    postgres = pytest.importorskip("stateroom.testing.postgres")
    with postgres.fresh_schema() as server:
        ran = run("--json", "demo", "--files", "12", "--kills", "1", "--seed", "3", "--pace", "0.1", url=server)
        assert ran.code == 0, ran.err
        assert (ran.json["kills_survived"], ran.json["executions_completed_twice"]) == (1, 0)
        assert len(run("--json", "execution", "list", "--state", "completed", url=server).json) == 12
        assert run("check", url=server).code == 0


def test_without_kills_it_says_where_to_look(run: Run, url: str) -> None:
    ran = run("demo", "--files", "5", "--kills", "0")
    assert ran.code == 0, ran.err
    assert ["executions", "completed", "twice", "0"] in [line.split() for line in ran.lines]
    assert url in ran.out
    assert "equal to a plain count" in ran.out


def test_a_difference_is_shown_and_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from stateroom.cli.demo import conductor

    class Wrong(conductor.Counts):
        def __new__(cls, files: int, lines: int, definitions: int) -> "Wrong":
            return super().__new__(cls, files, lines + 1, definitions)

    monkeypatch.setattr(conductor, "Counts", Wrong)
    ran = run("demo", "--files", "3", "--kills", "0")
    assert ran.code == 1
    assert "lines: " in ran.out


def test_memory_cannot_be_shared_with_a_worker(run: Run) -> None:
    assert run("demo", url="memory:").code == 2


def test_the_plain_count_sees_every_definition(tmp_path: Path) -> None:
    code = (
        "class A:\n    def f(self):\n        async def g(): pass\n"
        "if 1:\n    def h(): pass\nelse:\n    def i(): pass\n"
        "try:\n    def j(): pass\nexcept E:\n    def k(): pass\nfinally:\n    def m(): pass\n"
        "match x:\n    case 1:\n        class B: pass\n"
        "with x:\n    for y in z:\n        def n(): pass\n# no newline"
    )
    file = tmp_path / "code.py"
    file.write_text(code)
    everything = sum(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in ast.walk(ast.parse(code))
    )
    assert sources.measure(file) == (1, len(code.splitlines()), everything)
    file.write_bytes(b"def f(:\n")
    assert sources.measure(file) == (1, 1, 0)
    file.write_bytes(b"")
    assert sources.measure(file) == (1, 0, 0)


def test_a_limit_takes_files_from_everywhere() -> None:
    everything = sources.sources()
    assert len(everything) > 400
    few = sources.sources(10)
    assert len(set(few)) == 10
    assert set(few) <= set(everything)
    assert everything.index(few[-1]) > len(everything) // 2


def test_a_second_completion_is_seen() -> None:
    """The zero of the table is counted, not written: a feed in which one is completed twice gives 1."""
    with stateroom.open("memory:") as store:
        store.executions.create(Execution("run/a", "run"))
        done = {"lines": 1, "definitions": 0}
        store.executions.update("run/a", state="completed", result=done, events=[Event("completed")])
        changes: list[Change] = list(store.feed.read(stateroom.BEGINNING).items)
        tally = Tally("run")
        tally.take(changes)
        assert (tally.done, tally.twice) == (1, 0)
        tally.take(changes)
        assert (tally.done, tally.twice) == (1, 1)


def test_a_dag_over_nodes_gives_what_one_process_gives(run: Run, url: str) -> None:
    pytest.importorskip("uvicorn", reason="nodes need the extra `server`")
    ran = run("--json", "demo", "--nodes", "3", "--files", "48", "--pace", "0.1")
    assert ran.code == 0, ran.err
    told = ran.json
    assert told["same_as_one_process"]
    assert told["functions"] == sum(told["made_by"].values()) == 37
    assert set(told["made_by"]) == {"node-1", "node-2", "node-3"}
    assert told["killed"] == "node-3"
    assert told["values_fetched"] > 0
    assert told["words"] > 100
    with stateroom.open(url, create=False) as store:
        assert store.locations.nodes() == ()
        assert list(store.locations.scan()) == []
        assert store.check() == []


def test_a_dag_is_planned_so_that_everything_is_used_once() -> None:
    from stateroom.cli.demo.dag import plan

    planned = plan.functions(20, 5)
    used = [id for function in planned for id in function.inputs]
    assert sorted(used) == sorted(function.id for function in planned[:-1])
    assert len(set(used)) == len(used)
    value = plan.alone(planned)
    texts = {file: plan.documentation(sources.library() / file) for file in sources.sources(20)}
    assert value["files"] == sum(bool(plan.index({file: text})) for file, text in texts.items())
    assert value["most"][0][1] == max(
        sum(word in text.lower() for text in texts.values()) for word in [value["most"][0][0]]
    )
