"""Adapters beside what they stand in for: ``python bench/adapters.py [ROUNDS [STEPS]]``.

LangGraph's savers and `StateroomSaver`, on a file and on a PostgreSQL that both use, and in memory; diskcache and `Cache`.
All take turns in each round, so that a slow minute of the machine meets every row. Medians over the rounds; the ratio is
to LangGraph's saver on the same kind of database, or to diskcache. Everything is durable (synchronous=FULL) but the caches,
which are at "normal" as diskcache is. The state is 100 channels of 100 bytes, of which one changes with each step.
"""

import asyncio
import contextlib
import functools
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TypedDict
from uuid import uuid4

import diskcache
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

from stateroom.adapters.cache import Cache
from stateroom.adapters.langgraph import StateroomSaver

CALLS = 100
CALLERS = (1, 8, 64)
ENGINES = {"rocksdb": "rocksdict"}
"""Engines beside SQLite's, by what they need: measured where they are."""


class State:
    """A thread whose state changes by one hundredth at each step."""

    def __init__(self, saver):
        self.saver = saver
        self.config = {"configurable": {"thread_id": uuid4().hex, "checkpoint_ns": ""}}
        self.values = {f"channel{number}": os.urandom(50).hex() for number in range(100)}
        self.versions = {name: saver.get_next_version(None, None) for name in self.values}
        self.new = dict(self.versions)
        self.step = 0

    def next(self):
        """The next checkpoint: config, checkpoint, metadata, new versions."""
        made = {**empty_checkpoint(), "channel_values": self.values, "channel_versions": self.versions}
        call = self.config, made, {"source": "loop", "step": self.step, "parents": {}}, self.new
        self.config = {"configurable": {**self.config["configurable"], "checkpoint_id": made["id"]}}
        name = f"channel{self.step % 100}"
        self.values = {**self.values, name: os.urandom(50).hex()}
        self.new = {name: self.saver.get_next_version(max(self.versions.values()), None)}
        self.versions = {**self.versions, **self.new}
        self.step += 1
        return call

    def put(self):
        self.saver.put(*self.next())

    def put_writes(self):
        self.saver.put_writes(self.config, [("channel1", os.urandom(50).hex())], str(uuid4()), "~path")

    def get_tuple(self):
        self.saver.get_tuple({"configurable": {**self.config["configurable"], "checkpoint_id": None}})

    def list(self):
        assert (
            len(
                list(
                    self.saver.list({"configurable": self.config["configurable"] | {"checkpoint_id": None}}, limit=100)
                )
            )
            == 100
        )


class Table:
    """Times by row and participant."""

    def __init__(self):
        self.times = defaultdict(lambda: defaultdict(list))

    def time(self, row, name, call, calls):
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        self.times[row][name].append((time.perf_counter() - begin) / calls)

    def print(self, unit, factor, against):
        for row, columns in self.times.items():
            for name, times in columns.items():
                base = columns.get(against(name))
                ratio = f"{statistics.median(times) / statistics.median(base):8.2f}" if base else " " * 8
                print(f"  {row:34} {name:28} {statistics.median(times) * factor:10.3f} {unit} {ratio}")


def beside(name):
    """What a saver's figures are divided by."""
    return {
        "StateroomSaver": "SqliteSaver",
        "StateroomSaver rocksdb": "SqliteSaver",
        "StateroomSaver PostgreSQL": "PostgresSaver",
    }.get(name)


@contextlib.contextmanager
def savers(folder):
    """Every saver, by name."""
    from stateroom.testing.postgres import shared

    with contextlib.ExitStack() as stack:
        file = contextlib.closing(sqlite3.connect(os.path.join(folder, "theirs.db"), check_same_thread=False))
        opened = {"InMemorySaver": InMemorySaver(), "SqliteSaver": SqliteSaver(stack.enter_context(file))}
        opened["StateroomSaver"] = stack.enter_context(StateroomSaver(os.path.join(folder, "ours.db")))
        for engine, package in ENGINES.items():
            with contextlib.suppress(ImportError, ValueError):
                __import__(package)
                url = f"{engine}:///{folder}/{engine}"
                opened[f"StateroomSaver {engine}"] = stack.enter_context(StateroomSaver(url))
        server = shared("18")
        opened["PostgresSaver"] = stack.enter_context(PostgresSaver.from_conn_string(server.url()))
        opened["PostgresSaver"].setup()
        opened["StateroomSaver PostgreSQL"] = stack.enter_context(StateroomSaver(server.url()))
        yield opened


def calls(folder, rounds):
    """The four calls of a saver, one caller."""
    table = Table()
    with savers(folder) as opened:
        states = {name: State(saver) for name, saver in opened.items()}
        for state in states.values():
            for _ in range(100):
                state.put()
        for _ in range(rounds + 1):
            for row in ("put", "put_writes", "get_tuple", "list"):
                for name, state in states.items():
                    table.time(
                        row if row != "list" else "list of 100",
                        name,
                        getattr(state, row),
                        3 if row == "list" else CALLS,
                    )
                    if row == "put_writes":
                        state.put()  # the next round begins at a checkpoint without writes
    for columns in table.times.values():
        for times in columns.values():
            del times[0]
    print("calls of one caller, and the ratio to LangGraph's own saver")
    table.print("ms", 1000, beside)


