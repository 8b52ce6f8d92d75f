"""`stateroom namespace`: the tenants of a database."""

from typing import Annotated

import typer

from ..errors import NotFound
from .confirm import DryRun, Yes, agreed
from .options import All, Limit
from .output import Column
from .session import opened

app = typer.Typer(help="The tenants of a database.", no_args_is_help=True)

COLUMNS = (Column("NAMESPACE", lambda name: name, fold=True),)


@app.command("list")
def list_(context: typer.Context, limit: Limit = 100, everything: All = False) -> None:
    """List the namespaces that hold something."""
    with opened(context) as (store, output):
        output.records(COLUMNS, store.namespaces(), limit=None if everything else limit, empty="no namespaces")


@app.command()
def delete(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The namespace.")],
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Delete everything of a namespace. Stop its users first: what they write meanwhile may stay."""
    with opened(context) as (store, output):
        if name not in store.namespaces():
            raise NotFound(f"no namespace {name!r}", kind="namespaces", id=name)
        if agreed(output, [name], "namespace", yes=yes, dry_run=dry_run):
            output.deleted(f"namespace {name} with {store.delete_namespace(name):,} records")
