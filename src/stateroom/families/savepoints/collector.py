"""Collecting savepoints: each entity says how far it has come, and a savepoint is written when all have passed it.

A write that failed is tried again. An entity that never comes is shown by `pending` and can be given up by `abandon`;
until then the states of the others are in memory.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any, TypeVar

from ... import arguments
from ...core.bridge import run_now
from ...core.namespace import Scope
from ...core.transaction import Transaction, transact
from ...errors import AlreadyExists, InvalidArgument, NotInitialized
from .layers import merged
from .record import Run, SavepointRecord, find_run, layers_of, newest, no_savepoint, write_run
from .schedule import Schedule, as_schedule
from .writing import Encoded, encode_all, save_whole

R = TypeVar("R")
Transform = Callable[[Any], Any]


class _Member:
    """The part that both kinds of entity share."""

    def __init__(self, core: "_Core", id: str, state: Any, timestamp: int) -> None:
        self._core = core
        self.id = id
        self.state = state
        self.timestamp = timestamp
        """When its state was last updated, in milliseconds."""
        self.joined = core.joining(timestamp)
        """It is part of the savepoints after this time, and of no other."""
        self.next_savepoint = core.schedule.next(self.joined)
        """The time that is saved once it is reached; None: never."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} at {self.timestamp}, next savepoint {self.next_savepoint}>"

    def update(self, t: int, state: Any) -> None:
        """Set state and time, in memory only. Raises `InvalidArgument` for a time that is no int or negative."""
        self.timestamp = arguments.number(t, "t")
        self.state = state


class Entity(_Member):
    """One stateful component of a run; made by a `Collector`."""

    def ack(self, t: int, transform: Transform | None = None) -> None:
        """Say that all before `t` is done, before the message at `t` is handled.

        Where `t` has reached `next_savepoint`, the state goes into every open savepoint up to `t` that lacks this
        entity and into the newest one that is due; then complete savepoints are written. `transform` (state to state)
        runs only when the state really goes into one, and changes nothing else; what it raises comes through, and
        nothing was saved. What a write raises comes through as well; the savepoint stays pending and the next `ack`
        of any entity tries again.
        """
        self._core.run(self._core.ack(self, t, transform))


class AsyncEntity(_Member):
    """One stateful component of a run; made by an `AsyncCollector`."""

    async def ack(self, t: int, transform: Transform | None = None) -> None:
        """As `Entity.ack`; `transform` may be a coroutine function."""
        async with self._core.turn:
            await self._core.ack(self, t, transform)


