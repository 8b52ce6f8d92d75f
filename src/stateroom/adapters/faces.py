"""One definition of an operation for both kinds of store, for adapters with blocking methods and coroutines.

An operation is a coroutine function that takes a *face*. It says ``await face.done(store.results.find(...))``: over a
`Store` the call has happened already, over an `AsyncStore` it is awaited.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

import stateroom
from stateroom import AsyncStore, Store
from stateroom.errors import Closed, InvalidArgument

R = TypeVar("R")
TRIES = 1000
"""Times a transaction is tried: an adapter's caller has no use for a `Conflict`."""

Work = Callable[["Face"], Coroutine[Any, Any, R]]


class _Done(Generic[R]):
    """A result that is there, to be awaited."""

    def __init__(self, value: R) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, R]:
        return self._value
        yield


def run_now(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: R = stop.value
        return result
    coroutine.close()
    raise RuntimeError("an operation of a blocking store waited")


class Face:
    """A store as an operation sees it."""

    store: Any

    def done(self, result: Any) -> Awaitable[Any]:
        """Await what a method of the store gave."""
        raise TypeError("use a face of a store")

    async def transact(self, body: Callable[[Any], Coroutine[Any, Any, R]]) -> R:
        """Run `body` in a transaction, again after each conflict; so it must be pure."""
        raise TypeError("use a face of a store")

    def inside(self, tx: Any) -> "Face":
        """The same for an open transaction; what is done through it commits with the transaction."""
        return InsideFace(self, tx)


class InsideFace(Face):
    """An open transaction as an operation sees it: a transaction in it is the same one."""

    def __init__(self, outer: Face, tx: Any) -> None:
        self._outer = outer
        self.store = tx

    def done(self, result: Any) -> Awaitable[Any]:
        """Await what a method of the transaction gave."""
        return self._outer.done(result)

    async def transact(self, body: Callable[[Any], Coroutine[Any, Any, R]]) -> R:
        """Run `body` in the transaction that is open."""
        return await body(self.store)


class BlockingFace(Face):
    """A `Store`: every call has happened when it is awaited."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def done(self, result: Any) -> Awaitable[Any]:
        """Give what the method gave."""
        return _Done(result)

    async def transact(self, body: Callable[[Any], Coroutine[Any, Any, R]]) -> R:
        """Run `body` in a transaction, again after each conflict."""
        result: R = self.store.transact(lambda tx: run_now(body(tx)), tries=TRIES)
        return result


class SuspendingFace(Face):
    """An `AsyncStore`."""

    def __init__(self, store: AsyncStore) -> None:
        self.store = store

    def done(self, result: Any) -> Awaitable[Any]:
        """Await the method's coroutine."""
        return result  # type: ignore[no-any-return]

    async def transact(self, body: Callable[[Any], Coroutine[Any, Any, R]]) -> R:
        """Run `body` in a transaction, again after each conflict."""
        result: R = await self.store.transact(body, tries=TRIES)
        return result


class Access:
    """A store on both faces, made of a url, a `Store` or an `AsyncStore`; what it opened itself, it closes.

    `run` blocks, `arun` is awaited. Over an `AsyncStore` a blocking call runs in a thread with an event loop.
    """

    def __init__(self, store: "str | os.PathLike[str] | Store | AsyncStore | None", **options: Any) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._owned: Store | None = None
        self._blocking: BlockingFace | None = None
        self._closed = False
        if isinstance(store, AsyncStore):
            self._suspending = SuspendingFace(store)
            return
        if not isinstance(store, Store):
            if store is not None and not isinstance(store, str | os.PathLike):
                raise InvalidArgument(
                    f"give a url, a Store or an AsyncStore, not {type(store).__name__}", what="store", value=store
                )
            store = self._owned = stateroom.open(store, **options)
        self._blocking = BlockingFace(store)
        self._suspending = SuspendingFace(AsyncStore.over(store))

    @property
    def url(self) -> str:
        """Return what is open, with any password left out."""
        return str(self._suspending.store.url)

    @property
    def closed(self) -> bool:
        """Say whether `close` was called."""
        return self._closed

    @property
    def store(self) -> Store | None:
        """The `Store`; None over an `AsyncStore`."""
        return None if self._blocking is None else self._blocking.store

    def run(self, work: Work[R]) -> R:
        """Run an operation, and block until it is done."""
        self._check_open()
        if self._blocking is not None:
            return run_now(work(self._blocking))
        return asyncio.run_coroutine_threadsafe(work(self._suspending), self._thread_loop()).result()

    async def arun(self, work: Work[R]) -> R:
        """Run an operation in the caller's event loop."""
        self._check_open()
        return await work(self._suspending)

    def close(self) -> None:
        """Close what was opened here; a second call does nothing."""
        self._closed = True
        if self._owned is not None:
            self._owned.close()
        loop, self._loop = self._loop, None
        if loop is not None and self._pid == os.getpid():
            loop.call_soon_threadsafe(loop.stop)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("this adapter is closed; make another")

    def _thread_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                threading.Thread(target=_serve, args=(self._loop,), daemon=True, name="stateroom-adapter").start()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
