"""Workflow instances as they are and as they are kept."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypedDict

import msgspec

from ... import arguments, keys
from ...codec.shown import Shown
from ...core.namespace import Reader, Scope
from ...core.transaction import Writable
from ...engine import read_counter
from ...errors import AlreadyExists, InvalidArgument, NotFound, StaleRevision, WrongState
from ...limits import BUSINESS_KEY_BYTES
from ...records.audit import Problem, rows_of
from ...records.kind import Aging, Index, Kind, Record, Stored, register
from ..leases.record import forget

InstanceStatus = Literal["pending", "running", "waiting", "completed", "failed", "cancelled"]
"""The statuses of an instance. A parameter takes a member of a `StrEnum` of yours too."""
InstanceOrder = Literal["id", "updated"]
"""The order of a query: by id, or newest change first."""
Unique = Literal["workflow", "version", "global"]
"""The scope in which an active instance is the only one of its business key."""

ACTIVE: tuple[InstanceStatus, ...] = ("pending", "running", "waiting")
TERMINAL: tuple[InstanceStatus, ...] = ("completed", "failed", "cancelled")
STATUSES = frozenset((*ACTIVE, *TERMINAL))
UNIQUE = ("workflow", "version", "global")


class Context(Shown, frozen=True, gc=False):
    """The input of a run, and the results of its steps; `initial` is never changed."""

    initial: Mapping[str, Any] = {}
    steps: Mapping[str, Any] = {}

    def with_step(self, name: str, result: Any) -> "Context":
        """A copy with a step's result, which replaces an earlier one of the same name."""
        return Context(self.initial, {**self.steps, name: result})


class HistoryEntry(Shown, frozen=True):
    """One step that happened, as the engine above keeps it."""

    step: str
    event: str
    at: datetime
    updates: Mapping[str, Any] | None = None


class _Identified(Record, frozen=True):
    id: str
    workflow: str


class Instance(_Identified, frozen=True, kw_only=True):
    """One run of a workflow."""

    workflow_version: int = 1
    status: InstanceStatus = "pending"
    current_step: str | None = None
    context: Context = Context()
    step_configs: Mapping[str, Any] = {}
    active_steps: frozenset[str] = frozenset()
    completed_steps: frozenset[str] = frozenset()
    metadata: Mapping[str, Any] = {}
    history: tuple[HistoryEntry, ...] = ()
    business_key: str | None = None
    unique: str | None = None
    """The scope in which `start` asked for no other active run of this business key."""
    labels: Mapping[str, str] = {}

    @property
    def active(self) -> bool:
        return self.status in ACTIVE


class InstanceChanges(TypedDict, total=False):
    """The fields that `instances.update` may change; None sets the default."""

    workflow_version: int | None
    status: InstanceStatus | StrEnum | None
    current_step: str | None
    context: Context | None
    step_configs: Mapping[str, Any] | None
    active_steps: Collection[str] | None
    completed_steps: Collection[str] | None
    metadata: Mapping[str, Any] | None
    history: Sequence[HistoryEntry] | None
    unique: Unique | StrEnum | None
    labels: Mapping[str, str] | None


_FIELDS = (
    "id", "workflow", "workflow_version", "status", "current_step", "context.initial", "context.steps",
    "step_configs", "active_steps", "completed_steps", "metadata", "history", "business_key", "unique", "labels",
)  # fmt: skip


CHANGEABLE = tuple(InstanceChanges.__annotations__)
"""What `update` may change."""


