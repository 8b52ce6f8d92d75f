"""Guarded executions with their own events.

Conditions are checked before anything is said of terminal states; a change writes record, events and feed entry at
once; a deletion is a change; counts are counters and lists are paged.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Unpack

import msgspec

from ... import arguments, keys
from ...clock import to_micros
from ...core.namespace import Reader, Scope
from ...core.operation import Family, M, iteration, joining, operation, procedure, reading
from ...core.transaction import Transaction
from ...errors import AlreadyExists, Damaged, InvalidArgument, NotFound, StaleRevision, WrongState
from ...feed import history
from ...feed.feed import append_plain
from ...limits import INT64_MAX, PAGE_ITEMS
from ...records import dependents
from ...records.kind import Stored
from ...records.pages import Page, left_out
from ...records.reading import find, load
from ...records.saving import remove, save
from ..bulk import Bulk, read_many, write_many
from ..claims import Claim, claim
from ..leases import forget
from ..orphans import page as orphans_page
from .queries import ExecutionFilters, check_limit, claiming, for_job, live, orphans
from .record import (
    CHANGEABLE,
    DEFAULTS,
    EXECUTIONS,
    NEW,
    TERMINAL,
    Event,
    Execution,
    ExecutionChanges,
    ExecutionState,
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
        """Raise `WrongState` or `StaleRevision`, before anything is said of terminal states."""
        if self.expected and record.state not in self.expected:
            raise _wrong(record, self.expected, f"expected {' or '.join(sorted(self.expected))}")
        if self.revision is not None:
            _check_revision(record, self.revision)
        if record.state in self.unexpected:
            raise _wrong(record, frozenset(), "which was ruled out")


def _check_revision(record: Execution, revision: int) -> None:
    if record.revision != revision:
        raise StaleRevision(
            f"execution {record.id!r} has revision {record.revision}, not {revision}; read it again",
            kind="executions",
            id=record.id,
            actual=record.revision,
            expected=revision,
        )


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

        Raises `AlreadyExists`, `InvalidArgument`.
        """
        return await _create(tx, check_execution(execution), check_events(events))

    @joining
    async def create_many(self, executions: Iterable[Execution]) -> tuple[Execution, ...]:
        """Store many new executions, each as `create` does; gives them in their order.

        One commit for each part and batch of at most 1,000. A refusal names the record, nothing of its batch is stored,
        and ``.fields["written"]`` says how many were before. In a transaction all must share its root.
        """
        records = arguments.collection(executions, "executions", "Execution")
        bulk = Bulk(EXECUTIONS, check_execution, lambda tx, execution: _create(tx, execution, ()))
        return await write_many(self._scope, self._face.tx, bulk, records)

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

    @reading
    async def get_many(self, tx: Reader, ids: Iterable[str]) -> dict[str, Execution]:
        """The executions under some ids, without those that are not there; one read for each part.

        As in lists, a value that cannot be rebuilt here is a `codec.Raw`.
        """
        return await read_many(tx, EXECUTIONS, arguments.names(ids, "ids"))

    @operation
    async def update(
        self,
        tx: Transaction,
        /,
        id: str,
        *,
        expected_states: Collection[ExecutionState | StrEnum] = (),
        unexpected_states: Collection[ExecutionState | StrEnum] = (),
        expected_revision: int | None = None,
        events: Iterable[Event] = (),
        **changes: Unpack[ExecutionChanges],
    ) -> Execution:
        """Change the fields that are named, under conditions, and add events.

        What is not named is kept; a mapping replaces; None sets the field's default. Checked in this order: `NotFound`,
        the conditions (`WrongState`, `StaleRevision`), a terminal state (`WrongState` with terminal=True). Any state
        may follow any that is not terminal, itself too. Raises `InvalidArgument` for a field that cannot be changed.
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
        before = await load(tx, EXECUTIONS, (id,), raw=True)
        fields = {name: DEFAULTS.get(name) if value is None else value for name, value in changes.items()}
        if before is None:
            check_execution(msgspec.structs.replace(Execution(id, "-"), **fields))
            raise _missing(id)
        after = check_execution(msgspec.structs.replace(before.record, **fields))
        condition.check(before.record)
        if before.record.state in TERMINAL:
            raise _wrong(before.record, frozenset(), "which is terminal", terminal=True)
        return await _save(tx, before, after, checked)

    @operation
    async def delete(self, tx: Transaction, id: str, *, expected_revision: int | None = None) -> bool:
        """Remove an execution with its events, whatever its state, and revoke the lease under its id.

        False if there is none. Raises `StaleRevision`. The feed says so.
        """
        id = arguments.name(id, "id")
        before = await load(tx, EXECUTIONS, (id,), raw=True)
        if before is None:
            return False
        if expected_revision is not None:
            _check_revision(before.record, arguments.number(expected_revision, "expected_revision", least=1))
        await dependents.drop(tx, EXECUTIONS, before)
        await forget(tx, id)
        await remove(tx, EXECUTIONS, before)
        return True

    @reading
    async def for_job(self, tx: Reader, job_id: str, *, limit: int | None = None) -> tuple[Execution, ...]:
        """A job's executions, newest change first; all of them, or the first `limit`.

        Those of one part are in the order of commits, also where a clock was set back.
        """
        return await for_job(tx, arguments.name(job_id, "job_id"), check_limit(limit))

    @reading
    async def live(self, tx: Reader, *, limit: int | None = None) -> tuple[Execution, ...]:
        """Executions in bid_accepted, running or publishing, newest change first; all, or the first `limit`."""
        return await live(tx, check_limit(limit))

    @reading
    async def orphans(
        self,
        tx: Reader,
        *,
        job_id: str | None = None,
        state_in: Collection[ExecutionState | StrEnum] | None = None,
        updated_before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Execution]:
        """Live executions that no live lease (under their id) holds: whose worker is gone, by id."""
        return await orphans_page(orphans(tx, job_id, state_in, updated_before), limit, cursor)

    @procedure
    async def claim(
        self,
        owner: str,
        ttl: float | timedelta,
        *,
        job_id: str | None = None,
        states: Collection[ExecutionState | StrEnum] = NEW,
        to: ExecutionState | StrEnum = "running",
        limit: int = 1,
        wait: float | timedelta = 0.0,
    ) -> tuple[Claim[Execution], ...]:
        """Take executions in one of `states` that no live lease holds, the oldest change of a part first.

        Each gets the state `to`, `owner` as its node and a lease under its id, in one commit of one part: so nobody
        else gets it, and there may be fewer than `limit`. One that was claimed, is still in the state `to` and whose
        lease has run out is taken too: its worker died. Where there are none, waits up to `wait` for one (seconds, or a
        timedelta). Raises `InvalidArgument`.
        """
        owner, length = arguments.name(owner, "owner"), arguments.microseconds(ttl, "ttl")
        limit = arguments.number(limit, "limit", least=1, most=PAGE_ITEMS)
        seconds = arguments.seconds(wait, "wait")
        plan = await claiming(self._scope, owner, job_id, states, to)
        return await claim(self._scope, plan, owner, length, limit, seconds)

    @reading
    async def query(
        self,
        tx: Reader,
        *,
        id_prefix: str | None = None,
        job_id: str | None = None,
        state: ExecutionState | StrEnum | None = None,
        state_in: Collection[ExecutionState | StrEnum] | None = None,
        node_id: str | None = None,
        updated_before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Execution]:
        """Executions that match all filters, in the order of ids. Raises `InvalidArgument`."""
        filters = ExecutionFilters(
            id_prefix=id_prefix, job_id=job_id, state=state, state_in=state_in, node_id=node_id,
            updated_before=updated_before,
        )  # fmt: skip
        return await filters.query(tx).page(limit, cursor)

    @iteration
    async def scan(
        self,
        tx: Reader,
        *,
        id_prefix: str | None = None,
        job_id: str | None = None,
        state: ExecutionState | StrEnum | None = None,
        state_in: Collection[ExecutionState | StrEnum] | None = None,
        node_id: str | None = None,
        updated_before: datetime | None = None,
    ) -> AsyncIterator[Execution]:
        """All executions that `query` would page through."""
        filters = ExecutionFilters(
            id_prefix=id_prefix, job_id=job_id, state=state, state_in=state_in, node_id=node_id,
            updated_before=updated_before,
        )  # fmt: skip
        async for record in filters.query(tx).every():
            yield record

    @reading
    async def count(self, tx: Reader, state: ExecutionState | StrEnum) -> int:
        """How many executions are in a state; reads one counter for each part."""
        return await tx.total([EXECUTIONS.counter(tx.scope, keys.path(check_state(state)))])

    @operation
    async def add_events(self, tx: Transaction, id: str, *events: Event) -> None:
        """Append events, also to an execution that is terminal; its revision stays. Raises `NotFound`."""
        id = arguments.name(id, "id")
        checked = check_events(events)
        stored = await load(tx, EXECUTIONS, (id,), raw=True)
        if stored is None:
            raise _missing(id)
        first = 1 + await dependents.length(tx, EXECUTIONS, stored)
        packed = _pack(tx.scope, checked, first)
        await dependents.append(tx, EXECUTIONS, stored, [tx.scope.codec.encode(event) for event in packed], first)
        for event in packed:
            await append_plain(tx, "create", "execution_events", id, (id, event[4]), event)

    @reading
    async def events(self, tx: Reader, id: str, *, after: int = 0, last: int | None = None) -> tuple[Event, ...]:
        """An execution's events in the order they were written; none yet: empty.

        `after`: those whose `seq` is higher; `last`: of these the last so many. A value that cannot be rebuilt here is
        a `codec.Raw`; an event that cannot be opened at all is left out, and said once as a warning. Raises `NotFound`.
        """
        id = arguments.name(id, "id")
        after = arguments.number(after, "after", most=INT64_MAX - 1)
        last = None if last is None else arguments.number(last, "last")
        while (stored := await load(tx, EXECUTIONS, (id,), raw=True)) is not None:
            values = await dependents.read(tx, EXECUTIONS, stored, after=after, last=last)
            if values is not None:
                events = [_event(tx.scope, id, seq, value) for seq, value in values]
                return tuple([event for event in events if event is not None])
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
    async def as_of(self, tx: Reader, id: str, when: str | datetime, *, raw: bool = False) -> Execution:
        """It as it was at a position or an aware datetime, within what the feed retains. Raises `NotFound`."""
        id = arguments.name(id, "id")
        return await history.as_of(tx.scope, EXECUTIONS, (id,), when, raw=raw)


async def save_new(tx: Transaction, execution: Execution, events: tuple[Event, ...]) -> Execution:
    """Save an execution that is not there, in whatever state it is, with its events."""
    return await _save(tx, None, execution, events)


async def _create(tx: Transaction, execution: Execution, events: tuple[Event, ...]) -> Execution:
    if await load(tx, EXECUTIONS, (execution.id,), new=True) is not None:
        raise AlreadyExists(f"execution {execution.id!r} exists", kind="executions", id=execution.id)
    if execution.state not in ("new", "bid_accepted"):
        raise _wrong(execution, frozenset({"new", "bid_accepted"}), "but begins as new or bid_accepted")
    return await _save(tx, None, execution, events)


async def _save(
    tx: Transaction, before: Stored[Execution] | None, after: Execution, events: tuple[Event, ...]
) -> Execution:
    if not events:
        return (await save(tx, EXECUTIONS, before, after)).record
    first = 1 if before is None else 1 + await dependents.length(tx, EXECUTIONS, before)
    packed = _pack(tx.scope, events, first)
    saved = await save(tx, EXECUTIONS, before, after, events=packed)
    await dependents.append(tx, EXECUTIONS, saved, [tx.scope.codec.encode(event) for event in packed], first)
    return saved.record


def _pack(scope: Scope, events: tuple[Event, ...], first: int) -> list[list[Any]]:
    now = to_micros(scope.clock.now())
    return [
        [event.message, event.topic, event.details, now if event.at is None else to_micros(event.at, "at"), seq]
        for seq, event in enumerate(events, first)
    ]


def _event(scope: Scope, id: str, seq: int, value: bytes | Damaged) -> Event | None:
    """An event as it is shown; None for one that cannot be opened."""
    try:
        if isinstance(value, Damaged):
            raise value
        return unpack_event(scope.codec.decode(value, raw=True))
    except (Damaged, ValueError, TypeError) as error:
        damage = error if isinstance(error, Damaged) else Damaged(f"an event cannot be read: {error}")
        left_out(scope, "execution_events", f"{id}/{seq}", damage)
        return None
