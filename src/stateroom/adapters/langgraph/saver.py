"""`StateroomSaver`: LangGraph's checkpoints in a store, for graphs that block and graphs that are awaited."""

import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)

from stateroom import AsyncStore, Page, Store

from ..faces import Access
from . import listing, removal
from .importing import Imported, import_from
from .listing import Listing, Thread
from .names import Place, config_of
from .record import Apart
from .threads import Operations, metadata_of

_REMEMBERED = 10_000


class Absences:
    """How often a thread was looked for in vain: the put that follows must not come after somebody else's first."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def note(self, place: Place, absent: bool) -> None:
        """Note what a read of the newest checkpoint gave."""
        key = place.thread, place.namespace
        with self._lock:
            if not absent:
                self._counts.pop(key, None)
                return
            self._counts[key] = self._counts.get(key, 0) + 1
            while len(self._counts) > _REMEMBERED:
                del self._counts[next(iter(self._counts))]

    def use(self, place: Place) -> bool:
        """Say whether a read gave nothing and no put has followed."""
        key = place.thread, place.namespace
        with self._lock:
            count = self._counts.pop(key, 0)
            if count > 1:
                self._counts[key] = count - 1
            return count > 0


class StateroomSaver(BaseCheckpointSaver[Any]):
    """A LangGraph checkpointer over a url, a `Store` or an `AsyncStore`; plain methods and coroutines in one class.

    It differs from LangGraph's own in this: of two writers on one thread the stale one is refused (`StaleRevision`)
    instead of forking the thread unseen; `threads` lists what there is; `delete_for_runs`, `copy_thread` and `prune`
    are there; a value that did not change is stored once.
    """

    def __init__(
        self, store: "str | os.PathLike[str] | Store | AsyncStore | None" = None, *, serde: Any = None, **options: Any
    ) -> None:
        """Open `store` (with the `options` of `stateroom.open`), or use one that is open, which stays its owner's.

        `serde`: LangGraph's serializer, by default `JsonPlusSerializer`, which never pickles.
        """
        super().__init__(serde=serde)
        self._access = Access(store, **options)
        self._apart = Apart()
        self._absences = Absences()

    @classmethod
    @contextmanager
    def from_conn_string(cls, conn_string: str, **options: Any) -> Iterator[Self]:
        """A saver that is closed at the end, as LangGraph's own have it."""
        with cls(conn_string, **options) as saver:
            yield saver

    @classmethod
    @asynccontextmanager
    async def afrom_conn_string(cls, conn_string: str, **options: Any) -> AsyncIterator[Self]:
        """As `from_conn_string`, for ``async with``."""
        async with cls(conn_string, **options) as saver:
            yield saver

    def setup(self) -> None:
        """Do nothing: a store needs no set-up. Here for programs that call it on LangGraph's own."""

    def close(self) -> None:
        """Close what was opened here."""
        self._access.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    @property
    def _operations(self) -> Operations:
        return Operations(self.serde, self._apart)

    # --- reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that a config names, or the newest of its thread and namespace; None: there is none."""
        place = Place(config)
        return self._read(place, self._access.run(lambda face: self._operations.get_tuple(face, place)))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        place = Place(config)
        return self._read(place, await self._access.arun(lambda face: self._operations.get_tuple(face, place)))

    def _read(self, place: Place, read: CheckpointTuple | None) -> CheckpointTuple | None:
        if place.id is None or read is not None:
            self._absences.note(place, read is None)
        return read

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints newest first: of a thread (and namespace), or of all; those whose metadata has all of `filter`.

        They are read in batches, and nothing is locked between them.
        """
        lister = self._lister(config, filter, before, limit)
        self._access.run(lister.start)
        while tuples := self._access.run(lister.more):
            yield from tuples

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        lister = self._lister(config, filter, before, limit)
        await self._access.arun(lister.start)
        while tuples := await self._access.arun(lister.more):
            for item in tuples:
                yield item

    def _lister(self, config: Any, filter: Any, before: Any, limit: int | None) -> Listing:
        if config is not None:
            self._absences.note(Place(config), False)
        return Listing(self._operations, config, filter, before, limit)

    def threads(
        self,
        *,
        filter: Mapping[str, Any] | None = None,
        state: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Thread]:
        """A page of threads by id: those whose newest checkpoint's metadata has all of `filter`, those in a `state`."""
        return self._access.run(lambda face: listing.threads(face, self._operations, filter, state, limit, cursor))

    async def athreads(
        self,
        *,
        filter: Mapping[str, Any] | None = None,
        state: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Thread]:
        """As `threads`."""
        return await self._access.arun(
            lambda face: listing.threads(face, self._operations, filter, state, limit, cursor)
        )

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Each channel's writes by the checkpoint's ancestors since its last stored value, oldest first, and that.

        Raises `NotFound` where an ancestor is missing.
        """
        place = Place(config)
        return self._access.run(lambda face: removal.history(face, self._operations, place, channels))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `get_delta_channel_history`."""
        place = Place(config)
        return await self._access.arun(lambda face: removal.history(face, self._operations, place, channels))

    # --- writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint after the one that `config` names, and give its config.

        Raises `StaleRevision` where another checkpoint has followed that one meanwhile, unless it was read as a
        superseded one or `metadata["source"]` is ``"fork"``: then a fork is meant.
        """
        place, combined = Place(config), metadata_of(config, metadata)
        absent = self._absences.use(place)
        self._access.run(lambda face: self._operations.put(face, place, checkpoint, combined, new_versions, absent))
        return config_of(place.thread, place.namespace, checkpoint["id"])  # type: ignore[no-any-return]

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        place, combined = Place(config), metadata_of(config, metadata)
        absent = self._absences.use(place)
        await self._access.arun(
            lambda face: self._operations.put(face, place, checkpoint, combined, new_versions, absent)
        )
        return config_of(place.thread, place.namespace, checkpoint["id"])  # type: ignore[no-any-return]

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task wrote at a checkpoint. What is there stays; errors, interrupts and such are replaced."""
        place = Place(config)
        self._access.run(lambda face: self._operations.put_writes(face, place, writes, task_id, task_path))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        place = Place(config)
        await self._access.arun(lambda face: self._operations.put_writes(face, place, writes, task_id, task_path))

    # --- removing and copying

    def delete_thread(self, thread_id: str) -> None:
        """Remove a thread with all of its checkpoints, writes and values; one that is not there: nothing."""
        self._access.run(lambda face: removal.delete_thread(face, str(thread_id), self._operations))

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await self._access.arun(lambda face: removal.delete_thread(face, str(thread_id), self._operations))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints whose metadata names one of these runs; looks at every thread."""
        self._access.run(lambda face: removal.delete_for_runs(face, run_ids, self._operations))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await self._access.arun(lambda face: removal.delete_for_runs(face, run_ids, self._operations))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a whole thread. Raises `AlreadyExists` where the target has checkpoints, `NotFound` without a source."""
        source, target = str(source_thread_id), str(target_thread_id)
        self._access.run(lambda face: removal.copy_thread(face, source, target, self._operations))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        source, target = str(source_thread_id), str(target_thread_id)
        await self._access.arun(lambda face: removal.copy_thread(face, source, target, self._operations))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep of each namespace the newest checkpoint alone, or nothing (``"delete"``); every thread can go on.

        What a `DeltaChannel` is rebuilt from is kept. Raises `InvalidArgument` for another strategy.
        """
        self._access.run(lambda face: removal.prune(face, thread_ids, strategy, self._operations))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `prune`."""
        await self._access.arun(lambda face: removal.prune(face, thread_ids, strategy, self._operations))

    def import_from(self, url: str) -> Imported:
        """Take over a database of LangGraph's SQLite or PostgreSQL saver, and compare every tuple.

        It may be called again after it was interrupted. Raises `AlreadyExists` where a checkpoint is here that differs.
        """
        return self._access.run(lambda face: import_from(face, self._operations, url))

    async def aimport_from(self, url: str) -> Imported:
        """As `import_from`."""
        return await self._access.arun(lambda face: import_from(face, self._operations, url))

    def get_next_version(self, current: Any, channel: None) -> Any:
        """The version after `current`: numbers count up; the text versions of an imported thread go on as they are."""
        if isinstance(current, str):
            number, _, tail = current.partition(".")
            return f"{int(number) + 1:0{len(number)}}.{tail or '0'}"
        return 1 if current is None else current + 1
