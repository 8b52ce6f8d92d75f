"""Records: a row, its index rows, its counters and its feed entry, always written in one batch."""

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from .. import keys
from ..clock import from_micros, to_micros
from ..codec import seal
from ..codec.malformed import parsing
from ..core.transaction import PENDING, Transaction, TransactionRows, Writable
from ..engine import Row
from ..values import wrapper
from .entry import NO_POINTER, ChangeOp, Entry, encode, feed_prefix
from .kind import Kind, Stored, T
from .layout import HEAD, NONCE_BYTES, encode_body, index_rows


async def save(
    tx: Writable, kind: Kind[T], before: Stored[T] | None, after: T, *, events: Sequence[Any] = ()
) -> Stored[T]:
    """Write a record with its indexes, counters and feed entry; gives it with revision and times."""
    scope = tx.scope
    path = kind.path(after)
    tail = keys.path(*path)
    key = kind.prefix(scope) + tail
    rows = tx.at(kind.owner(path))
    now = to_micros(scope.clock.now())
    if before is None:
        revision, created, updated, nonce, pointer = 1, now, now, os.urandom(NONCE_BYTES), NO_POINTER
    else:
        revision, created, updated = before.record.revision + 1, before.created, max(now, before.updated)
        nonce, pointer = before.nonce, before.pointer
    if isinstance(tx, Transaction) and tx.past is not None:
        (revision, created, updated), tx.past = tx.past, None
    body = encode_body(scope, kind, after, revision, created, updated)
    events_wrapper = await _keep_events(rows, key, events)
    wrapped = await wrapper.keep(rows, key, body, 2)
    if before is not None:
        await wrapper.drop(rows, before.wrapped)
    if before is not None and kind.ended(before.record):
        await remember_end(rows, kind.letter + tail, before.updated, terminal=kind.ended(after))
    op: ChangeOp = "create" if before is None else "update"
    entry = Entry(op, kind.name, kind.owner(path), path, pointer, updated, wrapped, events_wrapper)
    index = rows.append(feed_prefix(scope), encode(scope, entry))
    value = seal(key, HEAD.pack(0, index, nonce) + wrapped)
    rows.put(key, value)
    result = msgspec.structs.replace(
        after, revision=revision, created_at=from_micros(created), updated_at=from_micros(updated)
    )
    _reindex(rows, kind, tail, before, result, updated)
    return Stored(result, Row(key, value, PENDING), wrapped, (PENDING, index), nonce, created, updated)


async def announce(tx: Writable, kind: Kind[T], stored: Stored[T], *, events: Sequence[Any] = ()) -> None:
    """Put a record into the feed again, as an update with events: it keeps its revision, times and index rows."""
    scope = tx.scope
    path = kind.path(stored.record)
    key = kind.prefix(scope) + keys.path(*path)
    rows = tx.at(kind.owner(path))
    record = stored.record
    body = encode_body(scope, kind, record, record.revision, stored.created, stored.updated)
    wrapped = await wrapper.keep(rows, key, body, 2)
    await wrapper.drop(rows, stored.wrapped)
    events_wrapper = await _keep_events(rows, key, events)
    now = max(to_micros(scope.clock.now()), stored.updated)
    entry = Entry("update", kind.name, kind.owner(path), path, stored.pointer, now, wrapped, events_wrapper)
    index = rows.append(feed_prefix(scope), encode(scope, entry))
    rows.put(key, seal(key, HEAD.pack(0, index, stored.nonce) + wrapped))


async def remove(tx: Writable, kind: Kind[T], before: Stored[T], *, events: Sequence[Any] = ()) -> None:
    """Remove a record with its indexes and counters; the deletion is in the feed."""
    scope = tx.scope
    path = kind.path(before.record)
    tail = keys.path(*path)
    rows = tx.at(kind.owner(path))
    key = kind.prefix(scope) + tail
    events_wrapper = await _keep_events(rows, key, events)
    now = max(to_micros(scope.clock.now()), before.updated)
    entry = Entry("delete", kind.name, kind.owner(path), path, before.pointer, now, None, events_wrapper)
    rows.append(feed_prefix(scope), encode(scope, entry))
    rows.delete(key)
    await wrapper.drop(rows, before.wrapped)
    if kind.ended(before.record):
        await remember_end(rows, kind.letter + tail, before.updated, terminal=False)
    _reindex(rows, kind, tail, before, None, 0)


async def _keep_events(rows: TransactionRows, key: bytes, events: Sequence[Any]) -> bytes | None:
    return await wrapper.keep(rows, key, rows.scope.codec.encode(list(events)), 1) if events else None


async def remember_end(rows: TransactionRows, tail: bytes, since: int, *, terminal: bool) -> None:
    """Record when a terminal record became terminal, before a rewrite changes `updated_at`; or forget it."""
    key = rows.scope.key(keys.ENDED_SINCE, tail)
    row = await rows.get(key)
    if row is None and terminal:
        rows.put(key, keys.number(since))
        rows.put(rows.scope.key(keys.ENDED, tail[:1] + keys.number(since) + tail[1:]), b"")
    elif row is not None and not terminal:
        rows.delete(key)
        rows.delete(rows.scope.key(keys.ENDED, tail[:1] + row.value + tail[1:]))


def _reindex(
    rows: TransactionRows, kind: Kind[T], tail: bytes, before: Stored[T] | None, after: T | None, updated: int
) -> None:
    scope = rows.scope
    old: dict[bytes, bool] = {}
    if before is not None:
        with parsing(f"{kind.name} {before.row.key!r}", kind=kind.name, key=before.row.key):
            old = index_rows(scope, kind, before.record, tail, before.updated)
            list(kind.counters(before.record))
    new = index_rows(scope, kind, after, tail, updated) if after is not None else {}
    for key in old:
        if key not in new:
            rows.delete(key)
    for key, ordered in new.items():
        if ordered or key not in old:
            rows.put(key, b"")
    counts: dict[bytes, int] = {}
    for record, amount in ((before.record if before is not None else None, -1), (after, 1)):
        if record is not None:
            for counter in kind.counters(record):
                counts[counter] = counts.get(counter, 0) + amount
    for counter, amount in counts.items():
        if amount:
            rows.add(kind.counter(scope, counter), amount)
