"""Encrypt again, under the key ring's current key, while everybody goes on reading and writing.

Rows are taken in runs. A run is one batch that expects each row as it was read: what somebody changed meanwhile was
written under the current key anyway, and the run is read again. A record's row and its newest entry in the feed hold
the same bytes, so they change together.
"""

from functools import partial

import msgspec

from .. import keys
from ..codec import seal, unseal
from ..core.namespace import Scope
from ..core.transaction import Transaction, transact
from ..engine import Row, stamped
from ..errors import Damaged
from ..feed.feed import entry_bound
from ..limits import UPLOAD_BYTES
from ..records.entry import Entry, decode, encode, feed_prefix
from ..records.kind import wrapper_in
from ..records.layout import pointer_of, renewed_row, row_body
from ..values import wrapper
from .breathing import breathe
from .namespaces import namespaces

_RUN = 200


class Rekeyed(msgspec.Struct):
    """The account of a run over a database."""

    rows: int = 0
    """Rows that were written again."""
    unreadable: int = 0
    """Rows left as they are, for their key is missing or they are damaged; `check` lists them."""


async def rekey(scope: Scope) -> Rekeyed:
    """Go over every namespace; rows that are under the current key already cost a read."""
    result = Rekeyed()
    for name in await namespaces(scope):
        space = scope.sibling(name)
        for part in range(space.parts):
            # Records first: with them go the newest entries of the feed, and only older ones are left for it.
            unreadable = result.unreadable
            await _sweep(space, part, space.key(keys.RECORD), space.key(keys.RECORD, keys.END), result)
            result.unreadable = unreadable  # they are met again
            await _sweep(space, part, space.prefix, space.prefix + keys.END, result)
    return result


async def _sweep(scope: Scope, part: int, start: bytes, stop: bytes, result: Rekeyed) -> None:
    while start < stop:
        written, unreadable, start = await transact(scope, partial(_run, part, start, stop), part=part)
        result.rows += written
        result.unreadable += unreadable
        await breathe(scope)


async def _run(part: int, start: bytes, stop: bytes, tx: Transaction) -> tuple[int, int, bytes]:
    """Renew a run of rows; gives how many were written, how many are unreadable, and where the next run starts."""
    scope = tx.scope
    rows = await scope.reader.in_part(part).scan(start, stop, limit=_RUN)
    after = stop if len(rows) < _RUN else rows[-1].key + b"\0"
    written = unreadable = size = 0
    for row in rows:
        if size > UPLOAD_BYTES:  # a run of chunks is far beyond what a batch may hold
            return written, unreadable, row.key
        try:
            changed = await _renewed(scope, part, row)
        except Damaged:
            unreadable += 1
            continue
        for old, value in changed:
            tx.rows.expect(old.key, old)
            tx.rows.put(old.key, value)
            size += len(value)
            written += 1
    return written, unreadable, after


async def _renewed(scope: Scope, part: int, row: Row) -> list[tuple[Row, bytes]]:
    """Rows as they were and the values they get; none where nothing is to do. Raises `Damaged`, `Undecodable`."""
    suffix = row.key[len(scope.prefix) :]
    if suffix.startswith(keys.CHUNK):
        value = _again(scope, row.key, row.value[1:])
        return [] if value is None else [(row, row.value[:1] + value)]
    if suffix.startswith(keys.FEED):
        return _entry(scope, row)
    if suffix.startswith(keys.RECORD):
        return await _record(scope, part, row)
    tag = keys.row_tag(suffix)
    wrapped = wrapper_in(scope, row)
    if wrapped is not None:
        renewed = _wrapper(scope, row.key, wrapped)
        if renewed is None:
            return []
        head = unseal(row.key, row.value).removesuffix(wrapped)
        return [(row, seal(row.key, head + renewed))]
    if tag is not None and keys.ROWS[tag].encrypted:
        value = _again(scope, row.key, unseal(row.key, row.value))
        return [] if value is None else [(row, seal(row.key, value))]
    return []


def _again(scope: Scope, bound: bytes, data: bytes) -> bytes | None:
    """The same data under the current key; None where it is under it."""
    codec = scope.codec
    return codec.protect(bound, codec.reveal(bound, data)) if codec.needs_rekey(data) else None


def _wrapper(scope: Scope, bound: bytes, wrapped: bytes) -> bytes | None:
    if wrapped[:1] != wrapper.INLINE:  # its chunks are rows of their own
        return None
    data = _again(scope, bound, wrapped[1:])
    return None if data is None else wrapper.INLINE + data


def _entry(scope: Scope, row: Row, wrapped: bytes | None = None) -> list[tuple[Row, bytes]]:
    """An entry of the feed; `wrapped`: what its record's row gets."""
    entry: Entry = decode(scope, row.value)
    bound = entry_bound(scope, entry)
    changed = wrapped
    if changed is None and entry.wrapped is not None:
        changed = _wrapper(scope, bound, entry.wrapped)
    events = None if entry.events is None else _wrapper(scope, bound, entry.events)
    if changed is None and events is None:
        return []
    entry = entry._replace(wrapped=entry.wrapped if changed is None else changed)
    entry = entry._replace(events=entry.events if events is None else events)
    return [(row, encode(scope, entry))]


async def _record(scope: Scope, part: int, row: Row) -> list[tuple[Row, bytes]]:
    wrapped = _wrapper(scope, row.key, row_body(row))
    if wrapped is None:
        return []
    changed = [(row, renewed_row(row, wrapped))]
    newest = (await scope.reader.in_part(part).peek([stamped(feed_prefix(scope), *pointer_of(row))]))[0]
    if newest is not None:
        changed += _entry(scope, newest, wrapped)
    return changed
