"""`stateroom instance`: workflow instances."""

from typing import Annotated, Any

import typer

import stateroom

from ..errors import InvalidArgument, NotFound, StaleRevision
from .confirm import DryRun, Yes, agreed
from .options import (
    After,
    All,
    Before,
    Limit,
    OlderThan,
    Prefix,
    before_of,
    given,
    json_of,
    label_of,
    time_of,
)
from .output import Column, clock
from .session import opened, paged

app = typer.Typer(help="Workflow instances.", no_args_is_help=True)

COLUMNS = (
    Column("ID", lambda i: i.id, fold=True),
    Column("WORKFLOW", lambda i: i.workflow, drop=1),
    Column("V", lambda i: i.workflow_version, "right", drop=6),
    Column("STATUS", lambda i: i.status),
    Column("STEP", lambda i: i.current_step, drop=3),
    Column("KEY", lambda i: i.business_key, drop=4),
    Column("REV", lambda i: i.revision, "right", drop=5),
    Column("UPDATED", lambda i: i.updated_at, drop=2),
)
HISTORY = (
    Column("REV", lambda i: i.revision, "right"),
    Column("AT", lambda i: clock(i.updated_at)),
    Column("STATUS", lambda i: i.status),
    Column("STEP", lambda i: i.current_step),
)

Id = Annotated[str, typer.Argument(help="The instance.")]
Statuses = Annotated[list[str] | None, typer.Option("--status", help="This status; may be repeated.")]
Workflow = Annotated[str | None, typer.Option(help="This workflow.")]
Label = Annotated[str | None, typer.Option(help="This label, as key=value.")]


@app.command("list")
def list_(
    context: typer.Context,
    status: Statuses = None,
    workflow: Workflow = None,
    workflow_prefix: Annotated[str | None, typer.Option(help="Workflows whose names begin with this.")] = None,
    workflow_version: Annotated[int | None, typer.Option(help="This version of the workflow.")] = None,
    business_key: Annotated[str | None, typer.Option(help="This business key.")] = None,
    label: Label = None,
    id_prefix: Prefix = None,
    updated_after: After = None,
    updated_before: Before = None,
    order: Annotated[str, typer.Option(help="id, or updated (newest first).")] = "id",
    limit: Limit = 100,
    everything: All = False,
) -> None:
    """List instances, by id."""
    filters = given(
        status_in=status,
        workflow=workflow,
        workflow_prefix=workflow_prefix,
        workflow_version=workflow_version,
        business_key=business_key,
        label=label_of(label),
        id_prefix=id_prefix,
        updated_after=time_of(updated_after, "--updated-after"),
        updated_before=time_of(updated_before, "--updated-before"),
    )
    most = None if everything else limit
    with opened(context) as (store, output):
        found = paged(output, store.instances.query, most, order=order, **filters)
        output.records(COLUMNS, found, limit=most, empty="no instances")


@app.command()
def show(context: typer.Context, id: Id) -> None:
    """Show one instance with its context and history."""
    with opened(context) as (store, output):
        found = store.instances.get(id, raw=True)
        if output.as_json:
            output.json(found)
            return
        output.record(found, without=("context", "history"))
        if found.context.initial or found.context.steps:
            output.title("context")
            output.fields({"initial": found.context.initial, **found.context.steps})
        if found.history:
            output.title("")
            columns = (
                Column("AT", lambda h: clock(h.at)),
                Column("STEP", lambda h: h.step, fold=True),
                Column("EVENT", lambda h: h.event, fold=True),
            )
            output.table(columns, found.history)


@app.command()
def start(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="Its id.")],
    workflow: Annotated[str, typer.Argument(help="Its workflow.")],
    workflow_version: Annotated[int, typer.Option(min=1, help="The version of the workflow.")] = 1,
    business_key: Annotated[str | None, typer.Option(help="Refused while one with this key is active.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value; may be repeated.")] = None,
    input: Annotated[str | None, typer.Option("--input", help="Its initial context, as JSON.")] = None,
) -> None:
    """Make a pending instance for a worker to take up."""
    initial = json_of(input, "--input")
    labels = dict(pair for text in label or () if (pair := label_of(text)) is not None)
    made = stateroom.Instance(
        id,
        workflow,
        workflow_version=workflow_version,
        business_key=business_key,
        labels=labels,
        context=stateroom.Context(initial={} if initial is None else initial),
    )
    with opened(context) as (store, output):
        started = store.instances.start(made)
        if output.as_json:
            output.json(started)
        else:
            output.say(f"started instance {id}")


