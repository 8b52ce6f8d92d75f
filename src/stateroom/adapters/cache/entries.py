"""Every operation on a cache, for both kinds of store; `face.store` may be an open transaction."""

import math
import os
import threading
from collections.abc import Sequence
from datetime import timedelta
from hashlib import blake2b
from typing import Any, NamedTuple

from stateroom import codec
from stateroom.errors import InvalidArgument, NotFound

from ..faces import Face
from ..names import stored_key

OVERHEAD = 256
"""Bytes an entry is counted for besides its value: key, times, index, its place in the feed."""
FULL = 0.875
"""Share of the size limit at which entries go: what other processes have not told yet fits into the rest."""
LEFT = 0.75
"""Share that is left then."""
TOLD = 64
"""A process tells what it has added after each of so many parts of the limit."""

_BATCH = 100
FIRST = 500_000_000_000_000
"""Number of a queue's first entry, as in diskcache."""


class Entry(NamedTuple):
    """An entry without its value."""

    id: str
    key: Any
    tag: Any
    size: int
    stored: Any
    expires: Any


def id_of(key: Any) -> str:
    """The name of a key; equal numbers share one. Raises `InvalidArgument` for what the codec does not know."""
    if isinstance(key, str):
        return "s" + stored_key(key, 200)
    if isinstance(key, bool | int | float):
        return f"n{int(key)}" if math.isfinite(key) and int(key) == key else f"n{key!r}"
    if isinstance(key, bytes):
        return "b" + stored_key(key.hex(), 200)
    return "o" + blake2b(codec.default.encode(key), digest_size=32).hexdigest()


def seconds_of(expire: Any) -> float | None:
    """Seconds an entry lives; None: for ever, 0 or less: it is not kept."""
    if expire is None:
        return None
    seconds = expire.total_seconds() if isinstance(expire, timedelta) else expire
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or math.isnan(seconds):
        raise InvalidArgument(f"expire is {expire!r}; use seconds, or a timedelta", what="expire", value=expire)
    return float(seconds)


