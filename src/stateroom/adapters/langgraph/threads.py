"""LangGraph's threads as they are kept, and every operation on them, for both kinds of store.

A namespace's newest checkpoint is its *head*, one record with all that a run needs to go on; a checkpoint that another
has followed moves to the *past*. A put reads the head and replaces it in one transaction: so a writer whose parent is
not the head any more is refused, and readers see a thread whole or not at all.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from langgraph.checkpoint.base import CheckpointTuple, get_checkpoint_metadata

from ...errors import Conflict, Damaged, InvalidArgument, StaleRevision
from ..faces import Face
from . import names
from .names import Place, Superseded, config_of
from .record import (
    APART,
    DEFLATED,
    PLAIN,
    Apart,
    Base,
    Content,
    Kept,
    New,
    Packed,
    Packer,
    Write,
    apart_in,
    decode_content,
    decode_writes,
    dump,
    encode_content,
    index_of,
    inflate,
    load,
    merged,
    restored,
)

MACHINE = "langgraph"
"""The machine whose snapshots are the threads, by their key."""
VALUES = "langgraph.values"
"""The machine whose snapshots are the values that are kept apart."""

_EARLY = 100
"""Checkpoints that are waited for with their writes; a run has two or three."""
_AGAIN = 5
"""Times a read starts again where what it needs was pruned meanwhile."""


class Operations:
    """Every operation on threads; `serde` is LangGraph's serializer."""

    def __init__(self, serde: Any, apart: Apart) -> None:
        self.serde = serde
        self.apart = apart

    # --- writing

    async def put(
        self,
        face: Face,
        place: Place,
        checkpoint: Any,
        metadata: Any,
        new_versions: Mapping[str, Any],
        absent: bool = False,
    ) -> None:
        """Store a checkpoint after the one that `place` names; `absent`: the writer saw that there was none.

        Raises `StaleRevision` where another has followed that one.
        """
        id = str(checkpoint["id"])
        names.past_id(place.namespace, id)
        kept_metadata = self._metadata(metadata)
        source = metadata.get("source") if isinstance(metadata, Mapping) else None
        dag, key = names.heads(place.thread), names.head_id(place.namespace)

        async def body(tx: Any) -> dict[str, New]:
            row = await face.done(tx.results.find(dag, key))
            head = None if row is None else load(row.value)
            _check_order(place, id, source, head, absent)
            parent = head
            if head is not None and place.id != head.id:
                parent = await self._past(face, tx, place.thread, place.namespace, place.id)
            roots = await self._roots(face, tx, parent, new_versions)
            packer = Packer(self.serde, await self._base(face, tx, parent or head), roots)
            content = packer.content(checkpoint, new_versions, parent)
            stored = Kept(place.thread, place.namespace, id, place.id, kept_metadata, content)
            behind = head is not None and id < head.id and place.id != head.id
            before = await self._past(face, tx, place.thread, place.namespace, id) if behind else head
            if before is not None and before.id == id:
                stored = await self._with_writes(face, tx, stored, before, packer)
            stored = await self._with_early(face, tx, stored, head, packer)
            await self._store(face, tx, place.thread, packer.new)
            past = names.past(place.thread)
            if behind:
                stored = msgspec.structs.replace(stored, early={})  # they stay with the head
                await face.done(tx.results.put(past, names.past_id(place.namespace, id), dump(stored)))
                return packer.new
            if head is not None and row is not None and head.id != id:
                value = {name: item for name, item in row.value.items() if name != "early"}
                await face.done(tx.results.put(past, names.past_id(place.namespace, head.id), value))
            await face.done(tx.results.put(dag, key, dump(stored)))
            await self._save_thread(face, tx, stored, head, source)
            return packer.new

        self._remember(await face.transact(body))

    async def put_writes(
        self, face: Face, place: Place, writes: Sequence[tuple[str, Any]], task: str, path: str
    ) -> None:
        """Add a task's writes to a checkpoint, or keep them until it is there."""
        indexed = [(index_of(channel, number), channel, value) for number, (channel, value) in enumerate(writes)]
        await self.put_indexed(face, place, indexed, task, path)

    async def put_indexed(
        self, face: Face, place: Place, writes: Sequence[tuple[int, str, Any]], task: str, path: str
    ) -> None:
        """Add a task's writes whose indexes are given."""
        if place.id is None:
            raise InvalidArgument("the config of put_writes names no checkpoint_id", what="config")
        dag, id = names.heads(place.thread), place.id
        key = names.head_id(place.namespace)

        async def body(tx: Any) -> dict[str, New]:
            row = await face.done(tx.results.find(dag, key))
            head = None if row is None else load(row.value)
            if head is not None and head.id == id:
                where, at, stored = dag, key, head
            else:
                where, at = names.past(place.thread), names.past_id(place.namespace, id)
                past = await self._past(face, tx, place.thread, place.namespace, id)
                if past is None:
                    return await self._put_early(face, tx, place, head, (writes, task, path))
                stored = past
            roots = await self._roots(face, tx, stored, {channel for _, channel, _ in writes})
            packer = Packer(self.serde, await self._base(face, tx, stored), roots)
            content = packer.with_writes(stored.content, packer.writes(writes, task, path))
            if content is stored.content:
                return {}
            after = msgspec.structs.replace(stored, content=content)
            await self._store(face, tx, place.thread, packer.new)
            await face.done(tx.results.put(where, at, dump(after)))
            if at == key and not place.namespace and after.state != stored.state:
                await self.save_state(face, tx, after.thread, after)
            return packer.new

        self._remember(await face.transact(body))

    async def _put_early(
        self, face: Face, tx: Any, place: Place, head: Kept | None, call: tuple[Any, str, str]
    ) -> dict[str, New]:
        """Keep writes whose checkpoint is not there yet: with the head, or where there is none, by themselves."""
        assert place.id is not None
        dag, id = names.heads(place.thread), names.early_id(place.namespace)
        row = None if head is not None else await face.done(tx.results.find(dag, id))
        stored = head or (Kept(place.thread, place.namespace, place.id, None, {}) if row is None else load(row.value))
        packer = Packer(self.serde, None)
        before = decode_content(stored.early[place.id]) if place.id in stored.early else Content()
        content = packer.with_writes(before, packer.writes(*call))
        after = msgspec.structs.replace(stored, early={**stored.early, place.id: encode_content(content)})
        await self._store(face, tx, place.thread, packer.new)
        await face.done(tx.results.put(dag, id if head is None else names.head_id(place.namespace), dump(after)))
        return packer.new

    async def _with_early(self, face: Face, tx: Any, stored: Kept, head: Kept | None, packer: Packer) -> Kept:
        """A checkpoint with the writes that came before it; those of others stay with the head."""
        early = {} if head is None else dict(head.early)
        if head is None:
            dag, id = names.heads(stored.thread), names.early_id(stored.namespace)
            row = await face.done(tx.results.find(dag, id))
            if row is not None:
                early = dict(load(row.value).early)
                await face.done(tx.results.delete(dag, id))
        data = early.pop(stored.id, None)
        if data is not None:
            waiting = msgspec.structs.replace(stored, content=decode_content(data))
            stored = await self._with_writes(face, tx, stored, waiting, packer)
        latest = sorted(early)[-_EARLY:]  # what a run that died left behind does not stay for ever
        return msgspec.structs.replace(stored, early={id: early[id] for id in latest}) if latest else stored

    async def _with_writes(self, face: Face, tx: Any, stored: Kept, origin: Kept, packer: Packer) -> Kept:
        """A checkpoint with the writes that another record has; those deflated against another base are made plain."""
        moved = []
        for write in await self.writes(face, tx, origin):
            value = write.value
            if value[0] == DEFLATED and stored.content.base != origin.content.base:
                value = (PLAIN, value[1], await self._bytes(face, tx, origin, value))
            moved.append(msgspec.structs.replace(write, value=value))
        return msgspec.structs.replace(stored, content=packer.with_writes(stored.content, moved))

    async def writes(self, face: Face, reader: Any, stored: Kept) -> tuple[Write, ...]:
        """All writes of a checkpoint, in their order."""
        content = stored.content
        if not content.sealed:
            return content.writes
        groups = [decode_writes(await self._apart(face, reader, stored, digest)) for digest in content.sealed]
        return merged(*groups, content.writes)

    async def _save_thread(self, face: Face, tx: Any, stored: Kept, head: Kept | None, source: Any) -> None:
        """Let the thread's machine say what began: a run, an update, a fork, or going on after an interrupt."""
        if not stored.namespace:
            if head is None or source != "loop" or head.state != stored.state:
                await self.save_state(face, tx, stored.thread, stored)
        elif head is None and await face.done(tx.machines.find(MACHINE, names.thread_key(stored.thread))) is None:
            await self.save_state(face, tx, stored.thread, stored)

    async def save_state(self, face: Face, tx: Any, thread: str, stored: Kept) -> None:
        """Let a thread's machine say how its checkpoint is."""
        payload = {"thread_id": thread, "checkpoint_id": stored.id, "metadata": stored.metadata}
        await face.done(tx.machines.save(MACHINE, names.thread_key(thread), stored.state, payload))

    async def _store(self, face: Face, tx: Any, thread: str, new: Mapping[str, New]) -> None:
        """Keep values apart; one that is there is saved again, so that nobody who looked before takes it away."""
        for digest, value in new.items():
            await face.done(tx.machines.save(VALUES, names.value_name(thread, digest), value.what, value.stored))

    def _remember(self, new: Mapping[str, New]) -> None:
        for digest, value in new.items():
            self.apart.add(digest, value.data)

    def _metadata(self, metadata: Any) -> Any:
        """Metadata as the store keeps it: readable where it is plain."""
        plain = _plain(metadata)
        return {"serialized": list(self.serde.dumps_typed(metadata))} if plain is _NOT_PLAIN else plain

    # --- reading

    async def find(self, face: Face, reader: Any, place: Place) -> tuple[Kept, bool] | None:
        """The checkpoint at a place, by default the newest; with it whether another has followed."""
        row = await face.done(reader.results.find(names.heads(place.thread), names.head_id(place.namespace)))
        if row is None:
            return None
        head = load(row.value)
        if place.id is None or place.id == head.id:
            return head, False
        stored = await self._past(face, reader, place.thread, place.namespace, place.id)
        return None if stored is None else (stored, True)

    async def get_tuple(self, face: Face, place: Place) -> CheckpointTuple | None:
        """The tuple at a place; None where there is none."""
        for attempt in range(_AGAIN):
            located = await self.find(face, face.store, place)
            if located is None:
                return None
            try:
                return await self.tuple_of(face, *located)
            except Damaged:
                if attempt == _AGAIN - 1:
                    raise
        return None

    async def tuple_of(self, face: Face, stored: Kept, superseded: bool) -> CheckpointTuple:
        """A checkpoint as LangGraph takes it."""
        pending = await self.writes(face, face.store, stored)
        writes = [(write.task, write.channel, await self.value(face, stored, write.value)) for write in pending]
        id = Superseded(stored.id) if superseded else stored.id
        return CheckpointTuple(
            config_of(stored.thread, stored.namespace, id),
            await self.checkpoint(face, stored),
            self.metadata(stored),
            config_of(stored.thread, stored.namespace, stored.parent) if stored.parent else None,
            writes,
        )

    async def checkpoint(self, face: Face, stored: Kept) -> Any:
        """A checkpoint with the values of its channels."""
        checkpoint = await self.value(face, stored, stored.content.checkpoint)
        for channel, (_, type, digest, _) in stored.content.apart.items():
            data = await self._apart(face, face.store, stored, digest)
            checkpoint["channel_values"][channel] = self.serde.loads_typed((type, data))
        return checkpoint

    async def value(self, face: Face, stored: Kept, packed: Packed) -> Any:
        """A value that a checkpoint's record has or names."""
        return self.serde.loads_typed((packed[1], await self._bytes(face, face.store, stored, packed)))

    def metadata(self, stored: Kept) -> Any:
        """A checkpoint's metadata."""
        metadata = stored.metadata
        if set(metadata) == {"serialized"} and isinstance(metadata["serialized"], list):
            return self.serde.loads_typed(tuple(metadata["serialized"]))
        return metadata

    async def _bytes(self, face: Face, reader: Any, stored: Kept, packed: Packed) -> bytes:
        form, _, data = packed
        if form == APART:
            return await self._apart(face, reader, stored, data.decode().partition("/")[0])
        if form == DEFLATED:
            assert stored.content.base is not None
            deflated = stored.content.base.encode() + data
            inflated = self.apart.get(deflated)
            if inflated is None:
                inflated = inflate(data, await self._apart(face, reader, stored, stored.content.base))
                self.apart.add(deflated, inflated)
            return inflated
        return data

    async def _apart(self, face: Face, reader: Any, stored: Kept, digest: str) -> bytes:
        data = self.apart.get(digest)
        if data is None:
            snapshot = await face.done(reader.machines.find(VALUES, names.value_name(stored.thread, digest)))
            if snapshot is None:
                raise Damaged(
                    f"checkpoint {stored.id!r} of thread {stored.thread!r} lacks a value that is kept apart",
                    kind="langgraph",
                    id=stored.id,
                )
            data = snapshot.payload
            if not isinstance(data, bytes):
                data = restored(data, await self._apart(face, reader, stored, data["root"]))
            self.apart.add(digest, data)
        return data

    async def uses(self, face: Face, stored: Kept) -> set[str]:
        """Digests of all that is kept apart for a checkpoint."""
        digests = stored.uses()
        sealed = [*stored.content.sealed, *(d for data in stored.early.values() for d in decode_content(data).sealed)]
        for digest in sealed:
            digests |= apart_in(decode_writes(await self._apart(face, face.store, stored, digest)))
        return digests

    async def channels(self, face: Face, stored: Kept) -> set[str]:
        """The channels that a checkpoint has a value of."""
        return set(stored.content.apart) | set(
            (await self.value(face, stored, stored.content.checkpoint))["channel_values"]
        )

    async def past(self, face: Face, stored: Kept) -> Kept | None:
        """The parent of a checkpoint; None where it is gone, or there is none."""
        parent = await self.find(
            face, face.store, Place(config_of(stored.thread, stored.namespace, stored.parent or ""))
        )
        return None if parent is None or not stored.parent else parent[0]

    async def copy_value(self, face: Face, source: str, target: str, digest: str) -> None:
        """Copy a value that is kept apart to another thread."""
        snapshot = await face.done(face.store.machines.find(VALUES, names.value_name(source, digest)))
        if snapshot is None:
            raise Conflict(
                f"thread {source!r} was pruned while it was copied; copy it again", kind="langgraph", id=source
            )
        await face.done(
            face.store.machines.save(VALUES, names.value_name(target, digest), snapshot.state, snapshot.payload)
        )

    async def _roots(self, face: Face, reader: Any, stored: Kept | None, channels: Collection[str]) -> dict[str, Base]:
        """Return what new large values of some channels may be differences to."""
        roots = {}
        for channel, (_, _, digest, root) in ({} if stored is None else stored.content.apart).items():
            if stored is not None and channel in channels:
                roots[channel] = Base(root or digest, await self._apart(face, reader, stored, root or digest))
        return roots

    async def _base(self, face: Face, reader: Any, stored: Kept | None) -> Base | None:
        if stored is None or stored.content.base is None:
            return None
        root = stored.content.root
        above = None if root is None else Base(root, await self._apart(face, reader, stored, root))
        return Base(stored.content.base, await self._apart(face, reader, stored, stored.content.base), above)

    async def _past(self, face: Face, reader: Any, thread: str, namespace: str, id: str | None) -> Kept | None:
        if id is None:
            return None
        row = await face.done(reader.results.find(names.past(thread), names.past_id(namespace, id)))
        return None if row is None else load(row.value)


