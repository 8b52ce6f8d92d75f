"""`stateroom instance`: workflow instances."""

from typing import Annotated

import typer

from ..errors import NotFound
from .options import After, All, Before, Limit, given, label_of, time_of
from .output import Column, clock
from .session import opened

app = typer.Typer(help="Workflow instances: list, show, delete.", no_args_is_help=True)

COLUMNS = (
    Column("ID", lambda i: i.id, fold=True),
    Column("WORKFLOW", lambda i: i.workflow),
    Column("V", lambda i: i.workflow_version, "right"),
    Column("STATUS", lambda i: i.status),
    Column("STEP", lambda i: i.current_step),
    Column("KEY", lambda i: i.business_key),
    Column("REV", lambda i: i.revision, "right"),
    Column("UPDATED", lambda i: i.updated_at),
)


@app.command("list")
def list_(
    context: typer.Context,
    status: Annotated[list[str] | None, typer.Option(help="This status; may be repeated.")] = None,
    workflow: Annotated[str | None, typer.Option(help="This workflow.")] = None,
    workflow_prefix: Annotated[str | None, typer.Option(help="Workflows whose names begin so.")] = None,
    workflow_version: Annotated[int | None, typer.Option(help="This version of the workflow.")] = None,
    business_key: Annotated[str | None, typer.Option(help="This business key.")] = None,
    label: Annotated[str | None, typer.Option(help="This label, as key=value.")] = None,
    updated_after: After = None,
    updated_before: Before = None,
    order: Annotated[str, typer.Option(help="id, or updated (newest first).")] = "updated",
    limit: Limit = 100,
    everything: All = False,
) -> None:
    """List instances, newest change first."""
    filters = given(
        status_in=status,
        workflow=workflow,
        workflow_prefix=workflow_prefix,
        workflow_version=workflow_version,
        business_key=business_key,
        label=label_of(label),
        updated_after=time_of(updated_after, "--updated-after"),
        updated_before=time_of(updated_before, "--updated-before"),
    )
    with opened(context) as (store, output):
        found = store.instances.scan(order=order, **filters)  # type: ignore[arg-type]
        output.records(COLUMNS, found, limit=None if everything else limit, empty="no instances")


@app.command()
def show(context: typer.Context, id: Annotated[str, typer.Argument(help="The instance.")]) -> None:
    """Show one instance with its context and history."""
    with opened(context) as (store, output):
        found = store.instances.get(id)
        if output.as_json:
            output.json(found)
            return
        output.record(found, without=("context", "history"))
        if found.context.initial or found.context.steps:
            output.say("\ncontext", "bold")
            output.fields({"initial": found.context.initial, **found.context.steps})
        if found.history:
            output.say("")
            columns = (
                Column("AT", lambda h: clock(h.at)),
                Column("STEP", lambda h: h.step),
                Column("EVENT", lambda h: h.event),
            )
            output.table(columns, found.history)


@app.command()
def delete(context: typer.Context, id: Annotated[str, typer.Argument(help="The instance.")]) -> None:
    """Delete one instance; the deletion is in the feed."""
    with opened(context) as (store, output):
        if not store.instances.delete(id):
            raise NotFound(f"no instance {id!r}", kind="instances", id=id)
        output.deleted(f"instance {id}")
