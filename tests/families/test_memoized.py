"""`memoized`: `memo` as a decorator, on both faces."""

import asyncio

import pytest

import stateroom
from stateroom.errors import InvalidArgument, Timeout


@pytest.fixture
def store(tmp_path):
    with stateroom.open(tmp_path / "a.db") as store:
        yield store


def on_a_loop(work):
    async def main():
        async with await stateroom.open_async("memory:") as store:
            await work(store)

    asyncio.run(main())


def test_a_function_is_called_once_for_equal_arguments(store):
    calls = []

    @store.results.memoized("d")
    def area(width: int, height: int = 2, *more: int, scale: float = 1.0, **options: int) -> float:
        """Area."""
        calls.append((width, height, more, scale, options))
        return width * height * scale

    assert [area(3), area(3, 2), area(width=3), area(height=2, width=3), area(3, scale=1.0)] == [6.0] * 5
    assert len(calls) == 1
    assert area(3, 2, 1) == area(3, 2, scale=1.0, x=1) == 6.0
    assert area(3, scale=2.0) == 12.0
    assert len(calls) == 4
    assert (area.__name__, area.__doc__) == ("area", "Area.")
    first = store.results.find("d", store.results.ids("d")[0])
    assert first.producer == f"{__name__}.test_a_function_is_called_once_for_equal_arguments.<locals>.area"
    with pytest.raises(TypeError):
        area()
    with pytest.raises(TypeError):
        area(1, width=2)


def test_a_name_a_ttl_and_what_is_ignored(tmp_path):
    from stateroom.testing.faces import ManualClock

    clock = ManualClock()
    with stateroom.open(tmp_path / "a.db", clock=clock) as store:
        calls = []

        @store.results.memoized("d", 60, "load", ignore=("token",))
        def load(path, token):
            calls.append(token)
            return path.upper()

        assert (load("a", "t1"), load("a", "t2")) == ("A", "A")
        assert store.results.ids("d") == (store.results.memo_id("load", {"path": "a"}),)
        clock.advance(60)
        assert load("a", "t3") == "A"
        assert calls == ["t1", "t3"]
        assert store.results.clear("d") == 1
        assert load("a", "t4") == "A"
        assert calls[-1] == "t4"


def test_a_method_says_what_to_ignore(store):
    class Model:
        @store.results.memoized("d", ignore=("self",))
        def fit(self, depth):
            return depth + 1

    assert Model().fit(1) == Model().fit(1) == 2
    assert len(store.results.ids("d")) == 1

    class Other:
        @store.results.memoized("d")
        def fit(self, depth):
            return depth + 1

    with pytest.raises(InvalidArgument, match="self"):
        Other().fit(1)


def test_what_cannot_be_memoized_is_refused_where_it_is_decorated(store):
    async def later():
        return 1

    for bad in (5, None, later, max, lambda_without_a_name()):
        with pytest.raises(InvalidArgument):
            store.results.memoized("d")(bad)
    for more in ({"dag": ""}, {"dag": 5}, {"dag": "d", "ttl": -1}, {"dag": "d", "name": ""}):
        with pytest.raises(InvalidArgument):
            store.results.memoized(**more)
    with store.transaction() as tx, pytest.raises(InvalidArgument):
        tx.results.memoized("d")(lambda: 1)()


def lambda_without_a_name():
    from functools import partial

    return partial(int, "5")


def test_a_partial_may_be_given_a_name(store):
    from functools import partial

    assert store.results.memoized("d", name="five")(partial(pow, 5))(1) == 5


def test_coroutine_functions_and_plain_ones_on_a_loop():
    async def work(store):
        calls, go = [], asyncio.Event()

        @store.results.memoized("d")
        async def slow(n: int) -> int:
            calls.append(n)
            await go.wait()
            return n * 2

        @store.results.memoized("d")
        def plain(n: int) -> int:
            calls.append(-n)
            return n * 3

        tasks = [asyncio.create_task(slow(4)) for _ in range(5)]
        while not calls:
            await asyncio.sleep(0)
        name = f"{slow.__module__}.{slow.__qualname__}"
        with pytest.raises(Timeout):
            await store.results.memoized("d", name=name, timeout=0.01)(slow.__wrapped__)(4)
        go.set()
        assert await asyncio.gather(*tasks) == [8] * 5
        assert [await plain(1), await plain(n=1)] == [3, 3]
        assert calls == [4, -1]

    on_a_loop(work)
