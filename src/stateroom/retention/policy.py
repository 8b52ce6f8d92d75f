"""Retention policies, and where they are kept: as data beside what they are about."""

import logging
from datetime import timedelta
from typing import Any

import msgspec
import ormsgpack

from .. import arguments, keys
from ..codec import seal, unseal
from ..codec.malformed import parsing
from ..codec.shown import Shown
from ..core.namespace import Reader, Scope
from ..core.transaction import Transaction
from ..engine import Row
from ..errors import Damaged, InvalidArgument
from ..records.audit import Problem, rows_of
from ..records.kind import KINDS

log = logging.getLogger("stateroom.retention")

_PACKED = msgspec.msgpack.Decoder(tuple[int | None, int | None, int | None, int | None])
AGES = ("terminal_older_than", "older_than", "max_pinned")


def rules() -> dict[str, tuple[str, ...]]:
    """Return what a policy of each family may say; it must say one of them, and for the feed `older_than`."""
    records = {
        kind.name: (
            *(("terminal_older_than",) if kind.aging.ends else ()),
            "older_than",
            *(("keep_latest",) if kind.aging.grouped else ()),
        )
        for kind in KINDS.values()
    }
    return {**records, "feed": ("older_than", "max_pinned"), "once": ("older_than",)}


class Policy(Shown, frozen=True):
    """The records of a family that may go. A record goes when all that its policy says is true of it.

    `family`: a record family, "feed", or "once" (the idempotency keys of `transact`).

    `terminal_older_than`: it became terminal that long ago, however often it was rewritten since. Terminal are the
    statuses and states that the family calls so; of machines the final states of a definition, counted from the last
    save. `older_than`: it was last changed that long ago, whatever its state.

    `keep_latest`: it is not among so many that were changed last: of instances those of its workflow, of executions of
    its job, of machines those of its machine, of results of its DAG, of savepoints the newest of its run. Of instances,
    executions and machines only terminal records are counted and go, unless there is an `older_than` alone with it.

    `max_pinned`, for the feed: how old a change becomes that a checkpoint still holds back. None: as old as it takes.
    """

    family: str
    terminal_older_than: timedelta | float | None = msgspec.field(default=None)
    older_than: timedelta | float | None = None
    keep_latest: int | None = None
    max_pinned: timedelta | float | None = None

    @property
    def why(self) -> str:
        """Return what it says, for people."""
        bounds = [(name, getattr(self, name)) for name in (*AGES, "keep_latest") if getattr(self, name) is not None]
        return ", ".join(f"{name} {value}" for name, value in bounds)


def check_policy(policy: Any) -> Policy:
    """`policy` if it makes sense; else `InvalidArgument`."""
    arguments.instance(policy, "policy", Policy)
    checked: dict[str, Any] = {"family": arguments.choice(policy.family, "family", rules())}
    allowed = rules()[checked["family"]]
    for name in (*AGES, "keep_latest"):
        if (value := getattr(policy, name)) is not None:
            if name not in allowed:
                raise InvalidArgument(
                    f"{name} means nothing for {policy.family}; use {', '.join(allowed)}", what=name, value=policy
                )
            checked[name] = arguments.number(value, name, least=1) if name == "keep_latest" else _age(value, name)
    limits = ("older_than",) if policy.family == "feed" else allowed
    if all(getattr(policy, name) is None for name in limits):
        raise InvalidArgument(f"a policy for {policy.family} needs {' or '.join(limits)}", what="policy", value=policy)
    return Policy(**checked)


def _age(value: Any, what: str) -> timedelta:
    return timedelta(microseconds=arguments.microseconds(value, what, zero=True))


def micros(age: timedelta | float | None) -> int | None:
    """An age in microseconds."""
    return None if age is None else arguments.microseconds(age, "age", zero=True)


def policy_key(scope: Scope, family: str) -> bytes:
    """The row of a family's policy; in the part of `keys.POLICY_ROOT`."""
    return scope.key(keys.POLICY, keys.path(family))


def write_policy(tx: Transaction, policy: Policy) -> None:
    """Keep a checked policy."""
    key = policy_key(tx.scope, policy.family)
    ages = [micros(getattr(policy, name)) for name in AGES]
    tx.at(keys.POLICY_ROOT).put(key, seal(key, ormsgpack.packb([*ages, policy.keep_latest])))


def open_policy(scope: Scope, row: Row) -> Policy:
    """The policy in a row. Raises `Damaged`."""
    with parsing("a retention policy", kind="retention", key=row.key):
        *ages, keep = _PACKED.decode(unseal(row.key, row.value))
        family = row.key[len(scope.key(keys.POLICY)) : -1].decode()
        terminal, older, pinned = (None if age is None else timedelta(microseconds=age) for age in ages)
    return Policy(family, terminal_older_than=terminal, older_than=older, keep_latest=keep, max_pinned=pinned)


async def policies(reader: Reader) -> list[Policy]:
    """Every policy, by family."""
    scope = reader.scope
    start, stop = scope.key(keys.POLICY), scope.key(keys.POLICY, keys.END)
    rows = await reader.at(keys.POLICY_ROOT).scan(start, stop, limit=100)
    readable = []
    for row in rows:
        try:
            readable.append(open_policy(scope, row))
        except Damaged as error:  # nothing of its family goes; the other policies are kept
            log.warning("a policy is passed by: %s", error)
    return readable


async def audit(reader: Reader, part: int) -> list[Problem]:
    """Policies that cannot be read."""
    scope, problems = reader.scope, []
    for row in await rows_of(reader, part, scope.key(keys.POLICY)):
        try:
            open_policy(scope, row)
        except Damaged as error:
            family = row.key[len(scope.key(keys.POLICY)) : -1].decode(errors="replace")
            problems.append(Problem("damaged", f"policy {family!r}: {error.message}", "retention", family, part))
    return problems
