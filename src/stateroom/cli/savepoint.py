"""`stateroom savepoint`: consistent cuts of a run."""

from itertools import islice
from typing import Annotated

import typer

from ..errors import NotFound
from .confirm import DryRun, Yes, agreed
from .options import All, Limit
from .output import Column
from .session import opened, paged

app = typer.Typer(help="Consistent cuts of a run.", no_args_is_help=True)

COLUMNS = (
    Column("TIMESTAMP", lambda s: str(s.timestamp), "right"),
    Column("ENTITIES", lambda s: f"{s.count:,}", "right"),
    Column("BYTES", lambda s: f"{s.bytes:,}", "right"),
)
RUNS = (Column("RUN", lambda name: name, fold=True),)
ENTITIES = (Column("ENTITY", lambda pair: pair[0], fold=True), Column("STATE", lambda pair: pair[1]))

Run = Annotated[str, typer.Argument(help="The run.")]


@app.command("list")
def list_(context: typer.Context, run: Run, limit: Limit = 100, everything: All = False) -> None:
    """List the savepoints of one run, newest first."""
    with opened(context) as (store, output):
        found = (store.savepoints.at(run, timestamp) for timestamp in reversed(store.savepoints.list(run)))
        if output.as_json:
            facts = ({"run": s.run, "timestamp": s.timestamp, "count": s.count, "bytes": s.bytes} for s in found)
            output.records((), facts, limit=None if everything else limit, empty="")
        else:
            output.records(COLUMNS, found, limit=None if everything else limit, empty=f"no savepoints of {run}")


@app.command()
def show(
    context: typer.Context,
    run: Run,
    at: Annotated[int | None, typer.Option(help="The newest at or before this timestamp, in ms.")] = None,
    limit: Limit = 20,
    everything: All = False,
) -> None:
    """Show one savepoint and its first entities; without --at the latest."""
    with opened(context) as (store, output):
        found = store.savepoints.latest(run) if at is None else store.savepoints.at(run, at)
        entities = found.entities() if everything else islice(found.entities(), limit)
        facts = {"run": found.run, "timestamp": found.timestamp, "count": found.count, "bytes": found.bytes}
        if output.as_json:
            output.json({**facts, "entities": dict(entities)})
            return
        output.fields(facts)
        output.title("")
        output.table(ENTITIES, entities)
        if not everything and found.count > limit:
            output.note(f"the first {limit} of {found.count:,}; --limit N or --all shows more")


@app.command()
def runs(
    context: typer.Context,
    prefix: Annotated[str, typer.Option(help="Runs whose names begin with this.")] = "",
    limit: Limit = 100,
    everything: All = False,
) -> None:
    """List the runs that have savepoints, or were initialised."""
    most = None if everything else limit
    with opened(context) as (store, output):
        found = paged(output, lambda **page: store.savepoints.runs(prefix, **page), most)
        output.records(RUNS, found, limit=most, empty="no runs")


@app.command()
def count(context: typer.Context, run: Run) -> None:
    """Count the savepoints of one run."""
    with opened(context) as (store, output):
        number = len(store.savepoints.list(run))
        output.json({"count": number}) if output.as_json else output.say(str(number))


@app.command()
def delete(
    context: typer.Context,
    run: Run,
    keep: Annotated[int | None, typer.Option(min=1, help="Keep the newest N and the run.")] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Delete a run with all its savepoints; with --keep only the older ones."""
    with opened(context) as (store, output):
        if not store.savepoints.initialized(run):
            raise NotFound(f"no run {run!r}", kind="savepoints", id=run)
        savepoints = [f"{run} {timestamp}" for timestamp in store.savepoints.list(run)]
        going = savepoints if keep is None else savepoints[: max(len(savepoints) - keep, 0)]
        if not agreed(
            output, going or [run], "savepoint", yes=yes or (keep is not None and not going), dry_run=dry_run
        ):
            return
        if keep is not None:
            output.deleted(f"{store.savepoints.keep(run, keep)} savepoints of {run}")
        elif store.savepoints.delete_run(run):
            output.deleted(f"run {run}")
        else:
            raise NotFound(f"no run {run!r}", kind="savepoints", id=run)
