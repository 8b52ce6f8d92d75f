"""Guarded executions with their own events, after Bacalhau's compute store: conditions are checked before "terminal",
a change writes record, events and feed entry at once. Unlike there, a field can be cleared, a deletion is a change,
counts are counters and lists are paged.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from ... import arguments, keys
from ...clock import to_micros
from ...core.namespace import Reader
from ...core.operation import Family, M, iteration, operation, procedure, reading
from ...core.transaction import Transaction
from ...errors import AlreadyExists, InvalidArgument, NotFound, StaleRevision, WrongState
from ...feed import history
from ...feed.feed import append_plain
from ...records import dependents
from ...records.kind import Stored
from ...records.pages import Page, fingerprint
from ...records.query import Query
from ...records.reading import find, load
from ...records.saving import remove, save
from .record import (
    CHANGEABLE,
    DEFAULTS,
    EXECUTIONS,
    LIVE,
    TERMINAL,
    Event,
    Execution,
    check_events,
    check_execution,
    check_state,
    check_states,
    unpack_event,
)


class _Condition(NamedTuple):
    expected: frozenset[str]
    unexpected: frozenset[str]
    revision: int | None

    def check(self, record: Execution) -> None:
        """Raise `WrongState` or `StaleRevision`; in Bacalhau's order, before anything is said of terminal states."""
        if self.expected and record.state not in self.expected:
            raise _wrong(record, self.expected, f"expected {' or '.join(sorted(self.expected))}")
        if self.revision is not None and record.revision != self.revision:
            raise StaleRevision(
                f"execution {record.id!r} has revision {record.revision}, not {self.revision}; read it again",
                kind="executions",
                id=record.id,
                actual=record.revision,
                expected=self.revision,
            )
        if record.state in self.unexpected:
            raise _wrong(record, frozenset(), "which was ruled out")


def _wrong(record: Execution, expected: frozenset[str], why: str, *, terminal: bool = False) -> WrongState:
    return WrongState(
        f"execution {record.id!r} is {record.state}, {why}",
        kind="executions",
        id=record.id,
        actual=record.state,
        expected=expected,
        terminal=terminal,
    )


def _missing(id: str) -> NotFound:
    return NotFound(f"no execution {id!r}", kind="executions", id=id)


