"""What is kept of a savepoint beside its entities: its record, and the row of its run."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec
import ormsgpack

from ... import keys
from ...codec import Codec, seal, unseal
from ...codec.malformed import parsing
from ...core.namespace import Reader, Scope
from ...core.transaction import Transaction
from ...errors import Damaged, NoSavepoint, NotInitialized, Undecodable
from ...limits import INT64_MAX
from ...records.audit import Problem, rows_of
from ...records.kind import Kind, Record, Stored, register
from ...records.reading import open_current
from ...values import objects, wrapper
from .layers import Layer, open_layers
from .schedule import Schedule


class _Identified(Record, frozen=True):
    run: str
    timestamp: int


class SavepointRecord(_Identified, frozen=True, kw_only=True):
    """A savepoint as changes show it: how many entities it has, in how many stored bytes."""

    content: bytes = b""
    """The wrapper of its manifest; shown to nobody."""
    count: int
    bytes: int


class _Savepoints(Kind[SavepointRecord]):
    """Savepoints as records."""

    name = "savepoints"
    letter = b"p"
    shape = (str, int)
    key_names = ("run", "timestamp")
    numbers = frozenset({"count", "bytes"})
    fields = ("count", "bytes", "content", "run", "timestamp")

    def path(self, record: SavepointRecord) -> tuple[str | int, ...]:
        return record.run, record.timestamp

    def pack(self, record: SavepointRecord) -> list[Any]:
        return [record.count, record.bytes, record.content, record.run, record.timestamp]

    def unpack(self, fields: list[Any], revision: int, created_at: datetime, updated_at: datetime) -> SavepointRecord:
        count, size, content, run, timestamp = fields
        return SavepointRecord(
            run, timestamp, count=count, bytes=size, content=content,
            revision=revision, created_at=created_at, updated_at=updated_at,
        )  # fmt: skip

    def shown(self, record: SavepointRecord) -> SavepointRecord:
        return msgspec.structs.replace(record, content=b"")

    def held(self, record: SavepointRecord) -> Iterable[bytes]:
        return (record.content,)

    async def audit(self, reader: Reader, part: int, records: "dict[bytes, Stored[SavepointRecord]]") -> list[Any]:
        problems: list[Problem] = []
        prefix = reader.scope.key(keys.RUN)
        runs = {row.key[len(prefix) : -1].decode() for row in await rows_of(reader, part, prefix)}
        seen: set[bytes] = set()
        for stored in records.values():
            record = stored.record
            id = f"{record.run}/{record.timestamp}"
            if record.run not in runs:
                problems.append(Problem("run-missing", f"the run of savepoint {id} is not there", self.name, id, part))
            try:
                layers = await layers_of(reader, record)
                for layer in layers:
                    if layer.ref not in seen:  # many savepoints may share it
                        seen.add(layer.ref)
                        await _decode_all(layer, reader.scope.codec)
            except Undecodable as error:
                problems.append(Problem("undecodable", f"savepoint {id}: {error.message}", self.name, id, part))
                continue
            except Damaged as error:
                problems.append(Problem("damaged", f"savepoint {id}: {error.message}", self.name, id, part))
                continue
            total = sum(layer.head.bytes for layer in layers)
            if total != record.bytes or (len(layers) == 1 and layers[0].head.count != record.count):
                problems.append(Problem("counter", f"savepoint {id} is not as large as it says", self.name, id, part))
        return problems


SAVEPOINTS = register(_Savepoints())


def manifest_ref(record: SavepointRecord) -> bytes:
    """The object that names a savepoint's layers. Raises `Damaged`."""
    ref = wrapper.reference(record.content)
    if ref is None:
        raise Damaged("a savepoint has no manifest", kind="savepoints", id=record.run)
    return ref


