"""Connections of the PostgreSQL engine: made, bounded, lost, replaced, forked; and how waiters hear of commits."""

import asyncio
import multiprocessing
import os
import threading

import pytest

from engines.postgres_helpers import quiet, sessions
from stateroom.engine import Batch
from stateroom.engines.postgres import connect, connect_async, notify, wire
from stateroom.engines.postgres.carriers import finish
from stateroom.engines.postgres.statements import Statement
from stateroom.errors import Closed, InvalidArgument
from stateroom.testing.harness import FOREVER, Running

# Connections


def test_connections_are_made_when_needed_bounded_and_closed_with_the_store(url, server):
    mark = f"bounded-{os.getpid()}"
    store = connect(f"{url}&connections=3&application_name={mark}")
    quiet(store)
    assert len(sessions(server, mark)) == 1
    for each in [Running(lambda: [store.commit(0, Batch(add={b"n": 1})) for _ in range(10)]) for _ in range(8)]:
        each.result()
    assert 1 <= len(sessions(server, mark)) <= 3
    assert store.read(0, [b""])[0].version == 80
    store.close()
    while sessions(server, mark):
        pass
    with pytest.raises(Closed):
        store.read(0, [b"a"])


def test_a_connection_lost_between_calls_is_replaced(url, server, opened):
    mark = f"lost-{os.getpid()}"
    store = opened(f"{url}&application_name={mark}")
    for call in (lambda: store.commit(0, Batch(add={b"n": 1})), lambda: store.read(0, [b"n"])):
        before = sessions(server, mark)
        server.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s", [mark]
        )
        call()
        assert before != sessions(server, mark)
    assert store.read(0, [b""])[0].version == 1


def test_a_refused_transaction_is_ended_and_its_connection_kept(url, server, opened):
    mark = f"kept-{os.getpid()}"
    store = opened(f"{url}&connections=1&application_name={mark}")
    before = sessions(server, mark)
    for _ in range(3):
        with pytest.raises(InvalidArgument):
            store.commit(0, Batch(write={b"n": b"123456789"}, add={b"n": 1}))
    assert sessions(server, mark) == before
    assert store.commit(0, Batch()) == 1


def test_a_prepared_statement_that_vanishes_is_done_without(url, opened):
    """As behind a transaction pooler, where the session is another's by the next call."""
    store = opened(f"{url}&connections=1")
    quiet(store)
    store.commit(0, Batch(expect={b"a": 0}, write={b"a": b"1"}))
    store.read(0, [b"a"])
    pool, carrier = store._driver.pool, store._driver.carrier
    connection = finish(pool.acquire(carrier))
    finish(carrier.carry(connection, wire.RoundTrip([Statement(b"DEALLOCATE ALL")]), None))
    pool.release(connection)
    assert store.commit(0, Batch(expect={b"a": 1}, write={b"a": b"2"})) == 2
    assert store.read(0, [b"a"])[0].value == b"2"
    assert store._driver.pool.prepare is False


def test_statements_are_planned_anew_after_a_while(url, opened, monkeypatch):
    monkeypatch.setattr(wire, "RENEW_USES", 3)
    store = opened(f"{url}&connections=1")
    for number in range(12):
        assert store.commit(0, Batch(expect={b"a": number}, write={b"a": b"x"})) == number + 1
        assert store.read(0, [b"a"])[0].version == number + 1
    assert store._driver.pool.prepare is True


# Waiting


def commit_elsewhere(url, go):
    go.wait(60)
    store = connect(url)
    store.commit(2, Batch(write={b"a": b""}))
    store.close()


@pytest.mark.parametrize("part", [2, None])
def test_a_commit_of_another_process_wakes_who_waits(url, opened, part):
    context = multiprocessing.get_context("spawn")
    go = context.Event()
    other = context.Process(target=commit_elsewhere, args=(url, go))
    other.start()
    store = opened(url)
    waiting = Running(lambda: store.wait(part, 0, FOREVER))
    go.set()
    waiting.result()
    other.join(60)
    assert store.read(2, [b""])[0].version == 1


