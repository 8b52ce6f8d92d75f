"""A node: a local store whose results other nodes can fetch, and a shared store that says where results are."""

import asyncio
import json
import ssl
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import stateroom
from stateroom import NodeInfo

from ..errors import Closed, InvalidArgument, LostLease, StoreError
from . import protocol
from .client import Client, Unreachable
from .fetching import Fetcher
from .holdings import Holdings
from .listening import Listener, bind
from .log import log
from .presence import Presence
from .protocol import Address, is_loopback, parse_address
from .results import AsyncResults, check_name
from .secret import Secret, read_secret
from .server import Server
from .serving import Serving
from .shared import AWAY, Shared
from .tls import TLS, client_context, read_tls, server_context

__all__ = ["AsyncNode", "NodeInfo", "Settings"]

_AGAIN_SECONDS = 1.0
"""How soon the shared store is told again what it could not be told."""

_SETTLING_SECONDS = 5.0
"""How long a start waits for the two stores to be compared; then that goes on behind."""


class Settings:
    """The settings of a node, checked: both faces ask for the same."""

    def __init__(self, name: Any, secret: Any, listen: Any, advertise: Any, ttl: Any, tls: Any) -> None:
        read = read_secret(secret)
        del secret
        if isinstance(read, InvalidArgument):
            raise read
        self.secret: Secret = read
        check_name(name, "name")
        self.name = str.__str__(name)
        if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0.1 <= ttl < 1e6:
            raise InvalidArgument(f"ttl is {ttl!r:.100}; use seconds, 0.1 or more", what="ttl", value=ttl)
        self.ttl = float(ttl)
        self.tls: TLS | None = read_tls(tls)
        scheme = "http" if self.tls is None else "https"
        self.listen: Address = parse_address(listen, "listen", scheme=scheme)._replace(scheme=scheme)
        if self.tls is None and not is_loopback(self.listen.host):
            raise InvalidArgument(
                f"listen is {self.listen.host!r}, which other machines reach: give tls, or listen on 127.0.0.1",
                what="listen",
                value=listen,
            )
        self.advertise: Address | None = None
        if advertise is not None:
            self.advertise = parse_address(advertise, "advertise", scheme=scheme)
        self.server_context: ssl.SSLContext | None = None if self.tls is None else server_context(self.tls)
        self.client_context: ssl.SSLContext | None = None if self.tls is None else client_context(self.tls)


def check_store(store: Any, what: str, kind: type) -> None:
    """Raise `InvalidArgument` for what is no store of this face."""
    if not isinstance(store, kind):
        raise InvalidArgument(
            f"{what} must be {'an' if kind.__name__[0] == 'A' else 'a'} {kind.__name__}, not {type(store).__name__}",
            what=what,
        )


