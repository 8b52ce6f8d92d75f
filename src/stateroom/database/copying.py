"""From one database to another, whatever their engines and numbers of parts, and the proof that nothing changed.

Records, their index rows and counters are written anew; the feed is appended in its order with its pointers rewritten;
everything else hangs on a name that says its part, and is copied as it is, sealed values included. So values that
cannot be decoded here are copied too. Checkpoints are mapped to a position from which a consumer may see changes again
and misses none.
"""

import contextlib
from collections.abc import AsyncIterator, Iterable
from hashlib import blake2b
from typing import Any

import msgspec

from .. import keys
from ..clock import to_micros
from ..codec import unseal
from ..core.namespace import Scope
from ..core.transaction import PENDING
from ..engine import Batch, Row
from ..errors import AlreadyExists, Conflict, Damaged, StoreError
from ..families.leases import record as leases
from ..feed import positions
from ..feed.feed import before_of, floor_key, floors, place_in
from ..feed.positions import BEGINNING, Vector
from ..keys import OnCopy
from ..limits import BATCH_BYTES
from ..records.entry import NO_POINTER, Entry, decode, encode, feed_prefix
from ..records.kind import KINDS, Kind, owner_of, wrapper_in
from ..records.layout import index_rows, moved_row, row_body
from ..records.reading import open_row
from ..values import wrapper
from ..watch.checkpoints import Checkpoint, all_checkpoints, checkpoint_row
from .breathing import breathe
from .keyrings import copy_key_rows
from .namespaces import delete_namespace, namespaces

_RUN = 500
_BATCH = BATCH_BYTES // 4


class Copied(msgspec.Struct):
    """The account of a copy."""

    namespaces: int = 0
    records: int = 0
    changes: int = 0
    rows: int = 0
    bytes: int = 0


class _Writer:
    """Collects rows for each part of the target and writes them in batches."""

    def __init__(self, scope: Scope, copied: Copied) -> None:
        self._scope = scope
        self._copied = copied
        self._rows: dict[int, dict[bytes, bytes | None]] = {}
        self._adds: dict[int, dict[bytes, int]] = {}
        self._sizes: dict[int, int] = {}

    async def put(self, part: int, key: bytes, value: bytes) -> None:
        self._rows.setdefault(part, {})[key] = value
        self._copied.rows += 1
        self._copied.bytes += len(key) + len(value)
        await self._grow(part, len(key) + len(value))

    async def add(self, part: int, key: bytes, amount: int) -> None:
        counters = self._adds.setdefault(part, {})
        counters[key] = counters.get(key, 0) + amount
        await self._grow(part, len(key) + 8)

    async def _grow(self, part: int, size: int) -> None:
        self._sizes[part] = self._sizes.get(part, 0) + size
        if self._sizes[part] > _BATCH or len(self._rows.get(part, ())) + len(self._adds.get(part, ())) >= 4000:
            await self._flush(part)

    async def _flush(self, part: int) -> None:
        self._sizes[part] = 0
        rows, adds = self._rows.pop(part, {}), self._adds.pop(part, {})
        if rows or adds:
            await self._scope.engine.commit(part, Batch(write=rows, add=adds))

    async def finish(self) -> None:
        for part in {*self._rows, *self._adds}:
            await self._flush(part)


async def rows_of(scope: Scope, part: int, start: bytes, stop: bytes | None = None) -> AsyncIterator[Row]:
    """All rows under a prefix, or of a range, in one part."""
    stop = start + keys.END if stop is None else stop
    while True:
        rows = await scope.engine.scan(part, start, stop, limit=_RUN)
        for row in rows:
            yield row
        await breathe(scope)
        if len(rows) < _RUN:
            return
        start = rows[-1].key + b"\0"


_COPYING = b"\x00copying"  # no namespace is blank, so no record has this key


async def copy_database(source: Scope, target: Scope, *, verify: bool) -> Copied:
    """Copy every namespace into an empty database, which is empty again where that fails.

    Raises `AlreadyExists` when the target holds something, `Conflict` when somebody wrote to the source meanwhile,
    `Damaged` when a record is damaged or (with `verify`) when the two differ afterwards.
    """
    (interrupted,) = await target.engine.read(0, [_COPYING])
    if interrupted is None and await namespaces(target):
        raise AlreadyExists("the target is not empty; copy into a new database", kind="database")
    await _empty(target)  # of a copy that was interrupted
    await target.engine.commit(0, Batch(write={_COPYING: b""}))
    try:
        copied = await _copy_all(source, target, verify)
        await copy_key_rows(source.engine, target.engine)
        await target.engine.commit(0, Batch(write={_COPYING: None}))
    except BaseException:
        with contextlib.suppress(StoreError):  # what remains is taken away by the next copy
            await _empty(target)
        raise
    return copied


