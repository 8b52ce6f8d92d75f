"""`stateroom machine`: snapshots of state machines."""

from typing import Annotated

import typer

from ..errors import NotFound
from .options import All, Limit, given
from .output import Column, clock
from .session import opened

app = typer.Typer(help="State-machine snapshots: list, show, delete.", no_args_is_help=True)

COLUMNS = (
    Column("MACHINE", lambda s: s.machine, fold=True),
    Column("NAME", lambda s: s.name, fold=True),
    Column("STATE", lambda s: s.state),
    Column("BEFORE", lambda s: s.previous_state),
    Column("EVENT", lambda s: s.event),
    Column("REV", lambda s: s.revision, "right"),
    Column("UPDATED", lambda s: s.updated_at),
)
HISTORY = (
    Column("AT", lambda s: clock(s.updated_at)),
    Column("STATE", lambda s: s.state),
    Column("BEFORE", lambda s: s.previous_state),
    Column("EVENT", lambda s: s.event),
    Column("PAYLOAD", lambda s: s.payload),
)

Machine = Annotated[str, typer.Argument(help="The machine.")]
Name = Annotated[str, typer.Argument(help="Its name.")]


@app.command("list")
def list_(
    context: typer.Context,
    machine: Annotated[str | None, typer.Option(help="Of this machine.")] = None,
    state: Annotated[str | None, typer.Option(help="In this state.")] = None,
    limit: Limit = 100,
    everything: All = False,
) -> None:
    """List the latest snapshot of every machine."""
    with opened(context) as (store, output):
        found = store.machines.scan(**given(machine=machine, state=state))  # type: ignore[arg-type]
        output.records(COLUMNS, found, limit=None if everything else limit, empty="no machines")


@app.command()
def show(context: typer.Context, machine: Machine, name: Name, limit: Limit = 10) -> None:
    """Show one machine: its snapshot, its last error, its latest transitions."""
    with opened(context) as (store, output):
        snapshot = store.machines.find(machine, name)
        failure = store.machines.last_error(machine, name)
        if snapshot is None and failure is None:
            raise NotFound(f"no machine {machine!r} named {name!r}", kind="machines", id=name)
        history = store.machines.history(machine, name, limit=limit).items
        if output.as_json:
            output.json({"snapshot": snapshot, "last_error": failure, "history": history})
            return
        if snapshot is not None:
            output.record(snapshot)
        if failure is not None:
            output.say("\nlast error", "bold red")
            output.record(failure)
        if history:
            output.say("\nhistory, newest first", "bold")
            output.table(HISTORY, history)


@app.command()
def delete(context: typer.Context, machine: Machine, name: Name) -> None:
    """Remove one machine: snapshot, error and history."""
    with opened(context) as (store, output):
        if not store.machines.purge(machine, name):
            raise NotFound(f"no machine {machine!r} named {name!r}", kind="machines", id=name)
        output.deleted(f"machine {machine} {name}")
