"""`stateroom checkpoint`: where consumers of the feed are."""

from typing import Annotated

import typer

from ..errors import NotFound
from .confirm import DryRun, Yes, agreed
from .options import All, Limit, position_of
from .output import Column
from .session import opened

app = typer.Typer(help="Where consumers of the feed are.", no_args_is_help=True)

COLUMNS = (
    Column("NAME", lambda c: c.name, fold=True),
    Column("POSITION", lambda c: c.position, fold=True),
    Column("UPDATED", lambda c: c.updated_at),
)


@app.command("list")
def list_(context: typer.Context, limit: Limit = 100, everything: All = False) -> None:
    """List every consumer's position."""
    with opened(context) as (store, output):
        output.records(COLUMNS, store.checkpoints.list(), limit=None if everything else limit, empty="no checkpoints")


@app.command()
def show(context: typer.Context, name: Annotated[str, typer.Argument(help="The consumer.")]) -> None:
    """Show one consumer's position."""
    with opened(context) as (store, output):
        position = store.checkpoints.get(name)
        if output.as_json:
            output.json({"name": name, "position": position})
        else:
            output.say(position)


@app.command()
def delete(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The consumer.")],
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Forget a consumer: it holds back nothing any more, and begins anew if it comes back."""
    with opened(context) as (store, output):
        if store.checkpoints.find(name) is None:
            raise NotFound(f"no checkpoint {name!r}", kind="checkpoints", id=name)
        if agreed(output, [name], "checkpoint", yes=yes, dry_run=dry_run):
            store.checkpoints.delete(name)
            output.deleted(f"checkpoint {name}")


@app.command("set")
def set_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The consumer.")],
    position: Annotated[str, typer.Argument(help="beginning, latest, or a position from `feed read`.")],
) -> None:
    """Move a consumer; it goes on from there when it next starts."""
    with opened(context) as (store, output):
        store.checkpoints.set(name, position_of(position))
        if output.as_json:
            output.json({"name": name, "position": store.checkpoints.get(name)})
        else:
            output.say(f"{name} goes on after {position}")
