"""The check of a store: indexes, counters, dependents and feed agree with the records.

The command line, every test's teardown and `copy` ask the same function. What it holds at a time is bounded, however
much there is: rows are looked at in runs, and what must be held is held for some records at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module

from .. import keys
from ..core.namespace import Reader, Scope
from ..engine import Verifying
from ..records.audit import Problem
from ..records.kind import KINDS
from . import references
from .breathing import breathe
from .entries import audit_feed
from .few import Few
from .moment import one_moment
from .rows import Look, audit_records
from .shares import shares_of
from .values import audit_values

_TRIES = 5

Progress = Callable[[str, int], object]
"""Told what is looked at (``"part 1 of 4: the feed"``) and how many rows have been, some times a second."""


async def check(scope: Scope, progress: Progress | None = None) -> list[Problem]:
    """Every problem of a namespace; none: empty. Other clients may write meanwhile."""
    problems: list[Problem] = []
    moving: list[int] = []
    for part in range(scope.parts):
        before = await _version(scope.reader, part)
        part_problems = await _check_part(scope, part, progress)
        if part_problems and await _version(scope.reader, part) != before:
            moving.append(part)  # what looks wrong may only be a commit between two looks
        else:
            problems += part_problems
    if moving:
        problems += await _check_moving(scope, moving, progress)
    engine = scope.direct
    if isinstance(engine, Verifying):
        lines = await asyncio.to_thread(engine.verify) if scope.suspends else engine.verify()
        problems += [Problem("engine", line) for line in lines]
    return problems


async def _check_moving(scope: Scope, parts: list[int], progress: Progress | None) -> list[Problem]:
    """Problems of parts that others write to: as of one moment, or, without that, those that do not go away."""
    async with one_moment(scope, copying=True) as still:
        if still is not scope:
            return [problem for part in parts for problem in await _check_part(still, part, progress)]
    problems: list[Problem] = []
    for part in parts:
        lasting: set[Problem] | None = None
        for _ in range(_TRIES):
            before = await _version(scope.reader, part)
            part_problems = await _check_part(scope, part, progress)
            if await _version(scope.reader, part) == before:
                lasting = set(part_problems)
                break
            lasting = set(part_problems) if lasting is None else lasting & set(part_problems)
            if not lasting:
                break
        problems += lasting or ()
    return problems


async def _version(reader: Reader, part: int) -> int:
    (row,) = await reader.in_part(part).peek([b""])
    return 0 if row is None else row.version


async def _check_part(scope: Scope, part: int, progress: Progress | None) -> list[Problem]:
    reader = await Few.of(scope, part)
    look = Look(reader, part, _telling(scope, part, progress))
    problems: list[Problem] = []
    for kind in KINDS.values():
        problems += await audit_records(look, kind)
    problems += await audit_feed(look)
    problems += await audit_values(look)
    for share in shares_of(look):
        for kind in KINDS.values():
            problems += await kind.audit(share.reader, part, await share.records(kind))
            await breathe(scope)
        for audit in _auditors():
            problems += await audit(share.reader, part)
            await breathe(scope)
    complete = all(problem.code == "undecodable" for problem in problems)
    return problems + await references.audit(reader, part, look.references, complete=complete)


Audit = Callable[[Reader, int], Awaitable[list[Problem]]]


def _auditors() -> list[Audit]:
    """The functions that look at rows which belong to no record, as the table of row kinds names them."""
    package = __name__.split(".")[0]
    modules = dict.fromkeys(kind.auditor for kind in keys.ROWS.values() if kind.auditor)
    return [import_module(f"{package}.{module}").audit for module in modules]


def _telling(scope: Scope, part: int, progress: Progress | None) -> Callable[[str, int], None]:
    def tell(what: str, rows: int) -> None:
        if progress is not None:
            progress(f"part {part + 1} of {scope.parts}: {what}", rows)

    return tell
