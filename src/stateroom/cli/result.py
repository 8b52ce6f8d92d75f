"""`stateroom result`: values of DAG functions."""

from typing import Annotated, Any

import typer

import stateroom

from ..errors import InvalidArgument, NotFound
from .confirm import DryRun, Yes, agreed
from .options import All, Limit, OlderThan, Prefix, before_of, given
from .output import Column, shown_fields
from .session import opened, paged

app = typer.Typer(help="Values of DAG functions.", no_args_is_help=True)

COLUMNS = (
    Column("DAG", lambda r: r.dag, fold=True),
    Column("ID", lambda r: r.id, fold=True),
    Column("BYTES", lambda r: f"{r.size:,}", "right", drop=1),
    Column("DIGEST", lambda r: r.digest[:16], drop=5),
    Column("PRODUCER", lambda r: r.producer, drop=4),
    Column("EXPIRES", lambda r: r.expires_at, drop=3),
    Column("UPDATED", lambda r: r.updated_at, drop=2),
)

Dag = Annotated[str, typer.Argument(help="The DAG.")]
Id = Annotated[str, typer.Argument(help="The result.")]


def fields(result: stateroom.Result) -> dict[str, Any]:
    """The fields of a result by their names."""
    return {name: getattr(result, name) for name in shown_fields(result)}


@app.command("list")
def list_(
    context: typer.Context,
    dag: Annotated[str | None, typer.Argument(help="Of this DAG; without it of all.")] = None,
    id_prefix: Prefix = None,
    limit: Limit = 100,
    everything: All = False,
) -> None:
    """List results, without values over 64 KiB."""
    most = None if everything else limit
    with opened(context) as (store, output):
        found = paged(output, store.results.query, most, **given(dag=dag, id_prefix=id_prefix))
        shown = (fields(result) for result in found) if output.as_json else found
        output.records(COLUMNS, shown, limit=most, empty="no results")


@app.command()
def show(context: typer.Context, dag: Dag, id: Id) -> None:
    """Show one result with its value."""
    with opened(context) as (store, output):
        found = store.results.find(dag, id, raw=True)
        if found is None:
            raise NotFound(f"no result {id!r} of {dag!r}", kind="results", id=id)
        shown = {**fields(found), "value": store.results.get(dag, id, raw=True)}
        if output.as_json:
            output.json(shown)
        else:
            output.fields({name.replace("_", " "): value for name, value in shown.items()})


@app.command()
def count(context: typer.Context, dag: Dag) -> None:
    """Count the results of one DAG, from counters."""
    with opened(context) as (store, output):
        number = store.results.count(dag)
        output.json({"count": number}) if output.as_json else output.say(str(number))


@app.command()
def delete(
    context: typer.Context,
    dag: Dag,
    id: Annotated[str | None, typer.Argument(help="The result; without it all that match the filters.")] = None,
    id_prefix: Prefix = None,
    older_than: OlderThan = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything of the DAG.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Delete results of a DAG: one, those that match the filters, or all; each deletion is in the feed."""
    before = before_of(older_than)
    filtered = id_prefix is not None or before is not None or everything
    if (id is not None) == filtered:
        raise InvalidArgument("say which: the id of a result, or --id-prefix, --older-than or --all", what="id")
    with opened(context) as (store, output):
        if id is not None:
            if not store.results.has(dag, id):
                raise NotFound(f"no result {id!r} of {dag!r}", kind="results", id=id)
            ids = [id]
        else:
            matching = paged(output, store.results.query, **given(dag=dag, id_prefix=id_prefix))
            ids = [each.id for each in matching if before is None or each.updated_at < before]
        if not agreed(output, [f"{dag} {each}" for each in ids], "result", yes=yes, dry_run=dry_run):
            return
        gone = sum(store.results.delete(dag, each) for each in ids)
        output.deleted(f"result {dag} {id}" if id is not None else f"{gone:,} results of {dag}")
