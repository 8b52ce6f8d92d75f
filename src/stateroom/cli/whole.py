"""Verbs about the whole store: check, stats."""

from collections.abc import Mapping
from typing import Any

import typer

from .output import Column
from .session import opened
from .values import plain


def check(context: typer.Context) -> None:
    """Check that indexes, counters and feed agree with the records. Exit code 1 when they do not."""
    with opened(context) as (store, output):
        problems = store.check()
        if output.as_json:
            output.json(problems)
        elif problems:
            output.table(problem_columns(plain(problems[0])), problems)
        else:
            output.say("no problems", "green")
        if problems:
            raise typer.Exit(1)


def problem_columns(first: Any) -> tuple[Column, ...]:
    """A column for each field a problem has."""
    if not isinstance(first, dict):
        return (Column("PROBLEM", str, fold=True),)
    return tuple(Column(name.upper(), _getter(name), fold=True) for name in first)


def _getter(name: str) -> Any:
    return lambda problem: getattr(problem, name)


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
        output.fields({name: _number(value) for name, value in flat(numbers)})
        if found.checkpoints:
            output.say("")
            output.table(LAGS, found.checkpoints)


def flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as names one after the other: `executions completed`."""
    if not isinstance(value, Mapping):
        return [(prefix, value)]
    return [pair for name, inner in value.items() for pair in flat(inner, f"{prefix} {name}".strip())]


def _number(value: Any) -> Any:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
