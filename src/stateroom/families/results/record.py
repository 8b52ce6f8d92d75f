"""Results as they are and as they are kept: small values in their record, large ones apart from it.

The record of a large value (or of large inputs) holds only where it is; so pages and changes never read its chunks.
"""

import threading
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Any, ClassVar

import msgspec

from ... import arguments, keys
from ...clock import from_micros, to_micros
from ...core.namespace import Reader, Scope
from ...core.transaction import Readable, Transaction, Writable
from ...core.turns import LONG_BYTES, apart, give_way, is_large
from ...errors import AlreadyExists, Damaged, InvalidArgument, NotFound, StaleRevision, Undecodable
from ...limits import INLINE_BYTES
from ...records.audit import Problem, rows_of
from ...records.kind import Aging, Index, Kind, Record, Stored, register
from ...records.reading import load, open_current
from ...records.saving import remove, save
from ...values import wrapper
from ...values.omitted import OMITTED

_BESIDE = 256 << 10
"""Bytes from which on a thread is worth its start."""

WITHIN, ENCODED, RAW = 0, 1, 2
"""Where a value is: in the record; apart, encoded; apart, bytes as they were given."""

_INPUTS_APART = 4
"""Added to a value's form where the inputs are apart too, encoded."""


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
    """What it was made from; over 64 KiB they are `OMITTED` in pages and changes, as the value is."""
    expires_at: datetime | None = None
    """Aware UTC; from then on it is absent."""


class StoredResult(Result, frozen=True, kw_only=True):
    """A result of which something is kept apart. The store alone sees it."""

    _internal: ClassVar[frozenset[str]] = frozenset({"value_apart", "inputs_apart"})
    value_apart: bytes = b""
    """The value's form and wrapper; empty where it is within."""
    inputs_apart: bytes = b""
    """The wrapper of the encoded inputs; empty where they are within."""


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
    summary = b"a"
    aging = Aging(group_steps=1, batch=5)
    indexes = (
        Index(b"d", lambda record: (b"",)),  # ids without reading records
        Index(b"x", _by_expiry),
    )

    def path(self, record: Result) -> tuple[str, str]:
        return record.dag, record.id

    def pack(self, record: Result) -> list[Any]:
        expires = None if record.expires_at is None else to_micros(record.expires_at)
        form, value, inputs = WITHIN, record.value, record.inputs
        if isinstance(record, StoredResult):
            if record.value_apart:
                form, value = record.value_apart[0], record.value_apart[1:]
            if record.inputs_apart:
                form, inputs = form + _INPUTS_APART, record.inputs_apart
        return [record.dag, record.id, record.digest, record.size, record.producer, inputs, expires, form, value]

    def unpack(self, fields: list[Any], revision: int, created_at: datetime, updated_at: datetime) -> Result:
        dag, id, digest, size, producer, inputs, expires, form, value = fields
        expires_at = None if expires is None else from_micros(expires)
        if form == WITHIN:
            return Result(
                dag, id, value, digest=digest, size=size, producer=producer, inputs=inputs, expires_at=expires_at,
                revision=revision, created_at=created_at, updated_at=updated_at,
            )  # fmt: skip
        value_form, inputs_form = form % _INPUTS_APART, form >= _INPUTS_APART
        return StoredResult(
            dag, id, OMITTED if value_form else value, digest=digest, size=size, producer=producer,
            inputs=OMITTED if inputs_form else inputs, expires_at=expires_at,
            value_apart=bytes([value_form]) + value if value_form else b"",
            inputs_apart=inputs if inputs_form else b"",
            revision=revision, created_at=created_at, updated_at=updated_at,
        )  # fmt: skip

    def counters(self, record: Result) -> Iterable[bytes]:
        return b"a", b"d" + keys.path(record.dag)

    def shown(self, record: Result) -> Result:
        return public(record) if isinstance(record, StoredResult) else record

    def held(self, record: Result) -> Iterable[bytes]:
        if isinstance(record, StoredResult):
            if record.value_apart:
                yield record.value_apart[1:]
            if record.inputs_apart:
                yield record.inputs_apart

    async def release(self, tx: Writable, stored: Stored[Result]) -> None:
        await _let_go(tx, stored.record)

    async def audit(self, reader: Reader, part: int, records: dict[bytes, Stored[Result]]) -> list[Any]:
        rows = await rows_of(reader, part, reader.scope.key(keys.RESULT_EXPIRY))
        present = {row.key for row in rows}  # a row too many is only looked at once when its time comes
        problems = [
            Problem(
                "index-missing",
                f"result {result.id!r} of {result.dag!r} would never expire",
                self.name,
                result.id,
                part,
            )
            for result in (stored.record for stored in records.values())
            if result.expires_at is not None and expiry_key(reader.scope, result) not in present
        ]
        for stored in records.values():
            record = stored.record
            try:
                if isinstance(record, StoredResult) and (record.inputs_apart or record.value_apart[0] == ENCODED):
                    await _read_parts(reader, record, raw=False, inputs=True)
            except Undecodable as error:
                id = f"{record.dag}/{record.id}"
                problems.append(Problem("undecodable", f"result {id}: {error.message}", self.name, id, part))
            except Damaged:  # a chunk of it, which is reported as such
                continue
        return problems


