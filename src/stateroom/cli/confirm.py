"""Verbs that destroy: they ask on a terminal, need --yes elsewhere, and show with --dry-run what would go."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ..errors import InvalidArgument
from .output import Output
from .safe import safe

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")]


def agreed(output: Output, things: Sequence[str], noun: str, *, yes: bool, dry_run: bool, verb: str = "delete") -> bool:
    """Say whether to go on. False for --dry-run, which shows the things; `typer.Abort` where somebody says no.

    `InvalidArgument` where nobody can be asked and --yes was not given.
    """
    count = counted(len(things), noun)
    if dry_run:
        if output.as_json:
            output.json({f"would_{verb}": list(things)})
        else:
            for thing in things:
                output.say(f"would {verb} {noun} {thing}")
            output.note(f"{count}; nothing was changed")
        return False
    if yes or not things:
        return True
    if not on_terminal(output):
        raise InvalidArgument(f"this would {verb} {count}; say --yes where nobody can be asked", what="--yes")
    names = ", ".join(map(safe, things[:3])) + (", ..." if len(things) > 3 else "")
    typer.confirm(f"{verb.capitalize()} {count} ({names})?", abort=True, err=True)
    return True


def on_terminal(output: Output) -> bool:
    """Tell whether somebody is there to be asked."""
    return sys.stdin is not None and sys.stdin.isatty() and output.errors.is_terminal


def counted(count: int, noun: str) -> str:
    """A number of things in words: `1 policy`, `2 policies`."""
    if count == 1:
        return f"1 {noun}"
    if noun == "kind of record":
        return f"{count:,} kinds of record"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"
