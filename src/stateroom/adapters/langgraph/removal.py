"""Taking away checkpoints, runs and threads, copying threads, and what nothing refers to any more."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from langgraph.checkpoint.base import DeltaChannelHistory

from ...errors import AlreadyExists, InvalidArgument, NotFound
from ..faces import Face
from . import names
from .listing import BATCH, Entry, entries, heads_of, kept, thread_ids
from .record import Kept, dump
from .threads import MACHINE, VALUES, Operations


async def delete_thread(face: Face, thread: str, operations: Operations) -> None:
    """Remove all of a thread; nothing is seen of it from the first commit on."""
    uses = set[str]()
    for checkpoint, _ in await kept(face, await entries(face, thread)):
        uses |= await operations.uses(face, checkpoint)
    revisions = await _revisions(face, thread, uses)

    async def body(tx: Any) -> None:
        await face.done(tx.results.clear(names.heads(thread)))
        await face.done(tx.machines.purge(MACHINE, names.thread_key(thread)))

    await face.transact(body)
    await face.done(face.store.results.clear(names.past(thread)))
    await _purge_values(face, thread, revisions)


async def delete_for_runs(face: Face, runs: Collection[str], operations: Operations) -> None:
    """Remove the checkpoints that some runs made; a namespace goes on from the newest that is left."""
    chosen = {str(run) for run in runs}
    for thread in await thread_ids(face) if chosen else []:
        doomed = []
        for entry in await entries(face, thread):
            for checkpoint, _ in await kept(face, [entry]):
                if operations.metadata(checkpoint).get("run_id") in chosen:
                    doomed.append((entry, checkpoint))
        if doomed:
            await _remove(
                face, thread, [entry for entry, _ in doomed], [checkpoint for _, checkpoint in doomed], operations
            )


async def prune(face: Face, threads: Sequence[str], strategy: str, operations: Operations) -> None:
    """Keep of each namespace its newest checkpoint, and what a `DeltaChannel` of it is rebuilt from."""
    if strategy not in ("keep_latest", "delete"):
        raise InvalidArgument(f"strategy is {strategy!r}; use keep_latest or delete", what="strategy", value=strategy)
    for thread in map(str, threads):
        if strategy == "delete":
            await delete_thread(face, thread, operations)
            continue
        listed = await entries(face, thread)
        lineage: set[tuple[str, str]] = set()
        for entry in listed:
            if entry.head is not None:
                lineage |= {(entry.head.namespace, id) for id in await _lineage(face, entry.head, operations)}
        past = [entry for entry in listed if entry.head is None]
        doomed = [
            (entry, checkpoint)
            for at in range(0, len(past), BATCH)
            for entry, checkpoint in await _paired(face, past[at : at + BATCH])
            if (checkpoint.namespace, checkpoint.id) not in lineage
        ]
        await _remove(
            face, thread, [entry for entry, _ in doomed], [checkpoint for _, checkpoint in doomed], operations
        )


async def _paired(face: Face, listed: Sequence[Entry]) -> list[tuple[Entry, Kept]]:
    pairs = []
    for entry in listed:
        for checkpoint, _ in await kept(face, [entry]):
            pairs.append((entry, checkpoint))
    return pairs


async def _lineage(face: Face, head: Kept, operations: Operations) -> set[str]:
    """A head, and its ancestors up to the snapshot of every delta channel that is not one itself."""
    ids = {head.id}
    missing = set(operations.metadata(head).get("counters_since_delta_snapshot") or ())
    at: Kept | None = head
    while at is not None and (missing := missing - await operations.channels(face, at)) and at.parent:
        at = await operations.past(face, at)
        if at is not None:
            ids.add(at.id)
    return ids


async def _remove(
    face: Face, thread: str, listed: Sequence[Entry], checkpoints: Sequence[Kept], operations: Operations
) -> None:
    """Remove checkpoints of a thread, and what nothing else of it refers to."""
    uses = set[str]()
    for checkpoint in checkpoints:
        uses |= await operations.uses(face, checkpoint)
    revisions = await _revisions(face, thread, uses)
    past = [entry.stored_id for entry in listed if entry.head is None]
    for at in range(0, len(past), BATCH):
        group = past[at : at + BATCH]

        async def body(tx: Any, group: Sequence[str] = group) -> None:
            for id in group:
                await face.done(tx.results.delete(names.past(thread), id))

        await face.transact(body)
    for entry in listed:
        if entry.head is not None:
            await _remove_head(face, thread, entry.stored_id, entry.head)
    if not await heads_of(face, face.store, thread):
        await delete_thread(face, thread, operations)
    await _purge_values(
        face, thread, {d: r for d, r in revisions.items() if d not in await _used(face, thread, operations)}
    )


async def _remove_head(face: Face, thread: str, key: str, head: Kept) -> None:
    """Remove a head, and let the newest checkpoint before it take its place."""
    remaining = [
        entry
        for entry in await entries(face, thread)
        if entry.head is None and names.split_past(entry.stored_id)[0] == key
    ]
    newest = max(remaining, key=lambda entry: entry.id, default=None)

    async def body(tx: Any) -> None:
        dag = names.heads(thread)
        row = await face.done(tx.results.find(dag, key))
        if row is None or row.value["checkpoint_id"] != head.id:
            return
        before = None if newest is None else await face.done(tx.results.find(names.past(thread), newest.stored_id))
        if newest is None or before is None:
            await face.done(tx.results.delete(dag, key))
            return
        await face.done(tx.results.put(dag, key, before.value))
        await face.done(tx.results.delete(names.past(thread), newest.stored_id))

    await face.transact(body)


async def _used(face: Face, thread: str, operations: Operations) -> set[str]:
    uses: set[str] = set()
    listed = await entries(face, thread)
    for at in range(0, len(listed), BATCH):
        for checkpoint, _ in await kept(face, listed[at : at + BATCH]):
            uses |= await operations.uses(face, checkpoint)
    return uses


async def _revisions(face: Face, thread: str, digests: Iterable[str]) -> dict[str, int]:
    """The revisions of values that are kept apart: whoever needs one that was there has saved it again since."""
    revisions = {}
    for digest in digests:
        snapshot = await face.done(face.store.machines.find(VALUES, names.value_name(thread, digest)))
        if snapshot is not None:
            revisions[digest] = snapshot.revision
    return revisions


async def _purge_values(face: Face, thread: str, revisions: dict[str, int]) -> None:
    ordered = list(revisions)
    for at in range(0, len(ordered), BATCH // 10):
        group = ordered[at : at + BATCH // 10]

        async def body(tx: Any, group: Sequence[str] = group) -> None:
            for digest in group:
                name = names.value_name(thread, digest)
                snapshot = await face.done(tx.machines.find(VALUES, name))
                if snapshot is not None and snapshot.revision == revisions[digest]:
                    await face.done(tx.machines.purge(VALUES, name))

        await face.transact(body)


async def copy_thread(face: Face, source: str, target: str, operations: Operations) -> None:
    """Copy every checkpoint, write and value of a thread under another id; it is there when all of it is.

    Raises `AlreadyExists` where the target has checkpoints, `NotFound` where the source has none.
    """
    if await heads_of(face, face.store, target):
        raise AlreadyExists(f"thread {target!r} has checkpoints already", kind="langgraph", id=target)
    listed = await entries(face, source)
    if not listed:
        raise NotFound(f"no thread {source!r} to copy", kind="langgraph", id=source)
    copied: set[str] = set()
    heads: list[Kept] = []
    for at in range(0, len(listed), BATCH // 10):
        group = await kept(face, listed[at : at + BATCH // 10])
        for checkpoint, superseded in group:
            for digest in await operations.uses(face, checkpoint) - copied:
                await operations.copy_value(face, source, target, digest)
                copied.add(digest)
            if not superseded:
                heads.append(checkpoint)
        await _put_past(face, target, [checkpoint for checkpoint, superseded in group if superseded])

    async def body(tx: Any) -> None:
        for head in heads:
            value = {**dump(head), "thread_id": target}
            await face.done(tx.results.put(names.heads(target), names.head_id(head.namespace), value))
        snapshot = await face.done(tx.machines.find(MACHINE, names.thread_key(target)))
        if snapshot is None:
            root = next((head for head in heads if not head.namespace), heads[0])
            await operations.save_state(face, tx, target, root)

    await face.transact(body)


async def _put_past(face: Face, target: str, checkpoints: Sequence[Kept]) -> None:
    async def body(tx: Any) -> None:
        for checkpoint in checkpoints:
            value = {**dump(checkpoint), "thread_id": target}
            id = names.past_id(checkpoint.namespace, checkpoint.id)
            await face.done(tx.results.put(names.past(target), id, value))

    await face.transact(body)


async def history(
    face: Face, operations: Operations, place: names.Place, channels: Sequence[str]
) -> Mapping[str, DeltaChannelHistory]:
    """Return what `get_delta_channel_history` gives: each channel's writes since its last stored value, and that value.

    Raises `NotFound` where an ancestor is missing: a state without its writes would be wrong, and nobody would notice.
    """
    writes: dict[str, list[Any]] = {channel: [] for channel in channels}
    seeds: dict[str, Any] = {}
    located = await operations.find(face, face.store, place) if channels else None
    at = None if located is None else located[0]
    while at is not None and at.parent and len(seeds) < len(writes):
        child, at = at, await operations.past(face, at)
        if at is None:
            lost = ", ".join(sorted(set(writes) - set(seeds)))
            raise NotFound(
                f"checkpoint {child.parent} of thread {child.thread!r} is gone; without it {lost} cannot be rebuilt",
                kind="langgraph",
                id=child.parent,
            )
        for write in reversed(await operations.writes(face, face.store, at)):
            if write.channel in writes and write.channel not in seeds:
                value = await operations.value(face, at, write.value)
                writes[write.channel].append((write.task, write.channel, value))
        values = (await operations.checkpoint(face, at))["channel_values"]
        seeds.update({channel: values[channel] for channel in writes if channel in values and channel not in seeds})
    histories: dict[str, DeltaChannelHistory] = {}
    for channel, collected in writes.items():
        histories[channel] = {"writes": collected[::-1]}
        if channel in seeds:
            histories[channel]["seed"] = seeds[channel]
    return histories
