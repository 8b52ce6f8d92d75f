"""Real graphs for the tests of the saver; as a program: run one thread, and be killed in the middle of a node."""

import operator
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from stateroom.adapters.langgraph import StateroomSaver


class State(TypedDict, total=False):
    steps: Annotated[list[str], operator.add]
    answer: str


def graph(saver, log, deadly=None):
    """Five nodes, two of them side by side, one that asks; each notes in `log` that it ran, and `deadly` dies then."""

    def node(name):
        def run(state):
            with Path(log).open("a") as file:
                file.write(f"{name}\n")
            if name == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return {"steps": [name]}

        return run

    def ask(state):
        return {"answer": interrupt("go on?"), "steps": ["ask"]}

    builder = StateGraph(State)
    for name in ("first", "left", "right", "last"):
        builder.add_node(name, node(name))
    builder.add_node("ask", ask)
    builder.add_edge(START, "first")
    builder.add_edge("first", "left")
    builder.add_edge("first", "right")
    builder.add_edge(["left", "right"], "ask")
    builder.add_edge("ask", "last")
    builder.add_edge("last", END)
    return builder.compile(checkpointer=saver)


def thread(id="t"):
    return {"configurable": {"thread_id": id}}


if __name__ == "__main__":
    url, log, deadly, answer = sys.argv[1:]
    with StateroomSaver(url) as saver:
        made = graph(saver, log, deadly)
        if answer:
            made.invoke(Command(resume=answer), thread(), durability="sync")
        elif saver.get_tuple(thread()) is None:
            made.invoke({"steps": ["start"]}, thread(), durability="sync")
        else:
            made.invoke(None, thread(), durability="sync")
