"""The common part of the families' cases: a fresh store per test, checked at its end."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, TypeVar

import pytest

from ..feed.feed import Change
from ..feed.positions import BEGINNING
from .harness import PATIENCE

T = TypeVar("T")


class StoreFactory(Protocol):
    """Opens a store on a fresh, empty database at each call, in a namespace that nobody else uses.

    For an `AsyncStore`, drive it (`stateroom.testing.faces.drive`). It may also have ``destroy(store)``: called at the
    end, after `close`.
    """

    def __call__(self) -> Any: ...


class StoreTests:
    """The base of every group of cases; `family_suite` puts the factory in."""

    factory: ClassVar[Any]

    @pytest.fixture
    def store(self) -> Iterator[Any]:
        """A fresh store. Indexes, counters, dependents and feed must agree with the records when the test ends."""
        with self.fresh() as store:
            yield store
            assert list(store.check()) == []

    @contextmanager
    def fresh(self) -> Iterator[Any]:
        store = self.factory()
        try:
            yield store
        finally:
            self.release(store)

    def release(self, store: Any) -> None:
        store.close()
        destroy = getattr(self.factory, "destroy", None)
        if destroy is not None:
            destroy(store)


def changes(store: Any, **filters: Any) -> tuple[Change, ...]:
    """All changes so far."""
    result: list[Change] = []
    after = BEGINNING
    while True:
        page = store.feed.read(after, limit=1000, **filters)
        if not page.items and page.next == after:
            return tuple(result)
        result += page.items
        after = page.next


def ids(records: Any) -> list[str]:
    """The ids of some records, in their order."""
    return [record.id for record in records]


@contextmanager
def nothing_changes(store: Any) -> Iterator[None]:
    """The feed says nothing new, and what it says nothing of is the same too."""
    before = _everything(store)
    yield
    assert _everything(store) == before


def _everything(store: Any) -> tuple[Any, ...]:
    return (
        store.feed.latest(),
        tuple(store.instances.scan()),
        tuple(store.executions.scan()),
    )


def together(workers: int, call: Callable[[int], T], calls: int) -> list[T]:
    """``call(0)`` to ``call(calls - 1)`` in threads, `workers` at a time; what one raises is raised."""
    with ThreadPoolExecutor(workers) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(call, number) for number in range(calls)]]
