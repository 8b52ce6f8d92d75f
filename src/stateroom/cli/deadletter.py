"""`stateroom deadletter`: changes that a watcher's handler refused."""

from typing import Annotated, Any

import typer

import stateroom

from ..errors import InvalidArgument, NotFound
from .confirm import DryRun, Yes, agreed
from .options import All, Limit
from .output import Column, clock
from .session import opened

app = typer.Typer(help="Changes that watchers gave up on.", no_args_is_help=True)

COLUMNS = (
    Column("ID", lambda letter: letter.id, fold=True),
    Column("WATCHER", lambda letter: letter.watcher, fold=True),
    Column("CHANGE", lambda letter: f"{letter.op} {letter.family} {' '.join(map(str, letter.key))}", fold=True),
    Column("ERROR", lambda letter: letter.error, drop=1),
    Column("TRIES", lambda letter: letter.attempts, "right", drop=3),
    Column("AT", lambda letter: clock(letter.at), drop=2),
    Column("RETRY", lambda letter: "yes" if letter.retry else None, drop=4),
)
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The letters.")]
Watcher = Annotated[str | None, typer.Option(help="Of this watcher.")]


@app.command("list")
def list_(context: typer.Context, watcher: Watcher = None, limit: Limit = 100, everything: All = False) -> None:
    """List the changes that watchers gave up on."""
    with opened(context) as (store, output):
        letters = store.dead_letters.list(watcher)
        output.records(COLUMNS, letters, limit=None if everything else limit, empty="no dead letters")


@app.command()
def show(context: typer.Context, id: Annotated[str, typer.Argument(help="The letter.")]) -> None:
    """Show one dead letter with its error."""
    with opened(context) as (store, output):
        (letter,) = chosen(store, [id], None, everything=False)
        output.json(letter) if output.as_json else output.record(letter)


@app.command()
def retry(context: typer.Context, ids: Ids = None, watcher: Watcher = None, everything: All = False) -> None:
    """Hand changes back to their watchers, which try them again."""
    with opened(context) as (store, output):
        letters = chosen(store, ids or [], watcher, everything=everything)
        for letter in letters:
            store.dead_letters.retry(letter)
        output.json({"retried": len(letters)}) if output.as_json else output.say(f"{len(letters):,} handed back")


@app.command()
def delete(
    context: typer.Context,
    ids: Ids = None,
    watcher: Watcher = None,
    everything: All = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Delete dead letters: their changes are given up for good."""
    with opened(context) as (store, output):
        letters = chosen(store, ids or [], watcher, everything=everything)
        if agreed(output, [letter.id for letter in letters], "dead letter", yes=yes, dry_run=dry_run):
            output.deleted(f"{sum(map(store.dead_letters.delete, letters)):,} dead letters")


def chosen(store: stateroom.Store, ids: list[str], watcher: str | None, *, everything: bool) -> list[Any]:
    """The letters of these ids, of a watcher, or all. `NotFound` for an id that is none."""
    if bool(ids) == (everything or watcher is not None):
        raise InvalidArgument("say which: ids of dead letters, --watcher NAME, or --all", what="ids")
    letters = store.dead_letters.list(watcher)
    known = {letter.id for letter in letters}
    for id in ids:
        if id not in known:
            raise NotFound(f"no dead letter {id!r}", kind="dead_letters", id=id)
    return [letter for letter in letters if not ids or letter.id in ids]
