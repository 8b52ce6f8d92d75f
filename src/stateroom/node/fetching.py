"""Fetching a value: one transfer for all who ask, from one node after another, checked before anybody reads it."""

import asyncio
import random
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import stateroom

from ..errors import Conflict, Damaged, NotFound, Unavailable
from . import protocol
from .client import Client, Reply, Unreachable, Value, value_target
from .holdings import Fact, Holdings, Stale
from .presence import Presence
from .protocol import parse_address
from .shared import AWAY

PIECE_BYTES = 1 << 20
"""What is read from a node at a time, of a value that is larger."""

_COLLECTED = 4 << 20
"""Values up to this are kept in memory while they are fetched, whoever asks."""

_ROUNDS = 4
"""How often the registry is looked at again because it was wrong."""

_TRIES = 3
"""How often a node that breaks off without having sent anything is asked."""

_KNOWN = 10_000
"""Values whose locations are remembered, for when the shared store is away."""


class _Failed(Exception):
    """No candidate could give the value; `again`: the registry has changed by it, so that another look is worth it."""

    def __init__(self, retry: bool) -> None:
        super().__init__()
        self.again = retry


class _Restart(Exception):
    """One node's transfer broke off where each is asked for all of a value: begin again with the next."""


class _Plan(NamedTuple):
    """The nodes that may have a value, as the shared store says, or as it said before it was away."""

    locations: "tuple[stateroom.Location, ...]"
    generation: int
    known: bool
    """Whether this is what was known before."""


class Transfer:
    """A value that is being fetched, and who waits for it."""

    def __init__(self, dag: str, id: str, prefer: str | None, collect: bool) -> None:
        self.dag = dag
        self.id = id
        self.prefer = prefer
        self.collect = collect
        self.waiting = 0
        self.tried: dict[str, str] = {}
        self.asking: str | None = None
        self.pieces: list[bytes] = []
        self.fact: Fact | None = None
        self.task: asyncio.Task[None] | None = None

    def data(self) -> bytes | None:
        """The whole value where it is bytes and was collected."""
        if self.fact is None or self.fact.form != "bytes" or not self.collect:
            return None
        if len(self.pieces) > 1:
            self.pieces = [b"".join(self.pieces)]
        data = self.pieces[0] if self.pieces else b""
        return data if len(data) == self.fact.size else None


