"""`stateroom timer`: what is due, and when."""

from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from ..errors import NotFound
from .confirm import DryRun, Yes, agreed
from .options import UNITS, All, Limit, duration_of, json_of, time_of
from .output import Column, clock
from .session import opened, paged

app = typer.Typer(help="Timers: what is due, and when.", no_args_is_help=True)


def again(timer: Any) -> str | None:
    """When a timer is due again, in words."""
    if timer.cron:
        return f"cron {timer.cron} {timer.tz}"
    return None if timer.every is None else f"every {timer.every}"


COLUMNS = (
    Column("ID", lambda t: t.id, fold=True),
    Column("AT", lambda t: clock(t.at)),
    Column("DUE", lambda t: t.at, drop=1),
    Column("AGAIN", again, drop=2),
    Column("PAYLOAD", lambda t: t.payload, drop=3),
)
Id = Annotated[str, typer.Argument(help="The timer.")]


@app.command("list")
def list_(
    context: typer.Context,
    prefix: Annotated[str, typer.Option("--id-prefix", help="Ids that begin with this.")] = "",
    before: Annotated[str | None, typer.Option(help="Due before this time: ISO 8601, or an age.")] = None,
    limit: Limit = 100,
    everything: All = False,
) -> None:
    """List timers, by id."""
    most = None if everything else limit
    until = time_of(before, "--before")
    with opened(context) as (store, output):
        found = paged(output, lambda **page: store.timers.query(prefix, before=until, **page), most)
        output.records(COLUMNS, found, limit=most, empty="no timers")


@app.command()
def show(context: typer.Context, id: Id) -> None:
    """Show one timer with its payload."""
    with opened(context) as (store, output):
        timer = store.timers.get(id, raw=True)
        output.json(timer) if output.as_json else output.record(timer)


@app.command("set")
def set_(
    context: typer.Context,
    id: Id,
    at: Annotated[str | None, typer.Argument(help="ISO 8601, or from now on: 90s, 15m, 2h, 3d.")] = None,
    payload: Annotated[str | None, typer.Option(help="What it carries, as JSON.")] = None,
    every: Annotated[str | None, typer.Option(help="Due again after this long: 90s, 15m, 2h, 3d.")] = None,
    cron: Annotated[str | None, typer.Option(help="Due again by this cron expression.")] = None,
    tz: Annotated[str, typer.Option(help="Time zone of the cron expression.")] = "UTC",
) -> None:
    """Set a timer, in place of one of the same id."""
    when: datetime | timedelta | None
    when = duration_of(at, "AT") if at and at[-1] in UNITS and at[:-1].isdecimal() else time_of(at, "AT")
    again = None if every is None else duration_of(every, "--every")
    with opened(context) as (store, output):
        timer = store.timers.set(id, when, json_of(payload, "--payload"), every=again, cron=cron, tz=tz)
        if output.as_json:
            output.json(timer)
        else:
            output.say(f"timer {id} is due at {output.at(timer.at)}")


@app.command()
def cancel(context: typer.Context, id: Id, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Remove a timer: it will not be due."""
    with opened(context) as (store, output):
        if store.timers.find(id, raw=True) is None:
            raise NotFound(f"no timer {id!r}", kind="timers", id=id)
        if agreed(output, [id], "timer", yes=yes, dry_run=dry_run, verb="cancel"):
            store.timers.cancel(id)
            output.deleted(f"timer {id}")


app.command("delete", hidden=True)(cancel)
