"""Taking over what other programs have kept so far."""

from typing import Annotated

import typer

import stateroom

from ..errors import InvalidArgument
from .session import key_ring, session
from .values import plain

PROGRAMS = ("langgraph",)


def import_(
    context: typer.Context,
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help=f"One of: {', '.join(PROGRAMS)}.")],
    source: Annotated[str, typer.Argument(metavar="URL", help="Its database: a path, or postgresql://...")],
) -> None:
    """Take over another program's database, and compare all of it; the source is left as it is."""
    if program not in PROGRAMS:
        raise InvalidArgument(
            f"cannot import from {program!r}; one of: {', '.join(PROGRAMS)}", what="program", value=program
        )
    try:
        from ..adapters.langgraph import StateroomSaver
    except ImportError as error:
        raise InvalidArgument('this needs: pip install "stateroom[langgraph]"', what="program") from error
    here = session(context)
    with stateroom.open(here.url, namespace=here.namespace, key_ring=key_ring()) as store:
        imported = StateroomSaver(store).import_from(source)
    if here.output.as_json:
        here.output.json(imported)
    else:
        here.output.say(", ".join(f"{number:,} {what}" for what, number in plain(imported).items()))
