"""Guarded executions with their own events, after Bacalhau's compute store: conditions are checked before "terminal",
a change writes record, events and feed entry at once. Unlike there, a field can be cleared, a deletion is a change,
counts are counters and lists are paged.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from ... import keys
from ...clock import from_micros, to_micros
from ...core.transaction import Reader
from ...errors import InvalidArgument
from ...feed.feed import EVENTS, PLAIN
from ...records import dependents
from ...records.audit import Problem
from ...records.kind import Index, Kind, Record, Stored, register

DESIRED = frozenset({"pending", "running", "stopped"})
LIVE = ("bid_accepted", "running", "publishing")
TERMINAL = frozenset({"ask_for_bid_rejected", "bid_rejected", "completed", "failed", "cancelled"})
STATES = frozenset({"new", "ask_for_bid", "ask_for_bid_accepted", *LIVE, *TERMINAL})


class _Identified(Record, frozen=True):
    id: str
    job_id: str


class Execution(_Identified, frozen=True, kw_only=True):
    """A job's run on some node. `state` moves under guard; everything else about it is the caller's."""

    state: str = "new"
    desired_state: str = "pending"
    message: str = ""
    node_id: str | None = None
    partition_index: int = 0
    details: Mapping[str, Any] = {}
    data: Any = None
    result: Any = None


class Event(msgspec.Struct, frozen=True):
    """A progress report of one execution; `seq` counts from 1 in each execution, `at` is when it was written."""

    message: str
    topic: str = ""
    details: Mapping[str, Any] = {}
    at: datetime | None = None
    seq: int = 0


_FIELDS = (
    "id", "job_id", "state", "desired_state", "message", "node_id", "partition_index", "details", "data", "result",
)  # fmt: skip
CHANGEABLE = _FIELDS[2:]
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
    fields = _FIELDS
    indexes = (
        Index(b"s", lambda record: (keys.path(record.state),), newest=True),
        Index(b"j", lambda record: (keys.path(record.job_id),), newest=True),
        Index(b"n", lambda record: () if record.node_id is None else (keys.path(record.node_id),)),
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

    def counters(self, record: Execution) -> Iterable[bytes]:
        return (keys.path(record.state),)

    def ended(self, record: Execution) -> bool:
        return record.state in TERMINAL

    async def audit(self, reader: Reader, part: int, records: dict[bytes, Stored[Execution]]) -> list[Problem]:
        return await dependents.audit(reader, part, self, records.values())


EXECUTIONS = register(_ExecutionKind())


def unpack_event(value: list[Any]) -> Event:
    message, topic, details, at, seq = value
    return Event(message, topic, details, from_micros(at), seq)


PLAIN["execution_events"] = EVENTS["executions"] = unpack_event


def check_events(events: Iterable[Event]) -> tuple[Event, ...]:
    if isinstance(events, Event):
        events = (events,)
    if not isinstance(events, Iterable):
        raise InvalidArgument(f"events is {events!r}; give a collection of Event", what="events", value=events)
    checked = tuple(events)
    for event in checked:
        if not isinstance(event, Event):
            raise InvalidArgument(f"an event is {event!r}; use Event(message)", what="events", value=event)
        if not isinstance(event.message, str) or not isinstance(event.topic, str):
            raise InvalidArgument("an event's message and topic must be str", what="events", value=event)
        if not isinstance(event.details, Mapping):
            raise InvalidArgument("an event's details must be a mapping", what="events", value=event)
        if event.at is not None:
            to_micros(event.at, "at")
    return checked


def check_states(states: Iterable[str], what: str) -> frozenset[str]:
    if isinstance(states, str | bytes) or not isinstance(states, Iterable):
        raise InvalidArgument(f"{what} is {states!r}; give a collection of states", what=what, value=states)
    given = tuple(states)
    for state in given:
        check_state(state, what)
    return frozenset(given)


def check_state(state: Any, what: str = "state") -> None:
    if not isinstance(state, str) or state not in STATES:
        raise InvalidArgument(f"unknown state {state!r}; one of {', '.join(sorted(STATES))}", what=what, value=state)


def check_execution(record: Execution) -> None:
    """Raise `InvalidArgument` for a field that is not allowed."""
    if not isinstance(record, Execution):
        raise InvalidArgument(f"use an Execution, not {type(record).__name__}", what="execution", value=record)
    keys.name(record.id, "id")
    keys.name(record.job_id, "job_id")
    if record.node_id is not None:
        keys.name(record.node_id, "node_id")
    check_state(record.state)
    if not isinstance(record.desired_state, str) or record.desired_state not in DESIRED:
        allowed = ", ".join(sorted(DESIRED))
        raise InvalidArgument(
            f"unknown desired_state {record.desired_state!r}; one of {allowed}",
            what="desired_state",
            value=record.desired_state,
        )
    if not isinstance(record.message, str):
        raise InvalidArgument("message must be a str", what="message", value=record.message)
    keys.check_number(record.partition_index, "partition_index")
    if not isinstance(record.details, Mapping):
        raise InvalidArgument("details must be a mapping", what="details", value=record.details)
