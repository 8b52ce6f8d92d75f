"""The whole command, put together from its nouns, and what becomes an exit code."""

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import stateroom

from ..errors import InvalidArgument, StoreError
from . import (
    care,
    checkpoint,
    deadletter,
    docs,
    execution,
    feed,
    imports,
    instance,
    lease,
    machine,
    moves,
    namespace,
    node,
    result,
    retention,
    savepoint,
    serve,
    timer,
    watcher,
    whole,
)
from .demo import command as demo
from .output import Output
from .safe import safe
from .session import Session, load_types

OK, REFUSED, USAGE, INTERRUPTED = 0, 1, 2, 130

# Typer brings its own copy of click in newer versions; the base class is reached through what it exports.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="stateroom",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(instance.app, name="instance")
app.add_typer(execution.app, name="execution")
app.add_typer(machine.app, name="machine")
app.add_typer(result.app, name="result")
app.add_typer(savepoint.app, name="savepoint")
app.add_typer(timer.app, name="timer")
app.add_typer(lease.app, name="lease")
app.add_typer(feed.app, name="feed")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(watcher.app, name="watcher")
app.add_typer(deadletter.app, name="deadletter")
app.add_typer(namespace.app, name="namespace")
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
app.command("docs")(docs.docs)
app.command("demo")(demo.demo)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"stateroom {stateroom.__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            help="Database: a path, sqlite:///..., postgresql://... (default: $STATEROOM_URL, else stateroom.db)"
        ),
    ] = None,
    namespace: Annotated[str, typer.Option(help="Tenant to look at.")] = "default",
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Only read: for files and roles that may not be written.")
    ] = False,
    modules: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Module that registers types (default: $STATEROOM_IMPORT)."),
    ] = None,
    local: Annotated[bool, typer.Option("--local/--utc", help="Times in this machine's zone, or in UTC.")] = False,
    version: Annotated[  # noqa: ARG001  (its callback has printed it)
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Durable execution state: look at it, watch it, keep house."""
    load_types(modules or [])
    context.obj = Session(url, namespace, Output(json, local), read_only)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and turn its outcome into an exit code; every error is one line on stderr."""
    _prepare_streams()
    words = hoist(arguments)
    output = Output("--json" in words)
    with _logged(output):
        code = _outcome(words, output)
    return code if _flushed(output) or code != OK else REFUSED


def _outcome(words: list[str], output: Output) -> int:
    try:
        code = app(args=words, prog_name="stateroom", standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        if type(error).__name__ != "NoArgsIsHelpError":  # the help was printed, which says all
            output.error("usage", _sentence(error))
        return USAGE
    except InvalidArgument as error:
        output.failure(error)
        return USAGE if typed(error) else REFUSED
    except StoreError as error:
        output.failure(error)
        return REFUSED
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; without this the interpreter complains again when it flushes at exit.
        _discard_output()
        return OK
    except OSError as error:
        _discard_output()
        output.error("unavailable", f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return REFUSED
    return code if isinstance(code, int) else OK


def typed(error: InvalidArgument) -> bool:
    """Tell whether what was refused is what somebody typed, and no right, driver or role that is missing."""
    return error.what not in {"url", "apsw"} or (error.__cause__ is None and not error.fields.get("outside"))


def _flushed(output: Output) -> bool:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        _discard_output()
        output.error("unavailable", f"cannot write the output: {error.strerror or error}")
        return False
    return True


def _discard_output() -> None:
    """Let what is still buffered go nowhere: the interpreter flushes once more at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_streams() -> None:
    """See to it that there is something to write to, and that every character can be written.

    A database must never be opened under the number of a standard stream that was closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (until the process ends)
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


class _Notes(logging.Handler):
    """Warnings of the library as remarks on stderr."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self.output = output

    def emit(self, record: logging.LogRecord) -> None:
        self.output.note(f"warning: {record.getMessage()}")


@contextlib.contextmanager
def _logged(output: Output) -> Any:
    logger, handler = logging.getLogger("stateroom"), _Notes(output)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _sentence(error: Any) -> str:
    """Return what click says about wrong usage, and where to look."""
    context = error.ctx
    hint = f" (see: {context.command_path} --help)" if context is not None else ""
    return safe(f"{error.format_message().rstrip('.')}{hint}")


FLAGS = frozenset({"--json", "--utc", "--local", "--read-only"})
OWN = {"--read-only": ("serve",), "--local": ("node", "run")}
"""Verbs that have an option of the same name."""

NAMED = ("--url", "--namespace", "--import")


def hoist(arguments: Sequence[str]) -> list[str]:
    """Move the options of the whole command to the front: they may stand anywhere before a `--`. `OWN` ones stay."""
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif (word in FLAGS and OWN.get(word) != tuple(rest[: len(OWN.get(word, ()))])) or word.startswith(
            tuple(f"{name}=" for name in NAMED)
        ):
            front.append(word)
        elif word in NAMED:
            front += [word, *([value] if (value := next(words, None)) is not None else [])]
        else:
            rest.append(word)
    return front + rest