RESULTS = register(_ResultKind())
BY_DAG, BY_EXPIRY = RESULTS.indexes


def public(record: Result, **changes: Any) -> Result:
    """A result as callers see it, with some fields changed."""
    fields = {name: getattr(record, name) for name in Result.__struct_fields__}
    return Result(**{**fields, **changes})


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
    """Say whether it has not expired, by the store's clock."""
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

    def value(self, scope: Scope) -> Any:
        """The value as everybody reads it, its caller included: of an exception what is kept of it."""
        return self.data if self.form == RAW else scope.codec.decode(self.data, raw=True)


def encode(scope: Scope, value: Any) -> Encoded:
    """A value's bytes. Raises `InvalidArgument` with the path of what is refused."""
    if type(value) is bytes:
        return Encoded(RAW, value, Digest(value))
    data = encode_part(scope, value, "value")
    return Encoded(ENCODED, data, Digest(data))


def encode_part(scope: Scope, value: Any, field: str) -> bytes:
    """The bytes of one field. Raises `InvalidArgument` with the path of what is refused."""
    try:
        return scope.codec.encode(value)
    except InvalidArgument as error:
        path = f"$.{field}" + str(error.path or "$")[1:]
        raise InvalidArgument(f"results: {path}: {error.message}", what=error.what, path=path) from error


async def encode_apart(scope: Scope, value: Any) -> Encoded:
    """As `encode`; a large value is encoded in a thread, where there is an event loop to hold up."""
    return await apart(scope, type(value) is not bytes and is_large(value), encode, scope, value)


async def find_live(reader: Readable, dag: str, id: str, *, raw: bool = False) -> Stored[Result] | None:
    """The result under a key, without what is kept apart; None where there is none, or it has expired."""
    stored = await load(reader, RESULTS, (dag, id), raw=raw)
    return stored if stored is not None and live(reader.scope, stored.record) else None


async def with_value(
    reader: Readable, stored: Stored[Result] | None, *, raw: bool = False, inputs: bool = True
) -> Result | None:
    """A result with its value and, where they are asked for, its large inputs.

    Where it is replaced while its chunks are read, the one that replaced it.
    """
    while stored is not None and live(reader.scope, stored.record):
        record = stored.record
        if not isinstance(record, StoredResult):
            return record
        try:
            return public(record, **await _read_parts(reader, record, raw=raw, inputs=inputs))
        except Undecodable as error:
            raise _named(error, record) from error
        except Damaged as error:
            row = await wrapper.replacement(reader.look_at(record.dag), stored.row, error)
            key = RESULTS.prefix(reader.scope) + keys.path(record.dag, record.id)
            stored = await open_current(reader, RESULTS, (record.dag, record.id), key, row, raw=raw)
    return None


def _named(error: Undecodable, record: Result) -> Undecodable:
    """The same error, saying which result it is about."""
    id = f"{record.dag}/{record.id}"
    return type(error)(f"results {id!r}: {error.message}", **{**error.fields, "kind": "results", "id": id})


async def _read_parts(reader: Readable, record: StoredResult, *, raw: bool, inputs: bool) -> dict[str, Any]:
    """Return what is kept apart of a result: its value, and its inputs where they are asked for."""
    parts: dict[str, Any] = {}
    if record.value_apart:
        form, wrapped = record.value_apart[0], record.value_apart[1:]
        read = _fetch(reader, record, wrapped) if form == RAW else _read_apart(reader, record, wrapped, raw)
        parts["value"] = await read
    if inputs and record.inputs_apart:
        parts["inputs"] = await _read_apart(reader, record, record.inputs_apart, raw)
    return parts


async def _read_apart(reader: Readable, record: StoredResult, wrapped: bytes, raw: bool) -> Any:
    data = await _fetch(reader, record, wrapped)
    codec = reader.scope.codec
    return await apart(reader.scope, len(data) > LONG_BYTES, lambda: codec.decode(data, raw=raw))


async def _fetch(reader: Readable, record: StoredResult, wrapped: bytes) -> bytes:
    return await wrapper.fetch(reader.look_at(record.dag), value_bound(reader.scope, record), wrapped)


