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


def stats(context: typer.Context) -> None:
    """Show what the store holds: counts, size, and how far each consumer of the feed is behind."""
    with opened(context) as (store, output):
        found = store.stats()
        if output.as_json:
            output.json(found)
            return
        size = "unknown" if found.bytes is None else f"{found.bytes:,} bytes"
        output.say(f"namespace {found.namespace}, {found.parts} parts, {found.commits:,} commits, {size}")
        for family in ("instances", "executions", "machines"):
            for name, number in getattr(found, family).items():
                output.say(f"  {family} {name}: {number:,}")
        for lag in found.checkpoints:
            output.say(f"  checkpoint {lag.name}: {lag.commits:,} commits behind")
        output.say(f"  dead letters: {found.dead_letters:,}")


def problem_columns(first: Any) -> tuple[Column, ...]:
    """A column for each field a problem has."""
    if not isinstance(first, dict):
        return (Column("PROBLEM", str, fold=True),)
    return tuple(Column(name.upper(), _getter(name), fold=True) for name in first)


def _getter(name: str) -> Any:
    return lambda problem: getattr(problem, name)
