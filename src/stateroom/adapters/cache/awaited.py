"""`AsyncCache`: the face for event loops."""

from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Self

from .blocking import Base, pair_of, shaped
from .calls import Calls


class AsyncCache(Base):
    """`Cache` for an event loop: the same methods as coroutines, ``async for key in cache``, ``async with``.

    Instead of ``cache[key]`` there are `get` and `set`. It has no `transact`: use the store's own.
    """

    def __init__(self, store: Any = None, **settings: Any) -> None:
        super().__init__(store, **settings)
        self._calls = Calls(self._entries, self._access.run, self._access.arun, self._note)

    __init__.__doc__ = Base.__init__.__doc__

    async def _write(self, work: Callable[[Any], Any]) -> Any:
        result = await self._access.arun(work)
        await self._access.arun(self._entries.settle)
        return result

    async def set(self, key: Any, value: Any, expire: Any = None, read: bool = False, tag: Any = None) -> bool:
        """As `Cache.set`."""
        return bool(await self._write(lambda face: self._entries.set(face, key, value, expire, tag, read)))

    async def get(self, key: Any, default: Any = None, *, expire_time: bool = False, tag: bool = False) -> Any:
        """As `Cache.get`."""
        result = await self._access.arun(lambda face: self._entries.find(face, key))
        self._note(result is not None)
        return shaped(result, default, expire_time, tag)

    async def read(self, key: Any) -> Any:
        """Bytes as a file whose `read` is a coroutine. Raises `KeyError`."""
        return await self._access.arun(lambda face: self._entries.open(face, key))

    async def contains(self, key: Any) -> bool:
        """Say whether there is an entry."""
        return bool(await self._access.arun(lambda face: self._entries.has(face, key)))

    async def add(self, key: Any, value: Any, expire: Any = None, read: bool = False, tag: Any = None) -> bool:
        """As `Cache.add`."""
        return bool(await self._write(lambda face: self._entries.add(face, key, value, expire, tag, read)))

    async def incr(self, key: Any, delta: Any = 1, default: Any = 0) -> Any:
        """As `Cache.incr`."""
        return await self._write(lambda face: self._entries.change(face, key, delta, default))

    async def decr(self, key: Any, delta: Any = 1, default: Any = 0) -> Any:
        """As `Cache.decr`."""
        return await self.incr(key, -delta, default)

    async def touch(self, key: Any, expire: Any = None) -> bool:
        """As `Cache.touch`."""
        return bool(await self._access.arun(lambda face: self._entries.touch(face, key, expire)))

    async def pop(self, key: Any, default: Any = None, *, expire_time: bool = False, tag: bool = False) -> Any:
        """As `Cache.pop`."""
        result = await self._access.arun(lambda face: self._entries.pop(face, key))
        return shaped(result, default, expire_time, tag)

    async def delete(self, key: Any) -> bool:
        """As `Cache.delete`."""
        return bool(await self._access.arun(lambda face: self._entries.delete(face, key)))

    async def push(
        self, value: Any, prefix: str | None = None, side: str = "back", expire: Any = None, tag: Any = None
    ) -> Any:
        """As `Cache.push`."""
        return await self._write(lambda face: self._entries.push(face, value, prefix, side, expire, tag))

    async def pull(self, prefix: str | None = None, default: Any = (None, None), side: str = "front") -> Any:
        """As `Cache.pull`."""
        pair = await self._access.arun(lambda face: self._entries.next(face, prefix, side, True))
        return default if pair is None else pair_of(*pair, expire_time=False, tag=False)

    async def peek(self, prefix: str | None = None, default: Any = (None, None), side: str = "front") -> Any:
        """As `Cache.peek`."""
        pair = await self._access.arun(lambda face: self._entries.next(face, prefix, side, False))
        return default if pair is None else pair_of(*pair, expire_time=False, tag=False)

    async def count(self) -> int:
        """How many entries there are."""
        return await self._access.arun(self._entries.count)

    async def iterkeys(self, reverse: bool = False) -> AsyncIterator[Any]:
        """As `Cache.iterkeys`."""
        entries = await self._access.arun(self._entries.every)
        for entry in reversed(entries) if reverse else entries:
            yield entry.key

    def __aiter__(self) -> AsyncIterator[Any]:
        return self.iterkeys()

    async def clear(self) -> int:
        """As `Cache.clear`."""
        return await self._access.arun(self._entries.clear)

    async def evict(self, tag: Any) -> int:
        """As `Cache.evict`."""
        return await self._access.arun(lambda face: self._entries.evict(face, tag))

    async def expire(self) -> int:
        """As `Cache.expire`."""
        return await self._access.arun(self._entries.expire)

    async def cull(self) -> int:
        """As `Cache.cull`."""
        return await self.expire() + await self._access.arun(self._entries.cull)

    async def volume(self) -> int:
        """As `Cache.volume`."""
        return await self._access.arun(self._entries.volume)

    def stats(self, enable: bool = True, reset: bool = False) -> tuple[int, int]:
        """As `Cache.stats`."""
        return self._counts(enable, reset)

    def memoize(
        self,
        name: str | None = None,
        typed: bool = False,
        expire: Any = None,
        tag: Any = None,
        ignore: Collection[int | str] = (),
    ) -> Callable[[Any], Any]:
        """As `Cache.memoize`."""
        if callable(name):
            raise TypeError("name cannot be callable: write @cache.memoize(), with parentheses")
        return lambda function: self._calls.decorate(function, name, typed, expire, tag, ignore)

    async def close(self) -> None:
        """Close what was opened here."""
        self._access.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