class Fetcher:
    """Fetches values for one node."""

    def __init__(self, holdings: Holdings, presence: Presence, client: Client) -> None:
        self._holdings = holdings
        self._presence = presence
        self._client = client
        self._transfers: dict[tuple[str, str], Transfer] = {}
        self._known: OrderedDict[tuple[str, str], tuple[stateroom.Location, ...]] = OrderedDict()
        self.started = 0
        """How many transfers were begun."""

    def remember(self, dag: str, id: str, locations: "tuple[stateroom.Location, ...]") -> None:
        """Keep the locations of a value for when the shared store is away."""
        self._known[dag, id] = locations
        self._known.move_to_end((dag, id))
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)

    def forget(self, dag: str) -> None:
        """Forget what is known of a DAG."""
        for key in [key for key in self._known if key[0] == dag]:
            del self._known[key]

    def doubt(self) -> None:
        """Look nodes up again before the next is asked: one may have come back at another address."""
        self._presence.doubt()

    async def fetch(self, dag: str, id: str, prefer: str | None, seconds: float, *, collect: bool) -> Transfer:
        """Have a value here. Raises `NotFound`, `Unavailable`."""
        transfer = self._transfers.get((dag, id))
        if transfer is None or transfer.task is None or transfer.task.done():
            transfer = Transfer(dag, id, prefer, collect)
            self._transfers[dag, id] = transfer
            transfer.task = asyncio.get_running_loop().create_task(self._run(transfer))
        transfer.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(transfer.task)
        except Unavailable:
            raise
        except TimeoutError as error:
            reasons = dict(transfer.tried)
            if transfer.asking is not None:
                reasons[transfer.asking] = f"no whole answer within {seconds:g} s"
            raise _unavailable(dag, id, reasons, f"not fetched within {seconds:g} s") from error
        finally:
            transfer.waiting -= 1
            if not transfer.waiting and not transfer.task.done():
                self._transfers.pop((dag, id), None)
                transfer.task.cancel()
        return transfer

    async def _run(self, transfer: Transfer) -> None:
        try:
            await self._fetch(transfer)
        finally:
            if self._transfers.get((transfer.dag, transfer.id)) is transfer:
                del self._transfers[transfer.dag, transfer.id]

    async def _fetch(self, transfer: Transfer) -> None:
        dag, id = transfer.dag, transfer.id
        announced: set[str] = set()
        for round_ in range(_ROUNDS):
            plan = await self._plan(dag, id)
            if await self._complete(transfer, plan, announced):
                continue  # a node said what it holds: look again
            locations = _current(plan.locations)
            if not locations:
                raise self._nothing(transfer)
            fact = _fact(locations[0])
            if any(location.node == self._presence.name for location in locations) and await self._is_here(fact):
                transfer.fact = fact
                return
            holders = [location for location in locations if location.node != self._presence.name]
            if not holders:
                raise self._nothing(transfer)
            try:
                await self._from(transfer, fact, [location.node for location in holders], plan)
            except (Stale, Conflict):
                continue
            except _Failed as failed:
                if failed.again and round_ + 1 < _ROUNDS:
                    continue
                raise self._nothing(transfer) from None
            transfer.fact = fact
            return
        raise self._nothing(transfer)

    async def _plan(self, dag: str, id: str) -> _Plan:
        holdings = self._holdings
        try:
            generation = await holdings.current(dag)
            locations = await holdings.shared.ask(lambda store: store.locations.of(dag, id))
        except AWAY as error:
            if (dag, id) not in self._known:
                raise Unavailable(
                    f"the shared store is away, and no location of result {id!r} of DAG {dag!r} is known here", tried={}
                ) from error
            return _Plan(self._known[dag, id], await holdings.applied(dag), known=True)
        self.remember(dag, id, locations)
        return _Plan(locations, generation, known=False)

    async def _complete(self, transfer: Transfer, plan: _Plan, announced: set[str]) -> bool:
        """Have nodes say what they hold whose location lacks the digest; whether the registry has changed by it."""
        unknown = [
            location.node for location in plan.locations if None in (location.digest, location.size, location.form)
        ]
        named = {location.node for location in plan.locations}
        if transfer.prefer is not None and transfer.prefer not in named:
            unknown.append(transfer.prefer)
        changed = False
        for node in unknown:
            if node in announced:
                continue
            announced.add(node)
            if node == self._presence.name:
                if node in named:
                    await self._holdings.truth(transfer.dag, transfer.id)
                    changed = True
                continue
            target = protocol.target(protocol.ANNOUNCE, dag=transfer.dag, id=transfer.id)
            reply = await self._ask(transfer, node, "POST", target)
            if reply is not None:
                changed |= reply.code == protocol.HERE or await self._is_gone(transfer, node, reply, node in named)
        return changed

    async def _ask(self, transfer: Transfer, node: str, method: str, target: str) -> Reply | None:
        """Ask a node something short; None, and why in `tried`, where it gave no answer."""
        info = (await self._presence.find({node})).get(node)
        if info is None or not info.alive:
            if info is not None:  # of one that never was there is nothing to say
                transfer.tried[node] = _dead(info)
            return None
        try:
            return await self._client.short(node, parse_address(info.address, "address"), method, target)
        except Unreachable as error:
            transfer.tried[node] = str(error)
            return None

    async def _is_gone(self, transfer: Transfer, node: str, reply: Reply, registered: bool) -> bool:
        """Take note of a node that has not what it is asked for; whether its location went by that."""
        transfer.tried[node] = reply.message
        if reply.code != protocol.NOT_HERE or not registered:
            return False
        holdings = self._holdings
        try:
            count = await holdings.shared.ask(lambda store: store.locations.unregister(transfer.dag, transfer.id, node))
        except AWAY:
            return False
        return count > 0

    async def _is_here(self, fact: Fact) -> bool:
        """Say whether a value is here as the registry has it; else this node's location goes."""
        stored = await self._holdings.local.results.open_stored(fact.dag, fact.id)
        if stored is not None and stored.result.digest == fact.digest:
            return True
        await self._holdings.gone(fact.dag, fact.id)
        return False

    async def _from(self, transfer: Transfer, fact: Fact, nodes: list[str], plan: _Plan) -> None:
        """Fetch from one of some nodes and store it. Raises `_Failed`, `Stale`."""
        random.shuffle(nodes)
        if transfer.prefer in nodes:
            nodes.sort(key=lambda node: node != transfer.prefer)
        source = _Source(self, transfer, fact, nodes, plan)
        transfer.collect = transfer.collect or fact.size <= _COLLECTED
        self.started += 1
        try:
            while True:
                transfer.pieces.clear()
                try:
                    await self._holdings.keep_copy(fact, source.blocks(), plan.generation)
                except Damaged:
                    source.blame()
                except _Restart:
                    source.restart()
                else:
                    return
        finally:
            transfer.asking = None

    def _nothing(self, transfer: Transfer) -> Exception:
        if not set(transfer.tried.values()) - {protocol.IS_NOT_HERE}:
            text = f"no node holds result {transfer.id!r} of DAG {transfer.dag!r}"
            return NotFound(text, kind="results", id=f"{transfer.dag}/{transfer.id}")
        return _unavailable(transfer.dag, transfer.id, transfer.tried, "no node could give it")