async def _empty(target: Scope) -> None:
    for name in await namespaces(target):
        await delete_namespace(target.sibling(name))
    if (await target.engine.read(0, [_COPYING]))[0] is not None:
        await target.engine.commit(0, Batch(write={_COPYING: None}))


async def _copy_all(source: Scope, target: Scope, verify: bool) -> Copied:
    before = await positions.versions(source.reader)
    copied = Copied()
    tokens = [0]
    for name in await namespaces(source):
        await _copy_namespace(source.sibling(name), target.sibling(name), copied)
        tokens += [await leases.highest_token(source.sibling(name), part) for part in range(source.parts)]
        copied.namespaces += 1
    # A lease that is taken from the source after this has a lower token than any of the copy, in every namespace.
    floor = leases.write_mark(leases.FLOOR, max(*tokens, to_micros(source.clock.now())))
    for part in range(target.parts):
        await target.engine.commit(part, Batch(write={leases.FLOOR: floor}))
    if await positions.versions(source.reader) != before:
        raise Conflict("the source changed while it was copied; stop its writers, or copy from a backup")
    if verify:
        for name in await namespaces(source):
            first, second = await digest(source.sibling(name)), await digest(target.sibling(name))
            if first != second:
                raise Damaged(f"namespace {name!r} differs after the copy: {_difference(first, second)}", kind="copy")
    return copied


def _difference(first: dict[str, str], second: dict[str, str]) -> str:
    return ", ".join(sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key)))


async def _copy_namespace(source: Scope, target: Scope, copied: Copied) -> None:
    first = {floor_key(target): _floor(await floors(source.reader))}
    for part in range(target.parts):  # version 1: everything that is copied comes after it
        await target.engine.commit(part, Batch(write=first))
    pointers, marks = await _copy_feed(source, target, copied)
    writer = _Writer(target, copied)
    for kind in KINDS.values():
        await _copy_records(source, target, kind, pointers, writer, copied)
    await _copy_rows(source, target, writer)
    for mark in marks:
        checkpoint = mark.checkpoint
        position = BEGINNING if checkpoint.position == BEGINNING else await positions.write(target, mark.vector)
        moved = msgspec.structs.replace(checkpoint, position=position)
        await writer.put(target.part(keys.root(checkpoint.name)), *checkpoint_row(target, moved))
    await writer.finish()


def _floor(low: Vector) -> bytes:
    """Nothing was pruned: the start; else the first version, before which a consumer has missed something."""
    return bytes(10) if all(at == (0, 0) for at in low) else (1).to_bytes(8, "big") + bytes(2)


Pointers = dict[tuple[str, tuple[str | int, ...]], tuple[int, int]]


class _Mark:
    """A checkpoint, and how far its consumer has certainly come in the target."""

    def __init__(self, checkpoint: Checkpoint, old: Vector, parts: int) -> None:
        self.checkpoint = checkpoint
        self._old = old
        self.vector: Vector = [(1, 0)] * parts
        self._blocked = [False] * parts

    def saw(self, source: int, at: tuple[int, int], target: int, now: tuple[int, int]) -> None:
        """An entry stood at `at` and stands at `now`: the first that the consumer has not seen stops its part."""
        if at > self._old[source]:
            self._blocked[target] = True
        elif not self._blocked[target]:
            self.vector[target] = now


async def _marks(source: Scope, target: Scope) -> list[_Mark]:
    low = await floors(source.reader)
    marks = []
    for checkpoint in await all_checkpoints(source.reader):
        if checkpoint.position == BEGINNING:
            old = positions.beginning(source)
        else:
            old = await positions.read(source, checkpoint.position)
        mark = _Mark(checkpoint, old, target.parts)
        if any(at < floor for at, floor in zip(old, low, strict=True)):
            mark.vector = positions.beginning(target)  # compacted there, and so here
            mark._blocked = [True] * target.parts
        marks.append(mark)
    return marks


async def _copy_feed(source: Scope, target: Scope, copied: Copied) -> tuple[Pointers, list[_Mark]]:
    """Append every entry to its part in the target; gives where each record's last entry now stands."""
    pointers: Pointers = {}
    marks = await _marks(source, target)
    for part in range(source.parts):
        run: dict[int, list[tuple[tuple[int, int], Entry]]] = {}
        size = 0
        async for row in rows_of(source, part, feed_prefix(source)):
            entry = decode(source, row.value)
            target_part = target.part(keys.root(entry.id))
            run.setdefault(target_part, []).append((place_in(row.key), entry))
            size += len(row.value)
            if size > _BATCH or sum(map(len, run.values())) >= _RUN:
                await _append(source, target, part, run, pointers, marks)
                run, size = {}, 0
            copied.changes += 1
        await _append(source, target, part, run, pointers, marks)
    return pointers, marks


