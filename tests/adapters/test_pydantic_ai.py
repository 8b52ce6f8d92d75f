"""Agents of Pydantic AI that go on after their last finished step."""

import asyncio
import os
import subprocess
import sys

import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel

import stateroom
from stateroom import AsyncStore
from stateroom.adapters.pydantic_ai import StateroomDurability
from stateroom.errors import InvalidArgument


class Cut(BaseException):
    """What ends a run at once."""


class Calls:
    """An agent that calls a tool twice and then says what came of it, and what it did."""

    def __init__(self, store, cut_at=None, durability=StateroomDurability):
        self.done = []
        self.cut_at = cut_at
        self.durability = durability(store)
        self.agent = Agent(FunctionModel(self.answer), name="adder", capabilities=[self.durability])

        @self.agent.tool_plain
        def add(a: int, b: int) -> int:
            self.note(f"add {a} {b}")
            return a + b

    def note(self, call):
        if len(self.done) == self.cut_at:
            raise Cut
        self.done.append(call)

    async def answer(self, messages, info):
        self.note("model")
        turns = sum(isinstance(message, ModelResponse) for message in messages)
        if turns < 2:
            return ModelResponse(parts=[ToolCallPart("add", {"a": turns, "b": 10}, tool_call_id=f"call-{turns}")])
        return ModelResponse(parts=[TextPart(f"after {turns}")])

    async def run(self, id):
        with self.durability.run(id):
            return (await self.agent.run("add")).output


ALL = ["model", "add 0 10", "model", "add 1 10", "model"]


@pytest.mark.parametrize("face", ["plain", "awaited"])
def test_a_run_is_replayed_without_a_call(store, face):
    given = store if face == "plain" else AsyncStore.over(store)
    first, second = Calls(given), Calls(given)
    assert asyncio.run(first.run("r")) == "after 2"
    assert first.done == ALL
    assert asyncio.run(second.run("r")) == "after 2"
    assert second.done == []
    assert asyncio.run(second.run("other")) == "after 2"
    assert second.done == ALL


@pytest.mark.parametrize("cut_at", range(len(ALL)))
def test_a_run_that_was_cut_goes_on_where_it_was(store, cut_at):
    first, second = Calls(store, cut_at), Calls(store)
    with pytest.raises(Cut):
        asyncio.run(first.run("r"))
    assert first.done == ALL[:cut_at]
    assert asyncio.run(second.run("r")) == "after 2"
    assert second.done == ALL[cut_at:]


def test_forget_begins_anew_and_outside_nothing_is_stored(store):
    calls = Calls(store)
    asyncio.run(calls.run("r"))
    assert asyncio.run(calls.durability.forget("r")) > 0
    assert list(store.results.scan()) == []
    asyncio.run(calls.run("r"))
    assert calls.done == ALL * 2
    asyncio.run(calls.durability.forget("r"))
    assert asyncio.run(calls.agent.run("add")).output == "after 2"
    assert list(store.results.scan()) == []


def test_a_run_in_a_run_is_refused(store):
    durability = StateroomDurability(store)
    with durability.run("a"), pytest.raises(InvalidArgument, match="open"), durability.run("b"):
        pass


KILLED = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[2])
from test_pydantic_ai import Calls
from stateroom.adapters.pydantic_ai import StateroomDurability

class Killed(StateroomDurability):
    async def step(self, name, body):
        result = await super().step(name, body)
        if len(calls.done) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

calls = Calls(sys.argv[1], durability=Killed)
asyncio.run(calls.run("r"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_process_repeats_no_finished_step(tmp_path):
    path = str(tmp_path / "runs.db")
    folder = os.path.dirname(os.path.abspath(__file__))
    killed = subprocess.run([sys.executable, "-c", KILLED, path, folder], timeout=100, check=False)
    assert killed.returncode == -9
    with stateroom.open(path) as store:
        calls = Calls(store)
        assert asyncio.run(calls.run("r")) == "after 2"
        assert calls.done == ALL[3:]
        assert store.check() == []
