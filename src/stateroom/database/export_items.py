"""Items of an export, one a record: enough to write it again as it was, and a digest of that."""

import base64
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import msgspec

from .. import keys
from ..codec.plain import plain
from ..core.namespace import Scope
from ..core.operation import Suspending
from ..errors import Damaged
from ..families.executions.family import Executions
from ..families.executions.record import EXECUTIONS
from ..families.instances.family import Instances
from ..families.instances.record import INSTANCES
from ..families.machines import rules
from ..families.machines.family import Machines
from ..families.machines.record import MACHINES
from ..families.results.family import Results
from ..families.savepoints.family import Savepoints
from ..families.savepoints.layers import encoded, merged
from ..families.savepoints.record import find_run, layers_of, newest
from ..families.timers.family import Timers
from .breathing import breathe
from .copying import rows_of

FAMILIES = ("definitions", "instances", "executions", "machines", "results", "savepoints", "timers")
FORMAT = 1


class Item(msgspec.Struct, frozen=True):
    """One thing that is exported."""

    family: str
    key: tuple[str | int, ...]
    record: Any
    """For people and other programs: as JSON can hold it."""
    data: bytes
    """For the import: everything it needs, encoded; values of types that are not known here as they are stored."""

    @property
    def digest(self) -> str:
        """SHA-256 over family, key and data."""
        return sha256(msgspec.msgpack.encode([self.family, self.key]) + self.data).hexdigest()

    def to_line(self) -> bytes:
        """The item as a line of JSON."""
        data = base64.b64encode(self.data).decode()
        return msgspec.json.encode(
            {"family": self.family, "key": self.key, "record": self.record, "data": data, "sha256": self.digest}
        )

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Item":
        """The item in a line or row. Raises `Damaged` where its digest is another."""
        try:
            item = cls(
                row["family"], tuple(row["key"]), row.get("record"), base64.b64decode(row["data"], validate=True)
            )
            fits = item.digest == row["sha256"]
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged("an item of the export cannot be read", kind="export") from error
        if not fits:
            raise Damaged(f"{item.family} {item.key!r} is not what was exported: its digest differs", kind="export")
        return item


def _past(record: Any) -> list[Any]:
    return [record.revision, record.created_at, record.updated_at]


async def items(scope: Scope, families: tuple[str, ...]) -> AsyncIterator[Item]:
    """Everything of a namespace that an export holds, by family, in the order of ids."""
    for family in families:
        async for key, record, data in _EACH[family](scope):
            yield Item(family, key, plain(record), scope.codec.encode(data))
            await breathe(scope)


async def _definitions(scope: Scope) -> AsyncIterator[Any]:
    async for row in rows_of(scope, 0, scope.key(keys.DEFINITION)):
        definition = rules.decode(scope, row.key, row.value)
        fields = [dict(definition.transitions), definition.initial, list(definition.final), definition.keep_history]
        yield (definition.machine,), definition, fields


async def _instances(scope: Scope) -> AsyncIterator[Any]:
    async for record in Instances(Suspending(scope)).scan():
        yield (record.id,), record, [_past(record), INSTANCES.pack(record)]


async def _executions(scope: Scope) -> AsyncIterator[Any]:
    family = Executions(Suspending(scope))
    async for record in family.scan():
        events = await family.events(record.id)
        event_fields = [[event.message, event.topic, event.details, event.at] for event in events]
        public = {**record.to_dict(), "events": [event.to_dict() for event in events]}
        yield (record.id,), public, [_past(record), EXECUTIONS.pack(record), event_fields]


async def _machines(scope: Scope) -> AsyncIterator[Any]:
    family = Machines(Suspending(scope))
    async for record in family.scan():
        path = (record.machine, record.name)
        history: list[Any] = []
        cursor: str | None = None
        while True:
            page = await family.history(*path, limit=1000, cursor=cursor)
            history += page.items
            cursor = page.cursor
            if cursor is None:
                break
        failure = await family.last_error(*path, raw=True)
        past = [[_past(snapshot), MACHINES.pack(snapshot)] for snapshot in reversed(history)]
        failed = None
        if failure is not None:
            failed = [failure.reason, failure.event, failure.state, failure.payload, failure.info, failure.at]
            failed.append(failure.event_payload)
        yield path, record, [[_past(record), MACHINES.pack(record)], past, failed]


async def _results(scope: Scope) -> AsyncIterator[Any]:
    family = Results(Suspending(scope))
    async for public in family.scan():
        record = await family.find(public.dag, public.id, raw=True)
        if record is not None:  # else it expired meanwhile
            value = [record.value, record.producer, record.inputs, record.expires_at]
            yield (record.dag, record.id), public, [_past(record), value]


async def _savepoints(scope: Scope) -> AsyncIterator[Any]:
    family = Savepoints(Suspending(scope))
    for part in range(scope.parts):
        async for row in rows_of(scope, part, scope.key(keys.RUN)):
            (name,) = keys.parse(row.key[len(scope.key(keys.RUN)) :], (str,))
            run = await find_run(scope.reader, str(name))
            if run is None:
                continue
            yield (str(name),), {"run": name, "start": run.start, "every_ms": run.every_ms}, [run.start, run.every_ms]
            for timestamp in await family.list(str(name)):
                states = await states_of(scope, str(name), timestamp)
                yield (str(name), timestamp), {"run": name, "timestamp": timestamp, "entities": states}, states


async def states_of(scope: Scope, run: str, timestamp: int) -> dict[str, Any]:
    """The states of a savepoint by id; those that cannot be rebuilt here as `codec.Raw`."""
    stored = await newest(scope.reader, run, timestamp)
    states: dict[str, Any] = {}
    if stored is not None:
        async for ids, values in merged(await layers_of(scope.reader, stored.record), encoded):
            states.update((id, scope.codec.decode(value, raw=True)) for id, value in zip(ids, values, strict=True))
    return states


async def _timers(scope: Scope) -> AsyncIterator[Any]:
    family = Timers(Suspending(scope))
    cursor: str | None = None
    while True:
        page = await family.query(limit=1000, cursor=cursor)
        for timer in page.items:
            fields = [timer.at, timer.payload, timer.every, timer.cron, timer.tz, timer.nonce]
            yield (timer.id,), timer, [_past(timer), fields]
        cursor = page.cursor
        if cursor is None:
            return


_EACH: dict[str, Any] = {
    "definitions": _definitions,
    "instances": _instances,
    "executions": _executions,
    "machines": _machines,
    "results": _results,
    "savepoints": _savepoints,
    "timers": _timers,
}
