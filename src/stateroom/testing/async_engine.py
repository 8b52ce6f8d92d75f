"""An asynchronous engine in a loop of its own, looking like a blocking one, so that it meets the same tests."""

import asyncio
import inspect
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from ..engine import AsyncEngine, Batch, Gathering, Range, Row
from .harness import FOREVER, PATIENCE, EngineTests, Running, put

T = TypeVar("T")


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


class Blocking:
    """`engine`, called through its event loop from any thread."""

    def __init__(self, make: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self.engine: AsyncEngine = self.run(self._call(make))
        except BaseException:
            self.stop()
            raise
        if isinstance(self.engine, Gathering):
            self.read_many, self.scan_many = self._read_many, self._scan_many

    async def _call(self, function: Any, *arguments: Any) -> Any:
        return await _awaited(function(*arguments))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what the coroutine gives, run in the loop of the engine."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def stop(self) -> None:
        """End the loop; the engine is to be closed by then."""
        if not self._loop.is_closed():
            self.run(self._loop.shutdown_asyncgens())
            self.run(self._loop.shutdown_default_executor())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
            self._loop.close()

    @property
    def parts(self) -> int:
        return self.engine.parts

    def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        return self.run(self.engine.read(part, keys))

    def scan(self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False) -> list[Row]:
        return self.run(self.engine.scan(part, start, stop, limit=limit, reverse=reverse))

    def _read_many(self, requests: Sequence[tuple[int, Sequence[bytes]]], /) -> list[list[Row | None]]:
        engine: Any = self.engine
        return self.run(engine.read_many(requests))

    def _scan_many(self, ranges: Sequence[Range], /) -> list[list[Row]]:
        engine: Any = self.engine
        return self.run(engine.scan_many(ranges))

    def commit(self, part: int, batch: Batch, /) -> int:
        return self.run(self.engine.commit(part, batch))

    def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        self.run(self.engine.wait(part, version, timeout))

    def close(self) -> None:
        self.run(self.engine.close())


class BlockingFactory:
    """A factory of asynchronous engines as one of blocking ones."""

    def __init__(self, factory: Any) -> None:
        self._factory = factory
        self.overhead = getattr(factory, "overhead", 0)
        if hasattr(factory, "reopen"):
            self.reopen = self._reopen

    def __call__(self) -> Blocking:
        return Blocking(self._factory)

    def _reopen(self, engine: Blocking) -> Blocking:
        return Blocking(lambda: self._factory.reopen(engine.engine))

    def destroy(self, engine: Blocking) -> None:
        try:
            if hasattr(self._factory, "destroy"):
                engine.run(engine._call(self._factory.destroy, engine.engine))
        finally:
            engine.stop()


class AsyncExtras(EngineTests):
    """Cases that only an engine for an event loop can get wrong."""

    def test_the_loop_is_free_while_somebody_waits(self, engine: Any) -> None:
        async def both() -> int:
            waiting = asyncio.ensure_future(engine.engine.wait(0, 0, FOREVER))
            await asyncio.sleep(0)
            version = await engine.engine.commit(0, Batch())
            await asyncio.wait_for(waiting, PATIENCE)
            return int(version)

        assert Running(lambda: engine.run(both())).result() == 1

    def test_a_cancelled_wait_leaves_the_engine_usable(self, engine: Any) -> None:
        async def cancelled() -> None:
            waiting = asyncio.ensure_future(engine.engine.wait(0, 0, FOREVER))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        engine.run(cancelled())
        assert put(engine, a=b"1") == 1
        engine.wait(0, 0, FOREVER)

    def test_many_commits_of_one_loop_all_land(self, engine: Any) -> None:
        async def commits() -> list[int]:
            return list(await asyncio.gather(*(engine.engine.commit(0, Batch(add={b"n": 1})) for _ in range(20))))

        assert sorted(engine.run(commits())) == list(range(1, 21))