@app.command()
def cancel(context: typer.Context, id: Id, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Cancel one instance for good; whoever works on it loses its lease."""
    with opened(context) as (store, output):
        store.instances.get(id, raw=True)
        if agreed(output, [id], "instance", yes=yes, dry_run=dry_run, verb="cancel"):
            cancelled = store.instances.cancel(id)
            if output.as_json:
                output.json(cancelled)
            else:
                output.say(f"cancelled instance {id}")


@app.command()
def orphans(
    context: typer.Context,
    workflow: Workflow = None,
    status: Statuses = None,
    updated_before: Before = None,
    limit: Limit = 100,
    everything: All = False,
) -> None:
    """List active instances that nobody holds a lease of: what to resume after a crash."""
    before = time_of(updated_before, "--updated-before")
    filters = given(workflow=workflow, status_in=status, updated_before=before)
    most = None if everything else limit
    with opened(context) as (store, output):
        found = paged(output, store.instances.orphans, most, **filters)
        output.records(COLUMNS, found, limit=most, empty="no orphans")


@app.command()
def count(
    context: typer.Context,
    workflow: Workflow = None,
    status: Annotated[str | None, typer.Option(help="This status.")] = None,
) -> None:
    """Count instances, from counters."""
    with opened(context) as (store, output):
        number = store.instances.count(workflow=workflow, status=status)  # type: ignore[arg-type]
        output.json({"count": number}) if output.as_json else output.say(str(number))


@app.command()
def history(context: typer.Context, id: Id, limit: Limit = 100, everything: All = False) -> None:
    """List how one instance was before, newest first, as far back as the feed goes."""
    most = None if everything else limit
    with opened(context) as (store, output):
        found = paged(output, lambda **page: store.instances.history(id, **page), most)
        output.records(HISTORY, found, limit=most, empty=f"no history of {id}")


@app.command()
def delete(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The instances; or say filters.")] = None,
    status: Statuses = None,
    workflow: Workflow = None,
    label: Label = None,
    id_prefix: Prefix = None,
    older_than: OlderThan = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Delete instances, by id or all that match the filters; each deletion is in the feed."""
    filters = given(
        status_in=status,
        workflow=workflow,
        label=label_of(label),
        id_prefix=id_prefix,
        updated_before=before_of(older_than),
    )
    with opened(context) as (store, output):
        delete_records(output, store.instances, "instance", ids or [], filters, yes=yes, dry_run=dry_run)


def delete_records(
    output: Any, family: Any, noun: str, ids: list[str], filters: dict[str, Any], *, yes: bool, dry_run: bool
) -> None:
    """Delete records by id, or those that match and have not changed since they were looked at."""
    if bool(ids) == bool(filters):
        raise InvalidArgument(f"say which: ids of {noun}s, or filters such as --older-than 30d", what="ids")
    if ids:
        for id in ids:
            if family.find(id, raw=True) is None:
                raise NotFound(f"no {noun} {id!r}", kind=f"{noun}s", id=id)
        chosen: dict[str, int | None] = dict.fromkeys(ids)
    else:
        chosen = {record.id: record.revision for record in paged(output, family.query, **filters)}
    if not agreed(output, list(chosen), noun, yes=yes, dry_run=dry_run):
        return
    deleted = []
    for id, revision in chosen.items():
        try:
            if family.delete(id, expected_revision=revision):
                deleted.append(id)
        except StaleRevision:
            continue
    if len(ids) == 1:
        if not deleted:
            raise NotFound(f"no {noun} {ids[0]!r}", kind=f"{noun}s", id=ids[0])
        output.deleted(f"{noun} {ids[0]}")
        return
    output.deleted(f"{len(deleted):,} {noun}{'' if len(deleted) == 1 else 's'}")
    if len(deleted) < len(chosen):
        output.note(f"{len(chosen) - len(deleted):,} changed or went meanwhile and were left alone")
