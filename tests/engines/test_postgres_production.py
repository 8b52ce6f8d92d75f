"""PostgreSQL as it is run: event loops that come and go, servers that fall silent, watchers that idle, secrets."""

import asyncio
import os
import re
import socket
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

import stateroom
from engines.postgres_helpers import name_of, quiet, sessions
from engines.proxy import Proxy
from stateroom.engine import Batch
from stateroom.engines.postgres import connect, connect_async, dialogues, dsn, notify, pool
from stateroom.engines.postgres.statements import Statement
from stateroom.errors import Closed, InvalidArgument, OutcomeUnknown, StoreError, Unavailable
from stateroom.testing.harness import FOREVER, Running

# Event loops


def test_an_engine_is_used_from_many_event_loops_at_once_and_closed_from_another(url):
    engine = asyncio.run(connect_async(f"{url}&connections=3", parts=4))
    barrier = threading.Barrier(6)

    async def work(number):
        barrier.wait()
        return await asyncio.gather(*(engine.commit(part % 4, Batch(add={b"n": 1})) for part in range(30)))

    with ThreadPoolExecutor(6) as threads:
        versions = list(threads.map(lambda number: asyncio.run(work(number)), range(6)))
    assert sum(map(len, versions)) == 180
    rows = asyncio.run(engine.read_many([(part, [b""]) for part in range(4)]))
    assert sum(row.version for (row,) in rows) == 180
    assert len(engine._driver.pool._alive) <= 3
    asyncio.run(engine.close())
    with pytest.raises(Closed):
        asyncio.run(engine.read(0, [b"n"]))


def test_waiters_in_several_event_loops_are_all_woken(url, opened):
    engine = asyncio.run(connect_async(url))
    other = opened(url)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(asyncio.run, engine.passed(part, 0, FOREVER)) for part in (2, 2, None, 2)]
        while len(engine._driver.notifier._waiters) < 4:
            pass
        other.commit(2, Batch())
        assert [each.result(60) for each in waiting] == [True] * 4
    asyncio.run(engine.close())


def test_closing_from_one_loop_ends_what_waits_in_another(url):
    engine = asyncio.run(connect_async(url))
    waiting = Running(lambda: asyncio.run(engine.wait(0, 0, FOREVER)))
    while not engine._driver.notifier._waiters:
        pass
    asyncio.run(engine.close())
    with pytest.raises(Closed):
        waiting.result()


def test_a_store_outlives_the_loop_that_opened_it(url):
    store = asyncio.run(stateroom.open_async(url))
    asyncio.run(store.instances.put(stateroom.Instance("x", "wf")))
    assert asyncio.run(store.instances.get("x")).workflow == "wf"
    asyncio.run(store.close())


def test_a_loop_that_ends_with_calls_under_way_takes_no_connection_with_it(url):
    engine = asyncio.run(connect_async(f"{url}&connections=2", parts=1))
    for _ in range(5):
        loop = asyncio.new_event_loop()
        task = loop.create_task(engine.commit(0, Batch(add={b"n": 1})))
        loop.run_until_complete(asyncio.sleep(0))
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()
    asyncio.run(engine.commit(0, Batch(add={b"n": 1})))
    assert len(engine._driver.pool._alive) <= 2
    asyncio.run(engine.close())


# Silence


class Swallowing(Proxy):
    """A proxy that stops carrying what the server says, without closing anything."""

    silent = False

    def _pump(self, side, source, sink):
        if side == "client":
            super()._pump(side, source, sink)
            return
        with suppress(OSError):  # one side was closed when the test ended
            while data := source.recv(1 << 16):
                if not self.silent:
                    sink.sendall(data)


@pytest.fixture
def swallowing(url):
    port = url.partition("@127.0.0.1:")[2].partition("/")[0]
    proxy = Swallowing(("127.0.0.1", int(port)))
    yield proxy, url.replace(f":{port}/", f":{proxy.port}/")
    proxy.close()


def test_a_silent_connection_ends_an_operation_after_the_time_of_the_url(swallowing):
    proxy, url = swallowing
    store = connect(f"{url}&operation_timeout=0.2")
    quiet(store)
    store.commit(0, Batch(write={b"a": b"1"}))
    proxy.silent = True
    with pytest.raises(Unavailable, match="operation_timeout"):
        Running(lambda: store.read(0, [b"a"])).result()
    proxy.silent = False
    store.read(0, [b"a"])  # on a fresh connection
    proxy.silent = True
    with pytest.raises(OutcomeUnknown, match="operation_timeout"):
        Running(lambda: store.commit(0, Batch(write={b"b": b"1"}))).result()
    proxy.silent = False
    assert store.read(0, [b"a"])[0].value == b"1"
    store.close()


