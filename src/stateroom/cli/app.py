"""The whole command, put together from its nouns, and what becomes an exit code."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ..errors import InvalidArgument, StoreError
from . import (
    care,
    checkpoint,
    execution,
    feed,
    imports,
    instance,
    machine,
    moves,
    node,
    result,
    retention,
    savepoint,
    serve,
    whole,
)
from .demo import command as demo
from .output import Output
from .session import Session

OK, REFUSED, USAGE, INTERRUPTED = 0, 1, 2, 130

# Typer brings its own copy of click in newer versions; the base class is reached through what it exports.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(name="stateroom", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(instance.app, name="instance")
app.add_typer(machine.app, name="machine")
app.add_typer(result.app, name="result")
app.add_typer(savepoint.app, name="savepoint")
app.add_typer(execution.app, name="execution")
app.add_typer(feed.app, name="feed")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(retention.app, name="retention")
app.add_typer(node.app, name="node")
app.command("check")(whole.check)
app.command("stats")(whole.stats)
app.command("doctor")(care.doctor)
app.command("rekey")(care.rekey)
app.command("backup")(moves.backup)
app.command("restore")(moves.restore)
app.command("copy")(moves.copy)
app.command("import")(imports.import_)
app.command("export")(imports.export)
app.command("views")(imports.views)
app.command("compact")(moves.compact)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)


@app.callback()
def stateroom(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            help="Database: a path, sqlite:///..., postgresql://... (default: $STATEROOM_URL, else stateroom.db)"
        ),
    ] = None,
    namespace: Annotated[str, typer.Option(help="Tenant whose records are meant.")] = "default",
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")] = False,
) -> None:
    """Durable execution state: look at it, watch it, keep house."""
    context.obj = Session(url, namespace, Output(json))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and turn its outcome into an exit code; every error is one line on stderr."""
    words = hoist(arguments)
    output = Output("--json" in words)
    try:
        code = app(args=words, standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        output.error("usage", _sentence(error))
        return USAGE
    except InvalidArgument as error:
        output.failure(error)
        return USAGE
    except StoreError as error:
        output.failure(error)
        return REFUSED
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; without this the interpreter complains again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return code if isinstance(code, int) else OK


def _sentence(error: Any) -> str:
    """Return what click says about wrong usage, and where to look."""
    context = error.ctx
    hint = f" (see: {context.command_path} --help)" if context is not None else ""
    return f"{error.format_message().rstrip('.')}{hint}"


def hoist(arguments: Sequence[str]) -> list[str]:
    """Move --url, --namespace and --json to the front, so that they may stand anywhere before a `--`."""
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word == "--json" or word.startswith(("--url=", "--namespace=")):
            front.append(word)
        elif word in {"--url", "--namespace"}:
            front += [word, *([value] if (value := next(words, None)) is not None else [])]
        else:
            rest.append(word)
    return front + rest
