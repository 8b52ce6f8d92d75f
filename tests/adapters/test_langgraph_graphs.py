"""Real graphs on `StateroomSaver`: killed and resumed, forked, run by two at once, pruned and aged."""

import asyncio
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("langgraph.graph")

from langgraph.types import Command

import stateroom
from stateroom import AsyncStore, Policy
from stateroom.adapters.langgraph import StateroomSaver
from stateroom.errors import NotFound, StaleRevision
from stateroom.testing.faces import ManualClock

from .checkpoints import ids, place
from .graphs import graph, thread


def run(url, log, deadly="", answer=""):
    """Run the graph in a process of its own; gives its exit code."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(Path(stateroom.__file__).parents[1]), str(here.parent)])
    program = [sys.executable, str(here / "graphs.py"), url, str(log), deadly, answer]
    done = subprocess.run(program, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def test_a_graph_that_is_killed_goes_on_and_repeats_no_finished_node(url, tmp_path):
    log = tmp_path / "log"
    assert run(url, log, "first") == -9
    assert run(url, log, "left") == -9
    assert run(url, log) == 0  # up to the interrupt
    with StateroomSaver(url) as saver:
        assert [waiting.thread_id for waiting in saver.threads(state="interrupted")] == ["t"]
    assert run(url, log, "last", "yes") == -9
    assert run(url, log) == 0
    ran = log.read_text().split()
    # what was killed ran again; "right" may have been finished beside it or not; what was finished ran once
    assert [ran.count(name) for name in ("first", "left", "last")] == [2, 2, 2]
    assert ran.count("right") <= 2
    with StateroomSaver(url) as saver:
        state = graph(saver, log).get_state(thread())
        assert state.values == {"steps": ["start", "first", "left", "right", "ask", "last"], "answer": "yes"}
        assert state.next == ()
        parents = [
            item.parent_config and item.parent_config["configurable"]["checkpoint_id"] for item in saver.list(place())
        ]
        assert len(set(parents)) == len(parents)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_graph_runs_and_resumes_on_both_faces(store, tmp_path, durability):
    saver = StateroomSaver(store)
    made = graph(saver, tmp_path / "log")
    made.invoke({"steps": ["start"]}, thread("plain"), durability=durability)
    expected = made.invoke(Command(resume="yes"), thread("plain"), durability=durability)

    async def main():
        made = graph(StateroomSaver(AsyncStore.over(store)), tmp_path / "log")
        await made.ainvoke({"steps": ["start"]}, thread("awaited"), durability=durability)
        return await made.ainvoke(Command(resume="yes"), thread("awaited"), durability=durability)

    assert asyncio.run(main()) == expected
    assert expected["steps"] == ["start", "first", "left", "right", "ask", "last"]


def test_a_node_goes_back_in_time_and_the_thread_goes_on_from_there(store, tmp_path):
    saver = StateroomSaver(store)
    made = graph(saver, tmp_path / "log")
    made.invoke({"steps": ["start"]}, thread())
    made.invoke(Command(resume="no"), thread())
    (asked,) = [state for state in made.get_state_history(thread()) if state.next == ("ask",)]
    made.invoke(None, asked.config)
    assert made.invoke(Command(resume="yes"), thread())["answer"] == "yes"
    changed = made.update_state(asked.config, {"answer": "maybe"}, as_node="ask")
    assert made.invoke(None, changed)["answer"] == "maybe"
    assert made.get_state(thread()).values["answer"] == "maybe"
    made.invoke({"steps": ["again"]}, thread())


def test_of_two_runs_on_one_thread_one_is_refused(store, tmp_path):
    one, two = (graph(StateroomSaver(store), tmp_path / "log") for _ in range(2))
    one.invoke({"steps": ["start"]}, thread())
    running = two.stream(Command(resume="two"), thread(), stream_mode="values", durability="sync")
    next(running)
    one.invoke(Command(resume="one"), thread())
    with pytest.raises(StaleRevision):
        list(running)
    assert one.get_state(thread()).values["answer"] == "one"
    tuples = list(StateroomSaver(store).list(place()))
    parents = [item.parent_config["configurable"]["checkpoint_id"] for item in tuples if item.parent_config]
    assert len(set(parents)) == len(parents)


def test_update_state_by_two_is_refused_to_the_second(store, tmp_path, monkeypatch):
    saver = StateroomSaver(store)
    made = graph(saver, tmp_path / "log")
    made.invoke({"steps": ["start"]}, thread())
    put = saver.put

    def overtaken(*arguments):
        monkeypatch.setattr(saver, "put", put)
        made.update_state(thread(), {"steps": ["other"]}, as_node="left")
        return put(*arguments)

    monkeypatch.setattr(saver, "put", overtaken)
    with pytest.raises(StaleRevision):
        made.update_state(thread(), {"steps": ["mine"]}, as_node="left")
    assert made.get_state(thread()).values["steps"][-1] == "other"


def test_subgraphs_have_their_own_checkpoints(store, tmp_path):
    from langgraph.graph import START, StateGraph

    from .graphs import State

    inner = graph(None, tmp_path / "log")
    builder = StateGraph(State)
    builder.add_node("inner", inner.builder.compile())
    builder.add_edge(START, "inner")
    saver = StateroomSaver(store)
    made = builder.compile(checkpointer=saver)
    made.invoke({"steps": ["start"]}, thread())
    namespaces = {item.config["configurable"]["checkpoint_ns"].partition(":")[0] for item in saver.list(thread())}
    assert namespaces == {"", "inner"}
    saver.prune(["t"])
    assert made.invoke(Command(resume="yes"), thread())["steps"][-1] == "last"
    assert len(saver.threads()) == 1


# --- retention


@pytest.fixture
def aged(tmp_path):
    clock = ManualClock()
    with stateroom.open(tmp_path / "aged.db", clock=clock) as store:
        yield store, clock
        assert store.check() == []


@pytest.mark.parametrize(
    "policy",
    [
        Policy("results", older_than=timedelta(hours=1), keep_latest=1),
        Policy("results", keep_latest=1),
        Policy("machines", terminal_older_than=timedelta(0)),
        Policy("instances", older_than=timedelta(0)),
        Policy("executions", older_than=timedelta(0)),
        Policy("savepoints", older_than=timedelta(0)),
    ],
    ids=str,
)
def test_every_thread_goes_on_after_a_policy_has_run(aged, tmp_path, policy):
    store, clock = aged
    saver = StateroomSaver(store)
    made = graph(saver, tmp_path / "log")
    big = "x" * 3_000
    for number in range(3):
        made.invoke({"steps": [big, f"{number}" * 20_000]}, thread(f"t{number}"))
        clock.advance(60)
    clock.advance(36_000)
    store.retention.set(policy)
    store.retention.run(max_seconds=60)
    for number in range(3):
        state = made.invoke(Command(resume="yes"), thread(f"t{number}"))
        assert state["steps"] == [big, f"{number}" * 20_000, "first", "left", "right", "ask", "last"]
    assert len(saver.threads()) == 3


def test_a_policy_takes_old_checkpoints(aged, tmp_path):
    store, clock = aged
    saver = StateroomSaver(store)
    made = graph(saver, tmp_path / "log")
    made.invoke({"steps": ["start"]}, thread())
    assert len(list(saver.list(place()))) == 4
    store.retention.set(Policy("results", older_than=timedelta(hours=1), keep_latest=1))
    clock.advance(7_200)
    store.retention.run(max_seconds=60)
    assert len(list(saver.list(place()))) == 2  # the newest, and the last one before it
    assert made.invoke(Command(resume="yes"), thread())["steps"][-1] == "last"


# --- delta channels


def delta_graph(saver, every):
    from typing import Annotated, TypedDict

    from langgraph.channels import DeltaChannel
    from langgraph.graph import START, StateGraph

    class Lines(TypedDict):
        lines: Annotated[
            list,
            DeltaChannel(lambda lines, more: [*lines, *(x for some in more for x in some)], snapshot_frequency=every),
        ]

    builder = StateGraph(Lines)
    builder.add_node("echo", lambda state: {"lines": [f"echo {state['lines'][-1]}"]})
    builder.add_edge(START, "echo")
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("every", [3, 1000])
def test_delta_channels_are_rebuilt_and_survive_pruning(store, every):
    saver = StateroomSaver(store)
    made = delta_graph(saver, every)
    for number in range(5):
        made.invoke({"lines": [f"line {number}"]}, thread())
    expected = [line for number in range(5) for line in (f"line {number}", f"echo line {number}")]
    assert made.get_state(thread()).values["lines"] == expected
    before = len(list(saver.list(place())))
    saver.prune(["t"])
    assert len(list(saver.list(place()))) < before or every == 1000
    assert made.get_state(thread()).values["lines"] == expected
    made.invoke({"lines": ["more"]}, thread())
    assert made.get_state(thread()).values["lines"] == [*expected, "more", "echo more"]
    saver.copy_thread("t", "u")
    assert made.get_state(thread("u")).values["lines"] == [*expected, "more", "echo more"]


def test_the_history_of_a_delta_channel_is_that_of_the_base_class(store):
    from langgraph.checkpoint.base import BaseCheckpointSaver

    saver = StateroomSaver(store)
    made = delta_graph(saver, 4)
    for number in range(6):
        made.invoke({"lines": [f"line {number}"]}, thread())
    for item in saver.list(place()):
        ours = saver.get_delta_channel_history(config=item.config, channels=["lines", "none"])
        assert ours == BaseCheckpointSaver.get_delta_channel_history(
            saver, config=item.config, channels=["lines", "none"]
        )
    assert saver.get_delta_channel_history(config=place(), channels=[]) == {}
    latest = saver.get_delta_channel_history(config=place(), channels=["lines"])
    over = StateroomSaver(AsyncStore.over(store))
    assert asyncio.run(over.aget_delta_channel_history(config=place(), channels=["lines"])) == latest


def test_a_history_with_a_gap_is_an_error_and_not_a_shorter_state(store):
    saver = StateroomSaver(store)
    made = delta_graph(saver, 1000)
    for number in range(3):
        made.invoke({"lines": [f"line {number}"]}, thread())
    middle = ids(saver.list(place()))[3]
    assert store.results.delete("t/checkpoints", f"./{middle}")
    with pytest.raises(NotFound, match="lines"):
        made.get_state(thread())
