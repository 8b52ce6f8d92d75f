"""What is kept of LangGraph's threads, and every operation on it, for both kinds of store.

A namespace's newest checkpoint is its *head*, one record with all that a run needs to go on; a checkpoint that another
has followed moves to the *past*. A put reads the head and replaces it in one transaction: so a writer whose parent is
not the head any more is refused, and readers see a thread whole or not at all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from langgraph.checkpoint.base import CheckpointTuple, get_checkpoint_metadata

from ...errors import Conflict, Damaged, InvalidArgument, StaleRevision
from ..faces import Face
from . import names
from .names import Place, Superseded, config_of
from .record import APART, DEFLATED, PLAIN, Apart, Kept, Packed, Packer, Write, dump, index_of, inflate, load, merged

MACHINE = "langgraph"
"""The machine whose snapshots are the threads, by their key."""
VALUES = "langgraph.values"
"""The machine whose snapshots are the values that are kept apart."""

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
        early = names.early_id(place.namespace, id)

        async def body(tx: Any) -> dict[str, tuple[str, bytes]]:
            rows = await face.done(tx.results.gather(dag, [key, early]))
            head = load(rows[key]) if key in rows else None
            _check_order(place, id, source, head, absent)
            behind = head is not None and id < head.id and place.id != head.id
            parent, before = head, head
            if head is not None and place.id != head.id:
                parent = await self._past(face, tx, place.thread, place.namespace, place.id)
            if behind:
                before = await self._past(face, tx, place.thread, place.namespace, id)
            origin = parent or head
            packer = Packer(self.serde, await self._base(face, tx, origin))
            packed, apart = packer.checkpoint(checkpoint, new_versions, parent)
            kept = Kept(place.thread, place.namespace, id, place.id, kept_metadata, packed, apart)
            if packed[0] == DEFLATED and packer.base is not None:
                kept = msgspec.structs.replace(kept, base=packer.base[0])
            if before is not None and before.id == id:
                kept = await self._with_writes(face, tx, kept, before, before.writes)
            if early in rows:
                waiting = load(rows[early])
                kept = await self._with_writes(face, tx, kept, waiting, waiting.writes)
                await face.done(tx.results.delete(dag, early))
            await self._store(face, tx, place.thread, packer.new)
            if behind:
                await face.done(
                    tx.results.put(names.past(place.thread), names.past_id(place.namespace, id), dump(kept))
                )
                return packer.new
            if head is not None and head.id != id:
                await face.done(
                    tx.results.put(names.past(place.thread), names.past_id(place.namespace, head.id), rows[key])
                )
            await face.done(tx.results.put(dag, key, dump(kept)))
            await self._save_thread(face, tx, kept, head, source)
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
        key, early = names.head_id(place.namespace), names.early_id(place.namespace, id)

        async def body(tx: Any) -> dict[str, tuple[str, bytes]]:
            where, at = dag, key
            value = await face.done(tx.results.find(dag, key))
            kept = None if value is None else load(value.value)
            if kept is None or kept.id != id:
                where, at = names.past(place.thread), names.past_id(place.namespace, id)
                value = await face.done(tx.results.find(where, at))
                if value is None:
                    where, at = dag, early
                    value = await face.done(tx.results.find(where, at))
                kept = Kept(place.thread, place.namespace, id, None, {}) if value is None else load(value.value)
            packer = Packer(self.serde, await self._base(face, tx, kept))
            more = [Write(path, task, index, channel, packer.write(value)) for index, channel, value in writes]
            after = msgspec.structs.replace(kept, writes=merged(kept.writes, more))
            if after == kept:
                return {}
            await self._store(face, tx, place.thread, packer.new)
            await face.done(tx.results.put(where, at, dump(after)))
            if at == key and not place.namespace and after.state != kept.state:
                await self.save_state(face, tx, after.thread, after)
            return packer.new

        self._remember(await face.transact(body))

    async def _with_writes(self, face: Face, tx: Any, kept: Kept, origin: Kept, writes: Sequence[Write]) -> Kept:
        """A checkpoint with writes that another record has; those deflated against another base are made plain."""
        moved = []
        for write in writes:
            value = write.value
            if value[0] == DEFLATED and kept.base != origin.base:
                value = (PLAIN, value[1], await self._bytes(face, tx, origin, value))
            moved.append(msgspec.structs.replace(write, value=value))
        return msgspec.structs.replace(kept, writes=merged(kept.writes, moved))

    async def _save_thread(self, face: Face, tx: Any, kept: Kept, head: Kept | None, source: Any) -> None:
        """Let the thread's machine say what began: a run, an update, a fork, or going on after an interrupt."""
        if not kept.namespace:
            if head is None or source != "loop" or head.state != kept.state:
                await self.save_state(face, tx, kept.thread, kept)
        elif head is None and await face.done(tx.machines.find(MACHINE, names.thread_key(kept.thread))) is None:
            await self.save_state(face, tx, kept.thread, kept)

    async def save_state(self, face: Face, tx: Any, thread: str, kept: Kept) -> None:
        """Let a thread's machine say how its checkpoint is."""
        payload = {"thread_id": thread, "checkpoint_id": kept.id, "metadata": kept.metadata}
        await face.done(tx.machines.save(MACHINE, names.thread_key(thread), kept.state, payload))

    async def _store(self, face: Face, tx: Any, thread: str, new: Mapping[str, tuple[str, bytes]]) -> None:
        """Keep values apart; one that is there is saved again, so that nobody who looked before takes it away."""
        for digest, (what, data) in new.items():
            await face.done(tx.machines.save(VALUES, names.value_name(thread, digest), what, data))

    def _remember(self, new: Mapping[str, tuple[str, bytes]]) -> None:
        for digest, (_, data) in new.items():
            self.apart.add(digest, data)

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
        kept = await self._past(face, reader, place.thread, place.namespace, place.id)
        return None if kept is None else (kept, True)

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

    async def tuple_of(self, face: Face, kept: Kept, superseded: bool) -> CheckpointTuple:
        """A checkpoint as LangGraph takes it."""
        writes = [(write.task, write.channel, await self.value(face, kept, write.value)) for write in kept.writes]
        id = Superseded(kept.id) if superseded else kept.id
        return CheckpointTuple(
            config_of(kept.thread, kept.namespace, id),
            await self.checkpoint(face, kept),
            self.metadata(kept),
            config_of(kept.thread, kept.namespace, kept.parent) if kept.parent else None,
            writes,
        )

    async def checkpoint(self, face: Face, kept: Kept) -> Any:
        """A checkpoint with the values of its channels."""
        checkpoint = await self.value(face, kept, kept.checkpoint)
        for channel, (_, type, digest) in kept.apart.items():
            data = await self._apart(face, face.store, kept, digest)
            checkpoint["channel_values"][channel] = self.serde.loads_typed((type, data))
        return checkpoint

    async def value(self, face: Face, kept: Kept, packed: Packed) -> Any:
        """A value that a checkpoint's record has or names."""
        return self.serde.loads_typed((packed[1], await self._bytes(face, face.store, kept, packed)))

    def metadata(self, kept: Kept) -> Any:
        """A checkpoint's metadata."""
        metadata = kept.metadata
        if set(metadata) == {"serialized"} and isinstance(metadata["serialized"], list):
            return self.serde.loads_typed(tuple(metadata["serialized"]))
        return metadata

    async def _bytes(self, face: Face, reader: Any, kept: Kept, packed: Packed) -> bytes:
        form, _, data = packed
        if form == APART:
            return await self._apart(face, reader, kept, data.decode())
        if form == DEFLATED:
            assert kept.base is not None
            return inflate(data, await self._apart(face, reader, kept, kept.base))
        return data

    async def _apart(self, face: Face, reader: Any, kept: Kept, digest: str) -> bytes:
        data = self.apart.get(digest)
        if data is None:
            snapshot = await face.done(reader.machines.find(VALUES, names.value_name(kept.thread, digest)))
            if snapshot is None:
                raise Damaged(
                    f"checkpoint {kept.id!r} of thread {kept.thread!r} lacks a value that is kept apart",
                    kind="langgraph",
                    id=kept.id,
                )
            data = bytes(snapshot.payload)
            self.apart.add(digest, data)
        return data

    async def channels(self, face: Face, kept: Kept) -> set[str]:
        """The channels that a checkpoint has a value of."""
        return set(kept.apart) | set((await self.value(face, kept, kept.checkpoint))["channel_values"])

    async def past(self, face: Face, kept: Kept) -> Kept | None:
        """The parent of a checkpoint; None where it is gone, or there is none."""
        parent = await self.find(face, face.store, Place(config_of(kept.thread, kept.namespace, kept.parent or "")))
        return None if parent is None or not kept.parent else parent[0]

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

    async def _base(self, face: Face, reader: Any, kept: Kept | None) -> tuple[str, bytes] | None:
        if kept is None or kept.base is None:
            return None
        return kept.base, await self._apart(face, reader, kept, kept.base)

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
    seen = "nothing" if place.id is None else f"checkpoint {place.id}"
    raise StaleRevision(
        f"thread {place.thread!r} went on to checkpoint {head.id}: this writer read {seen}; read the thread again",
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
        every = [_plain(item) for item in value]
        return _NOT_PLAIN if any(item is _NOT_PLAIN for item in every) else every
    return _NOT_PLAIN


def metadata_of(config: Any, metadata: Any) -> Any:
    """What is stored as metadata: LangGraph's own rules for NUL and for what a config adds."""
    return get_checkpoint_metadata(config, metadata)