def test_on_asyncio_as_well(swallowing):
    proxy, url = swallowing

    async def run():
        store = await connect_async(f"{url}&operation_timeout=0.2")
        quiet(store)
        await store.commit(0, Batch(write={b"a": b"1"}))
        proxy.silent = True
        with pytest.raises(Unavailable, match="operation_timeout"):
            await store.read(0, [b"a"])
        proxy.silent = False
        await store.read(0, [b"a"])
        proxy.silent = True
        with pytest.raises(OutcomeUnknown):
            await store.commit(0, Batch(write={b"b": b"1"}))
        proxy.silent = False
        await store.close()

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", "1e9", ""])
def test_an_operation_timeout_is_a_number_of_seconds(url, text):
    with pytest.raises(InvalidArgument, match="operation_timeout"):
        connect(f"{url}&operation_timeout={text}")


def test_connecting_is_bound_by_it_as_well(url):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        port = silent.getsockname()[1]
        where = f"postgresql://postgres@127.0.0.1:{port}/postgres?operation_timeout=2&connect_timeout=600"
        with pytest.raises(Unavailable):
            Running(lambda: connect(where)).result()


# Idle watchers and idle connections


class Counted:
    """How many statements an engine sends."""

    def __init__(self, engine, monkeypatch):
        self.statements = []
        original = engine._driver.hold

        async def hold(carrier, connection, dialogue, deadline):
            return await original(carrier, connection, self._spied(dialogue), deadline)

        engine._driver.hold = hold

    def _spied(self, dialogue):
        answers = None
        try:
            while True:
                statements = dialogue.send(answers)
                self.statements += [statement.sql for statement in statements]
                try:
                    answers = yield statements
                except StoreError as error:
                    statements = dialogue.throw(error)
        except StopIteration as done:
            return done.value


class Clock:
    """Time for the notifier: it passes while the notifier waits for something to be said, and only then."""

    def __init__(self, monkeypatch, until):
        self.now, self._until = 0.0, until
        self.over = threading.Event()
        original = notify.Listener.poll

        def poll(listener, seconds, stop):
            hinted = original(listener, 0.05, stop)
            self.now += max(0.0, seconds)
            if self.now > self._until:
                self.over.set()
                original(listener, 0.2, stop)
            return hinted

        monkeypatch.setattr(notify.Listener, "poll", poll)
        monkeypatch.setattr(notify.time, "monotonic", self.monotonic)
        self._real = time.monotonic

    def monotonic(self):
        return self.now if threading.current_thread().name == "stateroom-watch" else REAL()


REAL = time.monotonic


@pytest.mark.parametrize("parts", [1, 16, 128])
@pytest.mark.parametrize("part", [None, 0])
def test_an_idle_watcher_asks_less_than_once_a_second_whatever_the_number_of_parts(
    url, opened, monkeypatch, parts, part
):
    engine = opened(url, parts=parts)
    clock = Clock(monkeypatch, until=600)
    waiting = Running(lambda: engine.passed(part, 0, FOREVER))
    while not engine._driver.notifier._fresh:  # it listens, and has heard itself
        pass
    counted, began = Counted(engine, monkeypatch), clock.now
    assert clock.over.wait(60)
    seconds = clock.now - began
    assert len(counted.statements) < seconds / 2
    engine.commit(0, Batch())
    assert waiting.result() is True


def test_waits_of_one_watcher_after_the_other_ask_nothing_while_it_listens(url, opened, monkeypatch):
    engine, other = opened(url), opened(url)
    engine.commit(0, Batch())
    waiting = Running(lambda: engine.passed(None, 1, FOREVER))
    while len(engine._driver.notifier._fresh) < 16:
        pass
    counted = Counted(engine, monkeypatch)
    for _ in range(50):
        assert engine.passed(None, 1, 0) is False
        assert engine.passed(3, 0, 0) is False
    assert len(counted.statements) <= 1, "a poll of the thread that listens may fall in between"
    other.commit(3, Batch())
    assert waiting.result() is True


def test_an_idle_store_looks_at_nothing_until_something_is_said(url, opened, monkeypatch):
    with stateroom.open(url) as store:
        store.instances.put(stateroom.Instance("x", "wf"))
        seen = threading.Event()
        watcher = store.watch("w", lambda change: seen.set(), ephemeral=True)
        watcher.start()
        try:
            assert seen.wait(60)
            while len(store._engine._driver.notifier._fresh) < 16:
                pass
            idle = threading.Event()
            rounds, passed = [], store._engine._driver.notifier.wait

            async def count(*args):
                rounds.append(args)
                if len(rounds) == 3:  # it has looked once, and found nothing more
                    counted.statements.clear()
                if len(rounds) > 7:
                    idle.set()
                return await passed(*args)

            counted = Counted(store._engine, monkeypatch)
            store._engine._driver.notifier.wait = count
            assert idle.wait(60)
            looks = [sql for sql in counted.statements if b"rows" in sql]
            assert looks == []
        finally:
            watcher.stop()


