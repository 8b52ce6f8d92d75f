"""The promises of the feed to whoever reads while somebody prunes: single-threaded, between each two reads."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from ..core.namespace import Reader
from ..engine import AsyncEngine, Batch, Row
from ..errors import Compacted, NotFound
from ..families.instances.record import Context, Instance
from ..feed.positions import BEGINNING
from ..retention.policy import Policy
from .faces import Driven
from .family_harness import StoreTests

_LARGE = 300_000
"""Bytes of a value that is kept in two chunks."""


class _Between:
    """An engine where something happens just before the `number`-th read, counted from 1."""

    def __init__(self, engine: AsyncEngine, number: int, act: Callable[[], object], *, suspends: bool) -> None:
        self._engine, self._number, self._act, self._suspends = engine, number, act, suspends
        self.parts = engine.parts
        self.reads = 0

    async def _turn(self) -> None:
        self.reads += 1
        if self.reads != self._number:
            return
        if self._suspends:  # what it does must not run in the event loop
            await asyncio.get_running_loop().run_in_executor(None, self._act)
        else:
            self._act()

    async def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        await self._turn()
        return await self._engine.read(part, keys)

    async def scan(
        self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        await self._turn()
        return await self._engine.scan(part, start, stop, limit=limit, reverse=reverse)

    async def commit(self, part: int, batch: Batch, /) -> int:
        return await self._engine.commit(part, batch)

    async def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        await self._engine.wait(part, version, timeout)

    async def close(self) -> None:
        await self._engine.close()


def _before_read(store: Any, number: int, act: Callable[[], object]) -> tuple[Any, _Between]:
    """Another door to the same records, where `act` is called before the `number`-th read."""
    door = store.namespace((store.target if isinstance(store, Driven) else store)._scope.namespace)
    scope = (door.target if isinstance(door, Driven) else door)._scope
    scope.direct = scope.gathering = None  # so that every read goes through the engine
    between = scope.engine = _Between(scope.engine, number, act, suspends=scope.suspends)
    scope.reader = Reader(scope)
    return door, between


def _in_every_gap(store: Any, act: Callable[[int], object], ask: Callable[[Any, int], object]) -> Iterator[Any]:
    """Return what `ask(door, number)` gives, or how it is refused, where ``act(number)`` comes before its
    `number`-th read.
    """
    number = 0
    while True:
        number += 1
        door, between = _before_read(store, number, lambda number=number: act(number))  # type: ignore[misc]
        outcome: Any
        try:
            outcome = ask(door, number)
        except (Compacted, NotFound) as error:
            outcome = error
        if between.reads < number:
            assert number > 3, "nothing was read"
            return
        yield outcome


def _put(store: Any, id: str, count: int) -> list[Any]:
    """Revisions of a record whose values are all large and all different."""
    data = [bytes([at]) * _LARGE + id.encode() for at in range(count)]
    return [store.instances.put(Instance(id, "w", context=Context(initial={"data": item}))) for item in data]


class Races(StoreTests):
    """Whoever is overtaken by retention is told, or was in time."""

    def prune(self, store: Any) -> None:
        store.retention.set(Policy("feed", older_than=timedelta(0)))
        store.retention.run()

    @pytest.mark.parametrize("from_beginning", [False, True])
    def test_what_is_pruned_while_it_is_read_is_whole_or_compacted(self, store: Any, from_beginning: bool) -> None:
        written: dict[int, list[Any]] = {}

        def ask(door: Any, number: int) -> Any:
            self.prune(store)
            at = BEGINNING if from_beginning else store.feed.latest()
            written[number] = _put(store, f"r/{number}", 2)
            return door.feed.read(at)

        refused = 0
        for number, outcome in enumerate(_in_every_gap(store, lambda number: self.prune(store), ask), 1):
            refused += isinstance(outcome, Compacted) or not outcome.items
            if isinstance(outcome, Compacted):
                assert not from_beginning
                assert store.feed.read(str(outcome.first)).items == ()
                continue
            assert [change.error for change in outcome.items] in ([], [None, None])
            assert [change.record for change in outcome.items] in ([], written[number])
            assert from_beginning or outcome.items, "pruned, and nothing was said"
        assert refused > 3, "the reads must be overtaken, or this shows nothing"

    @pytest.mark.parametrize("removed", [False, True])
    def test_a_history_that_is_pruned_while_it_is_read_ends_there(self, store: Any, removed: bool) -> None:
        written: dict[int, list[Any]] = {}

        def ask(door: Any, number: int) -> Any:
            written[number] = _put(store, f"r/{number}", 3)
            return list(door.instances.history(f"r/{number}"))

        def act(number: int) -> None:
            if removed:
                store.instances.delete(f"r/{number}")
            self.prune(store)

        lengths = set()
        for number, outcome in enumerate(_in_every_gap(store, act, ask), 1):
            if isinstance(outcome, NotFound):
                assert removed
                continue
            assert outcome == written[number][::-1][: len(outcome)]
            lengths.add(len(outcome))
        assert lengths > {0, 1}, "the reads must be overtaken, or this shows nothing"

    @pytest.mark.parametrize("removed", [False, True])
    def test_a_past_record_that_is_pruned_while_it_is_read_is_not_found(self, store: Any, removed: bool) -> None:
        written: dict[int, list[Any]] = {}

        def ask(door: Any, number: int) -> Any:
            first = _put(store, f"r/{number}", 1)
            at = store.feed.latest()
            written[number] = first + _put(store, f"r/{number}", 2)
            return door.instances.as_of(f"r/{number}", at)

        def act(number: int) -> None:
            if removed:
                store.instances.delete(f"r/{number}")
            self.prune(store)

        outcomes = list(_in_every_gap(store, act, ask))
        for number, outcome in enumerate(outcomes, 1):
            assert isinstance(outcome, NotFound) or outcome == written[number][0]
        assert sum(isinstance(outcome, NotFound) for outcome in outcomes) > 3, "nothing was overtaken"
