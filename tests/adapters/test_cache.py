"""`Cache` and `AsyncCache`: what diskcache promises, limits that hold, functions without stampede, many processes."""

import asyncio
import io
import os
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

import stateroom
from stateroom import AsyncStore
from stateroom.adapters.cache import AsyncCache, Cache
from stateroom.errors import Conflict, InvalidArgument
from stateroom.testing.faces import ManualClock

from .conftest import ENGINES, opened


class Plain:
    """An `AsyncCache` called as a `Cache` is."""

    def __init__(self, cache):
        self._cache = cache
        self._runner = asyncio.Runner()

    def __getattr__(self, name):
        method = getattr(self._cache, name)
        return lambda *arguments, **options: self._runner.run(method(*arguments, **options))

    def __getitem__(self, key):
        return self.get(key)

    def __setitem__(self, key, value):
        self.set(key, value)

    def __contains__(self, key):
        return self.contains(key)

    def __len__(self):
        return self.count()

    def __iter__(self):
        async def keys():
            return [key async for key in self._cache]

        return iter(self._runner.run(keys()))


@pytest.fixture(params=[f"{face} {engine}" for face in ("plain", "awaited") for engine in ENGINES])
def cache(request):
    face, engine = request.param.split()
    with opened(engine, request) as store:
        if face == "plain":
            yield Cache(store)
            return
        wrapped = Plain(AsyncCache(AsyncStore.over(store)))
        yield wrapped
        wrapped._runner.close()


@pytest.fixture
def aged(tmp_path):
    clock = ManualClock()
    with stateroom.open(tmp_path / "aged.db", clock=clock) as store:
        yield Cache(store), clock
        assert store.check() == []


def test_set_get_and_delete(cache):
    assert cache.get("a") is None
    assert cache.get("a", default=7) == 7
    assert cache.set("a", {"n": [1, 2]}) is True
    assert cache["a"] == {"n": [1, 2]}
    assert "a" in cache
    cache["none"] = None
    assert cache.get("none", default=7) is None
    assert len(cache) == 2
    assert list(cache) == ["a", "none"]
    assert cache.delete("a") is True
    assert cache.delete("a") is False
    assert "a" not in cache


@pytest.mark.parametrize(
    "key", ["", " ", "a/b", "x" * 5000, "ü\0", b"bytes", b"", 0, -1, 2**62, 1.5, None, ("a", 1, None), date(2026, 1, 2)]
)
def test_keys_of_many_kinds(cache, key):
    cache.set(key, "value")
    assert cache.get(key) == "value"
    assert list(cache) == [key]
    assert cache.pop(key) == "value"


def test_keys_that_look_alike_are_different_and_equal_numbers_are_one(cache):
    alike = ["1", 1, b"1", ("1",), (1,), "n1", "31", None, "None"]
    for number, key in enumerate(alike):
        cache.set(key, number)
    assert [cache.get(key) for key in alike] == list(range(len(alike)))
    assert (cache.get(1.0), cache.get(True)) == (1, 1)


@pytest.mark.parametrize(
    "value",
    [0, "", b"\0" * 300_000, "x" * 300_000, {"a": {1, 2}}, (1, (2,)), datetime(2026, 1, 2, tzinfo=UTC), 1.5, True],
)
def test_values_come_back_as_they_were(cache, value):
    cache.set("k", value)
    assert cache.get("k") == value
    assert type(cache.get("k")) is type(value)


def test_files_are_read_and_given(cache):
    data = bytes(range(256)) * 1000
    cache.set("file", io.BytesIO(data), read=True, tag="t")
    assert cache.get("file", tag=True) == (data, "t")
    if isinstance(cache, Cache):
        reader, expires, tag = cache.get("file", read=True, expire_time=True, tag=True)
        assert (reader.read(), expires, tag) == (data, None, "t")
        with pytest.raises(KeyError):
            cache.read("none")


def test_add_incr_pop(cache):
    assert cache.add("n", 5, tag="numbers")
    assert not cache.add("n", 6)
    assert cache.incr("n", 2) == 7
    assert cache.decr("n") == 6
    assert cache.get("n", tag=True) == (6, "numbers")
    assert cache.incr("new", default=10) == 11
    with pytest.raises(KeyError):
        cache.incr("none", default=None)
    assert cache.pop("n", tag=True) == (6, "numbers")
    assert cache.pop("n", default="gone") == "gone"


def test_tags_are_evicted_and_everything_is_cleared(cache):
    for number in range(250):
        cache.set(number, number, tag="odd" if number % 2 else None)
    assert cache.evict("odd") == 125
    assert len(cache) == 125
    assert cache.clear() == 125
    assert list(cache) == []


