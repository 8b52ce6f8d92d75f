"""`stateroom execution`: executions of jobs, with their events."""

from typing import Annotated

import typer

from ..errors import NotFound
from .options import All, Before, Limit, given, time_of
from .output import Column, clock
from .session import opened

app = typer.Typer(help="Executions of jobs: list, show, delete.", no_args_is_help=True)

COLUMNS = (
    Column("ID", lambda e: e.id, fold=True),
    Column("JOB", lambda e: e.job_id),
    Column("STATE", lambda e: e.state),
    Column("NODE", lambda e: e.node_id),
    Column("MESSAGE", lambda e: e.message),
    Column("REV", lambda e: e.revision, "right"),
    Column("UPDATED", lambda e: e.updated_at),
)

EVENTS = (
    Column("#", lambda e: e.seq, "right"),
    Column("AT", lambda e: clock(e.at)),
    Column("TOPIC", lambda e: e.topic),
    Column("MESSAGE", lambda e: e.message),
    Column("DETAILS", lambda e: e.details or None),
)


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help="This state; may be repeated.")] = None,
    job: Annotated[str | None, typer.Option(help="Of this job.")] = None,
    node: Annotated[str | None, typer.Option(help="On this node.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Those at work: bid_accepted, running, publishing.")] = False,
    updated_before: Before = None,
    limit: Limit = 100,
    everything: All = False,
) -> None:
    """List executions, by id."""
    states = [*(state or []), *(("bid_accepted", "running", "publishing") if live else ())]
    filters = given(
        state_in=states, job_id=job, node_id=node, updated_before=time_of(updated_before, "--updated-before")
    )
    with opened(context) as (store, output):
        found = store.executions.scan(**filters)  # type: ignore[arg-type]
        output.records(COLUMNS, found, limit=None if everything else limit, empty="no executions")


@app.command()
def show(context: typer.Context, id: Annotated[str, typer.Argument(help="The execution.")]) -> None:
    """Show one execution and its events."""
    with opened(context) as (store, output):
        found, events = store.executions.get(id), store.executions.events(id)
        if output.as_json:
            output.json({"execution": found, "events": events})
            return
        output.record(found)
        if events:
            output.say("")
            output.table(EVENTS, events)


@app.command()
def delete(context: typer.Context, id: Annotated[str, typer.Argument(help="The execution.")]) -> None:
    """Delete one execution and its events; the deletion is in the feed."""
    with opened(context) as (store, output):
        if not store.executions.delete(id):
            raise NotFound(f"no execution {id!r}", kind="executions", id=id)
        output.deleted(f"execution {id}")