class _InstanceKind(Kind[Instance]):
    name = "instances"
    letter = b"i"
    texts = frozenset({"workflow", "status", "current_step", "business_key", "unique"})
    numbers = frozenset({"workflow_version"})
    summary = b"s"
    fields = _FIELDS
    indexes = (
        Index(b"s", lambda record: (keys.path(record.status),), newest=True),
        Index(b"w", lambda record: (keys.path(record.workflow),), newest=True),
        Index(
            b"k", lambda record: () if record.business_key is None else (keys.path(record.business_key),), newest=True
        ),
        Index(b"l", lambda record: [keys.path(*label) for label in record.labels.items()], newest=True),
        Index(b"u", lambda record: (b"",), by_id=False, newest=True),
    )
    aging = Aging(
        ends=True,
        leased=True,
        ended=(indexes[0], tuple(keys.path(status) for status in sorted(TERMINAL))),
        every=(indexes[4], (b"",)),
        group=indexes[1],
    )

    def path(self, record: Instance) -> tuple[str, ...]:
        return (record.id,)

    def pack(self, record: Instance) -> list[Any]:
        return [
            record.id, record.workflow, record.workflow_version, record.status, record.current_step,
            record.context.initial, record.context.steps, record.step_configs,
            sorted(record.active_steps), sorted(record.completed_steps), record.metadata,
            [[entry.step, entry.event, entry.at, entry.updates] for entry in record.history],
            record.business_key, record.unique, record.labels,
        ]  # fmt: skip

    def unpack(self, fields: list[Any], revision: int, created_at: datetime, updated_at: datetime) -> Instance:
        (
            id, workflow, version, status, step, initial, steps, configs, active, completed, metadata, entries,
            business_key, unique, labels,
        ) = fields  # fmt: skip
        # One keyword more and CPython 3.11 hands them over as a dict, which takes three times as long.
        record = Instance(
            id, workflow, status=status, current_step=step, context=Context(initial, steps), step_configs=configs,
            active_steps=frozenset(active), completed_steps=frozenset(completed), metadata=metadata,
            history=tuple([HistoryEntry(*entry) for entry in entries]) if entries else (),
            business_key=business_key, unique=unique, labels=labels,
            revision=revision, created_at=created_at, updated_at=updated_at,
        )  # fmt: skip
        return record if version == 1 else msgspec.structs.replace(record, workflow_version=version)

    def counters(self, record: Instance) -> Iterable[bytes]:
        return (b"s" + keys.path(record.status), b"w" + keys.path(record.workflow, record.status))

    def ended(self, record: Instance) -> bool:
        return record.status in TERMINAL

    async def release(self, tx: Writable, stored: Stored[Instance]) -> None:
        record = stored.record
        active = active_key(tx.scope, record)
        if active is not None and record.business_key is not None:
            rows = tx.at(record.business_key)
            rows.delete(active)
            rows.add(head_key(tx.scope, record.business_key), -1)
        await forget(tx, record.id)

    async def audit(self, reader: Reader, part: int, records: dict[bytes, Stored[Instance]]) -> list[Problem]:
        """Say whether the rows of business keys say who is active, and no other, and how many they are."""
        scope = reader.scope
        active = [record.record for record in records.values() if active_key(scope, record.record) is not None]
        expected = {active_key(scope, record) for record in active}
        rows = {row.key for row in await rows_of(reader, part, scope.key(keys.ACTIVE))}
        counts = Counter(record.business_key for record in active)
        start = scope.key(keys.HEADS + b"k")
        heads = {
            row.key[len(start) : -1].decode(): read_counter(row.value) for row in await rows_of(reader, part, start)
        }
        return [
            *(Problem("active-missing", f"row {key!r} is missing", self.name, part=part) for key in expected - rows),
            *(Problem("active-stale", f"row {key!r} has no record", self.name, part=part) for key in rows - expected),
            *(
                Problem(
                    "active-count", f"{heads.get(key, 0)} active under business key {key!r}, not {counts[key]}",
                    self.name, part=part,
                )
                for key in heads.keys() | counts.keys()
                if key is not None and heads.get(key, 0) != counts[key]
            ),
        ]  # fmt: skip


def active_prefix(scope: Scope, business_key: str) -> bytes:
    """Return where the rows of a business key's active instances are."""
    return scope.key(keys.ACTIVE, keys.path(business_key))


def head_key(scope: Scope, business_key: str) -> bytes:
    """Return the key of the number of active instances with a business key."""
    return scope.key(keys.HEADS + b"k", keys.path(business_key))


def active_key(scope: Scope, record: Instance) -> bytes | None:
    """The row that says that this instance is active under its business key; None where it must have none."""
    if record.business_key is None or not record.active:
        return None
    tail = keys.path(record.workflow, record.workflow_version, record.id)
    return active_prefix(scope, record.business_key) + tail


