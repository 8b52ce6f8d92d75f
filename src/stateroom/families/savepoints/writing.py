"""How a savepoint comes to be: whole, or as changes over the newest one."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from ... import arguments, keys
from ...core.contention import Attempts
from ...core.namespace import Reader, Scope
from ...core.transaction import Transaction
from ...core.turns import apart, is_large
from ...errors import Conflict, Damaged, InvalidArgument
from ...limits import NAME_BYTES
from ...records.kind import Stored
from ...records.reading import load
from ...records.saving import save
from ...values import objects, wrapper
from ...values.objects import Object
from .chunks import Entry, LayerWriter, Sink, id_hash, threshold
from .layers import REMOVED, Layer, encoded, merged, open_layers
from .record import (
    SAVEPOINTS,
    Mark,
    Run,
    SavepointRecord,
    find_run,
    get_run,
    layer_refs,
    manifest_ref,
    mark,
    newest,
    no_savepoint,
    touch_run,
)

R = TypeVar("R")
Finish = Callable[[Callable[[Transaction], Awaitable[R]]], Awaitable[R]]
LAYERS = 32
"""Layers over the lowest one, at most: each is some reads of a load."""

_SAMPLE = 1000
_ASCII = NAME_BYTES  # characters that surely fit, where all are ASCII


class Encoded(bytes):
    """A state that was encoded before."""


class _Moved(Exception):
    """The run's savepoints changed since they were looked at."""


