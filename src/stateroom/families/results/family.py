"""Values of a DAG's functions: kept by DAG and id, found, awaited, shared, computed once.

Names are compared and never matched, so clearing one DAG touches no other; a stored None is a value; waiting is woken
by the write and not by a poll; large values never pass through a page.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, overload

import msgspec

from ... import arguments, keys
from ...core.namespace import Reader
from ...core.operation import Blocking, Family, M, Suspending, iteration, joining, operation, procedure, reading
from ...core.transaction import Transaction
from ...errors import InvalidArgument, StoreError, Timeout, Undecodable
from ...limits import INLINE_BYTES, UPLOAD_BYTES
from ...records.pages import Page, fingerprint
from ...records.query import Query
from ...records.reading import load_many
from ...values import streams, wrapper
from . import clear, encoded, memo
from . import record as result_record
from .encoded import StoredValue
from .memoized import BlockingDecorator, SuspendingDecorator, decorate, memoizing
from .observed import Observed
from .record import (
    RAW,
    RESULTS,
    Encoded,
    Result,
    StoredResult,
    check_names,
    drop,
    encode_apart,
    encode_part,
    expiry,
    find_live,
    keep,
    keep_data,
    live,
    missing,
    public,
    with_value,
)

Ttl = float | timedelta | None

BATCH_RESULTS, BATCH_BYTES = 1000, 1 << 20
"""Results of one commit of `put_many`, and the encoded bytes of those that stand in their records."""


class Results(Family[M]):
    """``store.results``: values of DAG functions."""

    @operation
    async def put(
        self,
        tx: Transaction,
        dag: str,
        id: str,
        value: Any,
        *,
        producer: Any = None,
        inputs: Any = None,
        ttl: Ttl = None,
        expected_revision: int | None = None,
    ) -> Result:
        """Store a value, over what is there; `ttl`: seconds (or a timedelta) after which it is absent.

        `producer` and `inputs` are kept with it. `expected_revision` 0: there must be none (`AlreadyExists`); n:
        `StaleRevision`. Raises `InvalidArgument`.
        """
        dag, id = check_names(dag, id)
        result = Result(dag, id, value, producer=producer, inputs=inputs, expires_at=expiry(tx.scope, ttl))
        if expected_revision is not None:  # before a large value is uploaded
            before = await find_live(tx, dag, id, raw=True)
            result_record.check_revision(expected_revision, before, result)
        return await put_encoded(tx, result, await encode_apart(tx.scope, value), expected_revision)

    @joining
    async def put_many(
        self, dag: str, values: Mapping[str, Any], *, producer: Any = None, inputs: Any = None, ttl: Ttl = None
    ) -> tuple[Result, ...]:
        """Store the values of a mapping by its ids, over what is there: one commit for up to 1,000 of them.

        What is refused is named in the error, whose ``fields["written"]`` says how many before it were stored: those
        of the commits before. In a transaction all are in its one commit. Raises `InvalidArgument`.
        """
        dag = arguments.name(dag, "dag")
        items = arguments.mapping(values, "values").items()
        expires = expiry(self._scope, ttl)
        stored: list[Result] = []
        batch: list[tuple[Result, Encoded]] = []
        size = 0
        try:
            for key, value in items:
                id = arguments.name(key, "id")
                result = Result(dag, id, value, producer=producer, inputs=inputs, expires_at=expires)
                value_bytes = await _encode_named(self._scope, result)
                inline = len(value_bytes.data) if len(value_bytes.data) <= INLINE_BYTES else 0
                if batch and (len(batch) == BATCH_RESULTS or size + inline > BATCH_BYTES):
                    stored += await self._put_batch(batch)
                    batch, size = [], 0
                batch.append((result, value_bytes))
                size += inline
            if batch:
                stored += await self._put_batch(batch)
        except StoreError as error:
            error.fields["written"] = len(stored) if self._face.tx is None else 0
            raise
        return tuple(stored)

    async def _put_batch(self, batch: list[tuple[Result, Encoded]]) -> list[Result]:
        async def body(tx: Transaction) -> list[Result]:
            return [await put_encoded(tx, result, value_bytes, None) for result, value_bytes in batch]

        return await self._finish(body)

    @reading
    async def get(self, tx: Reader, dag: str, id: str, *, raw: bool = False) -> Any:
        """Return the value under an id; None may be one. Raises `NotFound`, also where it expired; `Undecodable`.

        `raw`: with a `codec.Raw` in place of each object whose type is not registered here.
        """
        dag, id = check_names(dag, id)
        result = await _find_for_value(tx, dag, id, raw)
        if result is None:
            raise missing(dag, id)
        return result.value

    @reading
    async def find(self, tx: Reader, dag: str, id: str, *, raw: bool = False) -> Result | None:
        """Return the result under an id with its value and inputs, or None. Raises `Undecodable`; `raw` as in `get`."""
        dag, id = check_names(dag, id)
        return await with_value(tx, await find_live(tx, dag, id, raw=raw), raw=raw)

    @reading
    async def has(self, tx: Reader, dag: str, id: str) -> bool:
        """Say whether there is a value, which may be None, or of a type that is not registered here."""
        dag, id = check_names(dag, id)
        return await find_live(tx, dag, id, raw=True) is not None

    @reading
    async def ids(self, tx: Reader, dag: str, *, id_prefix: str | None = None) -> tuple[str, ...]:
        """Return the ids of a DAG's results, in order; with `id_prefix` those that begin with it."""
        dag = arguments.name(dag, "dag")
        return tuple(await result_record.ids(tx, dag, _begin(id_prefix)))

    @reading
    async def count(self, tx: Reader, dag: str) -> int:
        """Return how many results a DAG has; reads a counter, and what has expired and is not removed yet."""
        dag = arguments.name(dag, "dag")
        total = await tx.total([RESULTS.counter(tx.scope, b"d" + keys.path(dag))])
        return total - len(await result_record.expired_ids(tx, dag))

    @operation
    async def clear(self, tx: Transaction, dag: str) -> int:
        """Remove all results of one DAG, and of no other; one change says so. Gives how many.

        A value that `memo` is computing meanwhile is given to its callers and not kept.
        """
        dag = arguments.name(dag, "dag")
        return await clear.clear(tx, dag)

    @operation
    async def delete(self, tx: Transaction, dag: str, id: str) -> bool:
        """Remove one result, of whatever type; False if there is none."""
        dag, id = check_names(dag, id)
        stored = await find_live(tx, dag, id, raw=True)
        if stored is None:
            return False
        await drop(tx, stored)
        return True

    @joining
    async def put_stream(
        self, dag: str, id: str, source: Any, *, producer: Any = None, inputs: Any = None, ttl: Ttl = None
    ) -> Result:
        """Store the bytes that a binary file or an iterator of bytes gives, in bounded memory.

        The value is those bytes; over 64 KiB it is `OMITTED` in what comes back. On `AsyncStore` the source may be an
        async iterator, or a file whose ``read`` is awaited. It is read once. Raises `InvalidArgument`.
        """
        dag, id = check_names(dag, id)
        scope, tx, root = self._scope, self._face.tx, keys.root(dag)
        if tx is not None:
            tx.at(dag)
        expires = expiry(scope, ttl)
        observed = Observed(source)
        streamed = await streams.upload_stream(scope, root, observed.source)
        digest = str(observed.digest)
        result = Result(
            dag, id, None, digest=digest, size=streamed.size, producer=producer, inputs=inputs, expires_at=expires
        )

        async def body(tx: Transaction) -> Result:
            if streamed.size <= INLINE_BYTES:
                return await _write(tx, msgspec.structs.replace(result, value=streamed.data), b"", None)
            bound = result_record.value_bound(scope, result)
            value_apart = bytes([RAW]) + await streamed.keep(tx.at(dag), bound, 1)
            return await _write(tx, result, value_apart, None)

        return await self._finish(body)

    @reading
    async def open(self, tx: Reader, dag: str, id: str) -> Any:
        """Open bytes as a file, read piece by piece: a binary file; on `AsyncStore` its ``read`` is a coroutine.

        Raises `NotFound`; `InvalidArgument` for a value that is not bytes; while it is read, `Conflict` when it is
        replaced.
        """
        dag, id = check_names(dag, id)
        stored = await find_live(tx, dag, id, raw=True)
        if stored is None:
            raise missing(dag, id)
        record = stored.record
        bound = result_record.value_bound(tx.scope, record)
        value_apart = record.value_apart if isinstance(record, StoredResult) else b""
        wrapped = value_apart[1:]
        if type(record.value) is bytes:
            wrapped = wrapper.INLINE + tx.scope.codec.protect(bound, record.value)
        elif not value_apart or value_apart[0] != RAW:
            raise InvalidArgument(f"result {id!r} of DAG {dag!r} is not bytes; use get", what="id", value=id)
        return await streams.open_stream(tx.at(dag), bound, wrapped)

    @joining
    async def put_stored(
        self,
        dag: str,
        id: str,
        source: Any,
        *,
        form: str,
        digest: str,
        size: int,
        expires_at: datetime | None = None,
    ) -> Result:
        """Store what `open_stored` of another store gives, in bounded memory; nothing unless digest and size agree.

        `source` as for `put_stream`; `form`, `digest` (SHA-256 in hexadecimal), `size` (bytes) and `expires_at` (aware)
        as the other store has them. Raises `Damaged` where other bytes come, `InvalidArgument`.
        """
        dag, id = check_names(dag, id)
        arguments.choice(form, "form", tuple(encoded.FORMS))
        arguments.number(size, "size")
        scope, tx, root = self._scope, self._face.tx, keys.root(dag)
        if tx is not None:
            tx.at(dag)
        observed = Observed(source)
        streamed = await streams.upload_stream(scope, root, observed.source, inline_size=UPLOAD_BYTES)
        result = Result(dag, id, None, digest=digest, size=size, expires_at=expires_at)
        encoded.check(result, digest, size, observed.digest, streamed)

        async def body(tx: Transaction) -> Result:
            return await encoded.keep(tx, result, form, streamed)

        return await self._finish(body)

    @reading
    async def open_stored(self, tx: Reader, dag: str, id: str) -> StoredValue | None:
        """Open a result's stored bytes as a file, whatever the value is, without making it; None where there is none.

        For what moves values between stores: see `put_stored`. Raises `Damaged`.
        """
        dag, id = check_names(dag, id)
        return await encoded.open_stored(tx, dag, id)

    @procedure
    async def wait(self, dag: str, id: str, *, timeout: float | timedelta = 5.0, raw: bool = False) -> Any:
        """Return the value once it is there, woken by its write. Raises `Timeout`, `Undecodable`; `raw` as in `get`."""
        dag, id = check_names(dag, id)
        seconds = arguments.seconds(timeout, "timeout")
        scope = self._scope
        part, deadline = scope.part(keys.root(dag)), scope.clock.monotonic() + seconds
        while True:
            (head,) = await scope.reader.in_part(part).peek([b""])
            result = await _find_for_value(scope.reader, dag, id, raw)
            if result is not None:
                return result.value
            remaining = deadline - scope.clock.monotonic()
            if remaining <= 0:
                raise Timeout(f"no result {id!r} of DAG {dag!r} after {timeout} s")
            await scope.engine.wait(part, 0 if head is None else head.version, remaining)

    @reading
    async def gather(self, tx: Reader, dag: str, ids: Iterable[str]) -> dict[str, Any]:
        """Return the values of those ids that are there, by id.

        A `codec.Raw` stands in place of each object whose type is not registered here.
        """
        dag = arguments.name(dag, "dag")
        paths = [(dag, id) for id in dict.fromkeys(arguments.names(ids, "ids"))]
        values: dict[str, Any] = {}
        for stored in await load_many(tx, RESULTS, paths, raw=True):
            result = await with_value(tx, stored, raw=True, inputs=False)
            if result is not None:
                values[result.id] = result.value
        return values

    @memoizing
    async def memo(
        self,
        dag: str,
        function_name: str,
        inputs: Any,
        compute: Any,
        *,
        ttl: Ttl = None,
        timeout: float | timedelta | None = None,
        ignore: Collection[str] = (),
    ) -> Any:
        """Return the value of a function for some inputs: what `memo_id` of them has, or what it computes now.

        Of all threads and processes that ask, one computes and the others wait, for `timeout` seconds at most
        (`Timeout`; None: as long as it takes). Whoever computes holds a claim that is renewed meanwhile; where it
        died, another computes after at most 10 seconds. What `compute` raises comes through, nothing is stored, and
        the next caller computes; an exception that it returns is a value, and everybody gets the `ErrorRecord` of it.

        `compute` is called with the inputs, unless it takes no argument; on `AsyncStore` it may be a coroutine
        function. `ignore`: names in a mapping of inputs that neither tell calls apart nor are kept. The value expires
        after `ttl`. Inputs are kept as they were before the call. Raises `InvalidArgument`.
        """
        return await memo.memo(
            self._scope, dag, function_name, inputs, compute, ttl=ttl, timeout=timeout, ignore=ignore
        )

    @reading
    async def memo_id(self, tx: Reader, function_name: str, inputs: Any, *, ignore: Collection[str] = ()) -> str:
        """Return the id under which `memo` keeps a value: ``function_name:digest`` of the inputs.

        Equal inputs have equal ids, in whatever order a mapping has its keys. Raises `InvalidArgument`.
        """
        return (await memo.read_inputs(tx.scope, function_name, inputs, ignore)).id

    @overload
    def memoized(
        self: "Results[Blocking]",
        dag: str,
        ttl: Ttl = None,
        name: str | None = None,
        *,
        timeout: float | timedelta | None = None,
        ignore: Collection[str] = (),
    ) -> BlockingDecorator: ...
    @overload
    def memoized(
        self: "Results[Suspending]",
        dag: str,
        ttl: Ttl = None,
        name: str | None = None,
        *,
        timeout: float | timedelta | None = None,
        ignore: Collection[str] = (),
    ) -> SuspendingDecorator: ...
    def memoized(
        self,
        dag: str,
        ttl: Ttl = None,
        name: str | None = None,
        *,
        timeout: float | timedelta | None = None,
        ignore: Collection[str] = (),
    ) -> Any:
        """Decorate a function so that each call of it goes through `memo`, with its arguments as the inputs.

        They are taken by name, with defaults filled in, so that ``f(1)`` and ``f(a=1)`` are one call. `name`: that of
        the function in the store; omitted: its module and qualified name. On `AsyncStore` what comes out is a
        coroutine function, of a plain function too. Raises `InvalidArgument`.
        """
        arguments.name(dag, "dag")
        arguments.optional_name(name, "name")
        expiry(self._scope, ttl)

        def ask(key: str, inputs: Any, compute: Callable[[], Any]) -> Any:
            results: Any = self
            return results.memo(dag, key, inputs, compute, ttl=ttl, timeout=timeout, ignore=ignore)

        return lambda function: decorate(function, ask, name, suspends=self._scope.suspends)

    @reading
    async def query(
        self,
        tx: Reader,
        *,
        dag: str | None = None,
        id_prefix: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Result]:
        """Return results (of one DAG) by DAG and id; values and inputs over 64 KiB are `OMITTED`.

        Raises `InvalidArgument`.
        """
        return await _query(tx, dag, id_prefix).page(limit, cursor)

    @iteration
    async def scan(self, tx: Reader, *, dag: str | None = None, id_prefix: str | None = None) -> AsyncIterator[Result]:
        """Iterate over all results that `query` would page through."""
        async for record in _query(tx, dag, id_prefix).every():
            yield record


