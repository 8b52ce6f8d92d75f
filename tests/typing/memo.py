"""What type checkers must see of `memo`: what a function gives is what its caller gets, on either face."""

from datetime import timedelta
from typing import assert_type

from stateroom import AsyncStore, Result, Store


def count(text: str) -> int:
    return len(text)


async def count_later(text: str) -> int:
    return len(text)


def blocking(store: Store) -> None:
    assert_type(store.results.memo("d", "f", "abc", count), int)
    assert_type(store.results.memo("d", "f", "abc", lambda: 1.5, ttl=timedelta(hours=1), timeout=5), float)
    assert_type(store.results.memo("d", "f", "abc", str), str)
    assert_type(store.results.memo_id("f", "abc"), str)
    assert_type(store.results.put_many("d", {"a": 1}), tuple[Result, ...])

    @store.results.memoized("d")
    def area(width: int, height: int = 1) -> float:
        return width * height / 2

    assert_type(area(3, height=2), float)
    area("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    store.results.memo("d", "f", 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def awaited(store: AsyncStore) -> None:
    assert_type(await store.results.memo("d", "f", "abc", count_later), int)
    assert_type(await store.results.memo("d", "f", "abc", count), int)
    assert_type(await store.results.memo_id("f", "abc"), str)

    @store.results.memoized("d", ttl=60)
    async def area(width: int, height: int = 1) -> float:
        return width * height / 2

    @store.results.memoized("d", name="half")
    def half(width: int) -> float:
        return width / 2

    assert_type(await area(3, height=2), float)
    assert_type(await half(3), float)
    await area("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