def encode_all(scope: Scope, entities: Any, what: str = "entities") -> dict[str, bytes]:
    """Ids and encoded states of a mapping or of pairs. Raises `InvalidArgument`, naming the entity; also for an id that
    comes twice: one of its two states would be lost.
    """
    if isinstance(entities, str | bytes) or not isinstance(entities, Mapping | Iterable):
        raise InvalidArgument(f"{what} is a {type(entities).__name__}; give a mapping or pairs", what=what)
    encode = scope.codec.encode
    encoded_states: dict[str, bytes] = {}
    pair: Any = None
    repeated = False
    try:
        for pair in entities.items() if isinstance(entities, Mapping) else entities:
            id, state = pair
            if id in encoded_states:
                repeated = True
                break
            encoded_states[id] = state if type(state) is Encoded else encode(state)
    except InvalidArgument as error:
        path = f"$[{pair[0]!r}]{str(error.path or '$')[1:]}"
        message = f"the state of entity {pair[0]!r}: {error.message}"
        raise InvalidArgument(message, what=what, path=path) from error
    except (TypeError, ValueError) as error:
        if pair is None or (isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise
        raise InvalidArgument(f"{what} has {pair!r:.100}; give pairs of id and state", what=what) from error
    if repeated:
        raise InvalidArgument(f"{what} has {pair[0]!r} twice; give each entity once", what=what, value=pair[0])
    return plain_ids(encoded_states)


async def encode_apart(scope: Scope, entities: Any, what: str = "entities") -> dict[str, bytes]:
    """As `encode_all`; what is large is encoded in a thread, where there is an event loop to hold up."""
    # A generator is left alone: it is the caller's code, and belongs to the caller's thread.
    large = isinstance(entities, dict | list | tuple) and is_large(entities)
    return await apart(scope, large, encode_all, scope, entities, what)


def plain_ids(states: dict[str, bytes]) -> dict[str, bytes]:
    """States by ids that are checked and plain str. Raises `InvalidArgument` for an id that is no name."""
    if set(map(type, states)) <= {str}:
        _check_ids(states)
        return states
    plain = {arguments.name(id, "entity id"): state for id, state in states.items()}
    if len(plain) < len(states):  # two objects that differ, with the same text
        raise InvalidArgument("two entities have the same id as plain text; give each once", what="entities")
    return plain


def _check_ids(ids: Collection[str]) -> None:
    try:
        together = "".join(ids)
        # Each test takes all ids at once: one by one they would take longer than encoding the states.
        plain = together.isascii() and "\0" not in together and max(map(len, ids), default=1) <= _ASCII
        fine = plain and all(map(str.strip, ids))
    except TypeError:
        fine = False
    if not fine:
        for id in ids:
            arguments.name(id, "entity id")


async def _manifest(sink: Sink, run: str, timestamp: int, refs: list[bytes], count: int, size: int) -> SavepointRecord:
    item = manifest(sink.scope, refs)
    await sink.put(item)
    await sink.finish(item.ref)
    return described(run, timestamp, item, count, size)


def manifest(scope: Scope, refs: Iterable[bytes]) -> Object:
    """The object that names the layers of a savepoint."""
    return objects.node(scope, tuple(refs))


def described(run: str, timestamp: int, item: Object, count: int, size: int) -> SavepointRecord:
    content = wrapper.wrapper(len(item.content), item.ref)
    return SavepointRecord(run, timestamp, count=count, bytes=size, content=content)


async def put_record(tx: Transaction, run: Run, record: SavepointRecord, cut: int) -> SavepointRecord:
    """Write a savepoint's record, for which one reference on its manifest is held; gives up what it replaces."""
    before = await load(tx, SAVEPOINTS, (record.run, record.timestamp))
    saved = await save(tx, SAVEPOINTS, before, record)
    if before is not None:
        await objects.release(tx.at(record.run), {manifest_ref(before.record): 1})
    touch_run(tx, record.run, run, cut)
    return saved.record


async def save_whole(
    scope: Scope, reader: Reader, finish: Finish[SavepointRecord], run: str, timestamp: int, entities: Any
) -> SavepointRecord:
    """Save all entities of a run at a time. Raises `NotInitialized`, `InvalidArgument`."""
    cut = (await get_run(reader, run)).cut
    states = await encode_apart(scope, entities)
    if not cut and states:
        cut = threshold([len(state) + 16 for _, state in zip(range(_SAMPLE), states.values(), strict=False)])
    sink = Sink(scope, keys.root(run))
    writer = LayerWriter(sink, cut or 1)
    await writer.extend(sorted(states), states.__getitem__)
    layer = await writer.finish()
    del states
    await sink.put(layer)
    record = await _manifest(sink, run, timestamp, [layer.ref], writer.count, writer.bytes)

    async def body(tx: Transaction) -> SavepointRecord:
        head = await get_run(tx, run)
        await sink.settle(tx.at(run))
        return await put_record(tx, head, record, cut)

    return await finish(body)


async def save_changes(
    scope: Scope,
    reader: Reader,
    finish: Finish[SavepointRecord],
    run: str,
    timestamp: int,
    changed: Any,
    removed: Any,
) -> SavepointRecord:
    """Save what changed since the newest savepoint. Raises `NoSavepoint`, `InvalidArgument`."""
    entries: dict[str, Entry] = dict(await encode_apart(scope, changed, "changed"))
    removals = _removed(removed)
    both = entries.keys() & removals
    if both:
        raise InvalidArgument(f"changed and removed both have {min(both)!r}", what="removed", value=min(both))
    attempts = Attempts(scope)
    try:
        while True:
            point = await mark(reader.at(run), run)
            head = await find_run(reader, run)
            base = await newest(reader, run)
            if head is None or base is None:
                raise no_savepoint(run)
            if timestamp < base.record.timestamp:
                raise InvalidArgument(
                    f"an update at {timestamp} is before the newest savepoint, {base.record.timestamp}",
                    what="timestamp",
                    value=timestamp,
                )
            update = _Update(scope, reader, timestamp, head, point, base)
            try:
                await update.prepare(entries, removals)
                return await finish(update.finish)
            except _Moved as moved:
                cause: Exception = moved
            except Damaged as error:
                if not error.fields.get("missing") or not await update.is_over(scope.reader):
                    raise
                cause = error
            conflict = Conflict(f"the savepoints of run {run!r} changed meanwhile")
            if isinstance(reader, Transaction):
                raise conflict from cause
            await attempts.pause(keys.root(run), conflict)
    finally:
        attempts.end()


def _removed(removed: Any) -> set[str]:
    if isinstance(removed, str | bytes) or not isinstance(removed, Iterable):
        raise InvalidArgument(f"removed is {removed!r:.100}; give a collection of ids", what="removed")
    names: set[str] = set()
    for id in removed:
        names.add(arguments.name(id, "entity id"))
    return names


class _Update:
    """One attempt at an update: prepared over what was the newest savepoint, and finished if it still is."""

    def __init__(
        self, scope: Scope, reader: Reader, timestamp: int, head: Run, point: Mark, base: Stored[SavepointRecord]
    ) -> None:
        self._scope = scope
        self._reader = reader
        self._root = keys.root(base.record.run)
        self._head = head
        self._point = point
        self._base = base.record
        self._base_row = base.row
        self._record = msgspec.structs.replace(base.record, timestamp=timestamp)
        self._sink = Sink(scope, self._root)
        self._below: tuple[bytes, ...] = ()
        """Layers that are there, over which a new one goes."""
        self._new: bytes | None = None

    async def prepare(self, entries: Mapping[str, Entry], removals: set[str]) -> None:
        """Store what is new."""
        self._below = await layer_refs(self._reader, self._base)
        layers = await open_layers(self._reader.at(self._root), self._below)
        present = await _present(layers, sorted(entries.keys() | removals))
        changes: dict[str, Entry] = {**entries, **dict.fromkeys(removals & present)}
        if not changes:
            return
        size = sum(len(id) + len(entry or b"") + 16 for id, entry in changes.items())
        lowest, uppers = layers[0], layers[1:]
        if sum(layer.head.bytes for layer in uppers) + size > lowest.head.bytes // 4:
            await self._rewrite(layers, changes)
            return
        depth = _kept(uppers, size)
        if depth < len(uppers):
            changes = {**await _together(uppers[depth:]), **changes}
        writer = LayerWriter(self._sink, self._head.cut or 1)
        await writer.extend(sorted(changes), changes.__getitem__)
        await self._close(writer)
        self._below = self._below[: 1 + depth]
        count = self._base.count + len(entries.keys() - present) - len(removals & present)
        total = lowest.head.bytes + sum(layer.head.bytes for layer in uppers[:depth]) + writer.bytes
        self._record = msgspec.structs.replace(self._record, count=count, bytes=total)

    async def _rewrite(self, layers: list[Layer], changes: Mapping[str, Entry]) -> None:
        """All layers become one: what a load reads is at most a quarter more than it gives."""
        writer = LayerWriter(self._sink, self._head.cut or 1)
        last = [(id, REMOVED if entry is None else entry) for id, entry in sorted(changes.items())]
        async for ids, states in merged(layers, encoded, last):
            states_by_id = dict(zip(ids, states, strict=True))
            await writer.extend(ids, states_by_id.__getitem__)
        await self._close(writer)
        self._below = ()
        self._record = msgspec.structs.replace(self._record, count=writer.count, bytes=writer.bytes)

    async def _close(self, writer: LayerWriter) -> None:
        layer = await writer.finish()
        self._new = await self._sink.put(layer)
        await self._sink.finish(layer.ref)

    async def is_over(self, reader: Reader) -> bool:
        """Say whether its base is not the newest savepoint any more, or was replaced."""
        rows = reader.at(self._record.run)
        if await mark(rows, self._record.run) != self._point:
            return True
        base = await rows.get(self._base_row.key)
        return base is None or base.version != self._base_row.version

    async def finish(self, tx: Transaction) -> SavepointRecord:
        """Write the savepoint; raises `_Moved` where the run's savepoints have changed."""
        head = await find_run(tx, self._record.run)
        if head is None or await self.is_over(tx):
            raise _Moved
        if self._new is None:
            await objects.hold(tx.at(self._root), manifest_ref(self._base), 1)
            return await put_record(tx, head, self._record, 0)
        for ref in self._below:
            await objects.hold(tx.at(self._root), ref, 1)
        await self._sink.settle(tx.at(self._root))
        item = manifest(self._scope, (*self._below, self._new))
        await objects.store(tx.at(self._root), [item])
        fields = self._record
        record = described(fields.run, fields.timestamp, item, fields.count, fields.bytes)
        return await put_record(tx, head, record, 0)


async def _present(layers: list[Layer], ids: list[str]) -> set[str]:
    """Which of some sorted ids are in a savepoint."""
    present: set[str] = set()
    hashes = {id: int.from_bytes(id_hash(id), "big") for id in ids}
    for layer in reversed(layers):
        presence = await layer.presence_of(ids, hashes)
        present.update(id for id, is_present in presence.items() if is_present)
        ids = [id for id in ids if id not in presence]
    return present


def _kept(uppers: list[Layer], size: int) -> int:
    """How many upper layers stay as they are: where there are too many, small ones go into the new one."""
    if len(uppers) < LAYERS:
        return len(uppers)
    depth = len(uppers)
    while depth and (depth >= LAYERS - 1 or uppers[depth - 1].head.bytes <= 2 * size):
        depth -= 1
        size += uppers[depth].head.bytes
    return depth


async def _together(layers: list[Layer]) -> dict[str, Entry]:
    """The entries of some upper layers, later ones over earlier ones."""
    entries: dict[str, Entry] = {}
    for layer in layers:
        async for chunk in layer.each():
            entries.update(chunk.each())
            entries.update(dict.fromkeys(chunk.removed))
    return entries
