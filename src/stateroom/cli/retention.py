"""`stateroom retention`: what may go, and its going."""

from datetime import timedelta
from typing import Annotated

import typer

import stateroom

from ..errors import NotFound
from .confirm import DryRun, Yes, agreed, on_terminal
from .options import All, Limit, duration_of
from .output import Column
from .session import opened

app = typer.Typer(help="What ages out, and when.", no_args_is_help=True)

POLICIES = (Column("FAMILY", lambda p: p.family), Column("GOES WHEN", lambda p: p.why, fold=True))
DUE = (
    Column("FAMILY", lambda due: due.family),
    Column("DUE", lambda due: f"{due.count:,}", "right"),
    Column("WHY", lambda due: due.why),
    Column("FOR EXAMPLE", lambda due: ", ".join(due.examples), fold=True),
)
PINS = (
    Column("HELD BACK BY", lambda pin: pin.name, fold=True),
    Column("SET", lambda pin: pin.updated_at),
    Column("OLDEST CHANGE", lambda pin: pin.since),
    Column("GOES", lambda pin: pin.until),
)

_AGE = "an age such as 90s, 15m, 2h, 30d."


@app.command("list")
def list_(context: typer.Context, limit: Limit = 100, everything: All = False) -> None:
    """List the policies."""
    with opened(context) as (store, output):
        output.records(
            POLICIES, store.retention.list(), limit=None if everything else limit, empty="no policies: nothing ages out"
        )


@app.command("set")
def set_(
    context: typer.Context,
    family: Annotated[
        str,
        typer.Argument(
            help="instances, executions, machines, results, savepoints, feed, or once (the keys of `transact`)."
        ),
    ],
    terminal_older_than: Annotated[
        str | None, typer.Option(help=f"Ended at least this long ago (instances, executions, machines): {_AGE}")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(help=f"Unchanged for this long, whatever its state (any family): {_AGE}")
    ] = None,
    keep_latest: Annotated[
        int | None,
        typer.Option(
            help="Always keep this many newest of each workflow, job, machine, DAG or run (any but feed and once)."
        ),
    ] = None,
    max_pinned: Annotated[
        str | None, typer.Option(help=f"Goes after this long even if a checkpoint holds it back (feed): {_AGE}")
    ] = None,
) -> None:
    """Set the policy of a family, in place of the one it had. Nothing is deleted until the next run.

    A record goes when all that its policy says is true of it.
    """
    policy = stateroom.Policy(
        family,
        terminal_older_than=_age(terminal_older_than, "--terminal-older-than"),
        older_than=_age(older_than, "--older-than"),
        keep_latest=keep_latest,
        max_pinned=_age(max_pinned, "--max-pinned"),
    )
    with opened(context) as (store, output):
        store.retention.set(policy)
        if output.as_json:
            output.json(policy)
        else:
            output.say(f"{family}: {policy.why}")


@app.command()
def delete(
    context: typer.Context,
    family: Annotated[str, typer.Argument(help="Whose policy.")],
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Forget the policy of a family: from then on nothing of it is deleted."""
    with opened(context) as (store, output):
        if store.retention.get(family) is None:
            raise NotFound(f"there is no policy for {family!r}", kind="policies", id=family)
        if agreed(output, [family], "policy", yes=yes, dry_run=dry_run):
            store.retention.delete(family)
            output.deleted(f"policy of {family}")


@app.command()
def plan(context: typer.Context) -> None:
    """Say what would go now and why, and what holds the feed back. Nothing is removed."""
    with opened(context) as (store, output):
        found = store.retention.plan()
        if output.as_json:
            output.json(found)
            return
        output.records(DUE, found.items, limit=None, empty="no policies: nothing ages out")
        if found.pins:
            output.title("")
            output.table(PINS, found.pins)


@app.command()
def run(
    context: typer.Context,
    max_records: Annotated[int, typer.Option(min=1, help="Remove at most this many.")] = 1000,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Stop after about this many seconds.")] = 10.0,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask (on a terminal it does).")] = False,
) -> None:
    """Remove what the policies let go, in small commits that let writers through. --dry-run is `retention plan`."""
    if dry_run:
        plan(context)
        return
    with opened(context) as (store, output):
        if not yes and on_terminal(output):
            due = [f"{due.count:,} {due.family}" for due in store.retention.plan().items if due.count]
            agreed(output, due, "kind of record", yes=False, dry_run=False)
        went = store.retention.run(max_records=max_records, max_seconds=max_seconds)
        if output.as_json:
            output.json(went)
            return
        for family, number in went.families.items():
            output.say(f"{number:,} {family} removed")
        output.say("done" if went.complete else "there is more: run it again")


def _age(text: str | None, name: str) -> timedelta | None:
    return None if text is None else duration_of(text, name)
