"""Guarded executions with their own events: a change writes record, events and feed entry at once."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypedDict

import msgspec

from ... import arguments, keys
from ...clock import from_micros
from ...codec.shown import Shown
from ...core.namespace import Reader
from ...core.transaction import Writable
from ...errors import InvalidArgument
from ...records import dependents
from ...records.audit import Problem
from ...records.kind import Aging, Index, Kind, Record, Stored, register
from ..leases.record import forget

ExecutionState = Literal[
    "new", "ask_for_bid", "ask_for_bid_accepted", "ask_for_bid_rejected", "bid_accepted", "bid_rejected",
    "running", "publishing", "completed", "failed", "cancelled",
]  # fmt: skip
"""The states of an execution. A parameter takes a member of a `StrEnum` of yours too."""
DesiredState = Literal["pending", "running", "stopped"]
"""The states that a scheduler wants an execution in."""

NEW: tuple[ExecutionState, ...] = ("new",)
DESIRED: frozenset[DesiredState] = frozenset({"pending", "running", "stopped"})
LIVE: tuple[ExecutionState, ...] = ("bid_accepted", "running", "publishing")
TERMINAL: frozenset[ExecutionState] = frozenset(
    {"ask_for_bid_rejected", "bid_rejected", "completed", "failed", "cancelled"}
)
STATES: frozenset[ExecutionState] = frozenset({"new", "ask_for_bid", "ask_for_bid_accepted", *LIVE, *TERMINAL})


class _Identified(Record, frozen=True):
    id: str
    job_id: str


class Execution(_Identified, frozen=True, kw_only=True):
    """A job's run on some node. `state` moves under guard; everything else about it is the caller's."""

    state: ExecutionState = "new"
    desired_state: DesiredState = "pending"
    message: str = ""
    node_id: str | None = None
    partition_index: int = 0
    details: Mapping[str, Any] = {}
    data: Any = None
    result: Any = None


class Event(Shown, frozen=True):
    """A progress report of one execution; `seq` counts from 1 in each execution, `at` is when it was written."""

    message: str
    topic: str = ""
    details: Mapping[str, Any] = {}
    at: datetime | None = None
    seq: int = 0


_FIELDS = (
    "id", "job_id", "state", "desired_state", "message", "node_id", "partition_index", "details", "data", "result",
)  # fmt: skip


class ExecutionChanges(TypedDict, total=False):
    """The fields that `executions.update` may change; None sets the default."""

    state: ExecutionState | StrEnum | None
    desired_state: DesiredState | StrEnum | None
    message: str | None
    node_id: str | None
    partition_index: int | None
    details: Mapping[str, Any] | None
    data: Any
    result: Any


CHANGEABLE = tuple(ExecutionChanges.__annotations__)
DEFAULTS: dict[str, Any] = {
    "state": "new",
    "desired_state": "pending",
    "message": "",
    "partition_index": 0,
    "details": {},
}


class _ExecutionKind(Kind[Execution]):
    name = "executions"
    letter = b"e"
    events_family = "execution_events"
    texts = frozenset({"job_id", "state", "desired_state", "message", "node_id"})
    numbers = frozenset({"partition_index"})
    summary = b""
    fields = _FIELDS
    indexes = (
        Index(b"s", lambda record: (keys.path(record.state),), newest=True),
        Index(b"j", lambda record: (keys.path(record.job_id),), newest=True),
        Index(b"n", lambda record: () if record.node_id is None else (keys.path(record.node_id),)),
    )
    aging = Aging(
        ends=True,
        leased=True,
        ended=(indexes[0], tuple(keys.path(state) for state in sorted(TERMINAL))),
        every=(indexes[0], tuple(keys.path(state) for state in sorted(STATES))),
        group=indexes[1],
    )

    def path(self, record: Execution) -> tuple[str, ...]:
        return (record.id,)

    def pack(self, record: Execution) -> list[Any]:
        return [
            record.id, record.job_id, record.state, record.desired_state, record.message, record.node_id,
            record.partition_index, record.details, record.data, record.result,
        ]  # fmt: skip

    def unpack(self, fields: list[Any], revision: int, created_at: datetime, updated_at: datetime) -> Execution:
        id, job_id, state, desired, message, node_id, partition, details, data, result = fields
        return Execution(
            id, job_id, state=state, desired_state=desired, message=message, node_id=node_id,
            partition_index=partition, details=details, data=data, result=result,
            revision=revision, created_at=created_at, updated_at=updated_at,
        )  # fmt: skip

    def unpack_event(self, value: list[Any]) -> Event:
        return unpack_event(value)

    def counters(self, record: Execution) -> Iterable[bytes]:
        return (keys.path(record.state),)

    def ended(self, record: Execution) -> bool:
        return record.state in TERMINAL

    async def release(self, tx: Writable, stored: Stored[Execution]) -> None:
        await dependents.drop(tx, self, stored)
        await forget(tx, stored.record.id)

    async def audit(self, reader: Reader, part: int, records: dict[bytes, Stored[Execution]]) -> list[Problem]:
        return await dependents.audit(reader, part, self, records.values())


EXECUTIONS = register(_ExecutionKind())


def unpack_event(value: list[Any]) -> Event:
    message, topic, details, at, seq = value
    return Event(message, topic, details, from_micros(at), seq)


def check_events(events: Iterable[Event]) -> tuple[Event, ...]:
    """Events as they are kept. Raises `InvalidArgument`."""
    items = (events,) if isinstance(events, Event) else arguments.collection(events, "events", "Event")
    return tuple([_check_event(event) for event in items])


def _check_event(event: Event) -> Event:
    if not isinstance(event, Event):
        raise InvalidArgument(f"an event is {event!r}; use Event(message)", what="events", value=event)
    message, topic = arguments.text(event.message, "message"), arguments.text(event.topic, "topic")
    arguments.mapping(event.details, "details")
    arguments.optional_time(event.at, "at")
    return msgspec.structs.replace(event, message=message, topic=topic)


def check_states(states: Iterable[str], what: str) -> frozenset[str]:
    """States as they are kept. Raises `InvalidArgument`."""
    return arguments.choices(states, what, STATES)


def check_state(state: Any, what: str = "state") -> str:
    """A state as it is kept. Raises `InvalidArgument`."""
    return arguments.choice(state, what, STATES)


def check_execution(record: Execution) -> Execution:
    """The execution as it will be read again. Raises `InvalidArgument` for a field that is not allowed."""
    if not isinstance(record, Execution):
        raise InvalidArgument(f"use an Execution, not {type(record).__name__}", what="execution", value=record)
    arguments.mapping(record.details, "details")
    return msgspec.structs.replace(
        record,
        id=arguments.name(record.id, "id"),
        job_id=arguments.name(record.job_id, "job_id"),
        node_id=arguments.optional_name(record.node_id, "node_id"),
        state=check_state(record.state),
        desired_state=arguments.choice(record.desired_state, "desired_state", DESIRED),
        message=arguments.text(record.message, "message"),
        partition_index=arguments.number(record.partition_index, "partition_index"),
    )