def test_a_bridged_store_that_waits_asks_nothing_while_its_engine_listens(url, opened, monkeypatch):
    with stateroom.open(url) as store:
        notifier = store._engine._driver.notifier
        bridged = stateroom.AsyncStore.over(store)

        async def idle():
            end = (await bridged.feed.read(stateroom.LATEST)).next
            reading = asyncio.create_task(bridged.feed.read(end, wait=FOREVER))
            while len(notifier._fresh) < 16:
                await asyncio.sleep(0)
            counted, waits, passed = Counted(store._engine, monkeypatch), [], notifier.wait

            async def count(*args):
                waits.append(args)
                return await passed(*args)

            notifier.wait = count
            while len(waits) < 4:
                await asyncio.sleep(0)
            assert len(counted.statements) <= 1, "the poll of the thread that listens may fall in between"
            notifier.wait = passed
            await asyncio.to_thread(store.instances.put, stateroom.Instance("x", "wf"))
            return await reading

        assert [change.id for change in asyncio.run(idle()).items] == ["x"]


def test_where_a_commit_is_not_announced_polling_goes_on_often(url, opened, monkeypatch):
    """As with writers on another node of a cluster: one commit comes late, the next ones do not."""
    monkeypatch.setattr(notify, "HEARING_POLL", 0.05)
    monkeypatch.setattr(notify, "HINT_SECONDS", 0.05)
    engine, other = opened(url), opened(url)
    quiet(other)
    waiting = Running(lambda: engine.passed(0, 0, FOREVER))
    while not engine._driver.notifier._fresh:
        pass
    monkeypatch.setattr(notify, "HEARING_POLL", FOREVER)
    other.commit(0, Batch())
    monkeypatch.setattr(notify, "HEARING_POLL", 0.05)
    assert waiting.result() is True
    monkeypatch.setattr(notify, "HEARING_POLL", FOREVER)
    waiting = Running(lambda: engine.passed(0, 1, FOREVER))
    while engine._driver.notifier._fresh:  # the hint of the first commit never came
        pass
    other.commit(0, Batch())
    assert waiting.result() is True


def test_connections_that_were_not_used_for_long_are_closed(url, server, opened, monkeypatch):
    monkeypatch.setattr(pool, "REAP_SECONDS", 0.01)
    mark = f"idle-{os.getpid()}"
    store = opened(f"{url}&application_name={mark}")
    quiet(store)
    barrier = threading.Barrier(3)

    def read():
        barrier.wait()
        store.read(0, [b"a"])

    for each in [Running(read) for _ in range(3)]:
        each.result()
    assert sessions(server, mark)
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.0)
    while sessions(server, mark):
        store._driver.pool.close_idle(time.monotonic())
    assert len(store._driver.pool._alive) == 0
    monkeypatch.undo()
    assert store.commit(0, Batch()) == 1


def test_the_thread_that_closes_idle_connections_ends_with_them(url, opened, monkeypatch):
    monkeypatch.setattr(pool, "REAP_SECONDS", 0.001)
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(pool, "reaper", pool._Reaper())
    store = opened(url)
    quiet(store)
    store.read(0, [b"a"])
    while pool.reaper._running or store._driver.pool._idle:
        pass
    assert store.read(0, [b"a"]) == [None]


def test_ten_minutes_is_long():
    assert pool.IDLE_SECONDS == 600


# What errors show


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:u:sec%sret@h/db",
        "postgresql://u:sec%sret@h/db?nonsense=1",
        "postgresql://u:sec@%sret@h/db",
        "postgresql://u:sec/%sret@h/db",
        "postgresql://u:sec?%sret@h/db",
        "postgresql://u:7?schema=%sret@h/db",
        "postgresql://u:7?connections=%sret@h/db",
        "postgresql://u:7?operation_timeout=%sret@h/db",
        "postgresql://u:sec#%sret@[::1/db",
        "postgresql://u:sec%%zz%sret@h/db",
        "postgresql://u:sec%sret@h:port/db",
        "postgresql://h/db?listen=postgresql:u:sec%sret@h",
        "postgresql://h/db?listen=postgresql%%3A%%2F%%2Fu%%3Asec@%sret%%40h%%2Fdb",
        "postgresql://u:sec%sret@127.0.0.1:1/db",
    ],
)
def test_a_password_is_in_no_error_not_even_in_part(url):
    with pytest.raises((InvalidArgument, Unavailable)) as refused:
        connect(url % "HUNTER")
    error = refused.value
    shown = "".join(traceback.format_exception(error, limit=0)) + repr(error.fields) + repr(error)
    for part in ("HUNTER", "sec", "ret@"):
        assert part not in shown.replace("second", ""), shown


