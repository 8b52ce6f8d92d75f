"""Answers of a node to others: the values it holds, as long as they are of the right generation."""

from typing import Any

from ..errors import Damaged, LostLease
from . import protocol
from .holdings import Holdings
from .presence import Presence
from .server import Offered, Refusal
from .shared import AWAY


class Serving:
    """Answers requests on behalf of one node."""

    def __init__(self, holdings: Holdings, presence: Presence) -> None:
        self._holdings = holdings
        self._presence = presence

    async def offer(self, dag: str, id: str, digest: str, generation: int, known: bool) -> Offered:
        """A value that is here. Raises `Refusal`."""
        await self._check(dag, generation, known)
        try:
            stored = await self._holdings.local.results.open_stored(dag, id)
        except Damaged as error:
            raise Refusal(500, protocol.DAMAGED, f"it cannot read it: {error.message}") from error
        if stored is None:
            raise Refusal(404, protocol.NOT_HERE, protocol.IS_NOT_HERE)
        if stored.result.digest != digest:
            try:
                await self._holdings.truth(dag, id)
            except AWAY:
                self._holdings.owe(dag, id)
            raise Refusal(404, protocol.OTHER_VALUE, "it holds another value under this id")
        return Offered(stored.result, stored.form, stored.file)

    async def announce(self, dag: str, id: str) -> None:
        """Register what is here under an id. Raises `Refusal`."""
        await self._alive()
        try:
            fact = await self._holdings.truth(dag, id)
        except AWAY as error:
            raise Refusal(503, protocol.UNAVAILABLE, "it cannot reach the shared store") from error
        except Damaged as error:
            raise Refusal(500, protocol.DAMAGED, f"it cannot read it: {error.message}") from error
        if fact is None:
            raise Refusal(404, protocol.NOT_HERE, protocol.IS_NOT_HERE)

    async def clear_at(self, dag: str, generation: int) -> int:
        """Clear a DAG here, as far as the shared store says so too; gives how many values went. Raises `Refusal`."""
        await self._alive()
        try:
            current = await self._holdings.shared.ask(lambda store: store.locations.generation(dag))
        except AWAY as error:
            raise Refusal(503, protocol.UNAVAILABLE, "it cannot reach the shared store") from error
        if current < generation:
            raise Refusal(409, protocol.OTHER_GENERATION, f"the shared store is at generation {current} of this DAG")
        return await self._holdings.settle(dag, current)

    def about(self) -> dict[str, Any]:
        """Return what the node says of itself."""
        return {"name": self._presence.name, "owed": self._holdings.owed}

    async def _alive(self) -> None:
        try:
            await self._presence.refresh()
        except LostLease as error:
            raise Refusal(503, protocol.SUPERSEDED, error.message) from error

    async def _check(self, dag: str, generation: int, known: bool) -> None:
        """Clear what is from before the current generation, and refuse who asks for another one.

        Who asks has just read the generation from the shared store, unless it could not: then this node asks.
        """
        await self._alive()
        holdings = self._holdings
        applied = await holdings.applied(dag)
        if known or generation > applied:
            # A peer's word is not enough to remove anything.
            applied = await holdings.current(dag)
        if applied != generation:
            raise Refusal(
                409, protocol.OTHER_GENERATION, f"it holds generation {applied} of this DAG, not {generation}"
            )
