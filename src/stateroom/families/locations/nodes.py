"""Nodes: who is there, at which address, and alive as long as a lease says so.

A node's row and its lease share a root, so that one commit changes both. The row stays when the node goes: what it
holds is there again when it comes back.
"""

from datetime import datetime
from hashlib import sha256
from typing import Annotated

import msgspec
import ormsgpack

from ... import arguments, keys
from ...clock import FIRST, LAST, from_micros, to_micros
from ...codec import seal, unseal
from ...codec.malformed import parsing
from ...codec.shown import Shown
from ...core.namespace import Reader, Scope
from ...core.operation import Family, M, operation, reading
from ...core.transaction import Transaction
from ...engine import Row
from ...errors import AlreadyExists, LostLease
from ...limits import NAME_BYTES
from .. import leases
from ..leases import Lease

_LAYOUT = 1
_RUN = 500
_PREFIX = f"{keys.NODE_ROOT}/"


class NodeInfo(Shown, frozen=True):
    """A node as the shared store knows it."""

    name: str
    address: str
    """Where its values are fetched from: ``http://host:port`` or ``https://host:port``."""
    alive: bool
    """Whether its lease has not run out, by the clock of the store that was asked."""
    seen_at: datetime
    """Its last heartbeat (aware UTC), by its own clock."""
    clocks: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    """Seconds by which it saw other nodes' clocks ahead of its own (behind: less than 0), of those that differ much."""


def lease_key(node: str) -> str:
    """The key of a node's lease."""
    key = _PREFIX + node
    return key if len(key.encode()) <= NAME_BYTES else _PREFIX + sha256(node.encode()).hexdigest()


def _key(scope: Scope, node: str) -> bytes:
    return scope.key(keys.NODE, keys.path(node))


def _write(tx: Transaction, node: str, address: str, clocks: dict[str, float]) -> None:
    key = _key(tx.scope, node)
    packed = ormsgpack.packb([_LAYOUT, address, to_micros(tx.scope.clock.now()), clocks])
    tx.at(keys.NODE_ROOT).put(key, seal(key, tx.scope.codec.protect(key, packed)))


_NODE = msgspec.msgpack.Decoder(tuple[int, str, Annotated[int, msgspec.Meta(ge=FIRST, le=LAST)], dict[str, float]])


def _parse(scope: Scope, row: Row) -> tuple[str, str, int, dict[str, float]]:
    packed = scope.codec.reveal(row.key, unseal(row.key, row.value))
    with parsing("a node", kind="nodes", key=row.key):
        _, address, heartbeat, clocks = _NODE.decode(packed)
    return row.key[len(scope.key(keys.NODE)) : -1].decode(), address, heartbeat, clocks


async def every_node(reader: Reader) -> list[NodeInfo]:
    """Every node that was ever there and was not forgotten, by name."""
    scope = reader.scope
    start = scope.key(keys.NODE)
    stop = start + keys.END
    nodes: list[NodeInfo] = []
    while True:
        rows = await reader.at(keys.NODE_ROOT).scan(start, stop, limit=_RUN)
        parsed = [_parse(scope, row) for row in rows]
        holders = [lease_key(name) for name, *_ in parsed]
        live = await leases.live_holders(reader, scope.part(keys.NODE_ROOT), holders) if parsed else []
        nodes += [
            NodeInfo(name, address, alive, from_micros(heartbeat), clocks)
            for (name, address, heartbeat, clocks), alive in zip(parsed, live, strict=True)
        ]
        if len(rows) < _RUN:
            return nodes
        start = rows[-1].key + b"\0"


class Nodes(Family[M]):
    """The half of ``store.locations`` that is about nodes."""

    @operation
    async def join(self, tx: Transaction, node: str, address: str, owner: str, ttl: float) -> Lease:
        """Take a node's name for `ttl` seconds and say where it is reached; `owner`: unlike that of any other process.

        Raises `AlreadyExists` while another owner holds the name.
        """
        node, owner = arguments.name(node, "node"), arguments.name(owner, "owner")
        arguments.text(address, "address")
        try:
            lease = await leases.acquire(tx, lease_key(node), owner, ttl)
        except LostLease as error:
            raise AlreadyExists(
                f"a node named {node!r} is alive; stop it, wait until its lease ends, or use another name",
                kind="nodes",
                id=node,
            ) from error
        _write(tx, node, address, {})
        return lease

    @operation
    async def beat(
        self, tx: Transaction, lease: Lease, node: str, address: str, ttl: float, clocks: dict[str, float] | None = None
    ) -> Lease:
        """Keep a node's name for `ttl` seconds from now. Raises `LostLease` when the lease ran out or is another's."""
        lease = await leases.renew(tx, lease, ttl)
        _write(tx, arguments.name(node, "node"), arguments.text(address, "address"), clocks or {})
        return lease

    @operation
    async def leave(self, tx: Transaction, lease: Lease) -> bool:
        """Give a name up: the node is dead at once, and stays known. False where the lease was another's already."""
        return await leases.release(tx, arguments.instance(lease, "lease", Lease))

    @operation
    async def forget(self, tx: Transaction, node: str) -> bool:
        """Remove a node that is gone for good from the list; False if it is not there.

        Its locations stay until they are unregistered. Raises `AlreadyExists` for one that is alive.
        """
        node = arguments.name(node, "node")
        part = tx.scope.part(keys.NODE_ROOT)
        if await tx.at(keys.NODE_ROOT).get(_key(tx.scope, node)) is None:
            return False
        if any(await leases.live_holders(tx, part, [lease_key(node)])):
            raise AlreadyExists(f"node {node!r} is alive; stop it first", kind="nodes", id=node)
        tx.at(keys.NODE_ROOT).delete(_key(tx.scope, node))
        return True

    @reading
    async def nodes(self, tx: Reader) -> tuple[NodeInfo, ...]:
        """Every node that was not forgotten, dead ones too, by name."""
        return tuple(await every_node(tx))