def test_queues(cache):
    keys = [cache.push(word) for word in ("a", "b", "c")]
    assert keys == [500_000_000_000_000, 500_000_000_000_001, 500_000_000_000_002]
    front = cache.push("z", side="front")
    assert front == 499_999_999_999_999
    assert cache.peek() == (front, "z")
    assert cache.pull() == (front, "z")
    assert cache.pull(side="back")[1] == "c"
    cache.delete(keys[0])
    assert cache.pull()[1] == "b"
    assert cache.pull() == (None, None)
    assert cache.push("p", prefix="jobs") == "jobs-500000000000000"
    assert cache.pull(prefix="jobs", default=None)[1] == "p"
    with pytest.raises(InvalidArgument):
        cache.push("x", side="middle")


def test_entries_expire(aged):
    cache, clock = aged
    cache.set("short", 1, expire=10)
    cache.set("long", 2, expire=timedelta(hours=1), tag="t")
    cache.set("now", 3, expire=0)
    assert "now" not in cache
    value, expires, tag = cache.get("long", expire_time=True, tag=True)
    assert (value, tag) == (2, "t")
    assert expires == clock.now().timestamp() + 3600
    assert cache.touch("short", expire=100)
    assert not cache.touch("none")
    clock.advance(50)
    assert sorted(cache) == ["long", "short"]
    assert cache.incr("short") == 2
    clock.advance(49)
    assert cache["short"] == 2
    clock.advance(2)
    assert list(cache) == ["long"]  # adding to a number has not let it live longer
    clock.advance(3600)
    assert list(cache) == []
    assert cache.add("short", 5)
    assert cache.expire() == 1
    assert cache.touch("short", expire=None)


def test_a_key_that_is_not_there_is_a_key_error(store):
    cache = Cache(store)
    with pytest.raises(KeyError):
        cache["none"]
    with pytest.raises(KeyError):
        del cache["none"]
    with pytest.raises(KeyError):
        cache.peekitem()
    cache["a"] = 1
    cache.set("b", 2, tag="t")
    assert cache.peekitem() == ("b", 2)
    assert cache.peekitem(last=False) == ("a", 1)
    assert cache.peekitem(tag=True) == (("b", 2), "t")
    assert list(reversed(cache)) == ["b", "a"]


class Strange:
    pass


@pytest.mark.parametrize(
    "call",
    [
        lambda cache: cache.set("k", Strange()),
        lambda cache: cache.set(Strange(), 1),
        lambda cache: cache.set("k", 1, expire="soon"),
        lambda cache: cache.set("k", 1, expire=float("nan")),
        lambda cache: cache.set("k", 1, tag=Strange()),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(cache, call):
    with pytest.raises(InvalidArgument):
        call(cache)
    assert list(cache) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cache("memory:", size_limit=0),
        lambda: Cache("memory:", eviction_policy="least-recently-used"),
        lambda: Cache("memory:").reset("disk", 1),
        lambda: Cache(7),
    ],
)
def test_settings_that_are_none_are_refused(make):
    with pytest.raises(InvalidArgument):
        make()


def test_caches_in_one_store_are_apart_and_seen_by_the_feed(store):
    one, two = Cache(store, name="one"), Cache(store, name="two/x")
    one["k"] = 1
    two["k"] = 2
    assert (one["k"], two["k"]) == (1, 2)
    assert one.clear() == 1
    assert two["k"] == 2
    assert {change.family for change in store.feed.read().items} == {"results"}


# --- limits and counts


def test_the_size_limit_holds(store):
    cache = Cache(store, size_limit=200_000)
    for number in range(600):
        cache[number] = b"x" * 1000
        if number % 50 == 0:
            assert cache.volume() <= 200_000
    assert cache.volume() <= 200_000
    assert len(cache) > 100
    assert 599 in cache
    assert 0 not in cache


def test_incr_add_and_push_count_for_the_limit_too(store):
    cache = Cache(store, size_limit=50_000)
    for number in range(100):
        cache.add(("a", number), b"x" * 1000)
        cache.push(b"x" * 1000)
    assert cache.volume() <= 50_000


def test_without_automatic_culling_cull_does_it(store):
    cache = Cache(store, size_limit=50_000, cull_limit=0)
    for number in range(100):
        cache[number] = b"x" * 1000
    assert cache.volume() > 50_000
    assert cache.cull() > 0
    assert cache.volume() <= 50_000
    free = Cache(store, name="free", size_limit=None)
    for number in range(100):
        free[number] = b"x" * 1000
    assert (len(free), free.cull()) == (100, 0)


def test_hits_and_misses_are_counted_once_that_is_asked_for(store):
    cache = Cache(store)
    cache.get("none")
    assert cache.stats() == (0, 0)
    cache["k"] = 1
    cache.get("k")
    cache.get("none")
    assert cache.stats(enable=False, reset=True) == (1, 1)
    cache.get("k")
    assert cache.stats() == (0, 0)


# --- functions


