"""`stateroom checkpoint`: where consumers of the feed are."""

from typing import Annotated

import typer

from .options import position_of
from .output import Column
from .session import opened

app = typer.Typer(help="Where consumers of the feed are: list, set.", no_args_is_help=True)

COLUMNS = (
    Column("NAME", lambda c: c.name, fold=True),
    Column("POSITION", lambda c: c.position, fold=True),
    Column("UPDATED", lambda c: c.updated_at),
)


@app.command("list")
def list_(context: typer.Context) -> None:
    """List every consumer's position."""
    with opened(context) as (store, output):
        output.records(COLUMNS, store.checkpoints.list(), limit=None, empty="no checkpoints")


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
