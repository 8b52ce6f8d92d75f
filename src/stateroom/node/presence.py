"""A node's place among the others: its name by lease, its heartbeat, and whom it knows."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime

import stateroom

from ..errors import AlreadyExists, LostLease, StoreError
from .log import log
from .shared import Shared

_FRESH_SECONDS = 1.0
"""How old what is known of other nodes may be, as long as those that are asked for are alive by it."""

_DIFFERENCE = 1.0
"""Seconds by which a clock must differ to be mentioned."""


class Presence:
    """Holds the lease on a node's name, and renews it at a third of its time to live."""

    def __init__(self, shared: Shared, name: str, ttl: float, returned: Callable[[bool], Awaitable[None]]) -> None:
        self._shared = shared
        self.name = name
        self.address = ""
        self.ttl = ttl
        self._owner = f"{os.getpid()}-{os.urandom(12).hex()}"
        self._returned = returned
        self._lease: stateroom.Lease | None = None
        self._beaten = 0.0
        self._tried = -1e9
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._known: dict[str, stateroom.NodeInfo] = {}
        self._known_at = -1e9
        self._clocks: dict[str, float] = {}
        self._seen: dict[str, datetime] = {}
        self.superseded = False
        """Whether another process has the name: this one was away too long."""

    @property
    def fresh(self) -> bool:
        """Say whether the lease was renewed within its time, by a clock that a pause does not stop."""
        return not self.superseded and time.monotonic() - self._beaten < self.ttl

    async def start(self, address: str) -> None:
        """Take the name. Raises `AlreadyExists`, `Unavailable`."""
        self.address = address
        await self._join()

    def keep(self) -> None:
        """Begin to beat."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"stateroom-node-{self.name}")

    async def stop(self) -> None:
        """Stop beating and give the name up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        lease, self._lease = self._lease, None
        if lease is not None and not self.superseded:
            try:
                await self._shared.ask(lambda store: store.locations.leave(lease))
            except StoreError as error:
                log.warning("node %r ends without saying so: %s", self.name, error.message)

    async def refresh(self) -> None:
        """Beat at once where the last beat is too long ago, as after a pause of the process.

        Raises `LostLease` where another process has the name now; where the shared store is away nothing happens.
        """
        if not self.fresh and time.monotonic() - self._tried > self.ttl / 3:
            with suppress(StoreError):  # where it is away, what is known goes on
                await self.beat()
        self.check()

    def check(self) -> None:
        """Raise `LostLease` where another process has this node's name."""
        if self.superseded:
            raise LostLease(
                f"another process is node {self.name!r} now: this one did not renew its lease; stop one of them",
                key=self.name,
            )

    async def beat(self) -> None:
        """Renew the lease; where it ran out, take it again. Raises what the shared store raises."""
        async with self._lock:
            self._tried = time.monotonic()
            lapsed = self._lease is None or not self.fresh
            try:
                await self._renew()
            except LostLease:
                lapsed = True
                try:
                    await self._join()
                except AlreadyExists:
                    if not self.superseded:
                        log.error("another process is node %r now; this one serves and registers nothing", self.name)
                    self.superseded, self._lease = True, None
                    raise
            await self._look()
        await self._returned(lapsed)

    async def _join(self) -> None:
        self._lease = await self._shared.ask(
            lambda store: store.locations.join(self.name, self.address, self._owner, self.ttl), patient=True
        )
        self.superseded = False
        self._beaten = time.monotonic()

    async def _renew(self) -> None:
        lease = self._lease
        if lease is None:
            raise LostLease(f"node {self.name!r} has no lease", key=self.name)
        started = time.monotonic()
        self._lease = await self._shared.ask(
            lambda store: store.locations.beat(lease, self.name, self.address, self.ttl, dict(self._clocks)),
            patient=True,
        )
        self._beaten = started

    async def _run(self) -> None:
        away = False
        while True:
            await asyncio.sleep(self.ttl / 3)
            try:
                await self.beat()
                away = False
            except StoreError as error:
                if not away and not isinstance(error, AlreadyExists):
                    log.warning("node %r cannot renew its lease: %s", self.name, error.message)
                away = True
            except Exception:  # noqa: BLE001 - a node that stops beating is dead to the others
                log.exception("node %r: its heartbeat failed and goes on", self.name)

    async def _look(self) -> None:
        nodes = await self._shared.ask(lambda store: store.locations.nodes())
        self._compare(nodes)
        self._known = {node.name: node for node in nodes}
        self._known_at = time.monotonic()

    def _compare(self, nodes: "tuple[stateroom.NodeInfo, ...]") -> None:
        """See how far others' clocks are from this one's: each beat came between two of our own."""
        times = {node.name: node.seen_at for node in nodes}
        now, before = times.get(self.name), self._seen.get(self.name)
        if now is not None and before is not None:
            for name, heartbeat in times.items():
                if name == self.name or self._seen.get(name) in (None, heartbeat):
                    continue
                ahead, behind = (heartbeat - now).total_seconds(), (heartbeat - before).total_seconds()
                difference = ahead if ahead > _DIFFERENCE else behind if behind < -_DIFFERENCE else 0.0
                if difference:
                    self._clocks[name] = round(difference, 1)
                else:
                    self._clocks.pop(name, None)
        self._seen = times

    async def nodes(self) -> "tuple[stateroom.NodeInfo, ...]":
        """Every node that is known, by name, as of now; where the shared store is away, as of the last look."""
        try:
            await self._look()
        except StoreError:
            if not self._known:
                raise
        return tuple(self._known.values())

    def doubt(self) -> None:
        """Take what is known of other nodes for old."""
        self._known_at = -1e9

    async def find(self, names: "set[str]") -> "dict[str, stateroom.NodeInfo]":
        """Return what is known of some nodes; looked up again where one seems to be dead or is unknown."""
        infos = self._known
        doubtful = any(name not in infos or not infos[name].alive for name in names)
        if doubtful or time.monotonic() - self._known_at > _FRESH_SECONDS:
            await self.nodes()
        return {name: self._known[name] for name in names if name in self._known}
