"""What a result is, and how it is kept: small values in their record, large ones apart from it.

The record of a large value holds only where it is, its digest and its size; so pages and changes never read its chunks.
"""

import threading
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec

from ... import arguments, keys
from ...clock import from_micros, to_micros
from ...core.namespace import Reader, Scope
from ...core.transaction import Transaction
from ...errors import Damaged, InvalidArgument, NotFound, Undecodable
from ...limits import INLINE_BYTES
from ...records.audit import Problem, rows_of
from ...records.kind import Index, Kind, Record, Stored, register
from ...records.reading import load, open_current
from ...records.saving import remove, save
from ...values import wrapper
from ...values.omitted import OMITTED

_BESIDE = 256 << 10
"""Bytes from which on a thread is worth its start."""

WITHIN, ENCODED, RAW = 0, 1, 2
"""Where a value is: in the record; apart, encoded; apart, bytes as they were given."""


class _Identified(Record, frozen=True):
    dag: str
    id: str
    value: Any


class Result(_Identified, frozen=True, kw_only=True):
    """The value of one function of one DAG."""

    digest: str = ""
    """SHA-256 of the value's bytes (of bytes: themselves; of anything else: as encoded), in hexadecimal."""
    size: int = 0
    """How many bytes those are."""
    producer: Any = None
    """Who made it."""
    inputs: Any = None
    """What it was made from."""
    expires_at: datetime | None = None
    """Aware UTC; from then on it is absent."""
    place: bytes = b""
    """Where a value over 64 KiB is kept; of use to the store alone."""


_FIELDS = ("dag", "id", "digest", "size", "producer", "inputs", "expires_at", "form", "value")


def _by_expiry(record: Result) -> tuple[bytes, ...]:
    if record.expires_at is None:
        return ()
    return (keys.path(record.dag) + keys.number(to_micros(record.expires_at)),)


class _ResultKind(Kind[Result]):
    name = "results"
    letter = b"r"
    fields = _FIELDS
    shape = (str, str)
    key_names = ("dag", "id")
    texts = frozenset({"producer", "digest"})
    numbers = frozenset({"size"})
    summary = b"d"
    indexes = (
        Index(b"d", lambda record: (b"",)),  # ids without reading records
        Index(b"x", _by_expiry),
    )

    def path(self, record: Result) -> tuple[str, str]:
        return record.dag, record.id

    def pack(self, record: Result) -> list[Any]:
        expires = None if record.expires_at is None else to_micros(record.expires_at)
        form, value = (record.place[0], record.place[1:]) if record.place else (WITHIN, record.value)
        return [record.dag, record.id, record.digest, record.size, record.producer, record.inputs, expires, form, value]

    def unpack(self, fields: list[Any], revision: int, created_at: datetime, updated_at: datetime) -> Result:
        dag, id, digest, size, producer, inputs, expires, form, value = fields
        place = b"" if form == WITHIN else bytes([form]) + value
        return Result(
            dag, id, OMITTED if place else value, digest=digest, size=size, producer=producer, inputs=inputs,
            expires_at=None if expires is None else from_micros(expires), place=place,
            revision=revision, created_at=created_at, updated_at=updated_at,
        )  # fmt: skip

    def counters(self, record: Result) -> Iterable[bytes]:
        return b"a", b"d" + keys.path(record.dag)

    def shown(self, record: Result) -> Result:
        return msgspec.structs.replace(record, value=OMITTED) if record.place else record

    def held(self, record: Result) -> Iterable[bytes]:
        return (record.place[1:],) if record.place else ()

    async def audit(self, reader: Reader, part: int, records: dict[bytes, Stored[Result]]) -> list[Any]:
        rows = await rows_of(reader, part, reader.scope.key(keys.RESULT_EXPIRY))
        there = {row.key for row in rows}  # a row too many is only looked at once when its time comes
        problems = [
            Problem("index-missing", f"result {one.id!r} of {one.dag!r} would never expire", self.name, one.id, part)
            for one in (stored.record for stored in records.values())
            if one.expires_at is not None and expiry_key(reader.scope, one) not in there
        ]
        for stored in records.values():
            record = stored.record
            try:
                if record.place and record.place[0] == ENCODED:
                    await read_value(reader, record)
            except Undecodable as error:
                id = f"{record.dag}/{record.id}"
                problems.append(Problem("undecodable", f"result {id}: {error.message}", self.name, id, part))
            except Damaged:  # a chunk of it, which is reported as such
                continue
        return problems