def graph(folder, steps):
    """A graph of so many steps."""

    class Counter(TypedDict):
        count: int
        payload: dict

    def node(state):
        number = state["count"]
        return {"count": number + 1, "payload": {**state["payload"], f"key{number % 100}": os.urandom(50).hex()}}

    builder = StateGraph(Counter)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_conditional_edges("node", lambda state: "node" if state["count"] < steps else END)
    payload = {f"key{number}": os.urandom(50).hex() for number in range(100)}
    table = Table()
    with savers(folder) as opened:
        for name, saver in opened.items():
            made = builder.compile(checkpointer=saver)
            config = {"configurable": {"thread_id": "graph"}, "recursion_limit": steps + 10}
            start = {"count": 0, "payload": payload}
            run = functools.partial(made.invoke, start, config, durability="sync")
            table.time(f"graph of {steps} steps", name, run, 1)
    print("a whole run (10 KB in one channel, of which 1 % changes)")
    table.print("s ", 1, beside)


def chat(saver, turns):
    """A conversation: a list of messages of 500 bytes that grows by one with each turn."""
    config, messages = {"configurable": {"thread_id": "chat", "checkpoint_ns": ""}}, []
    version = None
    for turn in range(turns):
        messages = [*messages, {"id": turn, "text": os.urandom(250).hex()}]
        version = saver.get_next_version(version, None)
        made = {
            **empty_checkpoint(),
            "channel_values": {"messages": messages},
            "channel_versions": {"messages": version},
        }
        config = saver.put(config, made, {"source": "loop", "step": turn}, {"messages": version})


def changing(saver, steps, *, one):
    """The state of 10 KB, in 100 channels or in one."""
    state = State(saver)
    for _ in range(steps):
        config, made, metadata, new = state.next()
        if one:
            version = saver.get_next_version(max(made["channel_versions"].values()), None)
            made.update(channel_values={"all": made["channel_values"]}, channel_versions={"all": version})
            new = {"all": version}
        saver.put(config, made, metadata, new)


def disk(folder, steps):
    """Bytes on disk after so many steps."""
    shapes = {
        f"{steps} steps, 100 channels": functools.partial(changing, steps=steps, one=False),
        f"{steps} steps, one channel": functools.partial(changing, steps=steps, one=True),
        f"chat of {steps // 2} turns": functools.partial(chat, turns=steps // 2),
    }
    print("bytes on disk: 10 KB of state, 1 % of it new with each step; a chat of messages of 500 bytes")
    for shape, fill in shapes.items():
        sizes = {}
        for name in ("SqliteSaver", "StateroomSaver"):
            where = Path(tempfile.mkdtemp(dir=folder))
            with contextlib.ExitStack() as stack:
                if name == "SqliteSaver":
                    file = contextlib.closing(sqlite3.connect(where / "file.db", check_same_thread=False))
                    fill(SqliteSaver(stack.enter_context(file)))
                else:
                    fill(stack.enter_context(StateroomSaver(where / "file.db")))
            sizes[name] = sum(file.stat().st_size for file in where.iterdir())
            ratio = f"{sizes[name] / sizes['SqliteSaver']:8.2f}" if name != "SqliteSaver" else ""
            print(f"  {shape:34} {name:28} {sizes[name] / 1e6:10.3f} MB {ratio}")


async def awaited(folder, rounds):
    """Puts a second by many callers, each with a thread of its own."""
    found = defaultdict(list)
    for number in range(rounds):
        for callers in CALLERS:
            for name in ("AsyncSqliteSaver", "StateroomSaver"):
                path = os.path.join(folder, f"{name}{callers}-{number}.db")
                opened = AsyncSqliteSaver.from_conn_string(path) if name == "AsyncSqliteSaver" else StateroomSaver(path)
                async with opened as saver:
                    each = max(10, 320 // callers)

                    async def work(saver=saver, each=each):
                        state = State(saver)
                        for _ in range(each):
                            await saver.aput(*state.next())

                    begin = time.perf_counter()
                    await asyncio.gather(*(work() for _ in range(callers)))
                    found[callers, name].append(callers * each / (time.perf_counter() - begin))
    print("puts a second, and the ratio to LangGraph's saver")
    for (callers, name), rates in found.items():
        rate = statistics.median(rates)
        ratio = (
            f"{rate / statistics.median(found[callers, 'AsyncSqliteSaver']):8.2f}" if name == "StateroomSaver" else ""
        )
        print(f"  {f'{callers} callers':34} {name:28} {rate:10.0f} /s {ratio}")


def caches(folder, rounds):
    """Get and set of 1 KB."""
    table = Table()
    value = os.urandom(1000)
    with diskcache.Cache(os.path.join(folder, "theirs")) as theirs, Cache(os.path.join(folder, "cache.db")) as ours:
        for number in range(rounds + 1):
            for row in ("set", "get"):
                for name, cache in (("diskcache", theirs), ("Cache", ours)):
                    keys = iter(range(number * CALLS * 5, (number + 1) * CALLS * 5))
                    call = (
                        (lambda c=cache, k=keys: c.set(next(k), value))
                        if row == "set"
                        else (lambda c=cache, k=keys: c.get(next(k)))
                    )
                    table.time(f"cache {row}, 1 KB", name, call, CALLS * 5)
    print("a cache at durability normal, and the ratio to diskcache")
    table.print("ms", 1000, lambda name: "diskcache" if name == "Cache" else None)


def main(rounds=5, steps=1000):
    folder = tempfile.mkdtemp()
    try:
        for measure in (calls, caches):
            measure(tempfile.mkdtemp(dir=folder), rounds)
        asyncio.run(awaited(tempfile.mkdtemp(dir=folder), min(rounds, 3)))
        for measure in (disk, graph):
            measure(tempfile.mkdtemp(dir=folder), steps)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