class _Core:
    """Collecting, on either face."""

    def __init__(self, scope: Scope, run: str, schedule: Schedule | None) -> None:
        run = arguments.name(run, "run")
        self.scope = scope
        self.name = run
        self.given = schedule
        self.schedule = schedule or Schedule(None)
        self.timestamp: int | None = None
        self.lock = threading.RLock()
        self.turn = asyncio.Lock()
        self._members: dict[str, _Member] = {}
        self._started = False
        self._open: dict[int, dict[str, Encoded]] = {}
        self._closed: set[int] = set()
        self._last_closed = -1

    def run(self, work: Any) -> Any:
        with self.lock:
            return run_now(work)

    async def start(self, at: int, states: Any, kind: Any) -> dict[str, Any]:
        at = arguments.number(at, "at")
        mapping = dict(states) if isinstance(states, Mapping) else None
        if mapping is None:
            raise InvalidArgument(f"states is a {type(states).__name__}; give a dict of id to state", what="states")
        encode_all(self.scope, mapping, "states")

        async def body(tx: Transaction) -> Run:
            head = await find_run(tx, self.name)
            if head is None:
                if self.given is None:
                    raise NotInitialized(
                        f"run {self.name!r} was never initialised; call init first, or give a schedule", run=self.name
                    )
                head = Run(at, self.given.every_ms)
                write_run(tx, self.name, head)
            return head

        head = await transact(self.scope, body)
        return self._register(at, mapping, head, kind)

    async def resume(self, update: Callable[[dict[str, Any]], Any] | None, kind: Any) -> dict[str, Any]:
        reader = self.scope.reader
        head, stored = await find_run(reader, self.name), await newest(reader, self.name)
        if head is None or stored is None:
            raise no_savepoint(self.name)
        entities: dict[str, Any] = {}
        codec = self.scope.codec
        async for ids, states in merged(await layers_of(reader, stored.record), lambda chunk: chunk.values(codec)):
            entities.update(zip(ids, states, strict=True))
        if update is not None:
            changed = await self._result(update(entities))
            entities = entities if changed is None else dict(changed)
            encode_all(self.scope, entities, "entities")
        return self._register(stored.record.timestamp, entities, head, kind)

    def _register(self, at: int, states: dict[str, Any], head: Run, kind: Any) -> dict[str, Any]:
        if self._started:
            raise InvalidArgument("this collector was started already; make another", what="collector")
        self.schedule = head.schedule if self.given is None else self.given
        self.timestamp = at
        self._started = True
        self._members = {id: kind(self, id, state, at) for id, state in states.items()}
        first = self.schedule.next(at)
        if first is not None and self._members:
            self._open[first] = {}
        return dict(self._members)

    def add(self, id: str, state: Any, at: int, kind: Any) -> Any:
        at = arguments.number(at, "at")
        id = arguments.name(id, "id")
        if not self._started:
            raise InvalidArgument("this collector was not started; call start or resume first", what="collector")
        if id in self._members:
            raise AlreadyExists(f"run {self.name!r} has an entity {id!r} already; update it", kind="entity", id=id)
        encode_all(self.scope, {id: state}, "state")
        member = self._members[id] = kind(self, id, state, at)
        return member

    async def remove(self, id: str) -> bool:
        id = arguments.name(id, "id")
        if self._members.pop(id, None) is None:
            return False
        for at in [at for at, saved in self._open.items() if not saved and not self._missing(at)]:
            del self._open[at]  # nobody was in it, and nobody comes any more
        await self._write()
        return True

    def joining(self, at: int) -> int:
        """From when on an entity that starts at a time takes part: never in what was saved or given up before."""
        return max(at, self._last_closed)

    def _missing(self, at: int) -> set[str]:
        """Entities that an open savepoint waits for."""
        return {id for id, member in self._members.items() if member.joined < at and id not in self._open[at]}

    async def ack(self, member: _Member, t: int, transform: Transform | None) -> None:
        t = arguments.number(t, "t")
        if self._members.get(member.id) is not member:
            raise InvalidArgument(f"entity {member.id!r} was removed from its collector; add it again", what="entity")
        due = member.next_savepoint
        if due is not None and t >= due:
            await self._collect(member, t, transform)
            member.next_savepoint = self.schedule.next(t)
        await self._write()

    async def _collect(self, member: _Member, t: int, transform: Transform | None) -> None:
        targets = [at for at, saved in self._open.items() if member.joined < at <= t and member.id not in saved]
        newest = self.schedule.previous(t)
        if newest is not None and newest > member.joined and newest not in self._open and newest not in self._closed:
            targets.append(newest)
        if not targets:
            return
        state = member.state if transform is None else await self._result(transform(member.state))
        # Encoded now: the state may be changed in place before the other entities have come.
        encoded = Encoded(encode_all(self.scope, {member.id: state})[member.id])
        for at in targets:
            self._open.setdefault(at, {}).setdefault(member.id, encoded)

    async def _write(self) -> None:
        for at in sorted(self._open):
            saved = self._open[at]
            if not saved or self._missing(at):
                continue

            async def finish(body: Callable[[Transaction], Awaitable[SavepointRecord]]) -> SavepointRecord:
                return await transact(self.scope, body)

            await save_whole(self.scope, self.scope.reader, finish, self.name, at, saved)
            self._close(at)
            self.timestamp = at if self.timestamp is None else max(at, self.timestamp)

    def _close(self, at: int) -> None:
        del self._open[at]
        self._closed.add(at)
        self._last_closed = max(at, self._last_closed)
        ahead = [member.next_savepoint for member in self._members.values() if member.next_savepoint is not None]
        # Nobody can come back to what all have passed.
        self._closed = {time for time in self._closed if ahead and time >= min(ahead)}

    async def _result(self, value: Any) -> Any:
        return await value if self.scope.suspends and isawaitable(value) else value

    def pending(self) -> dict[int, set[str]]:
        return {at: self._missing(at) for at in sorted(self._open)}

    def abandon(self, timestamp: int) -> bool:
        timestamp = arguments.number(timestamp, "timestamp")
        if timestamp not in self._open:
            return False
        self._close(timestamp)
        return True


