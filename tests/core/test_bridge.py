"""A blocking engine for event loops: several loops, forks, turns for other tasks, outcomes that nobody loses."""

import asyncio
import os
import select
import signal
import threading

import pytest

import stateroom
from kit.lines import At, Interrupted, raising
from stateroom import AsyncStore, Instance
from stateroom.core import bridge
from stateroom.core.bridge import Remote, Threaded, bridged
from stateroom.engine import HANDED_THROUGH, BackingUp, Batch, Compacting, Instant, Named, Sized, Submitting, Verifying
from stateroom.engines import memory, sqlite
from stateroom.engines.wrap import Recording
from stateroom.errors import Closed, Unavailable


@pytest.fixture(params=["memory", "sqlite"])
def url(request, tmp_path):
    return "memory:" if request.param == "memory" else str(tmp_path / "a.db")


def test_a_commit_to_memory_stays_in_its_thread():
    engine = memory.connect("memory:")
    threads = []
    commit = engine.commit
    engine.commit = lambda part, batch: threads.append(threading.get_ident()) or commit(part, batch)

    async def main():
        bridge = Threaded(engine)
        for _ in range(10):
            await bridge.commit(0, Batch(add={b"n": 1}))
        await bridge.close()

    asyncio.run(main())
    assert set(threads) == {threading.get_ident()}


def test_what_stands_over_memory_may_block_and_commits_elsewhere():
    engine = Recording(memory.connect("memory:"))
    assert not isinstance(engine, Instant)
    threads = []
    commit = engine.commit
    engine.commit = lambda part, batch: threads.append(threading.get_ident()) or commit(part, batch)
    asyncio.run(Threaded(engine).commit(0, Batch()))
    assert threads != [threading.get_ident()]


def test_optional_members_are_seen_through_what_stands_over_an_engine(tmp_path):
    engine = sqlite.connect(str(tmp_path / "a.db"))
    for each in (engine, Recording(engine), Recording(Recording(engine))):
        for kind in (BackingUp, Compacting, Named, Sized, Verifying, Submitting):
            assert isinstance(each, kind), kind
        assert isinstance(bridged(each)[0], Threaded)
        assert not isinstance(bridged(each)[0], Remote)
        assert each.about.startswith("SQLite")
    for kind in (BackingUp, Compacting, Named, Sized, Verifying, Submitting):
        assert not isinstance(Recording(memory.connect("memory:")), kind)
    assert set(HANDED_THROUGH) >= {"about", "size", "verify", "compact", "backup"}
    engine.close()


def test_tasks_have_their_turn_while_one_reads_or_commits_without_end(url):
    async def main():
        store = await stateroom.open_async(url, durability="normal")
        for number in range(300):
            await store.instances.put(Instance(f"i{number}", "wf", metadata={"text": "x" * 20_000}))
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        await asyncio.sleep(0)
        engine, before = store._scope.engine, turns
        for number in range(300):
            if store._scope.engine._instant:
                await engine.commit(0, Batch(add={b"n": 1}))
            await engine.scan(0, b"", b"\xff", limit=50 + number % 2)
        assert turns - before > 50
        task.cancel()
        await store.close()

    asyncio.run(main())


def test_small_reads_do_not_suspend(url):
    async def main():
        store = await stateroom.open_async(url)
        await store.instances.put(Instance("a", "wf"))
        read = store._scope.engine.read(0, [b"a", b""])
        with pytest.raises(StopIteration):
            read.send(None)
        await store.close()

    asyncio.run(main())


def test_one_store_in_many_loops_closed_from_another(url):
    store = asyncio.run(stateroom.open_async(url, durability="normal"))
    seen = []

    def use(name):
        async def main():
            await asyncio.gather(*(store.instances.put(Instance(f"{name}/{n}", "wf")) for n in range(20)))
            seen.append((await store.instances.wait("go", lambda each: True, timeout=30)).id)

        asyncio.run(main())

    threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()

    async def all_there():
        while await store.instances.count() < 80:
            await asyncio.sleep(0)
        await store.instances.put(Instance("go", "wf"))

    asyncio.run(all_there())
    for thread in threads:
        thread.join(30)
    assert seen == ["go"] * 4

    async def waiting():
        task = asyncio.create_task(store.instances.wait("never", lambda each: False, timeout=60))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(Closed):
            await task

    asyncio.run(waiting())
    with pytest.raises(Closed):
        asyncio.run(store.instances.find("go"))


