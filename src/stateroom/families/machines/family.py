"""State machines: the last good snapshot of each, its history, its last error, its rules.

A machine's name is part of the key beside the name of the instance, so equal names of different machines are different
records; transition rules are checked in the batch that writes; history outlives what the feed retains.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from datetime import datetime
from typing import Any

from ... import arguments, keys
from ...clock import from_micros, to_micros
from ...codec import describe
from ...core.namespace import Reader
from ...core.operation import Family, M, iteration, operation, procedure, reading
from ...core.transaction import Transaction
from ...errors import WrongState
from ...feed import history
from ...limits import INT64_MAX
from ...records.pages import BY_NUMBER, Page, check_limit, fingerprint, read_cursor, write_cursor
from ...records.query import Query
from ...records.reading import load
from ...records.saving import announce, remove, save
from . import rules
from .record import (
    MACHINES,
    Failure,
    Snapshot,
    add_history,
    check_names,
    check_revision,
    drop_failure,
    load_failure,
    missing,
    read_history,
    store_failure,
)
from .rules import KEEP_HISTORY, Definition


class Machines(Family[M]):
    """``store.machines``: state-machine snapshots."""

    @operation
    async def save(
        self,
        tx: Transaction,
        machine: str,
        name: str,
        state: str,
        payload: Any,
        *,
        event: str | None = None,
        event_payload: Any = None,
        from_state: str | None = None,
        expected_revision: int | None = None,
    ) -> Snapshot:
        """Store a machine's state and payload, and add it to the history.

        `from_state`: the state it must have (`WrongState`). `expected_revision` 0: it must not exist (`AlreadyExists`);
        n: `StaleRevision`. Where the machine is defined, a transition that is not allowed raises `WrongState` and
        writes nothing; `event` None needs any transition from the present state to `state`, and the same state without
        an event is a new payload. A state that the definition does not know (it was defined anew) may be left for any
        that it knows. The last error stays. Raises `InvalidArgument`.
        """
        machine, name = check_names(machine, name)
        state = arguments.name(state, "state")
        event = arguments.optional_name(event, "event")
        from_state = arguments.optional_name(from_state, "from_state")
        rows = tx.at(name)
        await rows.prefetch([rules.row_key(tx.scope, machine), MACHINES.prefix(tx.scope) + keys.path(machine, name)])
        definition = await rules.load(rows, machine)
        before = await load(tx, MACHINES, (machine, name), raw=True)
        actual = None if before is None else before.record.state
        if from_state is not None and from_state != actual:
            raise WrongState(
                f"machine {machine!r}, name {name!r} is {'not there' if actual is None else actual}, not {from_state}",
                kind="machines",
                id=f"{machine}/{name}",
                actual=actual,
                expected=frozenset({from_state}),
                terminal=definition is not None and actual in definition.final,
            )
        check_revision(expected_revision, None if before is None else before.record, machine, name)
        rules.check(definition, name, actual, state, event)
        snapshot = Snapshot(
            machine, name, state, payload, previous_state=actual, event=event, event_payload=event_payload
        )
        stored = await save(tx, MACHINES, before, snapshot)
        await add_history(tx, stored, KEEP_HISTORY if definition is None else definition.keep_history)
        return stored.record

    @reading
    async def load(self, tx: Reader, machine: str, name: str, *, raw: bool = False) -> Snapshot:
        """Return the last snapshot; one in a final state too. Raises `NotFound`, and unless it is `raw` `Undecodable`.

        `raw`: with a `codec.Raw` in place of each object whose type is not registered here.
        """
        machine, name = check_names(machine, name)
        stored = await load(tx, MACHINES, (machine, name), raw=raw)
        if stored is None:
            raise missing(machine, name)
        return stored.record

    @reading
    async def find(self, tx: Reader, machine: str, name: str, *, raw: bool = False) -> Snapshot | None:
        """Return the last snapshot, or None; `raw` as in `load`."""
        machine, name = check_names(machine, name)
        stored = await load(tx, MACHINES, (machine, name), raw=raw)
        return None if stored is None else stored.record

    @operation
    async def fail(
        self,
        tx: Transaction,
        machine: str,
        name: str,
        reason: Any,
        *,
        event: str | None = None,
        event_payload: Any = None,
        info: Any = None,
    ) -> Failure:
        """Store what went wrong beside the snapshot, which stays as it is; replaces the last failure.

        `reason` may be an exception: an `ErrorRecord` of it is stored. Allowed before the first snapshot too. Where
        there is a snapshot the feed gets an update of it, unchanged, with the failure in `events`.
        """
        machine, name = check_names(machine, name)
        event = arguments.optional_name(event, "event")
        stored = await load(tx, MACHINES, (machine, name), raw=True)
        state, payload = (None, None) if stored is None else (stored.record.state, stored.record.payload)
        at = from_micros(to_micros(tx.scope.clock.now()))
        cause = describe(reason) if isinstance(reason, BaseException) else reason
        failure = Failure(machine, name, cause, event, state, payload, info, at, event_payload)
        packed = await store_failure(tx, failure)
        if stored is not None:
            await announce(tx, MACHINES, stored, events=[packed])
        return failure

    @reading
    async def last_error(self, tx: Reader, machine: str, name: str, *, raw: bool = False) -> Failure | None:
        """Return the last failure, until `clear_error` or `purge`; a later success keeps it. `raw` as in `load`."""
        machine, name = check_names(machine, name)
        return await load_failure(tx, machine, name, raw=raw)

    @operation
    async def clear_error(self, tx: Transaction, machine: str, name: str) -> bool:
        """Forget the last failure; False if there is none. The feed gets an update without events."""
        machine, name = check_names(machine, name)
        stored = await load(tx, MACHINES, (machine, name), raw=True)
        if not await drop_failure(tx, machine, name):
            return False
        if stored is not None:
            await announce(tx, MACHINES, stored)
        return True

    @reading
    async def history(
        self, tx: Reader, machine: str, name: str, *, limit: int = 100, cursor: str | None = None
    ) -> Page[Snapshot]:
        """Return its last `keep_history` snapshots, newest first, however little the feed retains; none: an empty page.

        A `codec.Raw` stands in place of each object whose type is not registered here.
        """
        machine, name = check_names(machine, name)
        check_limit(limit)
        query = fingerprint(tx.scope.prefix, "machines", "history", machine, name)
        below = INT64_MAX if cursor is None else read_cursor(cursor, query, BY_NUMBER)
        definition = await rules.load(tx.at(name), machine)
        keep = KEEP_HISTORY if definition is None else definition.keep_history
        past = await read_history(tx, machine, name, below, keep, limit)
        following = write_cursor(query, past.snapshots[-1].revision) if past.has_older else None
        return Page(tuple(past.snapshots), following, past.unopened)

    @operation
    async def purge(self, tx: Transaction, machine: str, name: str) -> bool:
        """Remove snapshot, error and history, of whatever types; False if there was nothing."""
        machine, name = check_names(machine, name)
        stored = await load(tx, MACHINES, (machine, name), raw=True)
        if stored is None:
            return await drop_failure(tx, machine, name)
        await MACHINES.release(tx, stored)
        await remove(tx, MACHINES, stored)
        return True

    @reading
    async def query(
        self,
        tx: Reader,
        *,
        machine: str | None = None,
        state: str | None = None,
        id_prefix: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Snapshot]:
        """Return snapshots of a machine, in a state, whose names begin with `id_prefix`, by machine and name.

        Raises `InvalidArgument`.
        """
        return await _query(tx, machine, state, id_prefix).page(limit, cursor)

    @iteration
    async def scan(
        self, tx: Reader, *, machine: str | None = None, state: str | None = None, id_prefix: str | None = None
    ) -> AsyncIterator[Snapshot]:
        """Iterate over all snapshots that `query` would page through."""
        async for record in _query(tx, machine, state, id_prefix).every():
            yield record

    @reading
    async def count(self, tx: Reader, machine: str, state: str | None = None) -> int:
        """Return how many snapshots a machine has, in a state; reads one counter for each part."""
        machine = arguments.name(machine, "machine")
        state = arguments.optional_name(state, "state")
        tail = b"m" + keys.path(machine) if state is None else b"s" + keys.path(machine, state)
        return await tx.total([MACHINES.counter(tx.scope, tail)])

    @procedure
    async def define(
        self,
        machine: str,
        transitions: Mapping[str, Mapping[str, str]],
        *,
        initial: str | None = None,
        final: Collection[str] = (),
        keep_history: int = KEEP_HISTORY,
    ) -> Definition:
        """Store which transitions a machine may make, such as ``{"idle": {"start": "running"}}``; replaces the last.

        From then on the first save must be `initial` (None: any state the definition knows), `save` refuses what is
        not allowed, nothing leaves a `final` state, and `keep_history` snapshots are kept of each. Snapshots that
        exist stay as they are. It reaches one part after another: once this returns, all. Raises `InvalidArgument`.
        """
        definition = rules.make(machine, transitions, initial, final, keep_history)
        return await rules.store(self._scope, definition)

    @reading
    async def definition(self, tx: Reader, machine: str) -> Definition | None:
        """Return what `define` stored last; None where the machine was never defined."""
        machine = arguments.name(machine, "machine")
        return await rules.newest(tx, machine)

    @procedure
    async def wait(
        self, machine: str, name: str, predicate: Callable[[Snapshot], bool], *, timeout: float = 5.0
    ) -> Snapshot:
        """Return the snapshot once it is there and `predicate` holds for it, woken by its changes. Raises `Timeout`."""
        machine, name = check_names(machine, name)
        return await history.wait_for(self._scope, MACHINES, (machine, name), predicate, timeout)

    @reading
    async def as_of(self, tx: Reader, machine: str, name: str, when: str | datetime, *, raw: bool = False) -> Snapshot:
        """Return it as it was at a position or an aware datetime, within what the feed retains. Raises `NotFound`."""
        machine, name = check_names(machine, name)
        return await history.as_of(tx.scope, MACHINES, (machine, name), when, raw=raw)


def _query(tx: Reader, machine: str | None, state: str | None, id_prefix: str | None) -> Query[Snapshot]:
    machine = arguments.optional_name(machine, "machine")
    state = arguments.optional_name(state, "state")
    begin = "" if id_prefix is None else arguments.prefix(id_prefix, "id_prefix")

    def matches(record: Snapshot) -> bool:
        return machine in (None, record.machine) and state in (None, record.state) and record.name.startswith(begin)

    query = Query(MACHINES, tx, fingerprint(tx.scope.prefix, "machines", machine, state, begin), matches)
    if machine is not None:
        query.within = keys.path(machine) + begin.encode()
    if state is not None:
        query.prefixes = [MACHINES.index_prefix(tx.scope, MACHINES.indexes[0], keys.path(state))]
    return query