def test_a_hint_is_heard_without_polling(url, opened, monkeypatch):
    """With polling out of the way only the notification can have woken the waiter."""
    one, two = opened(url), opened(url)
    one.wait(5, 1, 0)
    original, polled = one._driver.notifier._source.versions, []

    async def poll_nothing(carrier, parts):
        polled.append(parts)
        return {}

    one._driver.notifier._source.versions = poll_nothing
    listening, poll = threading.Event(), notify.Listener.poll
    monkeypatch.setattr(notify.Listener, "poll", lambda *args: (listening.set(), poll(*args))[1])
    waiting = Running(lambda: one.wait(5, 0, FOREVER))
    assert listening.wait(60)
    two.commit(5, Batch(write={b"a": b""}))
    waiting.result()
    assert polled
    one._driver.notifier._source.versions = original


def test_without_anybody_to_listen_to_polling_finds_it(url, opened):
    one = opened(f"{url}&listen=postgresql%3A%2F%2F127.0.0.1%3A1%2Fnowhere")
    two = opened(url)
    waiting = Running(lambda: one.wait(5, 0, FOREVER))
    two.commit(5, Batch(write={b"a": b""}))
    waiting.result()


def test_nobody_listens_unless_somebody_waits(url, server, opened):
    mark = f"ear-{os.getpid()}"
    store = opened(
        f"{url}&listen={url.partition('?')[0].replace(':', '%3A').replace('/', '%2F')}%3Fapplication_name%3D{mark}"
    )
    store.commit(0, Batch())
    assert sessions(server, mark) == []
    waiting = Running(lambda: store.wait(0, 1, FOREVER))
    while not sessions(server, mark):
        pass
    store.commit(0, Batch())
    waiting.result()
    while sessions(server, mark):  # it lingers for the next one, then goes
        pass


# Forking


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_uses_connections_of_its_own_and_leaves_the_parents_alone(url, opened, server):
    mark = f"fork-{os.getpid()}"
    store = opened(f"{url}&application_name={mark}")
    store.commit(0, Batch(write={b"a": b"parent"}))
    before = sessions(server, mark)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.commit(0, Batch(expect={b"a": 1}, write={b"a": b"child"}))
            store.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert store.read(0, [b"a"])[0].value == b"child"
    assert set(before) <= set(sessions(server, mark)), "the child said goodbye in the parent's name"


# asyncio


def test_asyncio_tasks_share_few_connections(url, server):
    mark = f"tasks-{os.getpid()}"

    async def run():
        store = await connect_async(f"{url}&connections=2&application_name={mark}")
        versions = await asyncio.gather(*(store.commit(0, Batch(add={b"n": 1})) for _ in range(30)))
        used = len(sessions(server, mark))
        await store.close()
        await store.close()
        with pytest.raises(Closed):
            await store.read(0, [b"n"])
        return versions, used

    versions, used = asyncio.run(run())
    assert sorted(versions) == list(range(1, 31))
    assert used <= 2


@pytest.mark.parametrize("listen", ["", "&listen=postgresql%3A%2F%2F127.0.0.1%3A1%2Fnowhere"])
def test_asyncio_hears_of_commits_made_elsewhere(url, opened, listen):
    other = opened(url)

    async def run():
        store = await connect_async(url + listen)
        waiting = [asyncio.ensure_future(store.wait(part, 0, FOREVER)) for part in (4, 4, None)]
        await asyncio.sleep(0)
        await asyncio.to_thread(other.commit, 4, Batch())
        await asyncio.gather(*waiting)
        await store.close()

    asyncio.run(run())


def test_a_cancelled_commit_costs_its_connection_and_nothing_else(url):
    async def run():
        store = await connect_async(f"{url}&connections=1")
        for _ in range(5):
            task = asyncio.ensure_future(store.commit(0, Batch(add={b"n": 1})))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await store.commit(0, Batch(add={b"n": 1}))
        row = (await store.read(0, [b"", b"n"]))[0]
        assert 1 <= row.version <= 6
        await store.close()

    asyncio.run(run())
