"""The asynchronous suite, over an engine made by a plain function and by a coroutine function."""

from engines.async_memory import AsyncMemory
from engines.kit import failing
from stateroom.testing import async_engine_suite


async def make():
    return AsyncMemory(3)


class TestAsyncMemory(async_engine_suite(AsyncMemory)):
    pass


class TestAsyncMemoryMadeByACoroutine(async_engine_suite(make)):
    pass


class BlocksTheLoop(AsyncMemory):
    async def wait(self, part, version, timeout, /):
        self._engine.wait(part, version, min(timeout, 0.5))


class CountsOneLess(AsyncMemory):
    async def commit(self, part, batch, /):
        return await super().commit(part, batch) - 1


def test_the_suite_notices_a_wrong_version():
    name = "test_versions_of_a_part_rise_by_one"
    assert failing(async_engine_suite(CountsOneLess), name) == {name}


def test_the_suite_notices_a_blocked_loop(monkeypatch):
    monkeypatch.setattr("stateroom.testing.harness.PATIENCE", 0.1)
    name = "test_the_loop_is_free_while_somebody_waits"
    assert failing(async_engine_suite(BlocksTheLoop), name) == {name}