def _check_order(place: Place, id: str, source: Any, head: Kept | None, absent: bool) -> None:
    """Raise `StaleRevision` where a put would fork the thread, and its writer did not mean it to.

    A fork is meant where the parent was read when it was not the newest any more, or where the metadata says so.
    """
    if head is None or head.id == id or place.forks or source == "fork":
        return
    if place.id == head.id or (place.id is None and not absent):
        return
    position = "nothing" if place.id is None else f"checkpoint {place.id}"
    raise StaleRevision(
        f"thread {place.thread!r} went on to checkpoint {head.id}: this writer read {position}; read the thread again",
        kind="langgraph",
        id=place.thread,
        expected=place.id,
        actual=head.id,
    )


_NOT_PLAIN = object()


def _plain(value: Any) -> Any:
    """A value made of what JSON has, subclasses of str made plain; or `_NOT_PLAIN`."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        items = {key: _plain(item) for key, item in value.items()}
        plain = all(type(key) is str and item is not _NOT_PLAIN for key, item in items.items())
        return items if plain else _NOT_PLAIN
    if isinstance(value, list | tuple):
        values = [_plain(item) for item in value]
        return _NOT_PLAIN if any(item is _NOT_PLAIN for item in values) else values
    return _NOT_PLAIN


def metadata_of(config: Any, metadata: Any) -> Any:
    """Return what is stored as metadata: LangGraph's own rules for NUL and for what a config adds."""
    return get_checkpoint_metadata(config, metadata)