INSTANCES = register(_InstanceKind())
BY_STATUS, BY_WORKFLOW, BY_KEY, BY_LABEL, BY_TIME = INSTANCES.indexes


def check_status(status: Any, what: str = "status") -> str:
    return arguments.choice(status, what, (*ACTIVE, *TERMINAL))


def check_unique(unique: Any) -> str | None:
    if unique is not None and unique not in UNIQUE:
        raise InvalidArgument(
            f"unknown unique {unique!r}; one of {', '.join(UNIQUE)}, or None", what="unique", value=unique
        )
    return None if unique is None else arguments.text(unique, "unique")


def check(record: Instance) -> Instance:
    """The instance as it will be read again. Raises `InvalidArgument` for a field that is not allowed."""
    if not isinstance(record, Instance):
        raise InvalidArgument(f"use an Instance, not {type(record).__name__}", what="instance", value=record)
    arguments.instance(record.context, "context", Context)
    arguments.mapping(record.context.initial, "context.initial")
    arguments.mapping(record.context.steps, "context.steps")
    arguments.mapping(record.step_configs, "step_configs")
    arguments.mapping(record.metadata, "metadata")
    checked = msgspec.structs.replace(
        record,
        id=arguments.name(record.id, "id"),
        workflow=arguments.name(record.workflow, "workflow"),
        workflow_version=arguments.number(record.workflow_version, "workflow_version", least=1),
        status=check_status(record.status),
        unique=check_unique(record.unique),
        current_step=arguments.optional_name(record.current_step, "current_step"),
        active_steps=frozenset(arguments.names(record.active_steps, "active_steps")),
        completed_steps=frozenset(arguments.names(record.completed_steps, "completed_steps")),
        history=_check_history(record.history),
        business_key=arguments.optional_name(record.business_key, "business_key", BUSINESS_KEY_BYTES),
        labels={
            arguments.name(name, "label"): arguments.name(label, f"label {name!r}")
            for name, label in arguments.mapping(record.labels, "labels").items()
        },
    )
    _check_business_key(checked)
    return checked


def _check_history(history: Any) -> tuple[HistoryEntry, ...]:
    if not isinstance(history, tuple | list):
        raise InvalidArgument("history must be a tuple of HistoryEntry", what="history", value=history)
    for entry in history:
        if not isinstance(entry, HistoryEntry):
            raise InvalidArgument("history must hold HistoryEntry", what="history", value=entry)
        if isinstance(entry.at, datetime) and entry.at.tzinfo is not None:
            arguments.time(entry.at, "history.at")
    return tuple(history)


def _check_business_key(record: Instance) -> None:
    if record.business_key is None:
        return
    if keys.root(record.id) != keys.root(record.business_key):
        raise InvalidArgument(
            f"id {record.id!r} and business key {record.business_key!r} must share what is before the first '/';"
            " make the id with stateroom.new_id(business_key)",
            what="business_key",
            value=record.business_key,
        )


def check_revision(expected: int | None, record: Instance | None, id: str) -> None:
    if expected is None:
        return
    expected = arguments.number(expected, "expected_revision")
    actual = 0 if record is None else record.revision
    if expected == actual:
        return
    if expected == 0:
        raise AlreadyExists(f"instance {id!r} exists, at revision {actual}", kind="instances", id=id)
    raise StaleRevision(
        f"instance {id!r} has revision {actual}, not {expected}; read it again",
        kind="instances",
        id=id,
        actual=actual,
        expected=expected,
    )


def missing(id: str) -> NotFound:
    return NotFound(f"no instance {id!r}", kind="instances", id=id)


def wrong(record: Instance, expected: frozenset[str], why: str, *, terminal: bool = False) -> WrongState:
    """The refusal that says in which status an instance is."""
    return WrongState(
        f"instance {record.id!r} is {record.status}, {why}",
        kind="instances",
        id=record.id,
        actual=record.status,
        expected=expected,
        terminal=terminal,
    )
