"""Verbs about the whole store: check, stats."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from .confirm import counted
from .output import Column, Output
from .session import opened
from .values import plain
from .wording import reworded

PROBLEMS = (
    Column("PROBLEM", lambda one: one.code),
    Column("FAMILY", lambda one: one.family, drop=2),
    Column("ID", lambda one: one.id, fold=True),
    Column("PART", lambda one: str(one.part) if one.part else None, "right", drop=3),
    Column("WHAT", lambda one: reworded(one.message), fold=True),
)
CLOSED_HERE = "undecodable"
"""The code of a value that is sound, and cannot be rebuilt in this process."""


def check(context: typer.Context) -> None:
    """Check that indexes, counters and feed agree with the records. Exit code 1 when they do not.

    A value whose type is not registered here, or whose key is not in the ring, is counted and is no error.
    """
    with opened(context) as (store, output):
        problems = store.check()
        if output.as_json:
            output.json(problems)
        else:
            tell_problems(output, problems)
        if broken(problems):
            raise typer.Exit(1)


def broken(problems: Sequence[Any]) -> bool:
    """Tell whether something is wrong with the store itself."""
    return any(one.code != CLOSED_HERE for one in problems)


def tell_problems(output: Output, problems: Sequence[Any]) -> None:
    """List what is wrong, and apart from it what only cannot be rebuilt here."""
    wrong = [one for one in problems if one.code != CLOSED_HERE]
    closed = [one for one in problems if one.code == CLOSED_HERE]
    if wrong:
        output.table(PROBLEMS, wrong)
    else:
        output.say("no problems", "green")
    if closed:
        output.title(f"cannot be rebuilt here: {counted(len(closed), 'value')}; nothing is wrong with the store")
        output.table(PROBLEMS, closed)
        output.note("name the module that registers their types with --import, or give the key ring")


LAGS = (
    Column("CONSUMER", lambda lag: lag.name, fold=True),
    Column("COMMITS BEHIND", lambda lag: f"{lag.commits:,}", "right"),
    Column("UPDATED", lambda lag: lag.updated_at),
)


def stats(context: typer.Context) -> None:
    """Show what is in the store, in numbers, and how far its consumers are behind."""
    with opened(context) as (store, output):
        found = store.stats()
        if output.as_json:
            output.json(found)
            return
        numbers = {name: value for name, value in plain(found).items() if name != "checkpoints"}
        output.fields({name.replace("_", " "): _number(value) for name, value in flat(numbers)})
        if found.checkpoints:
            output.title("")
            output.table(LAGS, found.checkpoints)


def flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as names one after the other: `executions completed`."""
    if not isinstance(value, Mapping):
        return [(prefix, value)]
    return [pair for name, inner in value.items() for pair in flat(inner, f"{prefix} {name}".strip())]


def _number(value: Any) -> Any:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
