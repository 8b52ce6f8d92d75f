"""`stateroom demo --nodes N`."""

import time
from typing import Any

import typer

import stateroom

from ....errors import InvalidArgument
from ...output import Output
from .. import view
from .conductor import Conductor, Outcome, workplace


def run(url: str, namespace: str, output: Output, *, nodes: int, files: int | None, kill: bool, pace: float) -> None:
    """Run the DAG and print what came out. Exit code 1 where a plain run gives something else."""
    try:
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InvalidArgument('nodes need the extra: pip install "stateroom[server]"', what="nodes") from error
    started = time.perf_counter()
    with (
        stateroom.open(url, namespace=namespace) as store,
        view.Bar(output.console, quiet=output.as_json) as bar,
        workplace() as folder,
    ):
        conductor = Conductor(store, url, namespace, bar, folder=folder)
        outcome = conductor.conduct(nodes, files, kill=kill, pace=pace)
        for name in outcome.made.keys() | {"conductor"}:
            forget(store, f"{conductor.dag}-{name}")
    seconds = time.perf_counter() - started
    report(output, outcome, seconds)
    if outcome.value != outcome.expected:
        raise typer.Exit(1)


def forget(store: stateroom.Store, name: str) -> None:
    """Remove a node of the demo, whose file is gone, once its lease has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            store.locations.forget(name)
        except stateroom.errors.AlreadyExists:
            time.sleep(0.1)
        else:
            store.locations.clear_node(name)
            return


def report(output: Output, outcome: Outcome, seconds: float) -> None:
    """The table, or JSON."""
    same = outcome.value == outcome.expected
    facts: dict[str, Any] = {
        "run": outcome.dag,
        "functions": sum(outcome.made.values()),
        "made by": outcome.made,
        "values fetched": outcome.fetched,
        "begun again": outcome.put_back,
        "killed": outcome.killed,
        "files": outcome.value["files"],
        "words": outcome.value["words"],
        "in most files": outcome.value["most"],
        "same as one process": same,
        "seconds": round(seconds, 2),
    }
    if output.as_json:
        output.json({name.replace(" ", "_"): value for name, value in facts.items()} | {"expected": outcome.expected})
        return
    facts["made by"] = ", ".join(f"{name} {count}" for name, count in outcome.made.items())
    facts["in most files"] = ", ".join(f"{word} {count}" for word, count in outcome.value["most"])
    facts["same as one process"] = "yes" if same else "NO"
    output.fields(facts)
