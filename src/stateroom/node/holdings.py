"""Values of a node beside what the shared store says of them: locations, and the generation of the values.

The local store is the truth about this node. What the shared store could not be told is told when it is back, and at
each start the two are compared; so nothing about it needs to be kept anywhere else.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple

import stateroom

from ..errors import LostLease, StoreError
from .log import log
from .shared import AWAY, Shared

_TOGETHER = 16
_REMEMBERED = 1000


class Fact(NamedTuple):
    """A value that is here, as a location says it."""

    dag: str
    id: str
    digest: str
    size: int
    form: str
    expires_at: datetime | None

    @classmethod
    def of(cls, result: Any, form: str) -> "Fact":
        """Return what a result's record says."""
        return cls(result.dag, result.id, result.digest, result.size, form, result.expires_at)


class Stale(Exception):
    """A value that was fetched is not the current one any more, or its DAG was cleared meanwhile."""


class Holdings:
    """Keeps the shared store's registry true to the local store."""

    def __init__(self, shared: Shared, local: "stateroom.AsyncStore", name: str) -> None:
        self.shared = shared
        self.local = local
        self.name = name
        self.one = False
        """Whether both stores are one database and namespace: then a value and its location are one commit."""
        self._owed: dict[tuple[str, str], None] = {}
        self._advances = -1
        self._removed: dict[tuple[str, int], int] = {}
        self.check: Callable[[], None] = lambda: None
        self.owing: Callable[[], None] = lambda: None
        """Called where something is owed from now on."""

    async def start(self) -> None:
        """See whether the two stores are one."""
        mine = self.local
        store = self.shared.store
        same = mine is store or (mine.url == store.url and not mine.url.startswith("memory:"))
        if same:
            self.one = (await mine.stats()).namespace == (await store.stats()).namespace

    @property
    def owed(self) -> int:
        """How many registrations the shared store could not be told of yet."""
        return len(self._owed)

    async def applied(self, dag: str) -> int:
        """The generation that this node's values of a DAG are of."""
        return await self.local.locations.generation(dag, self.name)

    async def current(self, dag: str) -> int:
        """The generation of a DAG, after everything here from before it was removed; where the shared store is away,
        the one of what is here.
        """
        try:
            generation = await self.shared.ask(lambda store: store.locations.generation(dag))
        except AWAY:
            return await self.applied(dag)
        await self.settle(dag, generation)
        return generation

    async def settle(self, dag: str, generation: int) -> int:
        """Remove what is here of a DAG from before a generation; gives how many values, also where that is done."""
        if await self.applied(dag) >= generation:
            return self._removed.get((dag, generation), 0)

        async def body(tx: Any) -> int:
            if await tx.locations.generation(dag, self.name) >= generation:
                return 0
            removed = await tx.results.clear(dag)
            await tx.locations.settle(dag, self.name, generation)
            return int(removed)

        removed = await self.local.transact(body)
        if removed:
            self._removed[dag, generation] = removed
            while len(self._removed) > _REMEMBERED:
                self._removed.pop(next(iter(self._removed)))
        return removed

    async def sweep(self) -> None:
        """Remove everything from before the generations of the shared store. Raises where that is away."""
        advances = await self.shared.ask(lambda store: store.locations.advances())
        if advances == self._advances:
            return
        generations = await self.shared.ask(lambda store: store.locations.generations())
        for dag, generation in generations.items():
            if await self.local.results.count(dag):
                await self.settle(dag, generation)
        self._advances = advances

    async def keep(
        self, dag: str, form: str, write: Callable[[Any], Awaitable[Any]], *, repeatable: bool = True
    ) -> Any:
        """Store a value by `write(results)` and register it; both in one commit where both stores are one.

        `repeatable`: `write` may be called more than once. Gives what it gave, a `Result`.
        """
        self.check()
        generation = await self.current(dag)
        if not self.one:
            result = await write(self.local.results)
            await self.told(Fact.of(result, form), generation)
            return result

        async def body(tx: Any) -> Any:
            result = await write(tx.results)
            await self._place(tx, Fact.of(result, form), generation)
            return result

        if repeatable:
            return await self.local.transact(body)
        async with self.local.transaction() as tx:
            return await body(tx)

    async def keep_copy(self, fact: Fact, source: Any, generation: int) -> None:
        """Store what was fetched, unless the DAG was cleared meanwhile, and register it. Raises `Stale`, `Damaged`."""
        async with self.local.transaction() as tx:
            if await tx.locations.generation(fact.dag, self.name) != generation:
                raise Stale
            await tx.results.put_stored(
                fact.dag,
                fact.id,
                source,
                form=fact.form,
                digest=fact.digest,
                size=fact.size,
                expires_at=fact.expires_at,
            )
            if self.one:
                await self._place(tx, fact, generation, copy=True)
        if not self.one:
            try:
                newer = await self.shared.ask(
                    lambda store: store.transact(lambda tx: self._place(tx, fact, generation, copy=True))
                )
            except AWAY:
                self.owe(fact.dag, fact.id)
            else:
                if newer is not None:
                    await self.settle(fact.dag, newer)
                    raise Stale

    async def told(self, fact: Fact, generation: int) -> None:
        """Register what was stored here; made up for later where the shared store is away."""
        try:
            newer = await self.shared.ask(lambda store: store.transact(lambda tx: self._place(tx, fact, generation)))
        except AWAY:
            self.owe(fact.dag, fact.id)
            return
        if newer is not None:  # the DAG was cleared everywhere while this was stored: it came before
            await self.settle(fact.dag, newer)

    async def _place(self, tx: Any, fact: Fact, generation: int, *, copy: bool = False) -> int | None:
        """Write a location in a transaction; gives the generation where there is a newer one.

        A value that was made here replaces what others hold under its id. A copy raises `Stale` where others hold
        another value by now.
        """
        newer: int = await tx.locations.generation(fact.dag)
        if newer > generation:
            return newer
        holders = [
            location
            for location in await tx.locations.of(fact.dag, fact.id)
            if location.node != self.name and location.digest not in (None, fact.digest)
        ]
        if copy and holders:
            raise Stale
        for location in holders:
            await tx.locations.unregister(fact.dag, fact.id, location.node)
        await tx.locations.register(
            fact.dag, fact.id, self.name, digest=fact.digest, size=fact.size, form=fact.form, expires_at=fact.expires_at
        )
        return None

    def owe(self, dag: str, id: str) -> None:
        """Remember that the shared store is to be told what is here under an id."""
        self._owed[dag, id] = None
        self.owing()

    async def make_up(self) -> None:
        """Tell the shared store what it could not be told. Raises where it is still away."""
        for dag, id in list(self._owed):
            self._owed.pop((dag, id), None)  # before the look: what is stored from now on is owed anew
            try:
                await self.truth(dag, id)
            except BaseException:
                self._owed[dag, id] = None
                raise

    async def truth(self, dag: str, id: str) -> Fact | None:
        """Make this node's location of a value say what is here, or go; gives what is here. Raises where it is away.

        Where others hold another value that was put later, theirs is the current one.
        """
        generation = await self.shared.ask(lambda store: store.locations.generation(dag))
        await self.settle(dag, generation)
        stored = await self.local.results.open_stored(dag, id)
        if stored is None:
            await self.shared.ask(lambda store: store.locations.unregister(dag, id, self.name))
            return None
        fact, written_at = Fact.of(stored.result, stored.form), stored.result.updated_at

        async def body(tx: Any) -> int | None:
            locations = await tx.locations.of(dag, id)
            holders = [
                location
                for location in locations
                if location.node != self.name and location.digest not in (None, fact.digest)
            ]
            if holders and min(location.created_at for location in holders) > written_at:
                await tx.locations.unregister(dag, id, self.name)
                return None
            return await self._place(tx, fact, generation)

        await self.shared.ask(lambda store: store.transact(body))
        return fact

    async def gone(self, dag: str, id: str) -> None:
        """Unregister what is not here any more; made up for later where the shared store is away."""
        try:
            await self.shared.ask(lambda store: store.locations.unregister(dag, id, self.name))
        except AWAY:
            self.owe(dag, id)

    async def clear(self, dag: str) -> int:
        """Remove what is here of a DAG, with this node's locations."""
        ids = await self.local.results.ids(dag)
        removed = await self.local.results.clear(dag)
        try:
            await self.shared.ask(lambda store: store.locations.clear_node(self.name, dag))
        except AWAY:
            for id in ids:
                self.owe(dag, id)
        return removed

    async def reconcile(self) -> None:
        """Compare everything that is here with what the shared store says of this node, and mend that."""
        try:
            await self._reconcile()
        except LostLease:
            return
        except AWAY as error:
            log.warning("node %r could not compare its locations with the shared store: %s", self.name, error)
        except StoreError as error:
            log.warning("node %r could not compare all of its locations: %s", self.name, error)

    async def _reconcile(self) -> None:
        store = self.shared.store
        wrong: list[tuple[str, str]] = []
        async for location in store.locations.scan(node=self.name):
            stored = await self.local.results.open_stored(location.dag, location.id)
            if stored is None or stored.result.digest != location.digest:
                wrong.append((location.dag, location.id))
            if len(wrong) >= _TOGETHER:
                await self._mend(wrong)
        await self._mend(wrong)
        async for result in self.local.results.scan():
            locations = await store.locations.of(result.dag, result.id)
            if not any(holder.node == self.name and holder.digest == result.digest for holder in locations):
                wrong.append((result.dag, result.id))
            if len(wrong) >= _TOGETHER:
                await self._mend(wrong)
        await self._mend(wrong)

    async def _mend(self, wrong: list[tuple[str, str]]) -> None:
        self.check()
        await asyncio.gather(*(self.truth(dag, id) for dag, id in wrong))
        wrong.clear()
