"""The PostgreSQL engines meet the contract: blocking and asyncio, on every version in the wheel."""

from contextlib import ExitStack

from stateroom.engines.postgres import connect, connect_async
from stateroom.testing import async_engine_suite, engine_suite
from stateroom.testing.postgres import VERSIONS, fresh_schema


class Factory:
    """Engines with a schema of their own; distributed over the workers where STATEROOM_TEST_CITUS names a cluster."""

    def __init__(self, version, *, parts=None):
        self._version, self._parts = version, parts
        self._schemas = {}

    def __call__(self):
        stack = ExitStack()
        url = stack.enter_context(fresh_schema(self._version))
        engine = connect(url, parts=self._parts)
        self._schemas[id(engine)] = stack, url
        return engine

    def reopen(self, engine):
        return connect(self._schemas[id(engine)][1])

    def destroy(self, engine):
        self._schemas.pop(id(engine))[0].close()


class AsyncFactory(Factory):
    async def __call__(self):
        stack = ExitStack()
        url = stack.enter_context(fresh_schema(self._version))
        engine = await connect_async(url, parts=self._parts)
        self._schemas[id(engine)] = stack, url
        return engine

    async def reopen(self, engine):
        return await connect_async(self._schemas[id(engine)][1])


class TestBlocking18(engine_suite(Factory(VERSIONS[0]))):
    pass


class TestAsync18(async_engine_suite(AsyncFactory(VERSIONS[0]))):
    pass


class TestBlocking16(engine_suite(Factory(VERSIONS[1], parts=3))):
    pass


class TestAsync16(async_engine_suite(AsyncFactory(VERSIONS[1], parts=1))):
    pass