class _Source:
    """The bytes of one value, from one node and then another, from where the last one stopped."""

    def __init__(self, fetcher: Fetcher, transfer: Transfer, fact: Fact, nodes: list[str], plan: _Plan) -> None:
        self._fetcher = fetcher
        self._transfer = transfer
        self._fact = fact
        self._nodes = nodes
        self._plan = plan
        self._sent: set[str] = set()
        self._failures: dict[str, int] = {}
        self._alone = False
        self.changed = False

    def blame(self) -> None:
        """Exclude who sent other bytes; where several sent some, each is asked for all of it from now on."""
        if len(self._sent) == 1 or self._alone:
            for node in self._sent:
                self._transfer.tried[node] = "what it sent is not what the digest says"
                self._nodes = [name for name in self._nodes if name != node]
        else:
            self._alone = True
        self._sent.clear()

    def restart(self) -> None:
        """Begin with the first byte again."""
        self._sent.clear()

    async def blocks(self) -> AsyncIterator[bytes]:
        """The bytes, in pieces. Raises `_Failed` where no node is left."""
        offset, size = 0, self._fact.size
        while offset < size or not self._sent:
            node, value = await self._open(offset)
            self._sent.add(node)
            try:
                upcoming = asyncio.ensure_future(value.read(PIECE_BYTES))
                try:
                    while piece := await upcoming:
                        # The next piece comes in while this one is stored.
                        upcoming = asyncio.ensure_future(value.read(PIECE_BYTES))
                        offset += len(piece)
                        self._failures.pop(node, None)
                        if self._transfer.collect:
                            self._transfer.pieces.append(piece)
                        yield piece
                finally:
                    await _ended(upcoming)
            except Unreachable as error:
                self._fail(node, str(error))
            finally:
                await value.close()

    async def _open(self, offset: int) -> tuple[str, Value]:
        while self._nodes:
            node = self._nodes[0]
            if self._alone and offset and node not in self._sent:
                raise _Restart
            self._transfer.asking = node
            info = (await self._fetcher._presence.find({node})).get(node)
            if info is None or not info.alive:
                self._fail(node, _dead(info), times=_TRIES)
                continue
            fact = self._fact
            target = value_target(fact.dag, fact.id, fact.digest, self._plan.generation, known=self._plan.known)
            address = parse_address(info.address, "address")
            try:
                answer = await self._fetcher._client.value(
                    node, address, target, offset, fact.size, fact.digest, fact.form
                )
            except Unreachable as error:
                self._fail(node, str(error))
                continue
            if isinstance(answer, Value):
                return node, answer
            self.changed |= await self._fetcher._is_gone(self._transfer, node, answer, True)
            self.changed |= answer.code in (protocol.OTHER_VALUE, protocol.OTHER_GENERATION)
            self._nodes.remove(node)
        self._transfer.asking = None
        raise _Failed(self.changed)

    def _fail(self, node: str, why: str, times: int = 1) -> None:
        """Take note of a failure; the node goes to the end of the line, and out of it when it has failed too often."""
        self._transfer.tried[node] = why
        self._failures[node] = self._failures.get(node, 0) + times
        if node in self._nodes:
            self._nodes.remove(node)
            if self._failures[node] < _TRIES:
                self._nodes.insert(0 if self._alone else len(self._nodes), node)
        self._fetcher.doubt()


async def _ended(task: "asyncio.Future[Any]") -> None:
    """End a read that nobody waits for any more."""
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


def _current(locations: "tuple[stateroom.Location, ...]") -> "list[stateroom.Location]":
    """The locations of the value that was registered last, where they differ."""
    groups: dict[str, list[stateroom.Location]] = {}
    for location in locations:
        if location.digest is not None and location.size is not None and location.form is not None:
            groups.setdefault(location.digest, []).append(location)
    return max(groups.values(), key=_made) if groups else []


def _made(group: "list[stateroom.Location]") -> Any:
    return min(location.created_at for location in group if location.created_at is not None)


def _fact(location: "stateroom.Location") -> Fact:
    assert location.digest is not None
    assert location.size is not None
    assert location.form is not None
    return Fact(location.dag, location.id, location.digest, location.size, location.form, location.expires_at)


def _dead(info: "stateroom.NodeInfo | None") -> str:
    return "no such node" if info is None else f"no heartbeat since {info.seen_at:%Y-%m-%d %H:%M:%S} UTC"


def _unavailable(dag: str, id: str, reasons: dict[str, str], what: str) -> Unavailable:
    summary = "; ".join(f"{node}: {why}" for node, why in sorted(reasons.items()))
    return Unavailable(
        f"result {id!r} of DAG {dag!r}: {what}" + (f" ({summary})" if summary else ""), tried=dict(reasons)
    )