async def _append(
    source: Scope,
    target: Scope,
    part: int,
    run: dict[int, list[tuple[tuple[int, int], Entry]]],
    pointers: Pointers,
    marks: list[_Mark],
) -> None:
    for target_part, entries in run.items():
        appended: list[tuple[bytes, bytes]] = []
        pending: Pointers = {}
        for at, entry in entries:
            name = (entry.family, entry.path)
            first = before_of(at, entry) is None
            pointer = NO_POINTER if first else pending.get(name, pointers.get(name, NO_POINTER))
            for wrapped in entry.wrappers:
                await wrapper.transplant(source.reader.at(entry.id), target, wrapped)
            moved = entry._replace(before=pointer)
            pending[name] = (PENDING, len(appended))
            appended.append((feed_prefix(target), encode(target, moved)))
        version = await target.engine.commit(target_part, Batch(append=appended))
        for index, (at, entry) in enumerate(entries):
            pointers[entry.family, entry.path] = (version, index)
            for mark in marks:
                mark.saw(part, at, target_part, (version, index))


async def _copy_records(
    source: Scope, target: Scope, kind: Kind[Any], pointers: Pointers, writer: _Writer, copied: Copied
) -> None:
    prefix = kind.prefix(source)
    for part in range(source.parts):
        async for row in rows_of(source, part, prefix):
            tail = row.key[len(prefix) :]
            path = keys.parse(tail, kind.shape)
            rows = source.reader.at(kind.owner(path))
            target_part = target.part(rows.root)
            await wrapper.transplant(rows, target, row_body(row))
            await writer.put(target_part, row.key, moved_row(row, pointers.get((kind.name, path), NO_POINTER)))
            stored = await open_row(source.reader, kind, path, row.key, row, raw=True)
            for stored_form in kind.held(stored.record):
                await wrapper.transplant(rows, target, stored_form)
            for key in index_rows(target, kind, stored.record, tail, stored.updated):
                await writer.put(target_part, key, b"")
            for counter in kind.counters(stored.record):
                await writer.add(target_part, kind.counter(target, counter), 1)
            copied.records += 1


async def _copy_rows(source: Scope, target: Scope, writer: _Writer) -> None:
    """Every row that is copied as it is."""
    cut = len(source.prefix)
    for part in range(source.parts):
        async for row in rows_of(source, part, source.prefix):
            suffix = row.key[cut:]
            tag = keys.row_tag(suffix)
            on_copy = OnCopy.AS_IS if tag is None else keys.ROWS[tag].on_copy
            if on_copy is OnCopy.REBUILT:
                continue
            if on_copy is OnCopy.EVERY_PART:
                for target_part in range(target.parts) if part == 0 else ():
                    await writer.put(target_part, row.key, row.value)
                continue
            rows = source.reader.at(owner_of(suffix))
            wrapped = wrapper_in(source, row)
            if wrapped is not None:
                await wrapper.transplant(rows, target, wrapped)
            await writer.put(target.part(rows.root), row.key, row.value)


def _is_copied_as_it_is(suffix: bytes) -> bool:
    tag = keys.row_tag(suffix)
    return tag is not None and keys.ROWS[tag].on_copy is OnCopy.AS_IS


async def digest(scope: Scope) -> dict[str, str]:
    """Return what a namespace holds as a digest for each kind of row, the same however it is spread over parts."""
    sums: dict[str, int] = {}

    def count(what: str, *data: bytes) -> None:
        hashed = blake2b(digest_size=16)
        for field in data:
            hashed.update(len(field).to_bytes(8, "big") + field)
        sums[what] = (sums.get(what, 0) + int.from_bytes(hashed.digest(), "big")) % (1 << 128)

    cut = len(scope.prefix)
    order: dict[str, int] = {}
    for part in range(scope.parts):
        async for row in rows_of(scope, part, scope.prefix):
            suffix = row.key[cut:]
            if suffix.startswith(keys.RECORD):
                unseal(row.key, row.value)
                count(f"records {suffix[1:2].decode()}", row.key, row_body(row))
            elif suffix.startswith(keys.FEED):
                entry = decode(scope, row.value)
                root = keys.root(entry.id)
                order[root] = order.get(root, 0) + 1
                what = msgspec.msgpack.encode([*entry[:4], entry.at, entry.wrapped, entry.events, order[root]])
                count("feed", what)
            elif suffix.startswith(keys.INDEX) or _is_copied_as_it_is(suffix):
                count(f"rows {suffix[:1].decode()}", row.key, row.value)
            elif suffix.startswith(keys.COUNTER):
                sums[row.key.hex()] = sums.get(row.key.hex(), 0) + int.from_bytes(row.value, "big", signed=True)
    return {what: str(value) for what, value in sums.items() if value}


def lines(copied: Copied) -> Iterable[str]:
    """Return what a copy moved, for people."""
    yield f"{copied.namespaces} namespaces, {copied.records} records, {copied.changes} changes, {copied.bytes} bytes"
