"""A feed of several parts: each keeps its order, and nothing is lost between them."""

import pytest

from feed.test_feed import emit, pages
from stateroom.engines.memory import MemoryEngine


@pytest.fixture
def parted(database):
    """A store in several parts."""
    if database.engine == "memory":
        store = database.over(MemoryEngine(5))
    else:
        store = database.open(**({"parts": 5} if database.embedded else {}))
    yield store
    assert store.check() == []


def test_parts_keep_their_order_and_nothing_is_lost(parted, clock):
    written = [f"r{number % 7}/{number}" for number in range(200)]
    for id in written:
        clock.advance(0.001)
        emit(parted, id)
    for limit in (1, 7, 1000):
        found = [change.id for change in pages(parted, limit=limit)]
        assert found == written  # times differ, so that the whole is in order
    for change in pages(parted)[::17]:
        assert parted.feed.read(change.before, limit=1).items[0] == change


def test_parts_lose_nothing_whatever_the_clock_says(parted, clock):
    written = []
    for number in range(120):
        clock.advance(-1 if number % 3 else 1)
        emit(parted, f"r{number % 9}/{number}")
        written.append(f"r{number % 9}/{number}")
    found = [change.id for change in pages(parted, limit=5)]
    assert sorted(found) == sorted(written)
    for root in range(9):
        mine = [id for id in written if id.startswith(f"r{root}/")]
        assert [id for id in found if id.startswith(f"r{root}/")] == mine


def test_a_filter_over_parts_skips_without_losing(parted):
    emit(parted, *(f"r{number % 9}/{number}" for number in range(100)))
    wanted = [f"r{number % 9}/{number}" for number in range(0, 100, 10)]
    found = [change.id for change in pages(parted, ids=wanted, limit=3)]
    assert sorted(found) == sorted(wanted)


def test_latest_over_parts_and_what_comes_after(parted):
    emit(parted, *(f"r{number}" for number in range(9)))
    at = parted.feed.latest()
    emit(parted, *(f"r{number}/new" for number in range(9)))
    assert sorted(change.id for change in pages(parted, at, limit=4)) == sorted(f"r{number}/new" for number in range(9))