def _core(store: Any, run: str, schedule: Any, *, suspends: bool) -> _Core:
    scope = getattr(store, "_scope", None)
    if not isinstance(scope, Scope) or scope.suspends is not suspends:
        kind = "an AsyncStore" if suspends else "a Store"
        raise InvalidArgument(f"store is a {type(store).__name__}; give {kind}", what="store")
    return _Core(scope, run, None if schedule is None else as_schedule(schedule))


class _Collector:
    """The part that both kinds of collector share."""

    def __init__(self, core: _Core) -> None:
        self._core = core

    @property
    def timestamp(self) -> int | None:
        """The time of the newest savepoint that was written here, else where it started or resumed."""
        return self._core.timestamp

    def pending(self) -> dict[int, set[str]]:
        """Savepoints that are open, with the ids that are missing; none are missing where writing failed."""
        with self._core.lock:
            return self._core.pending()

    def abandon(self, timestamp: int) -> bool:
        """Give an open savepoint up; it is not opened again. False where it was not open."""
        with self._core.lock:
            return self._core.abandon(timestamp)


class Collector(_Collector):
    """Gathers one state of each entity of a run at agreed times, and saves them as savepoints.

    `schedule`: when they are due; omitted: that of `store.savepoints.init`. Thread-safe.
    """

    def __init__(self, store: Any, run: str, schedule: Schedule | int | None = None) -> None:
        super().__init__(_core(store, run, schedule, suspends=False))

    def start(self, at: int, states: Mapping[str, Any]) -> dict[str, Entity]:
        """Register entities that start at a time with these states; the first savepoint is the next that is due.

        A run that was not initialised is, if a schedule was given; else `NotInitialized`. Raises `InvalidArgument`.
        """
        entities: dict[str, Entity] = self._core.run(self._core.start(at, states, Entity))
        return entities

    def resume(self, update: Callable[[dict[str, Any]], dict[str, Any] | None] | None = None) -> dict[str, Entity]:
        """Register the entities of the newest savepoint. Raises `NoSavepoint` where there is none.

        `update` may change what was loaded, or return another dict: to add, drop or upgrade entities.
        """
        entities: dict[str, Entity] = self._core.run(self._core.resume(update, Entity))
        return entities

    def add(self, id: str, state: Any, at: int) -> Entity:
        """Register one more entity while the collector runs: it has this state at time `at` (milliseconds).

        It is part of every savepoint after `at` that was not written or given up by now; those wait for it, and no
        earlier one does. Raises `AlreadyExists`; `InvalidArgument`, also before `start` or `resume`.
        """
        with self._core.lock:
            entity: Entity = self._core.add(id, state, at, Entity)
            return entity

    def remove(self, id: str) -> bool:
        """Unregister an entity; False where there is none. No savepoint waits for it any more.

        What it saved into open savepoints stays in them. Those that are complete without it are written, and what a
        write raises comes through: the entity is gone all the same, and the next `ack` tries again.
        """
        removed: bool = self._core.run(self._core.remove(id))
        return removed


class AsyncCollector(_Collector):
    """As `Collector`, over an `AsyncStore`; what reads or writes is a coroutine."""

    def __init__(self, store: Any, run: str, schedule: Schedule | int | None = None) -> None:
        super().__init__(_core(store, run, schedule, suspends=True))

    async def start(self, at: int, states: Mapping[str, Any]) -> dict[str, AsyncEntity]:
        """As `Collector.start`."""
        async with self._core.turn:
            return await self._core.start(at, states, AsyncEntity)

    async def resume(self, update: Callable[[dict[str, Any]], Any] | None = None) -> dict[str, AsyncEntity]:
        """As `Collector.resume`; `update` may be a coroutine function."""
        async with self._core.turn:
            return await self._core.resume(update, AsyncEntity)

    async def add(self, id: str, state: Any, at: int) -> AsyncEntity:
        """As `Collector.add`."""
        async with self._core.turn:
            entity: AsyncEntity = self._core.add(id, state, at, AsyncEntity)
            return entity

    async def remove(self, id: str) -> bool:
        """As `Collector.remove`."""
        async with self._core.turn:
            return await self._core.remove(id)
