"""Adapters over a url, a `Store` and an `AsyncStore`, called plainly and awaited, from wherever that is."""

import asyncio

import pytest

import stateroom
from stateroom.adapters.cache import AsyncCache, Cache
from stateroom.errors import Closed, InvalidArgument


def test_plain_calls_over_an_async_store_from_its_loop_a_thread_and_outside(url):
    async def main():
        store = await stateroom.open_async(url)
        cache = Cache(store)
        cache["here"] = 1  # blocks the loop, which the store must not need
        await asyncio.to_thread(cache.set, "thread", 2)
        awaited = AsyncCache(store)
        assert [await awaited.get("here"), await awaited.get("thread")] == [1, 2]
        return store, cache

    store, cache = asyncio.run(main())
    assert (cache["here"], cache.incr("thread")) == (1, 3)
    cache.close()

    async def close():
        assert await store.check() == []
        await store.close()

    asyncio.run(close())


def test_a_store_that_was_given_stays_open_and_one_from_a_url_is_closed(url):
    with stateroom.open(url) as store:
        AsyncCache(store)._access.close()
        Cache(store).close()
        assert store.results.ids("none") == ()
    with Cache(url) as cache:
        cache["k"] = 1
        store = cache._access.store
    with pytest.raises(Closed):
        store.results.ids("none")


def test_awaited_calls_over_a_store_in_two_loops(store):
    cache = AsyncCache(store)
    asyncio.run(cache.set("k", 1))
    assert asyncio.run(cache.get("k")) == 1
    asyncio.run(cache.close())
    with pytest.raises(Closed):
        asyncio.run(cache.get("k"))


def test_anything_else_is_refused():
    with pytest.raises(InvalidArgument, match="AsyncStore"):
        Cache(3)