class Executions(Family[M]):
    """``store.executions``: guarded executions and their events."""

    @operation
    async def create(self, tx: Transaction, execution: Execution, *, events: Iterable[Event] = ()) -> Execution:
        """Store a new execution, in state new or bid_accepted (`WrongState`), with its first events.

        Raises `AlreadyExists`, `InvalidArgument`. Source: Bacalhau's CreateExecution.
        """
        execution = check_execution(execution)
        checked = check_events(events)
        if await load(tx, EXECUTIONS, (execution.id,), new=True) is not None:
            raise AlreadyExists(f"execution {execution.id!r} exists", kind="executions", id=execution.id)
        if execution.state not in ("new", "bid_accepted"):
            raise _wrong(execution, frozenset({"new", "bid_accepted"}), "but begins as new or bid_accepted")
        return await self._save(tx, None, execution, checked)

    @reading
    async def get(self, tx: Reader, id: str, *, raw: bool = False) -> Execution:
        """The execution under an id; `raw`: with a `codec.Raw` in place of each value that cannot be rebuilt here.

        Raises `NotFound`, and unless it is `raw` `Undecodable`.
        """
        id = arguments.name(id, "id")
        record = await find(tx, EXECUTIONS, (id,), raw=raw)
        if record is None:
            raise _missing(id)
        return record

    @reading
    async def find(self, tx: Reader, id: str, *, raw: bool = False) -> Execution | None:
        """The execution under an id, or None; `raw` as in `get`."""
        id = arguments.name(id, "id")
        return await find(tx, EXECUTIONS, (id,), raw=raw)

    @operation
    async def update(
        self,
        tx: Transaction,
        /,
        id: str,
        *,
        expected_states: Collection[str] = (),
        unexpected_states: Collection[str] = (),
        expected_revision: int | None = None,
        events: Iterable[Event] = (),
        **changes: Any,
    ) -> Execution:
        """Change the fields that are named, under conditions, and add events.

        What is not named is kept; a mapping replaces; None sets the field's default. Checked in this order: `NotFound`,
        the conditions (`WrongState`, `StaleRevision`), a terminal state (`WrongState` with terminal=True). Any state
        may follow any that is not terminal, itself too. Raises `InvalidArgument` for a field that cannot be changed.
        Source: Bacalhau's UpdateExecutionState, without its merge that could not clear.
        """
        id = arguments.name(id, "id")
        condition = _Condition(
            check_states(expected_states, "expected_states"),
            check_states(unexpected_states, "unexpected_states"),
            None if expected_revision is None else arguments.number(expected_revision, "expected_revision"),
        )
        checked = check_events(events)
        for name, value in changes.items():
            if name not in CHANGEABLE:
                raise InvalidArgument(
                    f"{name!r} cannot be changed; use {', '.join(CHANGEABLE)}", what=name, value=value
                )
        before = await load(tx, EXECUTIONS, (id,))
        wanted = {name: DEFAULTS.get(name) if value is None else value for name, value in changes.items()}
        if before is None:
            check_execution(msgspec.structs.replace(Execution(id, "-"), **wanted))
            raise _missing(id)
        after = check_execution(msgspec.structs.replace(before.record, **wanted))
        condition.check(before.record)
        if before.record.state in TERMINAL:
            raise _wrong(before.record, frozenset(), "which is terminal", terminal=True)
        return await self._save(tx, before, after, checked)

    @operation
    async def delete(self, tx: Transaction, id: str) -> bool:
        """Remove an execution with its events, whatever its state; False if there is none. The feed says so."""
        id = arguments.name(id, "id")
        before = await load(tx, EXECUTIONS, (id,), raw=True)
        if before is None:
            return False
        await dependents.drop(tx, EXECUTIONS, before)
        await remove(tx, EXECUTIONS, before)
        return True

    @reading
    async def for_job(self, tx: Reader, job_id: str, *, limit: int | None = None) -> tuple[Execution, ...]:
        """A job's executions, newest change first; all of them, or the first `limit`."""
        job_id = arguments.name(job_id, "job_id")
        prefix = EXECUTIONS.index_prefix(tx.scope, EXECUTIONS.indexes[1], keys.path(job_id), newest=True)
        return await self._newest(tx, [prefix], lambda record: record.job_id == job_id, limit)

    @reading
    async def live(self, tx: Reader, *, limit: int | None = None) -> tuple[Execution, ...]:
        """Executions in bid_accepted, running or publishing, newest change first; all, or the first `limit`."""
        index = EXECUTIONS.indexes[0]
        prefixes = [EXECUTIONS.index_prefix(tx.scope, index, keys.path(state), newest=True) for state in LIVE]
        return await self._newest(tx, prefixes, lambda record: record.state in LIVE, limit)

    @reading
    async def query(
        self,
        tx: Reader,
        *,
        job_id: str | None = None,
        state: str | None = None,
        state_in: Collection[str] | None = None,
        node_id: str | None = None,
        updated_before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Execution]:
        """Executions that match all filters, in the order of ids. Raises `InvalidArgument`."""
        return await _query(tx, job_id, state, state_in, node_id, updated_before).page(limit, cursor)

    @iteration
    async def scan(
        self,
        tx: Reader,
        *,
        job_id: str | None = None,
        state: str | None = None,
        state_in: Collection[str] | None = None,
        node_id: str | None = None,
        updated_before: datetime | None = None,
    ) -> AsyncIterator[Execution]:
        """All executions that `query` would page through."""
        async for record in _query(tx, job_id, state, state_in, node_id, updated_before).every():
            yield record

    @reading
    async def count(self, tx: Reader, state: str) -> int:
        """How many executions are in a state; reads one counter for each part."""
        state = check_state(state)
        return await tx.total([EXECUTIONS.counter(tx.scope, keys.path(state))])

    @operation
    async def add_events(self, tx: Transaction, id: str, *events: Event) -> None:
        """Append events, also to an execution that is terminal; its revision stays. Raises `NotFound`."""
        id = arguments.name(id, "id")
        checked = check_events(events)
        stored = await load(tx, EXECUTIONS, (id,))
        if stored is None:
            raise _missing(id)
        for event in await self._append(tx, stored, checked):
            path: tuple[str | int, ...] = (id, event[4])
            await append_plain(tx, "create", "execution_events", id, path, event)

    @reading
    async def events(self, tx: Reader, id: str) -> tuple[Event, ...]:
        """An execution's events in the order they were written; none yet: empty. Raises `NotFound`."""
        id = arguments.name(id, "id")
        while (stored := await load(tx, EXECUTIONS, (id,))) is not None:
            values = await dependents.read(tx, EXECUTIONS, stored)
            if values is not None:
                return tuple(unpack_event(tx.scope.codec.decode(value)) for value in values)
        raise _missing(id)

    @procedure
    async def wait(self, id: str, predicate: Callable[[Execution], bool], *, timeout: float = 5.0) -> Execution:
        """The execution once it is there and `predicate` holds for it, woken by its changes. Raises `Timeout`."""
        id = arguments.name(id, "id")
        return await history.wait_for(self._scope, EXECUTIONS, (id,), predicate, timeout)

    @reading
    async def history(self, tx: Reader, id: str, *, limit: int = 100, cursor: str | None = None) -> Page[Execution]:
        """Its revisions, newest first, within what the feed retains. Raises `NotFound`."""
        id = arguments.name(id, "id")
        return await history.page(tx, EXECUTIONS, (id,), limit, cursor)

    @reading
    async def as_of(self, tx: Reader, id: str, when: str | datetime) -> Execution:
        """It as it was at a position or an aware datetime, within what the feed retains. Raises `NotFound`."""
        id = arguments.name(id, "id")
        return await history.as_of(tx.scope, EXECUTIONS, (id,), when)

    async def _save(
        self, tx: Transaction, before: Stored[Execution] | None, after: Execution, events: tuple[Event, ...]
    ) -> Execution:
        if not events:
            return (await save(tx, EXECUTIONS, before, after)).record
        first = 1 if before is None else 1 + await dependents.length(tx, EXECUTIONS, before)
        packed = self._pack(events, first)
        saved = await save(tx, EXECUTIONS, before, after, events=packed)
        await dependents.append(tx, EXECUTIONS, saved, [tx.scope.codec.encode(event) for event in packed], first)
        return saved.record

    async def _append(self, tx: Transaction, stored: Stored[Execution], events: tuple[Event, ...]) -> list[list[Any]]:
        first = 1 + await dependents.length(tx, EXECUTIONS, stored)
        packed = self._pack(events, first)
        await dependents.append(tx, EXECUTIONS, stored, [tx.scope.codec.encode(event) for event in packed], first)
        return packed

    def _pack(self, events: tuple[Event, ...], first: int) -> list[list[Any]]:
        now = to_micros(self._scope.clock.now())
        return [
            [event.message, event.topic, event.details, now if event.at is None else to_micros(event.at, "at"), seq]
            for seq, event in enumerate(events, first)
        ]

    async def _newest(
        self, tx: Reader, prefixes: list[bytes], matches: Callable[[Execution], bool], limit: int | None
    ) -> tuple[Execution, ...]:
        if limit is not None:
            limit = arguments.number(limit, "limit", least=1)
        query = Query(EXECUTIONS, tx, 0, matches)
        query.prefixes, query.newest = prefixes, True
        if limit is not None:
            return tuple(stored.record for stored, _ in (await query.fill(limit, None))[0])
        return tuple([record async for record in query.every()])