def test_an_option_that_libpq_does_not_know_is_named(url):
    with pytest.raises(InvalidArgument, match="'sslmod'"):
        connect(f"{url}&sslmod=disable")


def test_a_url_without_its_slashes_is_told_so():
    with pytest.raises(InvalidArgument, match="//"):
        connect("postgresql:me@localhost/app")


# Opening, size, snapshots


def test_what_keeps_the_tables_from_being_made_is_told(url, monkeypatch):
    """As through a worker of a cluster, which may not make them."""
    refusal = "DO $$BEGIN RAISE EXCEPTION 'operation is not allowed on this node' USING ERRCODE = 'XX000'; END$$"
    create = dialogues.schema.create
    monkeypatch.setattr(
        dialogues.schema, "create", lambda *args, **kwargs: [Statement(refusal.encode()), *create(*args, **kwargs)]
    )
    for opening in (lambda: connect(url), lambda: asyncio.run(connect_async(url))):
        with pytest.raises(Unavailable, match="not allowed on this node") as refused:
            opening()
        assert "coordinator" in str(refused.value)
        assert refused.value.__cause__ is not None


def test_the_size_grows_with_what_is_stored(url, opened):
    store = opened(url)
    before = store.size()
    store.commit(0, Batch(write={b"a": os.urandom(1 << 20)}))
    assert store.size() > before + (1 << 20)
    with stateroom.open(url) as front:
        assert front.stats().bytes == store.size()
        assert re.fullmatch(r"PostgreSQL \d+\.\d+", front.stats().engine)
    asynchronous = asyncio.run(stateroom.open_async(url))
    assert asyncio.run(asynchronous.stats()).bytes == store.size()
    asyncio.run(asynchronous.close())


def test_a_snapshot_stays_as_it_was(url, opened):
    store = opened(url, parts=3)
    quiet(store)
    for part in range(3):
        store.commit(part, Batch(write={b"a": b"1", b"b": b"1"}))
    with store.snapshot() as snapshot:
        for part in range(3):
            store.commit(part, Batch(write={b"a": b"2", b"b": None, b"c": b"2"}))
        assert snapshot.parts == 3
        assert [row and row.value for row in snapshot.read(1, [b"a", b"b", b"c"])] == [b"1", b"1", None]
        assert snapshot.read(2, [b""])[0].version == 1
        assert [row.key for row in snapshot.scan(None, b"", b"z", limit=10)] == [b"a"] * 3 + [b"b"] * 3
        assert snapshot.read_many([(0, [b"a"]), (1, [b"c"])])[1] == [None]
    assert [row.key for row in store.scan(0, b"", b"z", limit=9)] == [b"a", b"c"]
    assert len(store._driver.pool._alive) == len(store._driver.pool._idle)


def test_a_snapshot_is_of_the_moment_it_is_entered_not_of_its_first_read(url, opened):
    store = opened(url)
    with store.snapshot() as snapshot:
        store.commit(0, Batch(write={b"a": b"1"}))
        assert snapshot.read(0, [b"a"]) == [None]


def test_a_snapshot_that_failed_gives_its_connection_back(url, server, opened):
    mark = f"snapshot-{os.getpid()}"
    store = opened(f"{url}&connections=1&application_name={mark}")
    quiet(store)
    with pytest.raises(Unavailable), store.snapshot() as snapshot:
        server.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s", [mark]
        )
        snapshot.read(0, [b"a"])
    with pytest.raises(ZeroDivisionError), store.snapshot():
        raise ZeroDivisionError
    assert store.commit(0, Batch()) == 1


def test_an_asynchronous_snapshot_stays_as_it_was(url):
    async def run():
        store = await connect_async(url)
        await store.commit(0, Batch(write={b"a": b"1"}))
        async with store.snapshot() as snapshot:
            await store.commit(0, Batch(write={b"a": b"2"}))
            assert (await snapshot.read(0, [b"a"]))[0].value == b"1"
            assert (await snapshot.scan(None, b"", b"z", limit=5))[0].value == b"1"
        assert (await store.read(0, [b"a"]))[0].value == b"2"
        await store.close()

    asyncio.run(run())


def test_only_our_own_options_are_taken_out(url):
    target = dsn.parse(f"{url}&operation_timeout=2.5")
    assert (target.seconds, target.schema) == (2.5, name_of(url))
    assert "operation_timeout" not in target.conninfo
    assert dsn.parse(url).seconds is None
