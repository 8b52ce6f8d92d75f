"""``node.results``: the local store's results, registered where others find them, and fetched from where they are."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import wraps
from typing import Any

import stateroom

from ..errors import InvalidArgument, NotFound, StoreError, Timeout, Unavailable
from .fetching import Fetcher, Transfer
from .holdings import Holdings
from .presence import Presence
from .shared import AWAY

_SIDE_BY_SIDE = 8
"""Values that `gather` fetches at a time."""

_AGAIN_SECONDS = 1.0
"""How soon the shared store is asked again by who waits, when it is away."""

Ttl = float | timedelta | None


class AsyncResults:
    """As ``store.results`` of the local store; what is stored here is registered in the shared one.

    `get`, `find`, `has`, `ids`, `count`, `open`, `query` and `scan` look here only.
    """

    def __init__(self, holdings: Holdings, presence: Presence, fetcher: Fetcher) -> None:
        self._holdings = holdings
        self._presence = presence
        self._fetcher = fetcher
        self._local = holdings.local.results

    def __getattr__(self, name: str) -> Any:
        # Whatever else the local store's results have, and looks here only.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._local, name)

    async def put(
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
        form = "bytes" if type(value) is bytes else "value"
        result: stateroom.Result = await self._write(
            dag, form, lambda results: results.put(dag, id, value, producer=producer, inputs=inputs, ttl=ttl, **options)
        )
        return result

    async def put_stream(
        self, dag: str, id: str, source: Any, *, producer: Any = None, inputs: Any = None, ttl: Ttl = None
    ) -> "stateroom.Result":
        """Store the bytes that a binary file or an (async) iterator gives, in bounded memory, and register them."""
        result: stateroom.Result = await self._write(
            dag,
            "bytes",
            lambda results: results.put_stream(dag, id, source, producer=producer, inputs=inputs, ttl=ttl),
            repeatable=False,
        )
        return result

    async def _write(self, dag: str, form: str, write: Any, *, repeatable: bool = True) -> Any:
        await self._presence.refresh()
        return await self._holdings.keep(dag, form, write, repeatable=repeatable)

    async def memo(self, dag: str, function_name: str, inputs: Any, compute: Any, **options: Any) -> Any:
        """As ``store.results.memo``, computed once on this node, and registered."""
        await self.prepare(dag)
        id = await self._local.memo_id(function_name, inputs, ignore=options.get("ignore", ()))
        value = await self._local.memo(dag, function_name, inputs, compute, **options)
        await self.tell(dag, id)
        return value

    def memoized(self, dag: str, ttl: Ttl = None, name: str | None = None, **options: Any) -> Any:
        """As ``store.results.memoized``, computed once on this node, and registered."""
        decorate = self._local.memoized(dag, ttl, name, **options)

        def decorator(function: Any) -> Any:
            call = decorate(function)

            @wraps(call)
            async def registered(*args: Any, **kwargs: Any) -> Any:
                await self.prepare(dag)
                position = await self._holdings.local.feed.latest()
                value = await call(*args, **kwargs)
                await self.tell_since(dag, position)
                return value

            return registered

        return decorator

    async def put_many(self, dag: str, values: Mapping[str, Any], **options: Any) -> "tuple[stateroom.Result, ...]":
        """As ``store.results.put_many``, and every value is registered."""
        await self.prepare(dag)
        position = await self._holdings.local.feed.latest()
        try:
            return await self._local.put_many(dag, values, **options)
        finally:  # also what was stored before a value was refused
            await self.tell_since(dag, position)

    async def prepare(self, dag: str) -> None:
        """See that this node has its name, and nothing here of the DAG that was cleared everywhere."""
        await self._presence.refresh()
        await self._holdings.current(dag)

    async def tell_since(self, dag: str, position: str) -> None:
        """Register what was stored here of a DAG after a position of the local store's feed."""
        while True:
            changes = await self._holdings.local.feed.read(position, families=["results"], ids=[dag])
            for id in {str(change.key[1]) for change in changes.items if len(change.key) > 1}:
                await self.tell(dag, id)
            if not changes.items:
                return
            position = changes.next

    async def tell(self, dag: str, id: str) -> None:
        """Register what is here under an id."""
        try:
            await self._holdings.truth(dag, id)
        except AWAY:
            self._holdings.owe(dag, id)

    async def get(self, dag: str, id: str) -> Any:
        """The value that is here. Raises `NotFound`."""
        await self.caught_up()
        return await self._local.get(dag, id)

    async def find(self, dag: str, id: str) -> "stateroom.Result | None":
        """The result that is here, or None."""
        await self.caught_up()
        return await self._local.find(dag, id)

    async def caught_up(self) -> None:
        """See what was cleared everywhere while this process was away, before anything is read."""
        if not self._presence.fresh:
            with suppress(StoreError):
                await self._presence.refresh()

    async def delete(self, dag: str, id: str) -> bool:
        """Remove one result here, with this node's location; other nodes keep theirs."""
        deleted = await self._local.delete(dag, id)
        if deleted:
            await self._holdings.gone(dag, id)
        return deleted

    async def clear(self, dag: str) -> int:
        """Remove all results of one DAG here, with this node's locations; gives how many."""
        await self._presence.refresh()
        return await self._holdings.clear(dag)

    async def fetch(self, dag: str, id: str, *, node: str | None = None, timeout: float | timedelta = 30.0) -> Any:
        """A value from `node`, else from any that has it registered; kept here and registered as another location.

        Where it is here already as registered, that is it. All who ask for one value share one transfer. Raises
        `NotFound` where no node has it, `Unavailable` where none could give it within `timeout` seconds: its text
        and ``fields["tried"]`` (by node) say why.
        """
        transfer = await self._fetch(dag, id, node, timeout, collect=True)
        data = transfer.data()
        return await self._local.get(dag, id) if data is None else data

    async def fetch_stream(
        self, dag: str, id: str, *, node: str | None = None, timeout: float | timedelta = 30.0
    ) -> Any:
        """As `fetch`, for bytes of any size in bounded memory: a binary file over what was fetched."""
        await self.have(dag, id, node=node, timeout=timeout)
        return await self._local.open(dag, id)

    async def have(self, dag: str, id: str, *, node: str | None = None, timeout: float | timedelta = 30.0) -> None:
        """As `fetch`, for who reads it from the local store."""
        await self._fetch(dag, id, node, timeout, collect=False)

    async def get_or_fetch(
        self, dag: str, id: str, *, node: str | None = None, timeout: float | timedelta = 30.0
    ) -> Any:
        """The value that is here, else as `fetch`."""
        result = await self.find(dag, id)
        return await self.fetch(dag, id, node=node, timeout=timeout) if result is None else result.value

    async def _fetch(
        self, dag: str, id: str, node: str | None, timeout: float | timedelta, *, collect: bool
    ) -> Transfer:
        check_name(dag, "dag")
        check_name(id, "id")
        if node is not None:
            check_name(node, "node")
        seconds = check_seconds(timeout)
        await self._presence.refresh()
        return await self._fetcher.fetch(dag, id, node, seconds, collect=collect)

    async def wait(self, dag: str, id: str, timeout: float | timedelta = 5.0) -> Any:
        """The value as soon as it is here or registered anywhere, fetched where need be. Raises `Timeout`."""
        check_name(dag, "dag")
        check_name(id, "id")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + check_seconds(timeout)
        previous: tuple[stateroom.Location, ...] = ()
        trouble: StoreError | None = None
        while True:
            result = await self.find(dag, id)
            if result is not None:
                return result.value
            remaining = deadline - loop.time()
            if remaining <= 0:
                break
            locations = await self._appears(dag, id, previous, remaining)
            if locations and locations != previous:
                previous = locations
                try:
                    return await self.fetch(dag, id, timeout=max(0.0, deadline - loop.time()))
                except (NotFound, Unavailable) as error:
                    trouble = error
        raise Timeout(
            f"no result {id!r} of DAG {dag!r} after {timeout} s" + ("" if trouble is None else f": {trouble.message}")
        ) from trouble

    async def _appears(
        self, dag: str, id: str, previous: "tuple[stateroom.Location, ...]", seconds: float
    ) -> "tuple[stateroom.Location, ...]":
        """Wait until a value is here, or has other locations than those known."""
        local = asyncio.ensure_future(self._local.wait(dag, id, timeout=seconds))
        shared = self._holdings.shared.store
        elsewhere = asyncio.ensure_future(self._elsewhere(shared, dag, id, previous, seconds))
        try:
            await asyncio.wait([local, elsewhere], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (local, elsewhere):
                task.cancel()
            await asyncio.wait([local, elsewhere])
            if not local.cancelled():
                local.exception()
        return () if elsewhere.cancelled() else elsewhere.result()

    async def _elsewhere(
        self,
        shared: "stateroom.AsyncStore",
        dag: str,
        id: str,
        previous: "tuple[stateroom.Location, ...]",
        seconds: float,
    ) -> "tuple[stateroom.Location, ...]":
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            seconds = max(0.0, deadline - asyncio.get_running_loop().time())
            try:
                return await shared.locations.wait(dag, id, known=previous, timeout=seconds)
            except Timeout:
                return ()
            except AWAY:
                await asyncio.sleep(min(_AGAIN_SECONDS, seconds))

    async def gather(self, dag: str, ids: Iterable[str], *, timeout: float | timedelta = 30.0) -> dict[str, Any]:
        """The values of those ids that could be had, by id: those that are here, the others fetched side by side."""
        if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
            raise InvalidArgument(f"ids is {ids!r:.100}; give a collection of them", what="ids", value=ids)
        names = list(dict.fromkeys(ids))
        await self.caught_up()
        values = await self._local.gather(dag, names)
        limit = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def get(id: str) -> None:
            async with limit:
                with suppress(NotFound, Unavailable):
                    values[id] = await self.fetch(dag, id, timeout=timeout)

        await asyncio.gather(*(get(id) for id in names if id not in values))
        return {id: values[id] for id in names if id in values}

    async def register(self, dag: str, id: str, node: str) -> None:
        """Say that a node holds a value; what it is and how large, that node says when it is asked."""
        if node == self._presence.name and await self._local.has(dag, id):
            await self._holdings.truth(dag, id)
            return
        await self._holdings.shared.ask(lambda store: store.locations.register(dag, id, node))

    async def unregister(self, dag: str, id: str, node: str | None = None) -> int:
        """Remove the location of a value on one node, or on all; gives how many there were."""
        return await self._holdings.shared.ask(lambda store: store.locations.unregister(dag, id, node))

    async def locate(self, dag: str, id: str) -> tuple[str, ...]:
        """The nodes that have a value registered, dead ones too, by name."""
        locations = await self._holdings.shared.ask(lambda store: store.locations.of(dag, id))
        self._fetcher.remember(dag, id, locations)
        return tuple(location.node for location in locations)

    async def locations(self, dag: str) -> dict[str, tuple[str, ...]]:
        """The nodes of every value of a DAG, by id."""
        of_dag = await self._holdings.shared.ask(lambda store: store.locations.of_dag(dag))
        for id, locations in of_dag.items():
            self._fetcher.remember(dag, id, locations)
        return {id: tuple(location.node for location in locations) for id, locations in of_dag.items()}

    # What looks here only is named, too, for who reads this class; `__getattr__` has the rest.

    async def has(self, dag: str, id: str) -> bool:
        """Say whether there is a value here."""
        await self.caught_up()
        return await self._local.has(dag, id)

    async def ids(self, dag: str) -> tuple[str, ...]:
        """The ids of a DAG that are here, in order."""
        await self.caught_up()
        return await self._local.ids(dag)

    async def open(self, dag: str, id: str) -> Any:
        """Bytes that are here, as a file whose ``read`` is a coroutine."""
        await self.caught_up()
        return await self._local.open(dag, id)

    def scan(self, *, dag: str | None = None) -> AsyncIterator["stateroom.Result"]:
        """All results that are here."""
        return self._local.scan(dag=dag)


def check_name(value: Any, what: str) -> None:
    """Raise `InvalidArgument` for what is no name; the stores look at the rest."""
    if not isinstance(value, str) or not value.strip() or "\0" in value or len(value.encode("utf-8", "replace")) > 256:
        raise InvalidArgument(f"{what} is {value!r:.100}; use 1 to 256 bytes of UTF-8, not blank, no NUL", what=what)


def check_seconds(value: Any) -> float:
    """A time-out in seconds. Raises `InvalidArgument`."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        raise InvalidArgument(f"timeout is {value!r:.100}; use seconds, 0 or more", what="timeout", value=value)
    return float(seconds)
