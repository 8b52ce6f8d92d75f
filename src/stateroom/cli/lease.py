"""`stateroom lease`: who may write under which key now."""

from typing import Annotated

import typer

from ..errors import NotFound
from .confirm import DryRun, Yes, agreed
from .options import All, Limit
from .output import Column
from .session import opened, paged

app = typer.Typer(help="Leases: who holds what now.", no_args_is_help=True)

COLUMNS = (
    Column("KEY", lambda lease: lease.key, fold=True),
    Column("OWNER", lambda lease: lease.owner, fold=True),
    Column("TOKEN", lambda lease: lease.token, "right", drop=2),
    Column("EXPIRES", lambda lease: lease.expires_at, drop=1),
)
Key = Annotated[str, typer.Argument(help="The lease's key; the id of what it is a lease of.")]


@app.command("list")
def list_(
    context: typer.Context,
    prefix: Annotated[str, typer.Option("--id-prefix", help="Keys that begin with this.")] = "",
    limit: Limit = 100,
    everything: All = False,
) -> None:
    """List the leases that are held now, by key."""
    most = None if everything else limit
    with opened(context) as (store, output):
        found = paged(output, lambda **page: store.leases.query(prefix, **page), most)
        output.records(COLUMNS, found, limit=most, empty="no leases are held")


@app.command()
def show(context: typer.Context, key: Key) -> None:
    """Show who holds a lease."""
    with opened(context) as (store, output):
        lease = store.leases.holder(key)
        if lease is None:
            raise NotFound(f"nobody holds {key!r}", kind="leases", id=key)
        output.json(lease) if output.as_json else output.record(lease)


@app.command()
def release(context: typer.Context, key: Key, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Take a lease from its holder: what it still writes under it is refused, and another may take it."""
    with opened(context) as (store, output):
        lease = store.leases.holder(key)
        if lease is None:
            raise NotFound(f"nobody holds {key!r}", kind="leases", id=key)
        if agreed(output, [f"{key} of {lease.owner}"], "lease", yes=yes, dry_run=dry_run, verb="release"):
            store.leases.release(lease)
            output.json({"released": lease}) if output.as_json else output.say(f"released {key}, held by {lease.owner}")