async def layer_refs(reader: Reader, record: SavepointRecord) -> tuple[bytes, ...]:
    """The layers of a savepoint, the lowest first. Raises `Damaged`."""
    (content,) = await objects.contents(reader.at(record.run), [manifest_ref(record)])
    return objects.split(content)[0]


async def layers_of(reader: Reader, record: SavepointRecord) -> list[Layer]:
    """The layers of a savepoint, the lowest first. Raises `Damaged`."""
    return await open_layers(reader.at(record.run), await layer_refs(reader, record))


_Natural = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]
_RUN = msgspec.msgpack.Decoder(tuple[_Natural, Annotated[int, msgspec.Meta(ge=1)] | None, _Natural, _Natural])


async def _decode_all(layer: Layer, codec: Codec) -> None:
    """Rebuild every state of a layer. Raises `Undecodable` naming the entity, `Damaged`."""
    async for chunk in layer.each():
        chunk.values(codec)


class Run(msgspec.Struct, frozen=True):
    """A run that was initialised. Whatever changes its savepoints writes it, so that two of them never mix."""

    start: int
    every_ms: int | None
    cut: int = 0
    """The threshold of its chunks; 0: not fixed yet."""
    generation: int = 0

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.every_ms)


def run_key(scope: Scope, run: str) -> bytes:
    return scope.key(keys.RUN, keys.path(run))


async def find_run(reader: Reader, run: str) -> Run | None:
    """A run; None where it was never initialised. Raises `Damaged`."""
    key = run_key(reader.scope, run)
    row = await reader.at(run).get(key)
    if row is None:
        return None
    with parsing(f"run {run!r}", kind="savepoints", id=run):
        return Run(*_RUN.decode(unseal(key, row.value)))


async def get_run(reader: Reader, run: str) -> Run:
    """A run. Raises `NotInitialized`."""
    found = await find_run(reader, run)
    if found is None:
        raise NotInitialized(f"run {run!r} was never initialised; call init first", run=run)
    return found


def write_run(tx: Transaction, name: str, run: Run) -> None:
    key = run_key(tx.scope, name)
    packed = ormsgpack.packb([run.start, run.every_ms, run.cut, run.generation])
    tx.at(name).put(key, seal(key, packed))


def touch_run(tx: Transaction, name: str, run: Run, cut: int = 0) -> None:
    """Note that a run's savepoints change; `cut`: its threshold, if it has none yet."""
    write_run(tx, name, msgspec.structs.replace(run, cut=run.cut or cut, generation=run.generation + 1))


def no_savepoint(run: str, text: str = "has no savepoint") -> NoSavepoint:
    return NoSavepoint(f"run {run!r} {text}", kind="savepoints", id=run, run=run)


async def newest(reader: Reader, run: str, upto: int | None = None) -> Stored[SavepointRecord] | None:
    """The newest savepoint of a run, at or before a time; None where there is none."""
    start = SAVEPOINTS.prefix(reader.scope) + keys.path(run)
    stop = start + (keys.END * 9 if upto is None else keys.number(upto) + b"\0")
    await reader.at(run).get(run_key(reader.scope, run))  # in a transaction: guards the scan
    for row in await reader.at(run).scan(start, stop, limit=1, reverse=True):
        path = keys.parse(row.key[len(SAVEPOINTS.prefix(reader.scope)) :], SAVEPOINTS.shape)
        return await open_current(reader, SAVEPOINTS, path, row.key, row)
    return None


async def timestamps(reader: Reader, run: str) -> list[int]:
    """The times of a run's savepoints, ascending."""
    start = SAVEPOINTS.prefix(reader.scope) + keys.path(run)
    stop = start + keys.END * 9
    await reader.at(run).get(run_key(reader.scope, run))
    found: list[int] = []
    while True:
        rows = await reader.at(run).scan(start, stop, limit=1000)
        found += [int.from_bytes(row.key[-8:], "big") for row in rows]
        if len(rows) < 1000:
            return found
        start = rows[-1].key + b"\0"
