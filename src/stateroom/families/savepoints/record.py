"""Savepoints beside their entities: the record, and the row of the run."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, NamedTuple

import msgspec
import ormsgpack

from ... import keys
from ...codec import Codec, seal, unseal
from ...codec.malformed import parsing
from ...core.namespace import Reader, Rows, Scope
from ...core.transaction import Readable, TransactionRows, Writable
from ...errors import Damaged, NoSavepoint, NotInitialized, Undecodable
from ...limits import INT64_MAX
from ...records.audit import Problem, rows_of
from ...records.kind import Aging, Kind, Record, Stored, register
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
    aging = Aging(group_steps=1, newest_by_key=True, batch=1)  # many objects may go with each
    fields = ("count", "bytes", "content", "run", "timestamp")

    def path(self, record: SavepointRecord) -> tuple[str | int, ...]:
        return record.run, record.timestamp

    def counters(self, record: SavepointRecord) -> Iterable[bytes]:
        return (_counter(record.run),)

    def pack(self, record: SavepointRecord) -> list[Any]:
        return [record.count, record.bytes, record.content, record.run, record.timestamp]

    def unpack(self, fields: list[Any], revision: int, created_at: datetime, updated_at: datetime) -> SavepointRecord:
        count, size, content, run, timestamp = fields
        return SavepointRecord(
            run, timestamp, count=count, bytes=size, content=content,
            revision=revision, created_at=created_at, updated_at=updated_at,
        )  # fmt: skip

    async def release(self, tx: Writable, stored: Stored[SavepointRecord]) -> None:
        await objects.release(tx.at(stored.record.run), {manifest_ref(stored.record): 1})

    def shown(self, record: SavepointRecord) -> SavepointRecord:
        return msgspec.structs.replace(record, content=b"")

    def held(self, record: SavepointRecord) -> Iterable[bytes]:
        return (record.content,)

    async def audit(self, reader: Reader, part: int, records: "dict[bytes, Stored[SavepointRecord]]") -> list[Any]:
        problems: list[Problem] = []
        prefix = reader.scope.key(keys.RUN)
        runs = {row.key[len(prefix) : -1].decode() for row in await rows_of(reader, part, prefix)}
        visited: set[bytes] = set()
        for stored in records.values():
            record = stored.record
            id = f"{record.run}/{record.timestamp}"
            if record.run not in runs:
                problems.append(Problem("run-missing", f"the run of savepoint {id} is not there", self.name, id, part))
            try:
                layers = await layers_of(reader, record)
                for layer in layers:
                    if layer.ref not in visited:  # many savepoints may share it
                        visited.add(layer.ref)
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
# Start, interval and threshold; the threshold is a share of 2**64.
_RUN = msgspec.msgpack.Decoder(
    tuple[_Natural, Annotated[int, msgspec.Meta(ge=1)] | None, Annotated[int, msgspec.Meta(ge=0)]]
)


async def _decode_all(layer: Layer, codec: Codec) -> None:
    """Rebuild every state of a layer. Raises `Undecodable` naming the entity, `Damaged`."""
    async for chunk in layer.each():
        chunk.values(codec)


class Run(msgspec.Struct, frozen=True):
    """A run that was initialised. Its row stays as it is while savepoints come and go."""

    start: int
    every_ms: int | None
    cut: int = 0
    """The threshold of its chunks; 0: not fixed yet."""

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.every_ms)


def run_key(scope: Scope, run: str) -> bytes:
    return scope.key(keys.RUN, keys.path(run))


async def find_run(reader: Readable, run: str) -> Run | None:
    """A run; None where it was never initialised. Raises `Damaged`."""
    key = run_key(reader.scope, run)
    row = await reader.at(run).get(key)
    if row is None:
        return None
    with parsing(f"run {run!r}", kind="savepoints", id=run):
        return Run(*_RUN.decode(unseal(key, row.value)))


async def get_run(reader: Reader, run: str) -> Run:
    """A run. Raises `NotInitialized`."""
    stored = await find_run(reader, run)
    if stored is None:
        raise NotInitialized(f"run {run!r} was never initialised; call init first", run=run)
    return stored


def write_run(tx: Writable, name: str, run: Run) -> None:
    key = run_key(tx.scope, name)
    tx.at(name).put(key, seal(key, ormsgpack.packb([run.start, run.every_ms, run.cut])))


def touch_run(tx: Writable, name: str, run: Run, cut: int = 0) -> None:
    """Fix the threshold of a run's chunks with its first savepoint; nothing is written for any later one."""
    if cut and not run.cut:
        write_run(tx, name, msgspec.structs.replace(run, cut=cut))


