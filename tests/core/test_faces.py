"""The two front doors: the same names and signatures, coroutines on one; sharing an engine."""

import asyncio
import inspect
import threading

import pytest

import stateroom
from kit.databases import SUSPENDING
from stateroom import AsyncStore, Event, Execution, Instance, Store, codec
from stateroom.clock import SystemClock
from stateroom.core.operation import iteration, operation, procedure, reading
from stateroom.engines import memory
from stateroom.errors import Closed, InvalidArgument

DESCRIBED = (operation, reading, procedure, iteration)


@pytest.fixture
def blocking():
    with stateroom.open("memory:") as store:
        yield store


def methods(family):
    for name in dir(type(family)):
        found = inspect.getattr_static(type(family), name)
        if isinstance(found, DESCRIBED):
            yield name, found


def test_public_signatures(blocking):
    over = AsyncStore.over(blocking)
    for family in ("instances", "executions", "leases", "feed"):
        for name, found in methods(getattr(blocking, family)):
            plain, awaited = getattr(getattr(blocking, family), name), getattr(getattr(over, family), name)
            assert inspect.signature(plain) == inspect.signature(awaited), name
            assert not {"self", "tx"} & inspect.signature(plain).parameters.keys(), name
            assert not inspect.iscoroutinefunction(plain), name
            assert inspect.iscoroutinefunction(awaited) == (not isinstance(found, iteration)), name
            assert plain.__name__ == awaited.__name__ == name
            assert plain.__doc__ == awaited.__doc__
            assert plain.__doc__, f"{name} has no docstring"
    parameters = inspect.signature(blocking.executions.update).parameters
    assert list(parameters)[:3] == ["id", "expected_states", "unexpected_states"]
    assert parameters["expected_states"].kind is inspect.Parameter.KEYWORD_ONLY
    assert inspect.signature(blocking.instances.start).parameters["unique"].default == "workflow"


def test_stores_have_the_same_methods():
    def public(kind):
        members = inspect.getmembers(kind, inspect.isfunction)
        return {name: value for name, value in members if not name.startswith("_")}

    plain, awaited = public(Store), public(AsyncStore)
    assert plain.keys() == awaited.keys()
    for name, method in plain.items():
        assert list(inspect.signature(method).parameters) == list(inspect.signature(awaited[name]).parameters), name
    assert inspect.iscoroutinefunction(AsyncStore.transact)
    for name in ("namespace", "transaction", "watch", "watchers"):
        assert not inspect.iscoroutinefunction(awaited[name])


def test_over(blocking):
    async def main():
        over = AsyncStore.over(blocking)
        await over.instances.put(Instance("a", "w"))
        assert blocking.instances.get("a") == await over.instances.get("a")
        assert [one.id async for one in over.instances.scan()] == ["a"]
        assert over.url == blocking.url
        await over.close()
        await over.close()
        with pytest.raises(Closed):
            await over.instances.get("a")
        with pytest.raises(Closed):
            over.transaction()

    asyncio.run(main())
    assert blocking.instances.get("a").revision == 1


def test_over_a_store_that_is_closed():
    async def main():
        store = stateroom.open("memory:")
        over = AsyncStore.over(store)
        store.close()
        with pytest.raises(Closed):
            await over.instances.put(Instance("a", "w"))
        with pytest.raises(Closed):
            AsyncStore.over(store)
        await over.close()

    asyncio.run(main())


@SUSPENDING
def test_a_transaction_entered_and_left_in_different_tasks(database):
    async def work(store):
        entering = store.transaction()
        tx = await asyncio.create_task(entering.__aenter__())
        await asyncio.gather(
            tx.executions.create(Execution("r/a", "j")),
            tx.feed.emit("t", 1, "r"),
        )
        assert await store.executions.find("r/a") is None
        await asyncio.create_task(entering.__aexit__(None, None, None))
        assert (await store.executions.get("r/a")).revision == 1

    database.run(work)


@SUSPENDING
def test_many_tasks_share_a_store(database):
    async def work(store):
        await asyncio.gather(*(store.executions.create(Execution(f"e{n}", "j")) for n in range(64)))
        await asyncio.gather(*(store.executions.add_events("e0", Event(f"{n}")) for n in range(16)))
        assert await store.executions.count("new") == 64
        assert sorted(int(one.message) for one in await store.executions.events("e0")) == list(range(16))

    database.run(work)


@SUSPENDING
@pytest.mark.parametrize("turns", [0, 1, 2, 5, 20])
def test_a_cancelled_caller_leaves_the_store_whole(database, turns):
    """Called off after some turns of the loop: before, in the middle of, or after its commit."""

    async def work(store):
        tasks = [asyncio.create_task(store.executions.create(Execution(f"r/{n}", "j"))) for n in range(20)]
        for _ in range(1 + turns):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for n in range(1, 20, 2):
            assert (await store.executions.get(f"r/{n}")).revision == 1
        assert await store.executions.count("new") == len([one async for one in store.executions.scan()])
        await asyncio.gather(*(store.executions.create(Execution(f"s/{n}", "j")) for n in range(20)))

    database.run(work)


@SUSPENDING
def test_called_off_again_and_again_a_store_still_has_its_connections(database):
    async def work(store):
        for number in range(60):
            asking = [
                asyncio.create_task(store.executions.create(Execution(f"r{number}/{n}", "j"))) for n in range(4)
            ] + [asyncio.create_task(store.executions.query()) for _ in range(4)]
            for _ in range(number % 12):
                await asyncio.sleep(0)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        await asyncio.gather(*(store.executions.create(Execution(f"last/{n}", "j")) for n in range(32)))

    database.run(work)


def test_an_abandoned_scan(blocking):
    for n in range(300):
        blocking.instances.put(Instance(f"i{n:03}", "w"))
    scan = blocking.instances.scan()
    assert next(scan).id == "i000"
    del scan
    with pytest.raises(InvalidArgument):
        next(blocking.instances.scan(status="resting"))


class Far(memory.MemoryEngine):
    """Every read is a round trip, in which something happens; reads in the event loop are counted."""

    distant = True

    def __init__(self):
        super().__init__(3)
        self.loop_thread, self.in_loop, self.aside = None, 0, 0

    def _note(self):
        if threading.current_thread() is self.loop_thread:
            self.in_loop += 1
        else:
            self.aside += 1

    def read(self, part, keys, /):
        self._note()
        return super().read(part, keys)

    def scan(self, part, start, stop, /, **options):
        self._note()
        return super().scan(part, start, stop, **options)

    def commit(self, part, batch, /):
        self._note()
        return super().commit(part, batch)


def test_over_an_engine_far_away_nothing_is_asked_in_the_event_loop():
    engine = Far()
    store = Store(engine, "far:", namespace="n", codec=codec.default, clock=SystemClock(), owner=False)

    async def main():
        engine.loop_thread = threading.current_thread()
        over = AsyncStore.over(store)
        waiting = asyncio.create_task(over.executions.wait("a/1", lambda one: one.state == "running", timeout=60))
        await over.executions.create(Execution("a/1", "j"))
        await over.executions.create(Execution("b/1", "j"))
        await over.executions.update("a/1", state="running")
        assert (await waiting).state == "running"
        assert len([one async for one in over.executions.scan()]) == 2
        assert len((await over.feed.read()).items) == 3
        assert await over.executions.count("new") == 1
        await over.close()

    asyncio.run(main())
    assert engine.in_loop == 0
    assert engine.aside > 5
    assert store.check() == []
    engine.close()
