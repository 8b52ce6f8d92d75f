"""Records: a row, its index rows, its counters and its feed entry, always written in one batch."""

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from .. import keys
from ..clock import from_micros, to_micros
from ..codec import seal
from ..core.transaction import PENDING, Transaction
from ..engine import Row
from ..values import wrapper
from .entry import NO_POINTER, Entry, encode, feed_prefix
from .kind import Kind, Stored, T
from .layout import HEAD, NONCE_BYTES, encode_body, index_rows


async def save(
    tx: Transaction, kind: Kind[T], before: Stored[T] | None, after: T, *, events: Sequence[Any] = ()
) -> Stored[T]:
    """Write a record with its indexes, counters and feed entry; gives it with revision and times."""
    scope = tx.scope
    path = kind.path(after)
    tail = keys.path(*path)
    key = kind.prefix(scope) + tail
    root = keys.root(kind.owner(path))
    now = to_micros(scope.clock.now())
    if before is None:
        revision, created, updated, nonce, back = 1, now, now, os.urandom(NONCE_BYTES), NO_POINTER
    else:
        revision, created, updated = before.record.revision + 1, before.created, max(now, before.updated)
        nonce, back = before.nonce, before.pointer
    body = encode_body(scope, kind, after, revision, created, updated)
    told = await _keep_events(tx, root, key, events)
    wrapped = await wrapper.keep(tx, root, key, body, 2)
    if before is not None:
        await wrapper.drop(tx, root, before.wrapped)
    if before is not None and kind.ended(before.record):
        await remember_end(tx, kind.letter + tail, root, before.updated, kept=kind.ended(after))
    op = "create" if before is None else "update"
    entry = Entry(op, kind.name, kind.owner(path), path, back, updated, wrapped, told)
    index = tx.append(root, feed_prefix(scope), encode(scope, entry))
    value = seal(key, HEAD.pack(0, index, nonce) + wrapped)
    tx.put(root, key, value)
    result = msgspec.structs.replace(
        after, revision=revision, created_at=from_micros(created), updated_at=from_micros(updated)
    )
    _reindex(tx, kind, root, tail, before, result, updated)
    return Stored(result, Row(key, value, PENDING), wrapped, (PENDING, index), nonce, created, updated)


async def announce(tx: Transaction, kind: Kind[T], stored: Stored[T], *, events: Sequence[Any] = ()) -> None:
    """Put a record into the feed again, as an update with events: it keeps its revision, times and index rows."""
    scope = tx.scope
    path = kind.path(stored.record)
    key = kind.prefix(scope) + keys.path(*path)
    root = keys.root(kind.owner(path))
    record = stored.record
    body = encode_body(scope, kind, record, record.revision, stored.created, stored.updated)
    wrapped = await wrapper.keep(tx, root, key, body, 2)
    await wrapper.drop(tx, root, stored.wrapped)
    told = await _keep_events(tx, root, key, events)
    now = max(to_micros(scope.clock.now()), stored.updated)
    entry = Entry("update", kind.name, kind.owner(path), path, stored.pointer, now, wrapped, told)
    index = tx.append(root, feed_prefix(scope), encode(scope, entry))
    tx.put(root, key, seal(key, HEAD.pack(0, index, stored.nonce) + wrapped))


async def remove(tx: Transaction, kind: Kind[T], before: Stored[T], *, events: Sequence[Any] = ()) -> None:
    """Remove a record with its indexes and counters; the deletion is in the feed."""
    scope = tx.scope
    path = kind.path(before.record)
    tail = keys.path(*path)
    root = keys.root(kind.owner(path))
    key = kind.prefix(scope) + tail
    told = await _keep_events(tx, root, key, events)
    now = max(to_micros(scope.clock.now()), before.updated)
    entry = Entry("delete", kind.name, kind.owner(path), path, before.pointer, now, None, told)
    tx.append(root, feed_prefix(scope), encode(scope, entry))
    tx.delete(root, key)
    await wrapper.drop(tx, root, before.wrapped)
    if kind.ended(before.record):
        await remember_end(tx, kind.letter + tail, root, before.updated, kept=False)
    _reindex(tx, kind, root, tail, before, None, 0)


async def _keep_events(tx: Transaction, root: str, key: bytes, events: Sequence[Any]) -> bytes | None:
    return await wrapper.keep(tx, root, key, tx.scope.codec.encode(list(events)), 1) if events else None


async def remember_end(tx: Transaction, tail: bytes, root: str, since: int, *, kept: bool) -> None:
    """Of a record that had ended: keep since when, as its time of change will not say so any more, or forget it."""
    key = tx.scope.key(keys.ENDED_SINCE, tail)
    row = await tx.get(root, key)
    if row is None and kept:
        tx.put(root, key, keys.number(since))
        tx.put(root, tx.scope.key(keys.ENDED, tail[:1] + keys.number(since) + tail[1:]), b"")
    elif row is not None and not kept:
        tx.delete(root, key)
        tx.delete(root, tx.scope.key(keys.ENDED, tail[:1] + row.value + tail[1:]))


def _reindex(
    tx: Transaction, kind: Kind[T], root: str, tail: bytes, before: Stored[T] | None, after: T | None, updated: int
) -> None:
    scope = tx.scope
    old = index_rows(scope, kind, before.record, tail, before.updated) if before is not None else {}
    new = index_rows(scope, kind, after, tail, updated) if after is not None else {}
    for key in old:
        if key not in new:
            tx.delete(root, key)
    for key, ordered in new.items():
        if ordered or key not in old:
            tx.put(root, key, b"")
    counts: dict[bytes, int] = {}
    for record, amount in ((before.record if before is not None else None, -1), (after, 1)):
        if record is not None:
            for counter in kind.counters(record):
                counts[counter] = counts.get(counter, 0) + amount
    for counter, amount in counts.items():
        if amount:
            tx.add(root, kind.counter(scope, counter), amount)
