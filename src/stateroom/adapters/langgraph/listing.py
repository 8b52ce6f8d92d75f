"""Threads and checkpoints, listed: what there is, newest first, and read in batches."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from langgraph.checkpoint.base import CheckpointTuple

from stateroom import Page

from ...errors import Damaged
from ..faces import Face
from . import names
from .names import Place, config_of
from .record import Kept, load
from .threads import MACHINE, Operations

BATCH = 100


class Thread(msgspec.Struct, frozen=True):
    """A thread: its newest checkpoint in the root namespace, and whether it waits for somebody."""

    thread_id: str
    state: str
    """``"active"``, or ``"interrupted"`` where it waits to be resumed."""
    checkpoint_id: str
    metadata: dict[str, Any]
    """That of the newest checkpoint."""
    created_at: datetime
    updated_at: datetime


class Entry(NamedTuple):
    """A checkpoint that is there, perhaps read already."""

    id: str
    thread: str
    stored_id: str
    head: Kept | None


async def heads_of(face: Face, reader: Any, thread: str, namespaces: Collection[str] | None = None) -> dict[str, Kept]:
    """The heads of a thread by the key of their namespace."""
    dag = names.heads(thread)
    if namespaces is None:
        namespaces = [id for id in await face.done(reader.results.ids(dag)) if not names.is_early(id)]
    heads = {}
    ordered = list(namespaces)
    for at in range(0, len(ordered), BATCH):
        values = await face.done(reader.results.gather(dag, ordered[at : at + BATCH]))
        heads.update({id: load(value) for id, value in values.items()})
    return heads


async def entries(face: Face, thread: str, namespace: str | None = None) -> list[Entry]:
    """All checkpoints of a thread, in any order; what has no head is not there."""
    only = None if namespace is None else [names.head_id(namespace)]
    heads = await heads_of(face, face.store, thread, only)
    if not heads:
        return []
    result = [Entry(head.id, thread, key, head) for key, head in heads.items()]
    for id in await face.done(face.store.results.ids(names.past(thread))):
        key, checkpoint = names.split_past(id)
        if key in heads and checkpoint != heads[key].id:
            result.append(Entry(checkpoint, thread, id, None))
    return result


async def kept(face: Face, items: Sequence[Entry]) -> list[tuple[Kept, bool]]:
    """Checkpoints with whether another has followed; what was removed meanwhile is left out."""
    read: dict[tuple[str, str], Kept] = {}
    threads: dict[str, list[str]] = {}
    for entry in items:
        if entry.head is None:
            threads.setdefault(entry.thread, []).append(entry.stored_id)
    for thread, ids in threads.items():
        for at in range(0, len(ids), BATCH):
            values = await face.done(face.store.results.gather(names.past(thread), ids[at : at + BATCH]))
            read.update({(thread, id): load(value) for id, value in values.items()})
    everything = []
    for entry in items:
        checkpoint = entry.head or read.get((entry.thread, entry.stored_id))
        if checkpoint is not None:
            everything.append((checkpoint, entry.head is None))
    return everything


async def thread_ids(face: Face) -> list[str]:
    """The ids of all threads."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = await face.done(face.store.machines.query(machine=MACHINE, limit=1000, cursor=cursor))
        ids += [snapshot.payload["thread_id"] for snapshot in page]
        cursor = page.cursor
        if cursor is None:
            return ids


class Listing:
    """Checkpoints that match, newest first: `start`, then `more` until it gives none."""

    def __init__(
        self,
        operations: Operations,
        config: Any,
        filter: Mapping[str, Any] | None,
        before: Any,
        limit: int | None,
    ) -> None:
        self._operations = operations
        self._place = None if config is None else Place(config)
        self._filter = {key: _without_nul(value) for key, value in (filter or {}).items()}
        self._before = None if before is None else (before.get("configurable") or {}).get("checkpoint_id")
        self._left = limit
        self._entries: Iterator[Entry] = iter(())

    async def start(self, face: Face) -> None:
        """Look at what is there."""
        place = self._place
        if place is None:
            listed = [entry for thread in await thread_ids(face) for entry in await entries(face, thread)]
        else:
            listed = await entries(face, place.thread, None if place.any_namespace else place.namespace)
            if place.id is not None:
                listed = [entry for entry in listed if entry.id == place.id]
        if self._before is not None:
            listed = [entry for entry in listed if entry.id < str(self._before)]
        self._entries = iter(sorted(listed, key=lambda entry: entry.id, reverse=True))

    async def more(self, face: Face) -> list[CheckpointTuple]:
        """The next tuples; none: that was all."""
        tuples: list[CheckpointTuple] = []
        while not tuples and (self._left is None or self._left > 0):
            size = BATCH if self._left is None or self._filter else min(BATCH, self._left)
            batch = [entry for entry, _ in zip(self._entries, range(size), strict=False)]
            if not batch:
                break
            for checkpoint, superseded in await kept(face, batch):
                if self._matches(checkpoint) and (self._left is None or len(tuples) < self._left):
                    item = await self._tuple(face, checkpoint, superseded)
                    tuples += [] if item is None else [item]
        if self._left is not None:
            self._left -= len(tuples)
        return tuples

    async def _tuple(self, face: Face, checkpoint: Kept, superseded: bool) -> CheckpointTuple | None:
        """A tuple; where its values were pruned after it was looked at, what there is of it now."""
        try:
            return await self._operations.tuple_of(face, checkpoint, superseded)
        except Damaged:
            place = Place(config_of(checkpoint.thread, checkpoint.namespace, checkpoint.id))
            return await self._operations.get_tuple(face, place)

    def _matches(self, checkpoint: Kept) -> bool:
        metadata = self._operations.metadata(checkpoint)
        return all(key in metadata and metadata[key] == value for key, value in self._filter.items())


def _without_nul(value: Any) -> Any:
    return value.replace("\0", "") if isinstance(value, str) else value


async def threads(
    face: Face,
    operations: Operations,
    filter: Mapping[str, Any] | None,
    state: str | None,
    limit: int,
    cursor: str | None,
) -> Page[Thread]:
    """A page of threads by id, those whose newest metadata has all of `filter`."""
    listed: list[Thread] = []
    while True:
        page = await face.done(
            face.store.machines.query(machine=MACHINE, state=state, limit=limit - len(listed), cursor=cursor)
        )
        for snapshot in page:
            thread = snapshot.payload["thread_id"]
            heads = await heads_of(face, face.store, thread, [names.head_id("")])
            head = next(iter(heads.values()), None)
            metadata = snapshot.payload["metadata"] if head is None else operations.metadata(head)
            if all(key in metadata and metadata[key] == value for key, value in (filter or {}).items()):
                id = snapshot.payload["checkpoint_id"] if head is None else head.id
                listed.append(Thread(thread, snapshot.state, id, metadata, snapshot.created_at, snapshot.updated_at))
        cursor = page.cursor
        if cursor is None or len(listed) >= limit:
            return Page(tuple(listed), cursor)
