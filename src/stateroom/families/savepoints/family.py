"""Savepoints: consistent cuts of all entities of a run at a logical time.

An unchanged chunk is stored once, an update writes what changed, and every savepoint that was kept can be read, entity
by entity.
"""

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any, Generic

from ... import arguments, keys
from ...clock import to_micros
from ...core.namespace import Reader
from ...core.operation import Family, M, iteration, joining, operation, reading
from ...core.transaction import Transaction
from ...errors import Damaged, NotFound
from ...records.entry import NO_POINTER, Entry, encode, feed_prefix
from ...records.pages import BY_NAME, Page, check_limit, fingerprint, read_cursor, write_cursor
from ...records.reading import load
from ...records.saving import remove
from ...values import objects, uploads
from .chunks import decode_state
from .layers import REMOVED, merged, whole
from .record import (
    SAVEPOINTS,
    Run,
    SavepointRecord,
    count_key,
    find_run,
    layers_of,
    manifest_ref,
    newest,
    no_savepoint,
    run_key,
    timestamps,
    write_run,
)
from .record import runs as find_runs
from .schedule import Schedule, as_schedule
from .writing import save_changes, save_whole

_DELETED = 50
"""Savepoints removed in one batch: each gives up chunks."""


class Savepoint(Family[M], Generic[M]):
    """A savepoint that was found or written. Its entities are read when they are asked for.

    Reading raises `NoSavepoint` once it was deleted or replaced, `Damaged`, and `Undecodable` naming the entity. Two
    are equal when they are the same savepoint with the same content.
    """

    def __init__(self, face: M, record: SavepointRecord) -> None:
        self._face = face
        self._scope = face.scope
        self._record = record
        self.run = record.run
        """Its run."""
        self.timestamp = record.timestamp
        """Its time, in milliseconds."""
        self.count = record.count
        """How many entities it has."""
        self.bytes = record.bytes
        """Bytes of the chunks it is made of; it may share them with others."""

    def __repr__(self) -> str:
        return f"<Savepoint run={self.run!r} timestamp={self.timestamp} count={self.count} bytes={self.bytes}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Savepoint):
            return NotImplemented
        mine, its = self._record, other._record
        return (mine.run, mine.timestamp, mine.content) == (its.run, its.timestamp, its.content)

    def __hash__(self) -> int:
        return hash((self.run, self.timestamp, self._record.content))

    @iteration
    async def entities(self, tx: Reader, *, raw: bool = False) -> AsyncIterator[tuple[str, Any]]:
        """Iterate over ids and states, by id; holds some chunks at a time, whatever the savepoint has.

        `raw`: with a `codec.Raw` in place of each object whose type is not registered here.
        """
        try:
            codec = tx.scope.codec
            layers = await layers_of(tx, self._record)
            async for ids, states in merged(layers, lambda chunk: chunk.values(codec, raw=raw)):
                for pair in zip(ids, states, strict=True):
                    yield pair
        except Damaged as error:
            raise await self._gone(tx, error) from error

    @reading
    async def get(self, tx: Reader, entity_id: str, *, raw: bool = False) -> Any:
        """Return the state of one entity, read without the rest. Raises `NotFound`; `raw` as in `entities`."""
        entity_id = arguments.name(entity_id, "entity_id")
        try:
            for layer in reversed(await layers_of(tx, self._record)):
                state = await layer.find(entity_id)
                if state is REMOVED:
                    break
                if state is not None:
                    return decode_state(tx.scope.codec, entity_id, state, raw=raw)
        except Damaged as error:
            raise await self._gone(tx, error) from error
        raise missing_entity(self._record, entity_id)

    @reading
    async def to_dict(self, tx: Reader, *, raw: bool = False) -> dict[str, Any]:
        """Return all states by id; `raw` as in `entities`."""
        try:
            return await whole(await layers_of(tx, self._record), lambda chunk: chunk.values(tx.scope.codec, raw=raw))
        except Damaged as error:
            raise await self._gone(tx, error) from error

    async def _gone(self, tx: Reader, error: Damaged) -> Exception:
        """Return what to raise instead, where the savepoint is not there any more."""
        if error.fields.get("missing"):
            stored = await load(tx.scope.reader, SAVEPOINTS, (self.run, self.timestamp))
            if stored is None or manifest_ref(stored.record) != manifest_ref(self._record):
                return no_savepoint(self.run, f"has this savepoint ({self.timestamp}) no more: deleted or replaced")
        return error


def missing_entity(record: SavepointRecord, id: str) -> Exception:
    return NotFound(f"savepoint {record.run}/{record.timestamp} has no entity {id!r}", kind="entity", id=id)


