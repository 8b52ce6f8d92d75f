"""`stateroom demo`."""

import time
from pathlib import Path
from typing import Annotated

import typer

import stateroom

from ...errors import InvalidArgument
from ..safe import masked
from ..session import session
from . import view
from .conductor import Conductor, Outcome
from .dag import command as dag

FILE = "stateroom-demo.db"


def demo(
    context: typer.Context,
    files: Annotated[int | None, typer.Option(min=1, help="Only so many files.")] = None,
    kills: Annotated[int, typer.Option(min=0, help="How often the worker is killed.")] = 2,
    seed: Annotated[int | None, typer.Option(help="Choose the moments of the kills by this number.")] = None,
    pace: Annotated[float, typer.Option(min=0, help="Seconds each hand of the worker rests between files.")] = 0.0,
    nodes: Annotated[
        int, typer.Option(min=0, help="Run a DAG over so many nodes instead; one of them is killed in the middle.")
    ] = 0,
) -> None:
    """Index Python's standard library as a workflow while its worker is killed, and show that nothing is lost.

    With --nodes it indexes the words of the library's documentation strings over several processes.
    Without --url the database is stateroom-demo.db in the current folder; $STATEROOM_URL is left alone.
    """
    current = session(context)
    url = current.url or FILE
    if url.startswith("memory"):
        raise InvalidArgument(
            "the demo's worker is a process of its own and cannot see memory:; give a file or a server"
        )
    if nodes:
        kill = kills > 0
        dag.run(url, current.namespace, current.output, nodes=nodes, files=files, kill=kill, pace=pace)
        return
    started = time.perf_counter()
    with (
        stateroom.open(url, namespace=current.namespace) as store,
        view.Bar(current.output.console, quiet=current.output.as_json) as bar,
    ):
        outcome = Conductor(store, url, current.namespace, bar, kills=kills, seed=seed, pace=pace).conduct(files)
    seconds = time.perf_counter() - started
    if current.output.as_json:
        current.output.json({"run": outcome.run, "url": masked(url), **_keys(outcome), "seconds": round(seconds, 2)})
    else:
        view.report(current.output.console, outcome, seconds)
        where = str(Path(url).resolve()) if "://" not in url else masked(url)
        view.signpost(current.output.console, where, masked(url), outcome, _example(outcome))
    if outcome.differences:
        raise typer.Exit(1)


def _keys(outcome: Outcome) -> dict[str, object]:
    numbers = {name.replace(" ", "_").replace("/s", "_per_second"): n for name, n in view.numbers(outcome).items()}
    return {**numbers, "expected": outcome.expected._asdict(), "differences": outcome.differences}


def _example(outcome: Outcome) -> str:
    """An execution worth a look: one that was restarted, else any."""
    return next(iter([*outcome.tally.restarted, *outcome.tally.completions]), outcome.run)
