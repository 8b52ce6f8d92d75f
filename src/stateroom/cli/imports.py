"""Export to a file, import from one; and taking over what other programs have kept so far."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

import stateroom

from ..errors import InvalidArgument
from .session import key_ring, opened, session
from .values import plain

PROGRAMS = ("langgraph",)


def import_(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH | PROGRAM URL",
            help=f"A file of `export`; or another program ({', '.join(PROGRAMS)}) and its database.",
        ),
    ],
    family: Annotated[list[str] | None, typer.Option(help="Only this family; may be given several times.")] = None,
) -> None:
    """Write what an exported file holds, or take over another program's database; the source is left as it is.

    What is there already and equal is left alone, so an import that was interrupted is run again.
    """
    if len(sources) == 1:
        with opened(context) as (store, output), _progress("importing") as told:
            written = store.import_(sources[0], families=family or None, progress=told)
        if output.as_json:
            output.json({"import": sources[0], "written": written})
        else:
            output.say(f"{written:,} records written from {sources[0]}")
        return
    if len(sources) > 2 or family:
        raise InvalidArgument("say one file, or a program and its database", what="sources")
    program, source = sources
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


def export(
    context: typer.Context,
    path: Annotated[str, typer.Argument(help="A file that does not exist yet; .parquet makes Parquet.")],
    format: Annotated[str | None, typer.Option(help="jsonl or parquet; without it as the file is called.")] = None,
    family: Annotated[list[str] | None, typer.Option(help="Only this family; may be given several times.")] = None,
) -> None:
    """Write a namespace's records to a file that other programs read and `import` brings back. It is not encrypted."""
    chosen = format or ("parquet" if path.endswith(".parquet") else "jsonl")
    with opened(context) as (store, output), _progress("exporting") as told:
        count = store.export(path, chosen, families=family or None, progress=told)
    if output.as_json:
        output.json({"export": path, "items": count})
    else:
        output.say(f"{count:,} records written to {path}")


def views(
    file: Annotated[str, typer.Argument(help="The store to look into; it is only read.")],
    target: Annotated[str, typer.Argument(metavar="OUT.db", help="A file that does not exist yet.")],
    context: typer.Context,
) -> None:
    """Write a plain SQLite database with a table for each family, for SQL and tools such as datasette."""
    here = session(context)
    with (
        stateroom.open(file, namespace=here.namespace, key_ring=key_ring(), create=False, read_only=True) as store,
        _progress("writing") as told,
    ):
        count = store.export(target, "sqlite", progress=told)
    if here.output.as_json:
        here.output.json({"views": target, "items": count})
    else:
        here.output.say(f"{count:,} records written to {target}; look into it with: datasette {target}")


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int], object] | None]:
    """How far it is, on a terminal's standard error."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = SpinnerColumn(), TextColumn("{task.description} {task.completed:,.0f}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda count: bar.update(task, completed=count)
