"""The two front doors: `Store` blocks, `AsyncStore` is awaited; both do the same on any engine."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection
from enum import StrEnum
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from .. import arguments
from ..clock import Clock
from ..codec import Codec
from ..core.bridge import Inline, bridged, run_now
from ..core.namespace import Scope
from ..core.operation import Blocking, Family, M, Suspending, procedure
from ..core.transaction import Transaction
from ..database.backup import backup
from ..database.check import Progress, check
from ..database.exporting import export, import_
from ..database.namespaces import delete_namespace, namespaces
from ..database.rekey import Rekeyed, rekey
from ..database.stats import Stats, stats
from ..engine import AsyncEngine, Compacting, Engine
from ..errors import AlreadyExists, Closed
from ..families.leases import Lease
from ..families.sweeping import sweep
from ..feed import positions
from ..feed.feed import Change
from ..feed.positions import BEGINNING
from ..limits import NAMESPACE_BYTES
from ..records.audit import Problem
from ..records.entry import ChangeOp
from ..watch.loop import Loop
from ..watch.options import OnError, WatchOptions
from ..watch.watcher import AsyncWatcher, Watcher
from . import transactions
from .families import Families
from .transactions import BlockingTransaction, OpenTransaction, SuspendingTransaction

R = TypeVar("R")


class _Gone:
    """Stands where the engine was, once a store is closed."""

    def __init__(self, parts: int) -> None:
        self.parts = parts

    def __getattr__(self, name: str) -> Any:
        raise Closed("this store is closed; open it again")


W = TypeVar("W", bound=Watcher | AsyncWatcher)


class _Base(Families[M], Family[M], Generic[M, W]):
    """The part that both front doors share: each method is written once, and is a coroutine function on
    `AsyncStore`.
    """

    _watcher: Callable[[Loop], W]

    def __init__(self, face: M, url: str, *, owner: bool) -> None:
        self._face = face
        self._scope = face.scope
        self._owner = owner
        self._closed = False
        self._watchers: dict[str, W] = {}
        self.url = url
        """What was opened, with any password left out."""

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<{type(self).__name__} {self.url!r} namespace={self._scope.namespace!r}{state}>"

    def watch(
        self,
        name: str,
        handler: Callable[[Change], object],
        *,
        families: Collection[str] | None = None,
        ops: Collection[ChangeOp | StrEnum] | None = None,
        start: str = BEGINNING,
        batch: int = 100,
        on_error: OnError = "block",
        max_retries: int = 3,
        backoff: tuple[float, float] = (0.2, 180),
        ephemeral: bool = False,
        checkpoint_every: int = 1,
    ) -> W:
        """A watcher, not started: `handler` is called with every change that matches, at least once, in order.

        A stored checkpoint of this name beats `start`. After an error: "block" tries for ever, "skip" 1 + `max_retries`
        times and then leaves a dead letter, with pauses from the first to the second number of seconds of `backoff`.
        `checkpoint_every`: changes between checkpoints; 0: only by `.checkpoint()`. `ephemeral`: no checkpoint, no
        lease. Otherwise one watcher of a name is active at a time, over all processes.
        Raises `AlreadyExists` when the name is live in this store, `InvalidArgument`.
        """
        self._check_open()
        name = arguments.name(name, "name")
        options = WatchOptions(
            families=families, ops=ops, start=start, batch=batch, on_error=on_error, max_retries=max_retries,
            backoff=backoff, ephemeral=ephemeral, checkpoint_every=checkpoint_every,
        )  # fmt: skip
        watcher = self._watcher(Loop(self._scope, name, handler, options))
        if name in self._watchers and self._watchers[name].live:
            raise AlreadyExists(f"watcher {name!r} is live in this store; stop it first", kind="watchers", id=name)
        self._watchers[name] = watcher
        return watcher

    def watchers(self) -> tuple[W, ...]:
        """The watchers that were made here and are not stopped."""
        return tuple(watcher for watcher in self._watchers.values() if watcher.live)

    @procedure
    async def check(self, *, progress: Progress | None = None) -> list[Problem]:
        """Every disagreement of indexes, counters, dependents and feed with the records; none: empty.

        Others may write meanwhile. Values that cannot be rebuilt in this process are listed as "undecodable"; nothing
        is wrong with them. It holds some records at a time, however many there are. `progress(what, rows)` is called
        as it goes on, with what is looked at and how many rows have been.
        """
        self._check_open()
        return await check(self._scope, progress)

    @procedure
    async def stats(self) -> Stats:
        """Return what the namespace holds, from counters: the same cost however much there is."""
        self._check_open()
        return await stats(self._scope)

    @procedure
    async def ping(self) -> None:
        """Ask the database for an answer, from each part. Raises `Unavailable` where there is none."""
        self._check_open()
        await positions.versions(self._scope.reader)

    @procedure
    async def namespaces(self) -> tuple[str, ...]:
        """Every namespace that holds something, in order; the cost grows with their number, not with what they hold."""
        self._check_open()
        return tuple(await namespaces(self._scope))

    @procedure
    async def delete_namespace(self, name: str) -> int:
        """Remove everything of a namespace, also this one's, and give how many records there were.

        It goes in steps of at most 1,000 rows, so that no writer waits long. One that was interrupted is ended by
        calling this again. What is written there meanwhile may go or stay: let its users stop first.
        """
        self._check_open()
        return await delete_namespace(self._scope.sibling(arguments.name(name, "name", NAMESPACE_BYTES)))

    @procedure
    async def rekey(self) -> Rekeyed:
        """Encrypt everything, in every namespace, under the key ring's current key, while others read and write."""
        self._check_open()
        return await rekey(self._scope)

    @procedure
    async def backup(self, path: "str | os.PathLike[str]") -> None:
        """Write the whole database, every namespace, to a new SQLite file while others go on.

        Raises `InvalidArgument` where there is something at `path` already.
        """
        self._check_open()
        await backup(self._scope, path)

    @procedure
    async def export(
        self,
        path: "str | os.PathLike[str]",
        format: str = "jsonl",
        *,
        families: Collection[str] | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Write this namespace's records to a new file; gives how many items. `format`: jsonl, parquet, sqlite.

        Definitions, instances, executions with their events, machines with their history, results, savepoints and
        timers, or only some `families`. Each item has its record as JSON, and what `import_` needs to write it again as
        it was, under a digest. `progress` is told how many are done. The file is not encrypted. Raises
        `InvalidArgument` where there is something at `path`.
        """
        self._check_open()
        return await export(self._scope, path, format, families, progress)

    @procedure
    async def import_(
        self,
        path: "str | os.PathLike[str]",
        *,
        families: Collection[str] | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Write what a file of `export` holds into this namespace; gives how many items were not there before.

        Records come back equal, with revision and times; what is there and equal is left alone, so an import that was
        interrupted is run again. The whole file is checked before anything is written. Raises `NotFound`, `Damaged`,
        and `AlreadyExists` for a record that is there and is another.
        """
        self._check_open()
        return await import_(self._scope, path, families, progress)

    @procedure
    async def compact(self) -> int:
        """Empty what deletions left behind and give free space back to the disk; gives the bytes the file shrank by."""
        self._check_open()
        await sweep(self._scope)
        engine = self._scope.direct
        if not isinstance(engine, Compacting):
            return 0
        return await asyncio.to_thread(engine.compact) if self._scope.suspends else engine.compact()

    def _shut(self) -> AsyncEngine | None:
        """Close this door; gives the engine if it is ours to close."""
        if self._closed:
            return None
        self._closed = True
        engine: AsyncEngine = self._scope.engine
        closed: Any = _Gone(self._scope.parts)
        self._scope.leave(closed)
        return engine if self._owner else None

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("this store is closed; open it again")


class Store(_Base[Blocking, Watcher]):
    """A store whose calls block. Thread-safe and fork-safe; a context manager. Made by `stateroom.open`."""

    _watcher = Watcher

    def __init__(
        self, engine: Engine, url: str, *, namespace: str, codec: Codec, clock: Clock, owner: bool = True
    ) -> None:
        super().__init__(Blocking(Scope(Inline(engine), engine, namespace, codec, clock)), url, owner=owner)
        self._engine = engine

    def namespace(self, name: str) -> "Store":
        """The same database for another tenant, fully isolated. Raises `InvalidArgument`."""
        self._check_open()
        scope = self._scope
        return Store(self._engine, self.url, namespace=name, codec=scope.codec, clock=scope.clock, owner=False)

    def transaction(  # pyright: ignore[reportIncompatibleMethodOverride] - a transaction has none of its own
        self, *, lease: Lease | None = None, any_root: bool = False
    ) -> BlockingTransaction:
        """All or nothing at exit; an exception discards everything; raises `Conflict` where others came first.

        `lease`: commits only while its token is current (`LostLease`). `any_root`: more than one root, on an embedded
        store only (`InvalidArgument`).
        """
        self._check_open()
        return BlockingTransaction(self._scope, lease, any_root)

    def transact(
        self, function: Callable[[OpenTransaction[Blocking]], R], *, tries: int = 20, once: str | None = None
    ) -> R:
        """Run a function in a transaction, again after each `Conflict` up to `tries` times; so it must be pure.

        `once`: an idempotency key in the root that it changes; done before, the stored return value comes back and
        nothing is done. With a key that has that root ("order-17/charge" for "order-17") the function is not called
        again; with another key it is called up to its first read or write.
        """
        self._check_open()
        transactions.check_function(function)

        async def body(tx: Transaction) -> R:
            return function(OpenTransaction(Blocking(self._scope, tx), tx, None))

        return run_now(transactions.transact(self._scope, body, tries, once))

    def close(self) -> None:
        """Close the store; a second call does nothing; later calls raise `Closed`."""
        for watcher in () if self._closed else self.watchers():
            watcher.stop()
        if not self._closed:
            self.retention.stop()
        engine = self._shut()
        if engine is not None:
            run_now(engine.close())

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncStore(_Base[Suspending, AsyncWatcher]):
    """A store whose calls are awaited. Made by `stateroom.open_async`, or over an open `Store`."""

    _watcher = AsyncWatcher

    def __init__(
        self,
        engine: AsyncEngine,
        direct: Engine | None,
        url: str,
        *,
        namespace: str,
        codec: Codec,
        clock: Clock,
        owner: bool = True,
    ) -> None:
        scope = Scope(engine, direct, namespace, codec, clock)
        scope.suspends = True
        super().__init__(Suspending(scope), url, owner=owner)

    @classmethod
    def over(cls, store: Store) -> "AsyncStore":
        """The same database for an event loop; `store` goes on owning the engine."""
        store._check_open()
        scope, engine = store._scope, store._engine
        return cls(
            *bridged(engine), store.url, namespace=scope.namespace, codec=scope.codec, clock=scope.clock, owner=False
        )

    def namespace(self, name: str) -> "AsyncStore":
        """The same database for another tenant, fully isolated. Raises `InvalidArgument`."""
        self._check_open()
        scope = self._scope
        return AsyncStore(
            scope.engine, scope.direct, self.url, namespace=name, codec=scope.codec, clock=scope.clock, owner=False
        )

    def transaction(  # pyright: ignore[reportIncompatibleMethodOverride] - a transaction has none of its own
        self, *, lease: Lease | None = None, any_root: bool = False
    ) -> SuspendingTransaction:
        """As `Store.transaction`, for ``async with``."""
        self._check_open()
        return SuspendingTransaction(self._scope, lease, any_root)

    async def transact(
        self,
        function: Callable[[OpenTransaction[Suspending]], Awaitable[R]],
        *,
        tries: int = 20,
        once: str | None = None,
    ) -> R:
        """As `Store.transact`; the function is a coroutine function."""
        self._check_open()
        transactions.check_function(function)

        async def body(tx: Transaction) -> R:
            return await function(OpenTransaction(Suspending(self._scope, tx), tx, None))

        return await transactions.transact(self._scope, body, tries, once)

    async def close(self) -> None:
        """Close the store; a second call does nothing; later calls raise `Closed`."""
        for watcher in () if self._closed else self.watchers():
            await watcher.stop()
        if not self._closed:
            await self.retention.stop()
        engine = self._shut()
        if engine is not None:
            await engine.close()

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