RESULTS = register(_ResultKind())
BY_DAG, BY_EXPIRY = RESULTS.indexes


def expiry_key(scope: Scope, record: Result) -> bytes:
    """The row that finds what expires, over all DAGs, in the order of time."""
    assert record.expires_at is not None
    return scope.key(keys.RESULT_EXPIRY, keys.number(to_micros(record.expires_at)) + keys.path(record.dag, record.id))


def writes_key(scope: Scope, dag: str) -> bytes:
    """A counter that every replacement in a DAG moves: with the counter of its results it guards the whole DAG."""
    return scope.key(keys.RESULT_WRITES, keys.path(dag))


def check_names(dag: str, id: str) -> tuple[str, str]:
    """A DAG and an id as they are kept. Raises `InvalidArgument`."""
    return arguments.name(dag, "dag"), arguments.name(id, "id")


def missing(dag: str, id: str) -> NotFound:
    return NotFound(f"no result {id!r} of DAG {dag!r}", kind="results", id=f"{dag}/{id}")


def expiry(scope: Scope, ttl: Any) -> datetime | None:
    """When something written now expires; `ttl` in seconds or a timedelta. Raises `InvalidArgument`."""
    if ttl is None:
        return None
    now = to_micros(scope.clock.now())
    return from_micros(arguments.later(now, arguments.microseconds(ttl, "ttl"), "ttl"))


def live(scope: Scope, record: Result) -> bool:
    """Whether it has not expired, by the store's clock."""
    return record.expires_at is None or record.expires_at > scope.clock.now()


class Digest:
    """SHA-256 of bytes; of many, it is computed beside whatever else is done with them."""

    def __init__(self, data: bytes = b"") -> None:
        self._hashed = sha256()
        self._beside: threading.Thread | None = None
        self.update(data)

    def update(self, data: Any) -> None:
        """Take more bytes, which must not change."""
        self._wait()
        if len(data) < _BESIDE:
            self._hashed.update(data)
        else:  # hashlib lets other threads run meanwhile; a thread of its own has no state that a fork could break
            self._beside = threading.Thread(target=self._hashed.update, args=(data,), daemon=True)
            self._beside.start()

    def __str__(self) -> str:
        self._wait()
        return self._hashed.hexdigest()

    def _wait(self) -> None:
        if self._beside is not None:
            self._beside.join()
            self._beside = None


class Encoded(msgspec.Struct, frozen=True):
    """A value as it is stored: its bytes, their form, and what identifies them."""

    form: int
    data: bytes
    digest: Digest


def encode(scope: Scope, value: Any) -> Encoded:
    """A value's bytes. Raises `InvalidArgument` with the path of what is refused."""
    if type(value) is bytes:
        return Encoded(RAW, value, Digest(value))
    try:
        data = scope.codec.encode(value)
    except InvalidArgument as error:
        path = "$.value" + str(error.path or "$")[1:]
        raise InvalidArgument(f"results: {path}: {error.message}", what=error.what, path=path) from error
    return Encoded(ENCODED, data, Digest(data))


async def find_live(reader: Reader, dag: str, id: str) -> Stored[Result] | None:
    """The result under a key, its large value left out; None where there is none, or it has expired."""
    stored = await load(reader, RESULTS, (dag, id))
    return stored if stored is not None and live(reader.scope, stored.record) else None


