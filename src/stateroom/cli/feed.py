"""`stateroom feed`: every change, in order."""

from collections import deque
from collections.abc import Iterator
from typing import Annotated, Any

import typer

import stateroom

from .options import All, Limit, position_of
from .output import Column, Output, clock
from .session import opened

app = typer.Typer(help="Every change, in commit order.", no_args_is_help=True)

PAGE = 1000
WAIT = 1.0  # seconds one read waits for a change; between two of them Ctrl-C is heard

Family = Annotated[list[str] | None, typer.Option("--family", help="Only of this family or type; may be repeated.")]
Op = Annotated[list[str] | None, typer.Option("--op", help="Only create, update, delete or emit; may be repeated.")]
Id = Annotated[list[str] | None, typer.Option("--id", help="Only of this id; may be repeated.")]


NOUNS = {name.removesuffix("s"): name for name in ("instances", "machines", "results", "savepoints", "executions")}
NOUNS["execution_event"] = "execution_events"


def families_of(names: list[str] | None) -> list[str] | None:
    """The families that options name: the nouns of this command line, `instance`, are taken as well."""
    return None if names is None else [NOUNS.get(name, name) for name in names]


def state_of(change: stateroom.Change) -> object:
    """The state a change led to; for an emitted object the object itself."""
    record = change.record
    if change.op == "emit":
        return record
    for name in ("state", "status"):
        if isinstance(found := getattr(record, name, None), str):
            return found
    return None


def words_of(change: stateroom.Change) -> str:
    """Return what its events say."""
    return "; ".join(
        str(getattr(event, "message", None) or getattr(event, "reason", "")) for event in change.events or ()
    )


def key_of(change: stateroom.Change) -> str:
    """The id, and the rest of the key where there is one."""
    return " ".join(map(str, change.key)) if change.key else str(change.id)


COLUMNS = (
    Column("POSITION", lambda c: c.position, fold=True),
    Column("AT", lambda c: clock(c.at), drop=4),
    Column("OP", lambda c: c.op),
    Column("FAMILY", lambda c: c.family, drop=1),
    Column("ID", key_of, fold=True),
    Column("STATE", state_of, drop=2),
    Column("EVENTS", words_of, drop=3),
)


@app.command()
def read(
    context: typer.Context,
    after: Annotated[str, typer.Option(help="beginning, latest, or a position.")] = "beginning",
    family: Family = None,
    op: Op = None,
    id: Id = None,
    limit: Limit = 100,
    everything: All = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a first change.")] = 0.0,
) -> None:
    """Read changes after a position, and say where to go on."""
    with opened(context) as (store, output):
        filters: dict[str, Any] = {"families": families_of(family), "ops": op, "ids": id}
        changes = store.feed.read(position_of(after), **filters, limit=limit, wait=wait)
        items = list(changes.items)
        while everything and changes.items:
            changes = read_page(store, changes.next, filters)
            items += changes.items
        if output.as_json:
            output.json({"items": items, "next": changes.next})
            return
        if items:
            output.table(COLUMNS, items)
        else:
            output.note("no changes")
        output.note(f"go on with --after {changes.next}")


@app.command()
def tail(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more; Ctrl-C ends it.")] = False,
    number: Annotated[
        int, typer.Option("--limit", "-n", "--number", min=0, help="Start with the last N changes.")
    ] = 10,
    family: Family = None,
    op: Op = None,
    id: Id = None,
) -> None:
    """Show the latest changes, and with --follow every later one as it comes."""
    with opened(context) as (store, output):
        filters: dict[str, Any] = {"families": families_of(family), "ops": op, "ids": id}
        end = store.feed.latest()
        newest: deque[stateroom.Change] = deque(maxlen=number)
        if number:
            for changes in _pages(store, filters):
                newest.extend(changes.items)
                end = changes.next
        _print(output, newest)
        while follow:
            changes = read_page(store, end, filters, WAIT)
            _print(output, changes.items)
            end = changes.next


def read_page(store: stateroom.Store, after: str, filters: dict[str, Any], wait: float = 0.0) -> stateroom.Changes:
    """One page of the feed."""
    return store.feed.read(after, **filters, limit=PAGE, wait=wait)


def _pages(store: stateroom.Store, filters: dict[str, Any]) -> Iterator[stateroom.Changes]:
    """All there is now; the last page may be empty."""
    changes = read_page(store, stateroom.BEGINNING, filters)
    yield changes
    while changes.items:
        changes = read_page(store, changes.next, filters)
        yield changes


def _print(output: Output, changes: Any) -> None:
    """One line a change, aligned without knowing what comes later."""
    for change in changes:
        if output.as_json:
            output.line(change)
        else:
            output.change(change.at, change.op, change.family, key_of(change), state_of(change), words_of(change))