class Entries:
    """The entries of one cache."""

    def __init__(self, name: str, size_limit: int | None, *, culls: bool = True) -> None:
        self.root = "cache:" + stored_key(name, 150)
        self.dag = self.root + "/entries"
        self._usage = self.root + "/usage"
        self._queues = self.root + "/queues"
        self.size_limit = size_limit
        self.culls = culls
        """Whether storing something makes entries go; else `cull` alone does."""
        self._added = 0
        self._lock = threading.Lock()

    # --- one entry

    async def find(self, face: Face, key: Any) -> Any:
        """The result that an entry is; None where there is none."""
        return await face.done(face.store.results.find(self.dag, id_of(key)))

    async def open(self, face: Face, key: Any) -> Any:
        """Bytes as a file. Raises `KeyError`."""
        try:
            return await face.done(face.store.results.open(self.dag, id_of(key)))
        except NotFound as error:
            raise KeyError(key) from error

    async def has(self, face: Face, key: Any) -> bool:
        """Say whether there is an entry."""
        return bool(await face.done(face.store.results.has(self.dag, id_of(key))))

    async def set(self, face: Face, key: Any, value: Any, expire: Any, tag: Any, read: bool = False) -> bool:
        """Store a value; with `read` it is a file, and its bytes are stored."""
        seconds, id = seconds_of(expire), id_of(key)
        if seconds is not None and seconds <= 0:
            await face.done(face.store.results.delete(self.dag, id))
            return True
        store = face.store.results.put_stream if read else face.store.results.put
        result = await face.done(store(self.dag, id, value, producer=tag, inputs=key, ttl=seconds))
        with self._lock:
            self._added += result.size + OVERHEAD
        return True

    async def add(self, face: Face, key: Any, value: Any, expire: Any, tag: Any, read: bool = False) -> bool:
        """Store a value where there is none; False where there is."""

        async def body(tx: Any) -> bool:
            inner = face.inside(tx)
            return not await self.has(inner, key) and await self.set(inner, key, value, expire, tag, read)

        return await face.transact(body)

    async def change(self, face: Face, key: Any, delta: Any, default: Any) -> Any:
        """Add to a number; where there is none, to `default`. Raises `KeyError` where that is None."""

        async def body(tx: Any) -> Any:
            inner = face.inside(tx)
            result = await self.find(inner, key)
            if result is None and default is None:
                raise KeyError(key)
            value = (default if result is None else result.value) + delta
            await self._replace(inner, key, value, result)
            return value

        return await face.transact(body)

    async def touch(self, face: Face, key: Any, expire: Any) -> bool:
        """Let an entry live so long from now; False where there is none."""
        seconds = seconds_of(expire)

        async def body(tx: Any) -> bool:
            inner = face.inside(tx)
            result = await self.find(inner, key)
            return result is not None and await self.set(inner, key, result.value, seconds, result.producer)

        return await face.transact(body)

    async def pop(self, face: Face, key: Any) -> Any:
        """Remove an entry, and give the result it was; None where there is none."""

        async def body(tx: Any) -> Any:
            inner = face.inside(tx)
            result = await self.find(inner, key)
            if result is not None:
                await self.delete(inner, key)
            return result

        return await face.transact(body)

    async def delete(self, face: Face, key: Any) -> bool:
        """Remove an entry; False where there is none."""
        return bool(await face.done(face.store.results.delete(self.dag, id_of(key))))

    async def _replace(self, face: Face, key: Any, value: Any, before: Any) -> None:
        """Store a value under the tag and until the time that were there."""
        if before is None:
            await self.set(face, key, value, None, None)
            return
        result = await face.done(
            face.store.results.put(self.dag, id_of(key), value, producer=before.producer, inputs=key)
        )
        if before.expires_at is not None:  # the first put has told the time by the store's clock
            await self.set(face, key, value, before.expires_at - result.updated_at, before.producer)

    # --- queues

    async def push(self, face: Face, value: Any, prefix: str | None, side: str, expire: Any, tag: Any) -> Any:
        """Add to an end of a queue; gives the key."""
        _check_side(side)

        async def body(tx: Any) -> Any:
            inner = face.inside(tx)
            front, end = await self._ends(inner, prefix)
            number = end if side == "back" else front - 1
            ends = (front, end + 1) if side == "back" else (front - 1, end)
            key = _queue_key(prefix, number)
            await self.set(inner, key, value, expire, tag)
            await face.done(tx.results.put(self._queues, id_of(prefix), list(ends)))
            return key

        return await face.transact(body)

    async def next(self, face: Face, prefix: str | None, side: str, remove: bool) -> tuple[Any, Any] | None:
        """The key and result at an end of a queue, perhaps removed; what has expired is passed over."""
        _check_side(side)

        async def body(tx: Any) -> Any:
            inner = face.inside(tx)
            front, end = await self._ends(inner, prefix)
            while front < end:
                key = _queue_key(prefix, front if side == "front" else end - 1)
                result = await self.find(inner, key)
                if result is None or remove:
                    front, end = (front + 1, end) if side == "front" else (front, end - 1)
                if result is not None:
                    if remove:
                        await self.delete(inner, key)
                        await face.done(tx.results.put(self._queues, id_of(prefix), [front, end]))
                    return key, result
            await face.done(tx.results.put(self._queues, id_of(prefix), [front, end]))
            return None

        return await face.transact(body)

    async def _ends(self, face: Face, prefix: str | None) -> tuple[int, int]:
        result = await face.done(face.store.results.find(self._queues, id_of(prefix)))
        return (FIRST, FIRST) if result is None else (result.value[0], result.value[1])

    # --- all entries

    async def count(self, face: Face) -> int:
        """How many entries there are."""
        return int(await face.done(face.store.results.count(self.dag)))

    async def every(self, face: Face) -> list[Entry]:
        """All entries that have not expired, in the order in which they first came."""
        rows: list[tuple[Any, Entry]] = []
        cursor: str | None = None
        while True:
            page = await face.done(face.store.results.query(dag=self.dag, limit=1000, cursor=cursor))
            for result in page:
                entry = Entry(
                    result.id, result.inputs, result.producer, result.size, result.updated_at, result.expires_at
                )
                rows.append((result.created_at, entry))
            cursor = page.cursor
            if cursor is None:
                rows.sort(key=lambda row: row[0])
                return [entry for _, entry in rows]

    async def evict(self, face: Face, tag: Any) -> int:
        """Remove the entries with a tag; gives how many."""
        return await self._remove(face, [entry for entry in await self.every(face) if entry.tag == tag])

    async def clear(self, face: Face) -> int:
        """Remove everything; gives how many entries that were."""
        removed = await face.done(face.store.results.clear(self.dag))
        await face.done(face.store.results.clear(self._queues))
        await face.done(face.store.results.clear(self._usage))
        with self._lock:
            self._added = 0
        return int(removed)

    async def expire(self, face: Face) -> int:
        """Remove what has expired; gives how many records that were, in the whole store."""
        removed = 0
        while True:
            run = await face.done(face.store.retention.run())
            removed += run.families.get("expired", 0)
            if run.complete:
                return removed

    async def _remove(self, face: Face, entries: Sequence[Entry]) -> int:
        removed = 0
        for at in range(0, len(entries), _BATCH):
            group = entries[at : at + _BATCH]

            async def body(tx: Any, group: Sequence[Entry] = group) -> int:
                return sum([await face.done(tx.results.delete(self.dag, entry.id)) for entry in group])

            removed += await face.transact(body)
        return removed

    # --- the size limit

    async def volume(self, face: Face) -> int:
        """Bytes of all entries, looked at one by one."""
        return sum(entry.size + OVERHEAD for entry in await self.every(face))

    async def settle(self, face: Face) -> None:
        """Once much was stored, tell the other processes, and let entries go where all of it is too much."""
        with self._lock:
            if self.size_limit is None or not self.culls or self._added * TOLD < self.size_limit:
                return
            added, self._added = self._added, 0
        id = f"{os.getpid()}"
        previous = await face.done(face.store.results.find(self._usage, id))
        await face.done(
            face.store.results.put(self._usage, id, added + (previous.value if previous is not None else 0))
        )
        usage = await face.done(face.store.results.query(dag=self._usage, limit=1000))
        if sum(result.value for result in usage) > self.size_limit * FULL:
            await self.cull(face)

    async def cull(self, face: Face) -> int:
        """Remove what was stored longest ago until three quarters of the limit are left; gives how many entries."""
        if self.size_limit is None:
            return 0
        entries = await self.every(face)
        total = sum(entry.size + OVERHEAD for entry in entries)
        doomed = []
        for entry in sorted(entries, key=lambda entry: entry.stored):
            if total <= self.size_limit * LEFT:
                break
            doomed.append(entry)
            total -= entry.size + OVERHEAD
        removed = await self._remove(face, doomed)
        await face.done(face.store.results.clear(self._usage))
        await face.done(face.store.results.put(self._usage, f"{os.getpid()}", total))
        return removed


def _check_side(side: str) -> None:
    if side not in ("front", "back"):
        raise InvalidArgument(f"side is {side!r}; use front or back", what="side", value=side)


def _queue_key(prefix: str | None, number: int) -> Any:
    return number if prefix is None else f"{prefix}-{number:015d}"