async def with_value(reader: Reader, stored: Stored[Result] | None) -> Result | None:
    """A result with its value; where it is replaced while its chunks are read, the one that replaced it."""
    while stored is not None and live(reader.scope, stored.record):
        record = stored.record
        if not record.place:
            return record
        try:
            return msgspec.structs.replace(record, value=await read_value(reader, record))
        except Damaged as error:
            row = await wrapper.replacement(reader.look_at(record.dag), stored.row, error)
            key = RESULTS.prefix(reader.scope) + keys.path(record.dag, record.id)
            stored = await open_current(reader, RESULTS, (record.dag, record.id), key, row)
    return None


async def read_value(reader: Reader, record: Result) -> Any:
    """A value that is kept apart. Raises `Damaged`."""
    data = await wrapper.fetch(reader.look_at(record.dag), value_bound(reader.scope, record), record.place[1:])
    return data if record.place[0] == RAW else reader.scope.codec.decode(data)


def value_bound(scope: Scope, record: Result) -> bytes:
    """What a value that is kept apart is bound to."""
    return RESULTS.prefix(scope) + keys.path(record.dag, record.id)


async def put(tx: Transaction, result: Result, place: bytes) -> Result:
    """Write a result, whose large value was stored at `place`, over what is there."""
    scope = tx.scope
    before = await load(tx, RESULTS, (result.dag, result.id))
    if before is not None and not live(scope, before.record):
        await drop(tx, before)
        before = None
    shown = msgspec.structs.replace(result, place=place, value=OMITTED if place else result.value)
    saved = await save(tx, RESULTS, before, shown)
    if before is not None:
        await _let_go(tx, before.record)
        tx.at(result.dag).add(writes_key(scope, result.dag), 1)
    if saved.record.expires_at is not None:
        tx.at(result.dag).put(expiry_key(scope, saved.record), b"")
    return saved.record


async def keep(tx: Transaction, dag: str, id: str, encoded: Encoded) -> bytes:
    """Store a value apart where it is large, and give its place."""
    if len(encoded.data) <= INLINE_BYTES:
        return b""
    bound = RESULTS.prefix(tx.scope) + keys.path(dag, id)
    return bytes([encoded.form]) + await wrapper.keep(tx.at(dag), bound, encoded.data, 1)


async def drop(tx: Transaction, stored: Stored[Result]) -> None:
    """Remove a result with its value; the deletion is in the feed."""
    await remove(tx, RESULTS, stored)
    await _let_go(tx, stored.record)


async def _let_go(tx: Transaction, record: Result) -> None:
    rows = tx.at(record.dag)
    if record.place:
        await wrapper.drop(rows, record.place[1:])
    if record.expires_at is not None:
        rows.delete(expiry_key(tx.scope, record))


async def ids(reader: Reader, dag: str) -> list[str]:
    """The ids of a DAG that have not expired, in order."""
    start = RESULTS.index_prefix(reader.scope, BY_DAG, b"")
    every = await _scan(reader, dag, start + keys.path(dag), start + keys.path(dag) + keys.END, len(start))
    gone = set(await expired_ids(reader, dag))
    return [id for id in every if id not in gone]


async def expired_ids(reader: Reader, dag: str) -> list[str]:
    """Ids of a DAG that have expired and are not removed yet."""
    start = RESULTS.index_prefix(reader.scope, BY_EXPIRY, keys.path(dag))
    now = keys.number(to_micros(reader.scope.clock.now()) + 1)
    return await _scan(reader, dag, start, start + now, len(start) + len(now))


async def _scan(reader: Reader, dag: str, start: bytes, stop: bytes, cut: int) -> list[str]:
    """The ids in index rows whose first `cut` bytes come before the record's key."""
    found: list[str] = []
    while True:
        rows = await reader.at(dag).scan(start, stop, limit=1000)
        found += [str(keys.parse(row.key[cut:], RESULTS.shape)[1]) for row in rows]
        if len(rows) < 1000:
            return found
        start = rows[-1].key + b"\0"