def value_bound(scope: Scope, record: Result) -> bytes:
    """Return what a value that is kept apart is bound to."""
    return RESULTS.prefix(scope) + keys.path(record.dag, record.id)


def check_revision(expected: int | None, before: Stored[Result] | None, result: Result) -> None:
    """Raise `AlreadyExists` or `StaleRevision` unless a result has the revision that is expected; 0: none."""
    if expected is None:
        return
    expected = arguments.number(expected, "expected_revision")
    actual = 0 if before is None else before.record.revision
    if expected == actual:
        return
    id = f"{result.dag}/{result.id}"
    if expected == 0:
        raise AlreadyExists(f"result {id!r} exists, at revision {actual}", kind="results", id=id)
    raise StaleRevision(
        f"result {id!r} has revision {actual}, not {expected}; read it again",
        kind="results",
        id=id,
        actual=actual,
        expected=expected,
    )


async def put(
    tx: Transaction, result: Result, value_apart: bytes, inputs_apart: bytes = b"", *, expected: int | None = None
) -> Result:
    """Write a result over what is there; gives it as pages show it. What is apart was stored by `keep` before.

    Raises `AlreadyExists` or `StaleRevision` for another revision than the expected one.
    """
    rows, scope = tx.at(result.dag), tx.scope
    before = await load(tx, RESULTS, (result.dag, result.id), raw=True)
    if before is not None and not live(scope, before.record):
        await drop(tx, before)
        before = None
    check_revision(expected, before, result)
    after = result
    if value_apart or inputs_apart:
        after = _stored(result, value_apart, inputs_apart)
    saved = await save(tx, RESULTS, before, after)
    if before is not None:
        await _let_go(tx, before.record)
        rows.add(writes_key(scope, result.dag), 1)
    if saved.record.expires_at is not None:
        rows.put(expiry_key(scope, saved.record), b"")
    return RESULTS.shown(saved.record)


def _stored(result: Result, value_apart: bytes, inputs_apart: bytes) -> StoredResult:
    fields = {name: getattr(result, name) for name in Result.__struct_fields__}
    if value_apart:
        fields["value"] = OMITTED
    if inputs_apart:
        fields["inputs"] = OMITTED
    return StoredResult(**fields, value_apart=value_apart, inputs_apart=inputs_apart)


async def keep(tx: Transaction, dag: str, id: str, encoded: Encoded) -> bytes:
    """Store a value apart where it is large, and give its form and wrapper."""
    wrapped = await keep_data(tx, dag, id, encoded.data)
    return bytes([encoded.form]) + wrapped if wrapped else b""


async def keep_data(tx: Transaction, dag: str, id: str, data: bytes) -> bytes:
    """Store bytes apart where they are many, and give their wrapper."""
    if len(data) <= INLINE_BYTES:
        return b""
    bound = RESULTS.prefix(tx.scope) + keys.path(dag, id)
    return await wrapper.keep(tx.at(dag), bound, data, 1)


async def drop(tx: Writable, stored: Stored[Result]) -> None:
    """Remove a result with its value; the deletion is in the feed."""
    await remove(tx, RESULTS, stored)
    await _let_go(tx, stored.record)


async def _let_go(tx: Writable, record: Result) -> None:
    rows = tx.at(record.dag)
    for wrapped in RESULTS.held(record):
        await wrapper.drop(rows, wrapped)
    if record.expires_at is not None:
        rows.delete(expiry_key(tx.scope, record))


async def ids(reader: Reader, dag: str, id_prefix: str = "") -> list[str]:
    """The ids of a DAG that begin with something and have not expired, in order."""
    start = RESULTS.index_prefix(reader.scope, BY_DAG, b"")
    first = start + keys.path(dag) + id_prefix.encode()
    names = await _scan(reader, dag, first, first + keys.END, len(start))
    expired = set(await expired_ids(reader, dag))
    return [id for id in names if id not in expired]


async def expired_ids(reader: Reader, dag: str) -> list[str]:
    """Ids of a DAG that have expired and are not removed yet."""
    start = RESULTS.index_prefix(reader.scope, BY_EXPIRY, keys.path(dag))
    now = keys.number(to_micros(reader.scope.clock.now()) + 1)
    return await _scan(reader, dag, start, start + now, len(start) + len(now))


async def _scan(reader: Reader, dag: str, start: bytes, stop: bytes, cut: int) -> list[str]:
    """The ids in index rows whose first `cut` bytes come before the record's key."""
    names: list[str] = []
    while True:
        rows = await reader.at(dag).scan(start, stop, limit=1000)
        names += [str(keys.parse(row.key[cut:], RESULTS.shape)[1]) for row in rows]
        if len(rows) < 1000:
            return names
        await give_way(reader.scope)
        start = rows[-1].key + b"\0"