class AsyncNode:
    """A node on the running event loop: an async context manager over two `AsyncStore`.

    `shared`: where nodes, locations and generations are; `local`: where this node's values are. `secret`: 32 bytes or
    more, the same on every node, as bytes, ``"env:NAME"`` or ``"file:PATH"``. `listen`: ``HOST:PORT``, port 0 for any;
    without `tls` a loopback address. `advertise`: the address that others reach it at, where that is another. `ttl`:
    seconds without heartbeat after which it is dead to the others. The stores stay open when the node stops.
    """

    def __init__(
        self,
        shared: "stateroom.AsyncStore",
        local: "stateroom.AsyncStore",
        name: str,
        *,
        secret: "bytes | str | Secret",
        listen: str = "127.0.0.1:0",
        advertise: str | None = None,
        ttl: float = 10.0,
        tls: "TLS | dict[str, Any] | None" = None,
    ) -> None:
        settings = Settings(name, secret, listen, advertise, ttl, tls)
        check_store(shared, "shared", stateroom.AsyncStore)
        check_store(local, "local", stateroom.AsyncStore)
        self._begin(shared, local, settings)

    @classmethod
    def of(cls, shared: "stateroom.AsyncStore", local: "stateroom.AsyncStore", settings: Settings) -> "AsyncNode":
        """A node of settings that were checked."""
        node = cls.__new__(cls)
        node._begin(shared, local, settings)
        return node

    def _begin(self, shared: "stateroom.AsyncStore", local: "stateroom.AsyncStore", settings: Settings) -> None:
        self._settings = settings
        self.name = settings.name
        self._shared = Shared(shared)
        self._holdings = Holdings(self._shared, local, self.name)
        self._presence = Presence(self._shared, self.name, settings.ttl, self._returned)
        self._holdings.check = self._presence.check
        self._holdings.owing = self._owing
        self._client = Client(self.name, settings.secret, time.time, settings.client_context)
        self._fetcher = Fetcher(self._holdings, self._presence, self._client)
        self._server = Server(Serving(self._holdings, self._presence), self.name, settings.secret)
        self._listener: Listener | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._ended = False
        self._paying: asyncio.Task[None] | None = None
        self.results = AsyncResults(self._holdings, self._presence, self._fetcher)
        """As ``store.results``, with `fetch` and what belongs to it."""

    def __repr__(self) -> str:
        presence = getattr(self, "_presence", None)
        address = "" if presence is None else presence.address
        return f"<AsyncNode {getattr(self, 'name', '?')!r} at {address or 'no address yet'}>"

    @property
    def address(self) -> str:
        """Return where other nodes reach it, once it was started. Raises `Closed` before."""
        if not self._presence.address:
            raise Closed(f"node {self.name!r} was not started; use it as a context manager")
        return self._presence.address

    @property
    def fresh(self) -> bool:
        """Say whether its heartbeat is not overdue, as after a pause of the process."""
        return self._presence.fresh

    @property
    def transfers(self) -> int:
        """How many transfers it began, shared ones counted once."""
        return self._fetcher.started

    async def start(self) -> None:
        """Listen, take the name, clear what was cleared everywhere, and beat.

        Raises `AlreadyExists` where a live node has this name, `Unavailable` where the shared store is away.
        """
        if self._listener is not None or self._ended:
            raise Closed(f"node {self.name!r} was started before; make another")
        settings = self._settings
        bound = bind(settings.listen)
        self._listener = Listener(self._server.app, bound, settings.server_context)
        port = bound.getsockname()[1]
        address = settings.advertise or settings.listen._replace(port=port)
        try:
            await self._holdings.start()
            await self._presence.start(str(address))
            await self._holdings.sweep()
            await self._listener.start()
            await self._presence.nodes()
        except BaseException:
            await self.stop()
            raise
        self._presence.keep()
        compared = self._later(self._holdings.reconcile())
        await asyncio.wait([compared], timeout=_SETTLING_SECONDS)

    async def stop(self) -> None:
        """Answer nobody any more, and give the name up. The stores stay open."""
        if self._ended:
            return
        self._ended = True
        for task in list(self._background):
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)
        if self._listener is not None:
            await self._listener.stop()
        if self._holdings.owed:
            try:
                await self._holdings.make_up()
            except StoreError as error:
                log.warning("node %r ends and owes %d registrations: %s", self.name, self._holdings.owed, error.message)
        await self._presence.stop()
        self._client.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def nodes(self) -> "tuple[NodeInfo, ...]":
        """Every node that was ever there, dead ones too, by name."""
        return await self._presence.nodes()

    async def clear(self, dag: str) -> int:
        """Remove all results of a DAG here, with this node's locations; gives how many."""
        return await self.results.clear(dag)

    async def clear_everywhere(self, dag: str) -> dict[str, int | None]:
        """Remove all results of a DAG on every node: how many there were on each; None: it was not reached.

        A node that was not reached clears when it comes back, before it serves anything of this DAG.
        """
        check_name(dag, "dag")
        await self._presence.refresh()
        generation = await self._shared.ask(lambda store: store.locations.advance(dag), patient=True)
        self._fetcher.forget(dag)
        removed: dict[str, int | None] = {self.name: await self._holdings.settle(dag, generation)}
        peers = [node for node in await self._presence.nodes() if node.name != self.name]
        counts = await asyncio.gather(*(self._clear_at(node, dag, generation) for node in peers))
        removed |= {node.name: count for node, count in zip(peers, counts, strict=True)}
        return dict(sorted(removed.items()))

    async def _clear_at(self, node: "NodeInfo", dag: str, generation: int) -> int | None:
        if not node.alive:
            return None
        try:
            address = parse_address(node.address, "address")
            target = protocol.target(protocol.CLEAR, dag=dag)
            reply = await self._client.short(node.name, address, "POST", target, {"generation": generation})
        except (Unreachable, InvalidArgument, json.JSONDecodeError) as error:
            log.warning("node %r could not be told to clear a DAG: %s", node.name, error)
            return None
        count = reply.fields.get("removed")
        return count if isinstance(count, int) else None

    async def _returned(self, lapsed: bool) -> None:
        """After each beat: catch up with what happened meanwhile, and tell what is owed."""
        try:
            await self._holdings.sweep()
            await self._holdings.make_up()
        except (*AWAY, LostLease) as error:
            log.warning("node %r could not catch up with the shared store: %s", self.name, error.message)
        if lapsed and not self._ended:
            self._later(self._holdings.reconcile())

    def _owing(self) -> None:
        """Tell the shared store soon what it could not be told now."""
        if not self._ended and (self._paying is None or self._paying.done()):
            self._paying = self._later(self._pay())

    async def _pay(self) -> None:
        while self._holdings.owed:
            await asyncio.sleep(_AGAIN_SECONDS)
            with suppress(StoreError):
                await self._holdings.make_up()

    def _later(self, work: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    # The operations of `results` that are about nodes, under the node itself as well.

    async def fetch(self, dag: str, id: str, *, node: str | None = None, timeout: float = 30.0) -> Any:
        """See `AsyncResults.fetch`."""
        return await self.results.fetch(dag, id, node=node, timeout=timeout)

    async def fetch_stream(self, dag: str, id: str, *, node: str | None = None, timeout: float = 30.0) -> Any:
        """See `AsyncResults.fetch_stream`."""
        return await self.results.fetch_stream(dag, id, node=node, timeout=timeout)

    async def get_or_fetch(self, dag: str, id: str, *, node: str | None = None, timeout: float = 30.0) -> Any:
        """See `AsyncResults.get_or_fetch`."""
        return await self.results.get_or_fetch(dag, id, node=node, timeout=timeout)

    async def wait(self, dag: str, id: str, timeout: float = 5.0) -> Any:
        """See `AsyncResults.wait`."""
        return await self.results.wait(dag, id, timeout=timeout)

    async def gather(self, dag: str, ids: Any) -> dict[str, Any]:
        """See `AsyncResults.gather`."""
        return await self.results.gather(dag, ids)

    async def register(self, dag: str, id: str, node: str) -> None:
        """See `AsyncResults.register`."""
        await self.results.register(dag, id, node)

    async def unregister(self, dag: str, id: str, node: str | None = None) -> int:
        """See `AsyncResults.unregister`."""
        return await self.results.unregister(dag, id, node)

    async def locate(self, dag: str, id: str) -> tuple[str, ...]:
        """See `AsyncResults.locate`."""
        return await self.results.locate(dag, id)

    async def locations(self, dag: str) -> dict[str, tuple[str, ...]]:
        """See `AsyncResults.locations`."""
        return await self.results.locations(dag)