def test_a_function_is_computed_once_for_each_call(store):
    cache = Cache(store)
    calls = []

    @cache.memoize(tag="f", ignore={"log"})
    def double(number, *, log=None):
        """Twice as much."""
        calls.append(number)
        return None if number == 0 else number * 2

    assert [double(1), double(1), double(1, log="x"), double(0), double(0)] == [2, 2, 2, None, None]
    assert calls == [1, 0]
    assert double.__doc__ == "Twice as much."
    assert cache.get(double.__cache_key__(1), tag=True) == (2, "f")
    cache.evict("f")
    assert double(1) == 2
    assert calls == [1, 0, 1]
    with pytest.raises(TypeError):
        cache.memoize(double)


def test_types_make_calls_different_where_that_is_asked_for(store):
    cache = Cache(store)
    typed, untyped = (
        cache.memoize(name=f"kind {typed}", typed=typed)(lambda value: type(value).__name__) for typed in (True, False)
    )
    assert [typed(1), typed(1.0)] == ["int", "float"]
    assert [untyped("1"), untyped(b"1")] == ["str", "bytes"]


def test_of_many_threads_one_computes_and_the_others_wait(store):
    cache = Cache(store)
    calls, ready = [], threading.Barrier(8)

    @cache.memoize()
    def slow(number):
        calls.append(number)
        gate.wait(10)
        return number + 1

    gate = threading.Event()
    results = []

    def ask():
        ready.wait()
        results.append(slow(1))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    while not calls:
        pass
    gate.set()
    for thread in threads:
        thread.join()
    assert (results, calls) == ([2] * 8, [1])


def test_coroutines_are_remembered_too(store):
    async def main():
        calls = []
        for cache in (Cache(store), AsyncCache(AsyncStore.over(store), name="other")):

            @cache.memoize()
            async def fetch(page):
                calls.append(page)
                await asyncio.sleep(0)
                return page

            assert await asyncio.gather(*(fetch(3) for _ in range(20))) == [3] * 20
        assert calls == [3, 3]

    asyncio.run(main())


def test_what_a_function_raises_comes_through_and_the_next_one_computes(store):
    cache = Cache(store)
    calls = []

    @cache.memoize()
    def fails(number):
        calls.append(number)
        if len(calls) == 1:
            raise ValueError("no")
        return number

    with pytest.raises(ValueError, match="no"):
        fails(1)
    assert (fails(1), fails(1), calls) == (1, 1, [1, 1])


def test_a_function_in_many_processes_is_computed_once(url, tmp_path):
    script = f"""
import sys, time
from pathlib import Path
from stateroom.adapters.cache import Cache
cache = Cache({url!r})
@cache.memoize(name="f")
def f(n):
    with open({str(tmp_path / "log")!r}, "a") as log:
        log.write("x")
    time.sleep(0.3)
    return n
assert f(1) == 1
for _ in range(50):
    cache.incr("count")
"""
    paths = str(Path(stateroom.__file__).parents[1])
    programs = [
        subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": paths}) for _ in range(4)
    ]
    assert [program.wait() for program in programs] == [0] * 4
    assert (tmp_path / "log").read_text() == "x"
    with Cache(url) as cache:
        assert cache["count"] == 200


# --- transactions


def test_a_block_happens_together_or_not_at_all(store):
    cache = Cache(store)
    with cache.transact():
        cache["a"] = 1
        assert cache["a"] == 1
        with cache.transact():
            assert cache.incr("a") == 2
        assert Cache(store).get("a") is None
    assert cache["a"] == 2
    with pytest.raises(ZeroDivisionError), cache.transact():
        cache["a"] = 3
        1 / 0
    assert cache["a"] == 2


def test_blocks_wait_for_each_other_and_a_writer_outside_is_a_conflict(store):
    cache = Cache(store)

    def add():
        for _ in range(20):
            with cache.transact():
                cache["n"] = cache.get("n", default=0) + 1

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache["n"] == 60
    with pytest.raises(Conflict), cache.transact():
        cache.get("n")
        cache["other"] = 1
        store.results.put(cache._entries.dag, "sn", 7)
    assert "other" not in cache


def test_a_block_needs_a_store(store):
    with pytest.raises(InvalidArgument, match="AsyncCache"), Cache(AsyncStore.over(store)).transact():
        pass


# --- opening


def test_a_folder_a_file_and_a_cache_that_was_closed(tmp_path):
    (tmp_path / "folder").mkdir()
    with Cache(tmp_path / "folder") as cache:
        cache["k"] = 1
        assert (tmp_path / "folder" / "cache.db").exists()
    assert cache["k"] == 1  # it opens again, as diskcache does
    with Cache(cache.directory) as other:
        assert other["k"] == 1
    cache.close()
    with Cache(tmp_path / "file.db", durability="full") as cache:
        cache["k"] = 2
