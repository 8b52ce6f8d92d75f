"""`stateroom execution`: executions of jobs, with their events."""

from typing import Annotated, Any

import typer

import stateroom

from .confirm import DryRun, Yes
from .instance import delete_records
from .options import All, Before, Limit, OlderThan, Prefix, before_of, given, time_of
from .output import Column, Output, clock
from .session import opened, paged

app = typer.Typer(help="Executions of jobs, with their events.", no_args_is_help=True)

COLUMNS = (
    Column("ID", lambda e: e.id, fold=True),
    Column("JOB", lambda e: e.job_id, drop=3),
    Column("STATE", lambda e: e.state),
    Column("NODE", lambda e: e.node_id, drop=5),
    Column("MESSAGE", lambda e: e.message, drop=4),
    Column("REV", lambda e: e.revision, "right", drop=6),
    Column("UPDATED", lambda e: e.updated_at, drop=2),
)
EVENTS = (
    Column("#", lambda e: e.seq, "right"),
    Column("AT", lambda e: clock(e.at), drop=1),
    Column("TOPIC", lambda e: e.topic, drop=2),
    Column("MESSAGE", lambda e: e.message, fold=True),
    Column("DETAILS", lambda e: e.details or None, drop=3),
)
HISTORY = (
    Column("REV", lambda e: e.revision, "right"),
    Column("AT", lambda e: clock(e.updated_at)),
    Column("STATE", lambda e: e.state),
    Column("NODE", lambda e: e.node_id),
    Column("MESSAGE", lambda e: e.message),
)
LIVE = ("bid_accepted", "running", "publishing")
STATES = (
    "new", "ask_for_bid", "ask_for_bid_accepted", "ask_for_bid_rejected", "bid_accepted", "bid_rejected", "running",
    "publishing", "completed", "failed", "cancelled",
)  # fmt: skip

Id = Annotated[str, typer.Argument(help="The execution.")]
States = Annotated[list[str] | None, typer.Option("--state", help="This state; may be repeated.")]
Job = Annotated[str | None, typer.Option(help="Of this job.")]
Node = Annotated[str | None, typer.Option(help="On this node.")]


@app.command("list")
def list_(
    context: typer.Context,
    state: States = None,
    job: Job = None,
    node: Node = None,
    live: Annotated[bool, typer.Option("--live", help="Those at work: bid_accepted, running, publishing.")] = False,
    id_prefix: Prefix = None,
    updated_before: Before = None,
    limit: Limit = 100,
    everything: All = False,
) -> None:
    """List executions, by id."""
    filters = given(
        state_in=[*(state or []), *(LIVE if live else ())],
        job_id=job,
        node_id=node,
        id_prefix=id_prefix,
        updated_before=time_of(updated_before, "--updated-before"),
    )
    most = None if everything else limit
    with opened(context) as (store, output):
        found = paged(output, store.executions.query, most, **filters)
        output.records(COLUMNS, found, limit=most, empty="no executions")


@app.command()
def show(context: typer.Context, id: Id) -> None:
    """Show one execution and its events."""
    with opened(context) as (store, output):
        found, events = store.executions.get(id, raw=True), store.executions.events(id)
        if output.as_json:
            output.json({"execution": found, "events": events})
            return
        output.record(found)
        if events:
            output.title("")
            output.table(EVENTS, events)


@app.command()
def events(
    context: typer.Context,
    id: Id,
    after: Annotated[int, typer.Option(min=0, help="Only those after this number.")] = 0,
    last: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Only the last so many.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more; Ctrl-C ends it.")] = False,
) -> None:
    """List the events of one execution, in the order they were written."""
    with opened(context) as (store, output):
        position = store.feed.latest()
        seen = _show_events(store, output, id, after, last, follow)
        while follow:
            changes = store.feed.read(position, families=["executions", "execution_events"], ids=[id], wait=1.0)
            position = changes.next
            if changes.items:
                seen = _show_events(store, output, id, seen, None, follow)


def _show_events(store: stateroom.Store, output: Output, id: str, after: int, last: int | None, follow: bool) -> int:
    found = store.executions.events(id, after=after, last=last)
    if follow:
        for event in found:
            if output.as_json:
                output.line(event)
            else:
                at = "" if event.at is None else output.at(event.at)
                output.say(f"{event.seq:>4}  {at}  {event.topic}  {event.message}")
    elif output.as_json:
        output.json(found)
    elif found:
        output.table(EVENTS, found)
    else:
        output.note(f"no events of {id}")
    return found[-1].seq if found else after


@app.command()
def orphans(
    context: typer.Context,
    job: Job = None,
    state: States = None,
    updated_before: Before = None,
    limit: Limit = 100,
    everything: All = False,
) -> None:
    """List executions at work that nobody holds a lease of: what to resume after a crash."""
    filters = given(job_id=job, state_in=state, updated_before=time_of(updated_before, "--updated-before"))
    most = None if everything else limit
    with opened(context) as (store, output):
        found = paged(output, store.executions.orphans, most, **filters)
        output.records(COLUMNS, found, limit=most, empty="no orphans")


@app.command()
def count(
    context: typer.Context, state: Annotated[str | None, typer.Option(help="In this state; without it all.")] = None
) -> None:
    """Count executions, from counters."""
    with opened(context) as (store, output):
        states = (state,) if state is not None else STATES
        number = sum(store.executions.count(name) for name in states)  # type: ignore[arg-type,misc]
        output.json({"count": number}) if output.as_json else output.say(str(number))


@app.command()
def history(context: typer.Context, id: Id, limit: Limit = 100, everything: All = False) -> None:
    """List how one execution was before, newest first, as far back as the feed goes."""
    most = None if everything else limit
    with opened(context) as (store, output):
        found = paged(output, lambda **page: store.executions.history(id, **page), most)
        output.records(HISTORY, found, limit=most, empty=f"no history of {id}")


@app.command()
def delete(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The executions; or say filters.")] = None,
    state: States = None,
    job: Job = None,
    node: Node = None,
    id_prefix: Prefix = None,
    older_than: OlderThan = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Delete executions with their events, by id or all that match the filters; each deletion is in the feed."""
    filters: dict[str, Any] = given(
        state_in=state, job_id=job, node_id=node, id_prefix=id_prefix, updated_before=before_of(older_than)
    )
    with opened(context) as (store, output):
        delete_records(output, store.executions, "execution", ids or [], filters, yes=yes, dry_run=dry_run)