def _counter(run: str) -> bytes:
    return b"r" + keys.path(run)


def count_key(scope: Scope, run: str) -> bytes:
    """A counter of a run's savepoints. Each one that comes or goes moves it: so a reader notices, and two writers of
    different times do not meet.
    """
    return SAVEPOINTS.counter(scope, _counter(run))


class Mark(NamedTuple):
    """The state of a run's savepoints at a moment; equal marks: none has come or gone since."""

    of_run: int
    """The version of the run's row: another one where it was deleted and initialised again."""
    of_count: int
    """The version of the counter's row."""


async def mark(rows: Rows, run: str) -> Mark:
    """The mark of a run now; in a transaction it must be the same at commit."""
    rows_read = await rows.get_many([run_key(rows.scope, run), count_key(rows.scope, run)])
    return Mark(*(0 if row is None else row.version for row in rows_read))


async def _guard(rows: Rows, run: str) -> None:
    """Let a transaction notice at its commit that savepoints of a run came or went since it scanned them."""
    if isinstance(rows, TransactionRows):
        await mark(rows, run)


def no_savepoint(run: str, text: str = "has no savepoint") -> NoSavepoint:
    return NoSavepoint(f"run {run!r} {text}", kind="savepoints", id=run, run=run)


async def newest(reader: Reader, run: str, upto: int | None = None) -> Stored[SavepointRecord] | None:
    """The newest savepoint of a run, at or before a time; None where there is none."""
    rows = reader.at(run)
    start = SAVEPOINTS.prefix(reader.scope) + keys.path(run)
    stop = start + (keys.END * 9 if upto is None else keys.number(upto) + b"\0")
    await _guard(rows, run)
    for row in await rows.scan(start, stop, limit=1, reverse=True):
        if isinstance(rows, TransactionRows):
            rows.expect(row.key, row)
        path = keys.parse(row.key[len(SAVEPOINTS.prefix(reader.scope)) :], SAVEPOINTS.shape)
        return await open_current(reader, SAVEPOINTS, path, row.key, row)
    return None


async def timestamps(reader: Reader, run: str) -> list[int]:
    """The times of a run's savepoints, ascending."""
    rows = reader.at(run)
    start = SAVEPOINTS.prefix(reader.scope) + keys.path(run)
    stop = start + keys.END * 9
    await _guard(rows, run)
    times: list[int] = []
    while True:
        page = await rows.scan(start, stop, limit=1000)
        times += [int.from_bytes(row.key[-8:], "big") for row in page]
        if len(page) < 1000:
            return times
        start = page[-1].key + b"\0"


async def runs(reader: Reader, begin: str, after: bytes | None, limit: int) -> tuple[list[str], bytes]:
    """Return at most `limit` runs whose names begin so, in order, and the place of the last one."""
    head = reader.scope.key(keys.RUN)
    first = head + begin.encode()
    page = await reader.scan(first if after is None else head + after + b"\0", first + keys.END, limit=limit)
    tails = [row.key[len(head) :] for row in page]
    return [str(keys.parse(tail, (str,))[0]) for tail in tails], tails[-1] if tails else b""