def _query(
    tx: Reader,
    job_id: str | None,
    state: str | None,
    state_in: Collection[str] | None,
    node_id: str | None,
    updated_before: datetime | None,
) -> Query[Execution]:
    """A query that goes through the index of the narrowest filter that has one."""
    states = None if state_in is None else check_states(state_in, "state_in")
    if state is not None:
        state = check_state(state)
        states = frozenset({state}) if states is None else states & {state}
    job_id = arguments.optional_name(job_id, "job_id")
    node_id = arguments.optional_name(node_id, "node_id")
    before = arguments.optional_time(updated_before, "updated_before")

    def matches(record: Execution) -> bool:
        return (
            (job_id is None or record.job_id == job_id)
            and (states is None or record.state in states)
            and (node_id is None or record.node_id == node_id)
            and (before is None or (record.updated_at is not None and to_micros(record.updated_at) < before))
        )

    mark = fingerprint(
        tx.scope.prefix, "executions", job_id, None if states is None else sorted(states), node_id, before
    )
    query = Query(EXECUTIONS, tx, mark, matches)
    by_state, by_job, by_node = EXECUTIONS.indexes
    if job_id is not None:
        query.prefixes = [EXECUTIONS.index_prefix(tx.scope, by_job, keys.path(job_id))]
    elif states is not None:
        query.prefixes = [EXECUTIONS.index_prefix(tx.scope, by_state, keys.path(one)) for one in sorted(states)]
    elif node_id is not None:
        query.prefixes = [EXECUTIONS.index_prefix(tx.scope, by_node, keys.path(node_id))]
    return query
