"""Verbs about the whole store: check."""

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
