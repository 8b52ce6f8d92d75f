"""`stateroom machine`: snapshots of state machines."""

from typing import Annotated

import typer

from ..errors import InvalidArgument, NotFound
from .confirm import DryRun, Yes, agreed
from .options import All, Limit, OlderThan, before_of, given
from .output import Column, clock
from .session import opened, paged

app = typer.Typer(help="State-machine snapshots.", no_args_is_help=True)

COLUMNS = (
    Column("MACHINE", lambda s: s.machine, fold=True),
    Column("NAME", lambda s: s.name, fold=True),
    Column("STATE", lambda s: s.state),
    Column("BEFORE", lambda s: s.previous_state, drop=3),
    Column("EVENT", lambda s: s.event, drop=4),
    Column("REV", lambda s: s.revision, "right", drop=5),
    Column("UPDATED", lambda s: s.updated_at, drop=2),
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
    most = None if everything else limit
    with opened(context) as (store, output):
        found = paged(output, store.machines.query, most, **given(machine=machine, state=state))
        output.records(COLUMNS, found, limit=most, empty="no machines")


@app.command()
def show(context: typer.Context, machine: Machine, name: Name, limit: Limit = 10) -> None:
    """Show one machine: its snapshot, its last error, its latest transitions."""
    with opened(context) as (store, output):
        snapshot = store.machines.find(machine, name, raw=True)
        failure = store.machines.last_error(machine, name, raw=True)
        if snapshot is None and failure is None:
            raise NotFound(f"no machine {machine!r} named {name!r}", kind="machines", id=name)
        transitions = store.machines.history(machine, name, limit=limit).items
        if output.as_json:
            output.json({"snapshot": snapshot, "last_error": failure, "history": transitions})
            return
        if snapshot is not None:
            output.record(snapshot)
        if failure is not None:
            output.title("last error", "bold red")
            output.record(failure)
        if transitions:
            output.title("history, newest first")
            output.table(HISTORY, transitions)


@app.command()
def count(
    context: typer.Context,
    machine: Annotated[str, typer.Argument(help="The machine.")],
    state: Annotated[str | None, typer.Option(help="In this state.")] = None,
) -> None:
    """Count the snapshots of one machine, from counters."""
    with opened(context) as (store, output):
        number = store.machines.count(machine, state)
        output.json({"count": number}) if output.as_json else output.say(str(number))


@app.command()
def history(context: typer.Context, machine: Machine, name: Name, limit: Limit = 100, everything: All = False) -> None:
    """List the transitions of one machine, newest first."""
    most = None if everything else limit
    with opened(context) as (store, output):
        found = paged(output, lambda **page: store.machines.history(machine, name, **page), most)
        output.records(HISTORY, found, limit=most, empty=f"no history of {machine} {name}")


@app.command()
def delete(
    context: typer.Context,
    machine: Annotated[str | None, typer.Argument(help="The machine; or say filters.")] = None,
    name: Annotated[str | None, typer.Argument(help="Its name; without it all that match the filters.")] = None,
    state: Annotated[str | None, typer.Option(help="In this state.")] = None,
    older_than: OlderThan = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Remove machines: snapshot, error and history of one, or of all that match the filters."""
    filtered = state is not None or older_than is not None
    before = before_of(older_than)
    if machine is None or (name is not None) == filtered:
        raise InvalidArgument("say which: MACHINE NAME, or MACHINE and --state or --older-than", what="machine")
    with opened(context) as (store, output):
        if name is not None:
            found = store.machines.find(machine, name, raw=True), store.machines.last_error(machine, name, raw=True)
            if found == (None, None):
                raise NotFound(f"no machine {machine!r} named {name!r}", kind="machines", id=name)
            names = [name]
        else:
            matching = paged(output, store.machines.query, **given(machine=machine, state=state))
            names = [each.name for each in matching if before is None or each.updated_at < before]
        if not agreed(output, [f"{machine} {each}" for each in names], "machine", yes=yes, dry_run=dry_run):
            return
        gone = sum(store.machines.purge(machine, each) for each in names)
        output.deleted(f"machine {machine} {name}" if name is not None else f"{gone:,} of machine {machine}")
