"""Following the feed on an event loop: for ever, without a thread for each follower."""

import asyncio
import itertools
import threading

import pytest

from kit.databases import SUSPENDING
from stateroom import BEGINNING, AsyncStore, Store, codec
from stateroom.core.bridge import Threaded
from stateroom.engines.memory import MemoryEngine
from stateroom.errors import InvalidArgument
from stateroom.testing.faces import ManualClock


async def take(follower, count):
    found = []
    async for change in follower:
        found.append(change.id)
        if len(found) == count:
            break
    await follower.aclose()
    return found


@SUSPENDING
def test_it_gives_what_there_is_and_then_what_comes(database):
    async def work(store):
        await store.feed.emit("note", 1, id="r/a")
        following = asyncio.create_task(take(store.feed.follow(), 3))
        await asyncio.sleep(0)
        await store.feed.emit("note", 2, id="r/b")
        await store.feed.emit("note", 3, id="r/c")
        assert await following == ["r/a", "r/b", "r/c"]

    database.run(work)


@SUSPENDING
def test_a_named_follower_goes_on_after_the_last_change_it_was_done_with(database):
    async def work(store):
        for id in "abcd":
            await store.feed.emit("note", 1, id=f"r/{id}")
        assert await take(store.feed.follow("c"), 2) == ["r/a", "r/b"]
        # "b" was in hand when it ended: it is seen again.
        assert await take(store.feed.follow("c"), 3) == ["r/b", "r/c", "r/d"]

    database.run(work)


@SUSPENDING
def test_filters_and_batches(database):
    async def work(store):
        for number in range(20):
            await store.feed.emit("even" if number % 2 == 0 else "odd", number, id=f"r/{number}")
        assert await take(store.feed.follow(families=["odd"], batch=3), 10) == [f"r/{n}" for n in range(1, 20, 2)]

    database.run(work)


def test_on_a_plain_store_it_is_a_plain_iterator(store):
    for id in ("r/a", "r/b", "r/c"):
        store.feed.emit("note", 1, id=id)
    assert [change.id for change in itertools.islice(store.feed.follow(start=BEGINNING), 3)] == ["r/a", "r/b", "r/c"]
    with pytest.raises(InvalidArgument):
        next(iter(store.feed.follow(batch=0)))
    with store.transaction() as tx, pytest.raises(InvalidArgument):
        next(iter(tx.feed.follow()))


@SUSPENDING
def test_many_idle_followers_need_no_thread_each(database):
    many = 1000 if database.embedded else 100  # there each looks with a round trip for each part

    async def work(store):
        before, at = threading.active_count(), await store.feed.latest()
        followers = [asyncio.create_task(take(store.feed.follow(start=at, ids=["x"]), 1)) for _ in range(many)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert threading.active_count() <= before + 2
        await store.feed.emit("note", 1, id="x")
        assert await asyncio.gather(*followers) == [["x"]] * many

    database.run(work)


def test_an_idle_follower_reads_nothing_until_something_moves():
    class Counting:
        def __init__(self, inner):
            self._inner = inner
            self.reads = 0

        def __getattr__(self, name):
            if name in ("submit", "read_many", "scan_many"):
                raise AttributeError(name)
            return getattr(self._inner, name)

        def read(self, *args):
            self.reads += 1
            return self._inner.read(*args)

        def scan(self, *args, **kwargs):
            self.reads += 1
            return self._inner.scan(*args, **kwargs)

    async def work():
        engine, clock = MemoryEngine(), ManualClock()
        counted = Counting(engine)
        writer = Store(engine, "memory:", namespace="n", codec=codec.default, clock=clock, owner=False)
        writer.feed.emit("note", 1, id="a")
        store = AsyncStore(Threaded(counted), counted, "memory:", namespace="n", codec=codec.default, clock=clock)
        following = asyncio.create_task(take(store.feed.follow(start=writer.feed.latest()), 1))
        for _ in range(100):
            await asyncio.sleep(0)
        at_rest = counted.reads
        for _ in range(100):
            await asyncio.sleep(0)
        assert counted.reads - at_rest <= 1  # the wait's own look at the version
        writer.feed.emit("note", 1, id="b")
        assert await asyncio.wait_for(following, 30) == ["b"]
        await store.close()

    asyncio.run(work())