def test_a_loop_that_ended_with_a_commit_under_way_keeps_nobody_from_anything(tmp_path, caplog):
    from engines.sqlite_helpers import held

    path = str(tmp_path / "a.db")
    store = asyncio.run(stateroom.open_async(path))

    async def leave():
        task = asyncio.ensure_future(store.instances.put(Instance("a", "wf")))
        await asyncio.sleep(0)
        task.cancel()

    loop = asyncio.new_event_loop()
    with held(path):
        loop.run_until_complete(leave())
        loop.close()
    asyncio.run(store.instances.put(Instance("b", "wf")))
    asyncio.run(store.close())
    assert not caplog.records


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_goes_on_with_a_store_that_its_parent_used(url):
    store = asyncio.run(stateroom.open_async(url))

    async def use(name):
        waiting = asyncio.create_task(store.instances.wait(name, lambda each: True, timeout=30))
        await asyncio.sleep(0)
        await store.instances.put(Instance(name, "wf"))
        assert (await waiting).id == name

    asyncio.run(use("parent"))

    async def wait_long():
        await store.instances.wait("later", lambda each: True, timeout=30)

    thread = threading.Thread(target=lambda: asyncio.run(wait_long()))  # so that a thread waits at the fork
    thread.start()
    while not store._scope.engine._hub._running:
        threading.Event().wait(0.001)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(use("child"))
            os.write(writer, b"ok")
        finally:
            os._exit(0)
    os.close(writer)
    answer = os.read(reader, 9) if select.select([reader], [], [], 30)[0] else b"hangs"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    assert answer == b"ok"
    asyncio.run(use("later"))
    thread.join(30)
    asyncio.run(store.close())


def test_an_interrupt_while_outcomes_are_told_loses_none():
    for number in range(1, 40):
        loop = asyncio.new_event_loop()
        delivery = bridge._Delivery(loop)

        class Writer:
            def submit(self, part, batch, done):
                done(part)

        async def submit(delivery=delivery, writer=Writer):
            tasks = [asyncio.ensure_future(delivery.submit(writer(), part, Batch())) for part in range(3)]
            await asyncio.sleep(0)
            return tasks

        deliver, at = delivery._deliver, At(number, raising(Interrupted))
        delivery._deliver = lambda: None
        tasks = loop.run_until_complete(submit())
        delivery._deliver = deliver
        try:
            at.run(deliver)
        except Interrupted:
            deliver()
        assert loop.run_until_complete(asyncio.gather(*tasks)) == [0, 1, 2], at.where
        loop.close()
        if at.where is None:
            break
    assert number > 5


class Sometimes(Recording):
    """Away once, as a file that another process has locked for too long."""

    def __init__(self, engine):
        super().__init__(engine)
        self.away = 1

    def wait(self, part, version, timeout):
        if self.away:
            self.away -= 1
            raise Unavailable("busy")
        super().wait(part, version, timeout)


def test_a_waiter_outlives_a_database_that_was_away():
    engine = Sometimes(memory.connect("memory:"))

    async def main():
        store = AsyncStore(
            *bridged(engine),
            "memory:",
            namespace="n",
            codec=stateroom.codec.default,
            clock=stateroom.clock.SystemClock(),
        )
        waiting = asyncio.create_task(store.instances.wait("a", lambda each: True, timeout=30))
        while engine.away:
            await asyncio.sleep(0)
        await store.instances.put(Instance("a", "wf"))
        assert (await waiting).id == "a"
        await store.close()

    asyncio.run(main())
