"""Write exported items as they were, with their revisions and times; what is there and equal is left alone."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from ..clock import to_micros
from ..codec.malformed import MALFORMED, damaged
from ..core.namespace import Scope
from ..core.operation import Suspending
from ..core.transaction import Transaction, transact
from ..errors import AlreadyExists
from ..families.executions import family as executions
from ..families.executions.record import EXECUTIONS, Event
from ..families.instances.record import INSTANCES
from ..families.instances.unique import write
from ..families.machines.family import Machines
from ..families.machines.record import MACHINES, Failure, add_history, store_failure
from ..families.results import record as results
from ..families.results.family import Results, put_encoded
from ..families.results.record import Result
from ..families.savepoints.family import Savepoints
from ..families.timers import record as timers
from ..families.timers.recurrence import Recurrence
from ..records.reading import load
from ..records.saving import save
from ..values import wrapper
from .export_items import Item, states_of


async def write_item(scope: Scope, item: Item) -> bool:
    """Write an item; False where it is there already. Raises `AlreadyExists` where something else is, `Damaged`."""
    try:
        data = scope.codec.decode(item.data, raw=True)
        written: bool = await _WRITERS[item.family](scope, item.key, data)
        return written
    except MALFORMED as error:
        raise damaged(f"{item.family} {item.key!r} of the export", error, kind=item.family) from error


def _micros(past: list[Any]) -> tuple[int, int, int]:
    revision, created, updated = past
    return int(revision), to_micros(created), to_micros(updated)


def _unpacked(kind: Any, past: list[Any], fields: list[Any]) -> Any:
    return kind.unpack(fields, *past)


def _taken(item: str, key: Any) -> AlreadyExists:
    path = "/".join(map(str, key))
    return AlreadyExists(f"{item} {path!r} is there, and is not what was exported", kind=item, id=path)


async def _in_part(scope: Scope, body: Callable[[Transaction], Awaitable[bool]]) -> bool:
    return await transact(scope, body)


async def _record(scope: Scope, kind: Any, key: Any, past: list[Any], fields: list[Any], put: Any) -> bool:
    record = _unpacked(kind, past, fields)

    async def body(tx: Transaction) -> bool:
        before = await load(tx, kind, key, raw=True)
        if before is not None:
            if scope.codec.encode(kind.pack(before.record)) != scope.codec.encode(fields):
                raise _taken(kind.name, key)
            return False
        tx.past = _micros(past)
        await put(tx, record)
        return True

    return await _in_part(scope, body)


async def _definition(scope: Scope, key: Any, data: Any) -> bool:
    transitions, initial, final, keep = data
    family = Machines(Suspending(scope))
    present = await family.definition(key[0])
    if present is not None:
        same = (dict(present.transitions), present.initial, list(present.final), present.keep_history)
        if same != (transitions, initial, final, keep):
            raise _taken("definitions", key)
        return False
    await family.define(key[0], transitions, initial=initial, final=final, keep_history=keep)
    return True


async def _instance(scope: Scope, key: Any, data: Any) -> bool:
    past, fields = data
    return await _record(scope, INSTANCES, key, past, fields, lambda tx, record: write(tx, None, record))


async def _execution(scope: Scope, key: Any, data: Any) -> bool:
    past, fields, event_fields = data
    events = tuple(Event(message, topic, details, at) for message, topic, details, at in event_fields)
    return await _record(
        scope, EXECUTIONS, key, past, fields, lambda tx, record: executions.save_new(tx, record, events)
    )


async def _machine(scope: Scope, key: Any, data: Any) -> bool:
    (past, fields), history, failed = data
    path = (key[0], key[1])

    async def put(tx: Transaction, _: Any) -> None:
        stored = None
        for its_past, its_fields in history or [[past, fields]]:
            tx.past = _micros(its_past)
            stored = await save(tx, MACHINES, stored, _unpacked(MACHINES, its_past, its_fields))
            await add_history(tx, stored, len(history))
        if failed is not None:
            reason, event, state, payload, info, at, event_payload = failed
            await store_failure(tx, Failure(*path, reason, event, state, payload, info, at, event_payload))

    return await _record(scope, MACHINES, path, past, fields, put)


async def _result(scope: Scope, key: Any, data: Any) -> bool:
    past, (value, producer, inputs, expires_at) = data
    dag, id = key
    present = await Results(Suspending(scope)).find(dag, id, raw=True)
    if present is not None:
        if scope.codec.encode(present.value) != scope.codec.encode(value):
            raise _taken("results", key)
        return False
    encoded = await results.encode_apart(scope, value)

    async def body(tx: Transaction) -> bool:
        tx.past = _micros(past)
        result = Result(
            dag, id, value, digest=str(encoded.digest), size=len(encoded.data), producer=producer, inputs=inputs,
            expires_at=expires_at,
        )  # fmt: skip
        await put_encoded(tx, result, encoded, None)
        return True

    return await _in_part(scope, body)


async def _savepoint(scope: Scope, key: Any, data: Any) -> bool:
    family = Savepoints(Suspending(scope))
    if len(key) == 1:
        return await family.init(key[0], start=data[0], schedule=data[1])
    run, timestamp = key
    if timestamp in await family.list(run):
        states = await states_of(scope, run, timestamp)
        if scope.codec.content_hash(states) != scope.codec.content_hash(data):
            raise _taken("savepoints", key)
        return False
    await family.save(run, timestamp, data)
    return True


async def _timer(scope: Scope, key: Any, data: Any) -> bool:
    past, (at, payload, interval, cron, zone, nonce) = data
    revision, created, updated = _micros(past)
    (id,) = key
    recurs = interval is not None or cron is not None
    span = None if interval is None else interval // timedelta(microseconds=1)
    recurrence = Recurrence(span, cron, zone) if recurs else None

    async def body(tx: Transaction) -> bool:
        rows, place = tx.at(id), timers.timer_key(tx.scope, id)
        present = await rows.get(place)
        if present is not None:
            if timers.parse(place, present.value).nonce != nonce:
                raise _taken("timers", key)
            return False
        wrapped = await wrapper.keep(rows, place, timers.encode(tx.scope, payload, recurrence), 1)
        row = timers.TimerRow(to_micros(at), nonce, revision, created, updated, wrapped, recurs)
        timers.write(rows, id, place, row)
        return True

    return await _in_part(scope, body)


_WRITERS: dict[str, Any] = {
    "definitions": _definition,
    "instances": _instance,
    "executions": _execution,
    "machines": _machine,
    "results": _result,
    "savepoints": _savepoint,
    "timers": _timer,
}
