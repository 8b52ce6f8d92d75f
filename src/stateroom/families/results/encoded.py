"""Results as the bytes they are stored as: what one store gives another, without making the value.

A digest names these bytes; so they can be fetched in pieces, from several places, and be checked before anybody reads
them.
"""

from typing import Any

import msgspec

from ...core.namespace import Reader
from ...core.transaction import Transaction
from ...errors import Damaged, Undecodable
from ...limits import INLINE_BYTES
from ...values import streams, wrapper
from . import record as result_record
from .record import ENCODED, RAW, Digest, Result, StoredResult, encode, find_live, public, value_bound

FORMS = {"bytes": RAW, "value": ENCODED}


class StoredValue(msgspec.Struct, frozen=True):
    """A result with its value as a file of stored bytes; the record bears no value."""

    result: Result
    form: str
    """"bytes": they are the value. "value": they are the value as it is encoded."""
    file: Any
    """Binary and seekable, with `size`; on `AsyncStore` its ``read`` and ``seek`` are coroutines."""


async def open_stored(reader: Reader, dag: str, id: str) -> StoredValue | None:
    """The stored bytes of a result; None where there is none. Raises `Damaged`."""
    stored = await find_live(reader, dag, id, raw=True)
    if stored is None:
        return None
    record = stored.record
    bound = value_bound(reader.scope, record)
    if isinstance(record, StoredResult) and record.value_apart:
        form, wrapped = record.value_apart[0], record.value_apart[1:]
    else:
        encoded = encode(reader.scope, record.value)
        form, wrapped = encoded.form, wrapper.INLINE + reader.scope.codec.protect(bound, encoded.data)
    file = await streams.open_stream(reader.at(dag), bound, wrapped)
    return StoredValue(public(record, value=None), "bytes" if form == RAW else "value", file)


async def keep(tx: Transaction, result: Result, form: str, streamed: streams.Streamed) -> Result:
    """Write a result whose stored bytes were uploaded.

    A small value goes into its record as any other does; where its type is unknown here, its bytes are kept apart.
    """
    kind = FORMS[form]
    if streamed.size <= INLINE_BYTES:
        try:
            value = streamed.data if kind == RAW else tx.scope.codec.decode(streamed.data)
        except Undecodable:
            pass
        else:
            return await result_record.put(tx, msgspec.structs.replace(result, value=value), b"")
    bound = value_bound(tx.scope, result)
    value_apart = bytes([kind]) + await streamed.keep(tx.at(result.dag), bound, 1)
    return await result_record.put(tx, result, value_apart)


def check(result: Result, digest: str, size: int, observed: Digest, streamed: streams.Streamed) -> None:
    """Raise `Damaged` unless the bytes that came are those that were promised."""
    if streamed.size != size or str(observed) != digest:
        raise Damaged(
            f"what came for result {result.id!r} of DAG {result.dag!r} is not what was promised: {streamed.size} bytes "
            f"with SHA-256 {observed}, not {size} with {digest}; nothing was stored",
            kind="results",
            id=f"{result.dag}/{result.id}",
        )
