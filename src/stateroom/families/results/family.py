"""Values of a DAG's functions, after Handoff's result store: kept by DAG and id, found, awaited, shared.

Unlike there, names are compared and never matched, so clearing one DAG touches no other; a stored None is a value;
waiting is woken by the write and not by a poll; values are durable, and large ones never pass through a page.
"""

from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from inspect import isawaitable
from typing import Any

import msgspec

from ... import arguments, keys
from ...core.namespace import Reader
from ...core.operation import Family, M, iteration, joining, operation, procedure, reading
from ...core.transaction import Transaction
from ...errors import InvalidArgument, Timeout
from ...limits import INLINE_BYTES, UPLOAD_BYTES
from ...records.pages import Page, fingerprint
from ...records.query import Query
from ...records.reading import load_many
from ...values import streams, wrapper
from . import clear, encoded, memo
from . import record as result_record
from .encoded import StoredValue
from .record import (
    RAW,
    RESULTS,
    Digest,
    Encoded,
    Result,
    check_names,
    drop,
    encode,
    expiry,
    find_live,
    keep,
    live,
    missing,
    with_value,
)

Ttl = float | timedelta | None


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
    ) -> Result:
        """Store a value, over what is there; `ttl`: seconds (or a timedelta) after which it is absent.

        `producer` and `inputs` are kept with it. Raises `InvalidArgument`. Source: Handoff's store.
        """
        dag, id = check_names(dag, id)
        result = Result(dag, id, value, producer=producer, inputs=inputs, expires_at=expiry(tx.scope, ttl))
        encoded = encode(tx.scope, value)
        return await _put(tx, result, encoded)

    @reading
    async def get(self, tx: Reader, dag: str, id: str) -> Any:
        """The value under an id; None may be one. Raises `NotFound`, also where it expired. Source: Handoff's get."""
        dag, id = check_names(dag, id)
        found = await with_value(tx, await find_live(tx, dag, id))
        if found is None:
            raise missing(dag, id)
        return found.value

    @reading
    async def find(self, tx: Reader, dag: str, id: str) -> Result | None:
        """The result under an id with its value, or None."""
        dag, id = check_names(dag, id)
        return await with_value(tx, await find_live(tx, dag, id))

    @reading
    async def has(self, tx: Reader, dag: str, id: str) -> bool:
        """Whether there is a value, which may be None. Source: Handoff's has_value?."""
        dag, id = check_names(dag, id)
        return await find_live(tx, dag, id) is not None

    @reading
    async def ids(self, tx: Reader, dag: str) -> tuple[str, ...]:
        """The ids of a DAG's results, in order."""
        dag = arguments.name(dag, "dag")
        return tuple(await result_record.ids(tx, dag))

    @reading
    async def count(self, tx: Reader, dag: str) -> int:
        """How many results a DAG has; reads a counter, and what has expired and is not removed yet."""
        dag = arguments.name(dag, "dag")
        every = await tx.total([RESULTS.counter(tx.scope, b"d" + keys.path(dag))])
        return every - len(await result_record.expired_ids(tx, dag))

    @operation
    async def clear(self, tx: Transaction, dag: str) -> int:
        """Remove all results of one DAG, and of no other; one change says so. Gives how many. Source: Handoff's."""
        dag = arguments.name(dag, "dag")
        return await clear.clear(tx, dag)

    @operation
    async def delete(self, tx: Transaction, dag: str, id: str) -> bool:
        """Remove one result; False if there is none."""
        dag, id = check_names(dag, id)
        stored = await find_live(tx, dag, id)
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
        observed = _Observed(source)
        streamed = await streams.upload_stream(scope, root, observed.source)
        digest = str(observed.digest)
        result = Result(
            dag, id, None, digest=digest, size=streamed.size, producer=producer, inputs=inputs, expires_at=expires
        )

        async def body(tx: Transaction) -> Result:
            if streamed.size <= INLINE_BYTES:
                return await _put(tx, msgspec.structs.replace(result, value=streamed.data), None)
            bound = result_record.value_bound(scope, result)
            place = bytes([RAW]) + await streamed.keep(tx.at(dag), bound, 1)
            return await result_record.put(tx, result, place)

        return await self._transact(body) if tx is None else await body(tx)

    @reading
    async def open(self, tx: Reader, dag: str, id: str) -> Any:
        """Bytes as a file, read piece by piece: a binary file; on `AsyncStore` one whose ``read`` is a coroutine.

        Raises `NotFound`; `InvalidArgument` for a value that is not bytes; while it is read, `Conflict` when it is
        replaced.
        """
        dag, id = check_names(dag, id)
        stored = await find_live(tx, dag, id)
        if stored is None:
            raise missing(dag, id)
        record = stored.record
        bound = result_record.value_bound(tx.scope, record)
        wrapped = record.place[1:]
        if type(record.value) is bytes:
            wrapped = wrapper.INLINE + tx.scope.codec.protect(bound, record.value)
        elif not record.place or record.place[0] != RAW:
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
        check_names(dag, id)
        arguments.choice(form, "form", tuple(encoded.FORMS))
        arguments.number(size, "size")
        scope, tx, root = self._scope, self._face.tx, keys.root(dag)
        if tx is not None:
            tx.at(dag)
        observed = _Observed(source)
        streamed = await streams.upload_stream(scope, root, observed.source, whole=UPLOAD_BYTES)
        result = Result(dag, id, None, digest=digest, size=size, expires_at=expires_at)
        encoded.check(result, digest, size, observed.digest, streamed)

        async def body(tx: Transaction) -> Result:
            return await encoded.keep(tx, result, form, streamed)

        return await self._finish(body)

    @reading
    async def open_stored(self, tx: Reader, dag: str, id: str) -> StoredValue | None:
        """A result's stored bytes as a file, whatever the value is, without making it; None where there is none.

        For what moves values between stores: see `put_stored`. Raises `Damaged`.
        """
        check_names(dag, id)
        return await encoded.open_stored(tx, dag, id)

    @procedure
    async def wait(self, dag: str, id: str, *, timeout: float = 5.0) -> Any:
        """The value once it is there, woken by its write. Raises `Timeout`. Source: Handoff's get_with_timeout."""
        dag, id = check_names(dag, id)
        timeout = arguments.seconds(timeout, "timeout")
        scope = self._scope
        part, deadline = scope.part(keys.root(dag)), scope.clock.monotonic() + timeout
        while True:
            (head,) = await scope.reader.in_part(part).peek([b""])
            found = await with_value(scope.reader, await find_live(scope.reader, dag, id))
            if found is not None:
                return found.value
            left = deadline - scope.clock.monotonic()
            if left <= 0:
                raise Timeout(f"no result {id!r} of DAG {dag!r} after {timeout} s")
            await scope.engine.wait(part, 0 if head is None else head.version, left)

    @reading
    async def gather(self, tx: Reader, dag: str, ids: Iterable[str]) -> dict[str, Any]:
        """The values of those ids that are there, by id. Source: Handoff's synchronize."""
        dag = arguments.name(dag, "dag")
        wanted = list(dict.fromkeys(arguments.names(ids, "ids")))
        found: dict[str, Any] = {}
        for stored in await load_many(tx, RESULTS, [(dag, id) for id in wanted]):
            result = await with_value(tx, stored)
            if result is not None:
                found[result.id] = result.value
        return found

    @procedure
    async def memo(self, dag: str, function_name: str, inputs: Any, compute: Any) -> Any:
        """The value of a function for some inputs: stored under ``function_name:digest`` of the inputs, or computed.

        Of all threads and processes that ask, one computes and the others wait. Whoever computes holds a claim that is
        renewed meanwhile; where it died, another computes after at most 10 seconds. What `compute` raises comes
        through, nothing is stored, and the next caller computes. `compute` takes no argument, or the inputs; on
        `AsyncStore` it is a coroutine function. Raises `InvalidArgument`.
        """
        return await memo.memo(self._scope, dag, function_name, inputs, compute)

    @reading
    async def query(
        self, tx: Reader, *, dag: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[Result]:
        """Results (of one DAG) by DAG and id; a value over 64 KiB is `OMITTED`. Raises `InvalidArgument`."""
        return await _query(tx, dag).page(limit, cursor)

    @iteration
    async def scan(self, tx: Reader, *, dag: str | None = None) -> AsyncIterator[Result]:
        """All results that `query` would page through."""
        async for record in _query(tx, dag).every():
            yield record


async def _put(tx: Transaction, result: Result, encoded: Encoded | None) -> Result:
    if encoded is None:
        return await result_record.put(tx, result, b"")
    place = await keep(tx, result.dag, result.id, encoded)
    whole = msgspec.structs.replace(result, digest=str(encoded.digest), size=len(encoded.data))
    saved = await result_record.put(tx, whole, place)
    return msgspec.structs.replace(saved, value=result.value) if place else saved


def _query(tx: Reader, dag: str | None) -> Query[Result]:
    dag = arguments.optional_name(dag, "dag")
    query = Query(RESULTS, tx, fingerprint(tx.scope.prefix, "results", dag), lambda record: live(tx.scope, record))
    if dag is not None:
        query.within, query.root = keys.path(dag), keys.root(dag)
    return query


class _Observed:
    """A source whose bytes are hashed as they are read."""

    def __init__(self, source: Any) -> None:
        self.digest = Digest()
        self._inner = source
        self.source: Any = source
        if hasattr(source, "read"):
            self.source = self
        elif hasattr(source, "__aiter__"):
            self.source = self._later()
        elif isinstance(source, Iterable) and not isinstance(source, str | bytes | bytearray | memoryview):
            self.source = self._now()

    def read(self, size: int) -> Any:
        block = self._inner.read(size)
        return self._awaited(block) if isawaitable(block) else self._seen(block)

    async def _awaited(self, block: Any) -> Any:
        return self._seen(await block)

    def _seen(self, block: Any) -> Any:
        if isinstance(block, bytes | bytearray | memoryview):
            self.digest.update(block if isinstance(block, bytes) else bytes(block))
        return block

    def _now(self) -> Any:
        for block in self._inner:
            yield self._seen(block)

    async def _later(self) -> Any:
        async for block in self._inner:
            yield self._seen(block)