async def _encode_named(scope: Any, result: Result) -> Encoded:
    try:
        return await encode_apart(scope, result.value)
    except InvalidArgument as error:
        message = f"result {result.id!r}: {error.message}"
        raise InvalidArgument(message, **{**error.fields, "value": result.id}) from error


async def _find_for_value(reader: Reader, dag: str, id: str, raw: bool) -> Result | None:
    """A result with its value, whatever its producer and its inputs are. Raises `Undecodable`."""
    try:
        stored = await find_live(reader, dag, id, raw=raw)
    except Undecodable as error:
        if not (error.path or "").startswith(("$.producer", "$.inputs")):
            raise
        stored = await find_live(reader, dag, id, raw=True)
        if stored is not None and not isinstance(stored.record, StoredResult):
            codec = reader.scope.codec
            codec.decode(codec.encode(stored.record.value))  # raises where the value itself cannot be rebuilt
    return await with_value(reader, stored, raw=raw, inputs=False)


async def put_encoded(tx: Transaction, result: Result, value_bytes: Encoded, expected: int | None) -> Result:
    """Write a result whose value is encoded; gives it with value and inputs as they were given."""
    value_apart = await keep(tx, result.dag, result.id, value_bytes)
    complete = msgspec.structs.replace(result, digest=str(value_bytes.digest), size=len(value_bytes.data))
    saved = await _write(tx, complete, value_apart, expected)
    return public(saved, value=result.value, inputs=result.inputs)


async def _write(tx: Transaction, result: Result, value_apart: bytes, expected: int | None) -> Result:
    """Write a result whose value was stored; its inputs are kept apart where they are large."""
    inputs_apart = b""
    if result.inputs is not None:
        inputs_apart = await keep_data(tx, result.dag, result.id, encode_part(tx.scope, result.inputs, "inputs"))
    return await result_record.put(tx, result, value_apart, inputs_apart, expected=expected)


def _begin(id_prefix: str | None) -> str:
    return "" if id_prefix is None else arguments.prefix(id_prefix, "id_prefix")


def _query(tx: Reader, dag: str | None, id_prefix: str | None) -> Query[Result]:
    dag = arguments.optional_name(dag, "dag")
    begin = _begin(id_prefix)

    def matches(record: Result) -> bool:
        return record.id.startswith(begin) and live(tx.scope, record)

    query = Query(RESULTS, tx, fingerprint(tx.scope.prefix, "results", dag, begin), matches)
    if dag is not None:
        query.within, query.root = keys.path(dag) + begin.encode(), keys.root(dag)
    return query
