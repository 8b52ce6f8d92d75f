"""`stateroom result`: values of DAG functions."""

from typing import Annotated, Any

import typer

import stateroom

from ..errors import NotFound
from .options import All, Limit, given
from .output import Column
from .session import opened

app = typer.Typer(help="Values of DAG functions: list, show, delete.", no_args_is_help=True)

COLUMNS = (
    Column("DAG", lambda r: r.dag, fold=True),
    Column("ID", lambda r: r.id, fold=True),
    Column("BYTES", lambda r: f"{r.size:,}", "right"),
    Column("DIGEST", lambda r: r.digest[:16]),
    Column("PRODUCER", lambda r: r.producer),
    Column("EXPIRES", lambda r: r.expires_at),
    Column("UPDATED", lambda r: r.updated_at),
)

Dag = Annotated[str, typer.Argument(help="The DAG.")]
Id = Annotated[str, typer.Argument(help="The result.")]


def fields(result: stateroom.Result) -> dict[str, Any]:
    """The fields of a result by their names."""
    return {name: getattr(result, name) for name in result.__struct_fields__}


@app.command("list")
def list_(
    context: typer.Context,
    dag: Annotated[str | None, typer.Argument(help="Of this DAG; without it of all.")] = None,
    limit: Limit = 100,
    everything: All = False,
) -> None:
    """List results, without values over 64 KiB."""
    with opened(context) as (store, output):
        found = store.results.scan(**given(dag=dag))  # type: ignore[arg-type]
        shown = (fields(result) for result in found) if output.as_json else found
        output.records(COLUMNS, shown, limit=None if everything else limit, empty="no results")


@app.command()
def show(context: typer.Context, dag: Dag, id: Id) -> None:
    """Show one result with its value."""
    with opened(context) as (store, output):
        found = store.results.find(dag, id)
        if found is None:
            raise NotFound(f"no result {id!r} of {dag!r}", kind="results", id=id)
        shown = {**fields(found), "value": store.results.get(dag, id)}
        if output.as_json:
            output.json(shown)
        else:
            output.fields({name.replace("_", " "): value for name, value in shown.items()})


@app.command()
def delete(context: typer.Context, dag: Dag, id: Id) -> None:
    """Delete one result; the deletion is in the feed."""
    with opened(context) as (store, output):
        if not store.results.delete(dag, id):
            raise NotFound(f"no result {id!r} of {dag!r}", kind="results", id=id)
        output.deleted(f"result {dag} {id}")
