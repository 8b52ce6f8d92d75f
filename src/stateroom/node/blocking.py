"""The node whose calls block: the same node on an event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from datetime import timedelta
from functools import wraps
from inspect import isawaitable
from types import TracebackType
from typing import Any, Self, TypeVar

import stateroom
from stateroom import AsyncStore, NodeInfo, Store

from ..errors import Closed, InvalidArgument
from .node import AsyncNode, Settings, check_store
from .protocol import PIECE_BYTES
from .results import Ttl
from .secret import Secret
from .tls import TLS

R = TypeVar("R")

_END = object()


class Results:
    """As ``store.results`` of the local store; what is stored here is registered in the shared one.

    `get`, `find`, `has`, `ids`, `count`, `open`, `query` and `scan` look here only.
    """

    def __init__(self, node: "Node", local: Store) -> None:
        self._node = node
        self._local = local.results

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._local, name)

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        return self._node.run(work)

    @property
    def _later(self) -> Any:
        return self._node.inner.results

    def put(
        self,
        dag: str,
        id: str,
        value: Any,
        *,
        producer: Any = None,
        inputs: Any = None,
        ttl: Ttl = None,
        **options: Any,
    ) -> "stateroom.Result":
        """Store a value here and register it; it replaces what other nodes hold under its id."""
        result: stateroom.Result = self._run(
            self._later.put(dag, id, value, producer=producer, inputs=inputs, ttl=ttl, **options)
        )
        return result

    def put_many(self, dag: str, values: Any, **options: Any) -> Any:
        """As ``store.results.put_many``, and every value is registered."""
        return self._run(self._later.put_many(dag, values, **options))

    def put_stream(
        self, dag: str, id: str, source: Any, *, producer: Any = None, inputs: Any = None, ttl: Ttl = None
    ) -> "stateroom.Result":
        """Store the bytes that a binary file or an iterator gives, in bounded memory, and register them."""
        result: stateroom.Result = self._run(
            self._later.put_stream(dag, id, _beside(source), producer=producer, inputs=inputs, ttl=ttl)
        )
        return result

    def memo(self, dag: str, function_name: str, inputs: Any, compute: Any, **options: Any) -> Any:
        """As ``store.results.memo``, computed once on this node (in the caller's thread), and registered."""
        self._run(self._later.prepare(dag))
        id = self._local.memo_id(function_name, inputs, ignore=options.get("ignore", ()))
        value = self._local.memo(dag, function_name, inputs, compute, **options)
        self._run(self._later.tell(dag, id))
        return value

    def memoized(self, dag: str, ttl: Ttl = None, name: str | None = None, **options: Any) -> Any:
        """As ``store.results.memoized``, computed once on this node, and registered."""
        decorate = self._local.memoized(dag, ttl, name, **options)

        def decorator(function: Any) -> Any:
            call = decorate(function)

            @wraps(call)
            def registered(*args: Any, **kwargs: Any) -> Any:
                self._run(self._later.prepare(dag))
                position = self._node.local.feed.latest()
                value = call(*args, **kwargs)
                self._run(self._later.tell_since(dag, position))
                return value

            return registered

        return decorator

    def get(self, dag: str, id: str) -> Any:
        """The value that is here. Raises `NotFound`."""
        self._node.catch_up()
        return self._local.get(dag, id)

    def find(self, dag: str, id: str) -> "stateroom.Result | None":
        """The result that is here, or None."""
        self._node.catch_up()
        return self._local.find(dag, id)

    def has(self, dag: str, id: str) -> bool:
        """Say whether there is a value here."""
        self._node.catch_up()
        return self._local.has(dag, id)

    def ids(self, dag: str) -> tuple[str, ...]:
        """The ids of a DAG that are here, in order."""
        self._node.catch_up()
        return self._local.ids(dag)

    def open(self, dag: str, id: str) -> Any:
        """Bytes that are here, as a binary file."""
        self._node.catch_up()
        return self._local.open(dag, id)

    def scan(self, *, dag: str | None = None) -> Iterator["stateroom.Result"]:
        """All results that are here."""
        return self._local.scan(dag=dag)

    def delete(self, dag: str, id: str) -> bool:
        """Remove one result here, with this node's location; other nodes keep theirs."""
        return bool(self._run(self._later.delete(dag, id)))

    def clear(self, dag: str) -> int:
        """Remove all results of one DAG here, with this node's locations; gives how many."""
        return int(self._run(self._later.clear(dag)))

    def fetch(self, dag: str, id: str, *, node: str | None = None, timeout: float | timedelta = 30.0) -> Any:
        """A value from `node`, else from any that has it registered; kept here and registered as another location.

        Where it is here already as registered, that is it. All who ask for one value share one transfer. Raises
        `NotFound` where no node has it, `Unavailable` where none could give it within `timeout` seconds: its text
        and ``fields["tried"]`` (by node) say why.
        """
        return self._run(self._later.fetch(dag, id, node=node, timeout=timeout))

    def fetch_stream(self, dag: str, id: str, *, node: str | None = None, timeout: float | timedelta = 30.0) -> Any:
        """As `fetch`, for bytes of any size in bounded memory: a binary file over what was fetched."""
        self._run(self._later.have(dag, id, node=node, timeout=timeout))
        return self._local.open(dag, id)

    def get_or_fetch(self, dag: str, id: str, *, node: str | None = None, timeout: float | timedelta = 30.0) -> Any:
        """The value that is here, else as `fetch`."""
        result = self.find(dag, id)
        return self.fetch(dag, id, node=node, timeout=timeout) if result is None else result.value

    def wait(self, dag: str, id: str, timeout: float | timedelta = 5.0) -> Any:
        """The value as soon as it is here or registered anywhere, fetched where need be. Raises `Timeout`."""
        return self._run(self._later.wait(dag, id, timeout=timeout))

    def gather(self, dag: str, ids: Iterable[str], *, timeout: float | timedelta = 30.0) -> dict[str, Any]:
        """The values of those ids that could be had, by id: those that are here, the others fetched side by side."""
        gathered: dict[str, Any] = self._run(self._later.gather(dag, ids, timeout=timeout))
        return gathered

    def register(self, dag: str, id: str, node: str) -> None:
        """Say that a node holds a value; what it is and how large, that node says when it is asked."""
        self._run(self._later.register(dag, id, node))

    def unregister(self, dag: str, id: str, node: str | None = None) -> int:
        """Remove the location of a value on one node, or on all; gives how many there were."""
        return int(self._run(self._later.unregister(dag, id, node)))

    def locate(self, dag: str, id: str) -> tuple[str, ...]:
        """The nodes that have a value registered, dead ones too, by name."""
        nodes: tuple[str, ...] = self._run(self._later.locate(dag, id))
        return nodes

    def locations(self, dag: str) -> dict[str, tuple[str, ...]]:
        """The nodes of every value of a DAG, by id."""
        of_dag: dict[str, tuple[str, ...]] = self._run(self._later.locations(dag))
        return of_dag


class Node:
    """A node in a thread of its own: a context manager over two stores. See `AsyncNode`, whose arguments it takes.

    It is used from any thread, and not in a process forked from the one that started it.
    """

    def __init__(
        self,
        shared: Store,
        local: Store,
        name: str,
        *,
        secret: "bytes | str | Secret",
        listen: str = "127.0.0.1:0",
        advertise: str | None = None,
        ttl: float = 10.0,
        tls: "TLS | dict[str, Any] | None" = None,
    ) -> None:
        self._settings = Settings(name, secret, listen, advertise, ttl, tls)
        del secret
        check_store(shared, "shared", Store)
        check_store(local, "local", Store)
        self.name = self._settings.name
        self._shared = shared
        self.local = local
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._inner: AsyncNode | None = None
        self.results = Results(self, local)
        """As ``store.results``, with `fetch` and what belongs to it."""

    def __repr__(self) -> str:
        inner = getattr(self, "_inner", None)
        return f"<Node {getattr(self, 'name', '?')!r} at {inner.address if inner else 'no address yet'}>"

    @property
    def inner(self) -> AsyncNode:
        """The node on the loop. Raises `Closed` unless it was started and not stopped."""
        if self._inner is None:
            raise Closed(f"node {self.name!r} is not running; use it as a context manager")
        return self._inner

    @property
    def address(self) -> str:
        """Return where other nodes reach it. Raises `Closed` unless it is running."""
        return self.inner.address

    @property
    def transfers(self) -> int:
        """How many transfers it began, shared ones counted once."""
        return self.inner.transfers

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the node's loop and wait for it."""
        loop = self._loop
        if loop is None or self._inner is None:
            work.close()
            raise Closed(f"node {self.name!r} is not running; use it as a context manager")
        if threading.current_thread() is self._thread:
            work.close()
            raise InvalidArgument("this call would wait for itself: it was made on the node's own loop", what="node")
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except asyncio.CancelledError:
            raise Closed(f"node {self.name!r} was stopped") from None
        except BaseException:
            future.cancel()
            raise

    def catch_up(self) -> None:
        """See what was cleared everywhere while this process was paused, before anything is read."""
        if not self.inner.fresh:
            self.run(self.inner.results.caught_up())

    def start(self) -> None:
        """Listen, take the name, clear what was cleared everywhere, and beat.

        Raises `AlreadyExists` where a live node has this name, `Unavailable` where the shared store is away.
        """
        if self._thread is not None:
            raise Closed(f"node {self.name!r} was started before; make another")
        ready = threading.Event()
        loop = asyncio.new_event_loop()

        def serve() -> None:
            asyncio.set_event_loop(loop)
            loop.call_soon(ready.set)
            loop.run_forever()

        self._loop = loop
        self._thread = threading.Thread(target=serve, name=f"stateroom-node-{self.name[:20]}", daemon=True)
        self._thread.start()
        ready.wait()
        shared = AsyncStore.over(self._shared)
        local = shared if self.local is self._shared else AsyncStore.over(self.local)
        inner = AsyncNode.of(shared, local, self._settings)
        try:
            asyncio.run_coroutine_threadsafe(inner.start(), loop).result()
        except BaseException:
            self._end()
            raise
        self._inner = inner

    def stop(self) -> None:
        """Answer nobody any more, and give the name up. The stores stay open."""
        inner, loop = self._inner, self._loop
        if inner is None or loop is None:
            return
        self._inner = None
        try:
            asyncio.run_coroutine_threadsafe(inner.stop(), loop).result()
        finally:
            self._end()

    def _end(self) -> None:
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        self._loop = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def nodes(self) -> tuple[NodeInfo, ...]:
        """Every node that was ever there, dead ones too, by name."""
        return self.run(self.inner.nodes())

    def clear(self, dag: str) -> int:
        """Remove all results of a DAG here, with this node's locations; gives how many."""
        return self.results.clear(dag)

    def clear_everywhere(self, dag: str) -> dict[str, int | None]:
        """Remove all results of a DAG on every node: how many there were on each; None: it was not reached.

        A node that was not reached clears when it comes back, before it serves anything of this DAG.
        """
        return self.run(self.inner.clear_everywhere(dag))

    # The operations of `results` that are about nodes, under the node itself as well.

    def fetch(self, dag: str, id: str, *, node: str | None = None, timeout: float | timedelta = 30.0) -> Any:
        """See `Results.fetch`."""
        return self.results.fetch(dag, id, node=node, timeout=timeout)

    def fetch_stream(self, dag: str, id: str, *, node: str | None = None, timeout: float | timedelta = 30.0) -> Any:
        """See `Results.fetch_stream`."""
        return self.results.fetch_stream(dag, id, node=node, timeout=timeout)

    def get_or_fetch(self, dag: str, id: str, *, node: str | None = None, timeout: float | timedelta = 30.0) -> Any:
        """See `Results.get_or_fetch`."""
        return self.results.get_or_fetch(dag, id, node=node, timeout=timeout)

    def wait(self, dag: str, id: str, timeout: float | timedelta = 5.0) -> Any:
        """See `Results.wait`."""
        return self.results.wait(dag, id, timeout=timeout)

    def gather(self, dag: str, ids: Iterable[str]) -> dict[str, Any]:
        """See `Results.gather`."""
        return self.results.gather(dag, ids)

    def register(self, dag: str, id: str, node: str) -> None:
        """See `Results.register`."""
        self.results.register(dag, id, node)

    def unregister(self, dag: str, id: str, node: str | None = None) -> int:
        """See `Results.unregister`."""
        return self.results.unregister(dag, id, node)

    def locate(self, dag: str, id: str) -> tuple[str, ...]:
        """See `Results.locate`."""
        return self.results.locate(dag, id)

    def locations(self, dag: str) -> dict[str, tuple[str, ...]]:
        """See `Results.locations`."""
        return self.results.locations(dag)


async def _cancel_all() -> None:
    """End what callers that were left alone had begun."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _beside(source: Any) -> Any:
    """A source that blocks, read in another thread than the loop's."""
    if hasattr(source, "read"):
        return _pieces(lambda: source.read(PIECE_BYTES) or _END)
    if isinstance(source, Iterable) and not isinstance(source, str | bytes | bytearray | memoryview):
        items = iter(source)
        return _pieces(lambda: next(items, _END))
    return source  # refused by the store, by name


async def _pieces(read: Callable[[], Any]) -> AsyncIterator[Any]:
    while (piece := await asyncio.to_thread(read)) is not _END:
        if isawaitable(piece):
            getattr(piece, "close", lambda: None)()
            raise InvalidArgument("a file whose read is awaited needs an AsyncNode", what="source")
        yield piece
