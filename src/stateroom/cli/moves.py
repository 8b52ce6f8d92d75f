"""Verbs that move whole databases: backup, restore, copy, compact. Every namespace comes along."""

from typing import Annotated, Any

import typer

import stateroom

from ..errors import InvalidArgument
from .output import Output
from .session import key_ring, opened, session
from .values import plain


def backup(
    context: typer.Context, path: Annotated[str, typer.Argument(help="A file that does not exist yet.")]
) -> None:
    """Write the whole database to a new SQLite file, while others go on."""
    with opened(context) as (store, output):
        store.backup(path)
        if output.as_json:
            output.json({"backup": path})
        else:
            output.say(f"backup written to {path}; bring it back with: stateroom --url NEW restore {path}")


def restore(
    context: typer.Context,
    path: Annotated[str, typer.Argument(help="The backup.")],
    target: Annotated[str | None, typer.Argument(help="A new or empty database; without it that of --url.")] = None,
) -> None:
    """Bring a backup into a new or empty database."""
    here = session(context)
    where = target or here.url
    if where is None:
        raise InvalidArgument("say into which database: stateroom --url NEW restore PATH", what="url")
    _moved(here.output, stateroom.restore(path, where, key_ring=key_ring()))


def copy(
    context: typer.Context,
    databases: Annotated[list[str], typer.Argument(metavar="[SOURCE] TARGET", help="SOURCE: that of --url.")],
    verify: Annotated[bool, typer.Option(help="Compare digests of both sides afterwards.")] = True,
    parts: Annotated[int | None, typer.Option(min=1, help="Parts of the target, where it is made.")] = None,
) -> None:
    """Copy everything into a new or empty database on any engine; both are left as they are.

    Consumers may see changes again, and miss none.
    """
    here = session(context)
    if len(databases) > 2 or (len(databases) == 1 and here.url is None):
        raise InvalidArgument("say from where to where: stateroom copy SOURCE TARGET", what="databases")
    source, target = databases if len(databases) == 2 else (here.url, databases[0])
    _moved(here.output, stateroom.copy(source or "", target, verify=verify, parts=parts, key_ring=key_ring()))


def compact(context: typer.Context) -> None:
    """Empty what deletions left behind, and give free space back to the disk."""
    with opened(context) as (store, output):
        freed = store.compact()
        if output.as_json:
            output.json({"freed": freed})
        else:
            output.say(f"{freed:,} bytes given back")


def _moved(output: Output, moved: Any) -> None:
    if output.as_json:
        output.json(moved)
    else:
        output.say(", ".join(f"{number:,} {what}" for what, number in plain(moved).items()))