class Savepoints(Family[M]):
    """``store.savepoints``: consistent cuts of runs."""

    @operation
    async def init(self, tx: Transaction, run: str, *, start: int = 0, schedule: Schedule | int | None = None) -> bool:
        """Initialise a run; False where it was already, and then nothing changes.

        `start`: its first time, `schedule`: when its savepoints are due, both in milliseconds. Raises
        `InvalidArgument`.
        """
        run = arguments.name(run, "run")
        start = arguments.number(start, "start")
        interval = as_schedule(schedule).every_ms
        if await find_run(tx, run) is not None:
            return False
        write_run(tx, run, Run(start, interval))
        return True

    @reading
    async def initialized(self, tx: Reader, run: str) -> bool:
        """Say whether a run was initialised."""
        run = arguments.name(run, "run")
        return await find_run(tx, run) is not None

    @joining
    async def save(
        self, run: str, timestamp: int, entities: Mapping[str, Any] | Iterable[tuple[str, Any]]
    ) -> Savepoint[M]:
        """Save all entities of a run at a time (milliseconds), in place of a savepoint that has this time.

        `entities`: ids (names) to states (any values), as a mapping or pairs. What a savepoint shares
        with one before is not stored again. Raises `NotInitialized`; `InvalidArgument`, also for an id that comes
        twice.
        """
        run = arguments.name(run, "run")
        timestamp = arguments.number(timestamp, "timestamp")
        record = await save_whole(self._scope, self._reader, self._finish, run, timestamp, entities)
        return Savepoint(self._face, record)

    @joining
    async def update(
        self,
        run: str,
        timestamp: int,
        *,
        changed: Mapping[str, Any] | Iterable[tuple[str, Any]] = {},
        removed: Collection[str] = (),
    ) -> Savepoint[M]:
        """Save the newest savepoint with some entities changed, added or removed; stores only these.

        Removed ids that are not there are ignored. Raises `NoSavepoint` where there is none, `InvalidArgument` for a
        time before the newest one's and for an id in both.
        """
        run = arguments.name(run, "run")
        timestamp = arguments.number(timestamp, "timestamp")
        record = await save_changes(self._scope, self._reader, self._finish, run, timestamp, changed, removed)
        return Savepoint(self._face, record)

    @reading
    async def latest(self, tx: Reader, run: str) -> Savepoint[M]:
        """Return the newest savepoint of a run. Raises `NoSavepoint`, also for a run that was never initialised."""
        run = arguments.name(run, "run")
        stored = await newest(tx, run)
        if stored is None:
            raise no_savepoint(run)
        return Savepoint(self._face, stored.record)

    @reading
    async def at(self, tx: Reader, run: str, timestamp: int) -> Savepoint[M]:
        """Return the newest savepoint at or before a time. Raises `NoSavepoint`."""
        run = arguments.name(run, "run")
        stored = await newest(tx, run, arguments.number(timestamp, "timestamp"))
        if stored is None:
            raise no_savepoint(run, f"has no savepoint at or before {timestamp}")
        return Savepoint(self._face, stored.record)

    @reading
    async def latest_timestamp(self, tx: Reader, run: str) -> int:
        """Return the time of the newest savepoint. Raises `NoSavepoint`."""
        run = arguments.name(run, "run")
        stored = await newest(tx, run)
        if stored is None:
            raise no_savepoint(run)
        return stored.record.timestamp

    @reading
    async def list(self, tx: Reader, run: str) -> tuple[int, ...]:
        """Return the times of a run's savepoints, ascending."""
        run = arguments.name(run, "run")
        return tuple(await timestamps(tx, run))

    @reading
    async def runs(self, tx: Reader, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> Page[str]:
        """Return the runs that were initialised and whose names begin with `prefix`, in order.

        Raises `InvalidArgument`.
        """
        begin = arguments.prefix(prefix, "prefix")
        check_limit(limit)
        query = fingerprint(tx.scope.prefix, "savepoints", "runs", begin)
        after = None if cursor is None else read_cursor(cursor, query, BY_NAME)
        names, _ = await find_runs(tx, begin, after, limit + 1)
        has_next = len(names) > limit
        last = keys.path(names[limit - 1]) if has_next else b""
        return Page(tuple(names[:limit]), write_cursor(query, last) if has_next else None)

    @joining
    async def keep(self, run: str, n: int) -> int:
        """Delete all but the `n` newest savepoints (1 or more) and what only they needed; gives how many went."""
        run = arguments.name(run, "run")
        n = arguments.number(n, "n", least=1)
        most = None if self._face.tx is not None else _DELETED
        deleted = 0
        while True:
            count = await self._finish(lambda tx: _delete_old(tx, run, n, most))
            deleted += count
            if count != most:
                break
        if deleted and self._face.tx is None:
            await uploads.free_removed(self._scope.reader.at(run))
        return deleted

    @joining
    async def delete_run(self, run: str) -> bool:
        """Forget a run with all its savepoints, which is one change; False where it was never initialised."""
        run = arguments.name(run, "run")
        deleted = await self._finish(lambda tx: _delete_run(tx, run))
        if deleted and self._face.tx is None:
            await uploads.free_removed(self._scope.reader.at(run))
        return deleted

    @property
    def _reader(self) -> Reader:
        return self._face.tx or self._scope.reader


async def _delete_old(tx: Transaction, run: str, n: int, most: int | None) -> int:
    if await find_run(tx, run) is None:
        return 0
    doomed = (await timestamps(tx, run))[:-n][:most]
    for timestamp in doomed:
        stored = await load(tx, SAVEPOINTS, (run, timestamp))
        if stored is not None:
            await remove(tx, SAVEPOINTS, stored)
            await SAVEPOINTS.release(tx, stored)
    return len(doomed)


async def _delete_run(tx: Transaction, run: str) -> bool:
    if await find_run(tx, run) is None:
        return False
    scope, rows = tx.scope, tx.at(run)
    manifests: Counter[bytes] = Counter()
    for timestamp in await timestamps(tx, run):
        stored = await load(tx, SAVEPOINTS, (run, timestamp))
        if stored is not None:
            manifests[manifest_ref(stored.record)] += 1
    start = SAVEPOINTS.prefix(scope) + keys.path(run)
    rows.clear(start, start + keys.END * 9)
    rows.delete(run_key(scope, run))
    counter = count_key(scope, run)
    rows.delete(counter)
    rows.add(counter, -rows.added(counter))
    if manifests:
        await objects.release(rows, manifests)
    now = to_micros(scope.clock.now())
    entry = Entry("delete", SAVEPOINTS.name, run, (run,), NO_POINTER, now, None, None)
    rows.append(feed_prefix(scope), encode(scope, entry))
    return True
