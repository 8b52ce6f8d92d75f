"""Savepoints beside other writers, in lists of runs, of unknown types, and on an event loop."""

import asyncio
import threading
from dataclasses import dataclass

import pytest

import stateroom
from kit.aging import keys_left
from kit.databases import SEVERAL
from stateroom import Schedule
from stateroom.codec import Codec, Raw
from stateroom.core import turns
from stateroom.errors import Conflict, InvalidArgument, NoSavepoint, NotInitialized, Undecodable


@pytest.fixture
def run(store):
    store.savepoints.init("r")
    store.savepoints.save("r", 0, {"a": 0})
    return store.savepoints


def test_savepoints_of_different_times_do_not_meet(store, other, run):
    with store.transaction() as mine:
        mine.savepoints.save("r", 10, {"a": "mine"})
        with other.transaction() as theirs:
            theirs.savepoints.save("r", 20, {"a": "theirs"})
    assert run.list("r") == (0, 10, 20)
    with store.transaction() as mine:
        mine.savepoints.save("r", 30, {"a": "again mine"})
        other.savepoints.save("r", 20, {"a": "replaced"})
    assert run.at("r", 25).to_dict() == {"a": "replaced"}


@pytest.mark.parametrize("read", ["latest", "list", "latest_timestamp", "update"])
@pytest.mark.parametrize("change", ["save", "replace", "keep"])
def test_who_looked_at_the_savepoints_notices_that_they_changed(store, other, run, read, change):
    run.save("r", 5, {"a": 5})

    def look(tx):
        if read == "update":
            tx.savepoints.update("r", 7, changed={"b": 1})
        else:
            getattr(tx.savepoints, read)("r")
            tx.savepoints.save("r", 3, {"a": 3})

    changes = {
        "save": lambda: other.savepoints.save("r", 6, {"a": 6}),
        "replace": lambda: other.savepoints.save("r", 5, {"a": 55}),
        "keep": lambda: other.savepoints.keep("r", 1),
    }
    if change == "replace" and read == "list":
        return  # the times stay as they are
    with pytest.raises(Conflict), store.transaction() as tx:
        look(tx)
        changes[change]()
    store.transact(look)
    assert (3 in run.list("r")) is (read != "update")


def test_a_run_that_is_deleted_takes_what_is_being_saved_with_it(store, other, run):
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.savepoints.save("r", 10, {"a": 1})
        other.savepoints.delete_run("r")
    with pytest.raises(NotInitialized):
        run.save("r", 10, {"a": 1})
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.savepoints.delete_run("r") or tx.savepoints.init("r")
        other.savepoints.init("r")
        other.savepoints.save("r", 1, {"a": 1})
    with pytest.raises(Conflict), store.transaction() as tx:
        assert tx.savepoints.delete_run("r")
        other.savepoints.save("r", 2, {"a": 2})
    assert run.list("r") == (1, 2)


def test_an_update_over_a_run_that_was_made_again_starts_again(store, other, run):
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.savepoints.update("r", 1, changed={"b": 1})
        other.savepoints.delete_run("r")
        other.savepoints.init("r")
        other.savepoints.save("r", 0, {"a": 0})
    assert run.list("r") == (0,)


def test_many_writers_of_one_run_all_succeed(store, other, run):
    errors = []

    def write(client, number):
        try:
            for step in range(4):
                client.savepoints.save("r", 1000 * number + step, {"a": number, "b": step})
                client.savepoints.update("r", 10_000_000, changed={f"{number}": step})
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=write, args=((store, other)[number % 2], number)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert run.list("r") == (0, *(1000 * number + step for number in range(1, 7) for step in range(4)), 10_000_000)
    latest = run.latest("r").to_dict()
    assert {id: latest[id] for id in map(str, range(1, 7))} == dict.fromkeys(map(str, range(1, 7)), 3)


def test_runs_in_pages(store):
    for name in ("a", "a/1", "ab", "b", "b c", "ż"):
        store.savepoints.init(name, schedule=Schedule(5))
    assert store.savepoints.runs().items == ("a", "a/1", "ab", "b", "b c", "ż")
    first = store.savepoints.runs(limit=4)
    assert (first.items, len(first)) == (("a", "a/1", "ab", "b"), 4)
    last = store.savepoints.runs(limit=4, cursor=first.cursor)
    assert (last.items, last.cursor) == (("b c", "ż"), None)
    assert store.savepoints.runs("a").items == ("a", "a/1", "ab")
    page = store.savepoints.runs("a", limit=1)
    assert store.savepoints.runs("a", limit=5, cursor=page.cursor).items == ("a/1", "ab")
    assert store.savepoints.runs("x") == store.savepoints.runs("a/1/") != store.savepoints.runs("a")
    store.savepoints.delete_run("ab")
    assert store.savepoints.runs(prefix="a").items == ("a", "a/1")
    with store.transaction() as tx:
        tx.savepoints.init("a2")
        assert tx.savepoints.runs("a").items == ("a", "a/1", "a2")
    for call in (
        lambda: store.savepoints.runs(5), lambda: store.savepoints.runs(limit=0), lambda: store.savepoints.runs(cursor="x"),
        lambda: store.savepoints.runs("b", cursor=page.cursor), lambda: store.savepoints.runs("a\0"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument):
            call()


def test_nothing_is_left_of_a_run_that_was_deleted(store, database):
    for number in range(3):
        name = f"run-{number}"
        store.savepoints.init(name)
        for time in range(3):
            store.savepoints.save(name, time, {"a": time})
        store.savepoints.update(name, 5, changed={"b": 1})
        assert store.savepoints.keep(name, 2) == 2
        with store.transaction() as tx:
            tx.savepoints.save(name, 9, {"c": 1})
            assert tx.savepoints.delete_run(name)
            tx.savepoints.init(name)
            tx.savepoints.save(name, 1, {"d": 1})
        assert store.savepoints.list(name) == (1,)
        assert store.savepoints.delete_run(name)
    assert keys_left(database, b"N", b"C", b"R", b"X", b"B") == []


@dataclass
class Order:
    n: int


def knowing():
    codec = Codec()
    codec.register(Order, name="order")
    return codec


@pytest.fixture
def filled(database):
    database.codec = knowing()
    with database.open(codec=knowing()) as store:
        store.savepoints.init("r")
        store.savepoints.save("r", 1, {"a": 1, "b": Order(2), "c": [Order(3)]})
        store.savepoints.update("r", 2, changed={"d": Order(4), "a": 11})
    return database


@SEVERAL
def test_states_of_unknown_types_are_refused_by_name_or_shown_raw(filled):
    with filled.open() as store:
        latest = store.savepoints.latest("r")
        for read in (latest.to_dict, lambda: list(latest.entities()), lambda: latest.get("b")):
            with pytest.raises(Undecodable) as caught:
                read()
            assert (caught.value.id, caught.value.tag) == ("b", "order")
        assert latest.get("a") == 11
        states = latest.to_dict(raw=True)
        assert states == dict(latest.entities(raw=True))
        assert (states["a"], states["b"], states["c"][0].data) == (11, Raw("order", 1, {"n": 2}), {"n": 3})
        assert latest.get("d", raw=True).data == {"n": 4}
        assert store.savepoints.list("r") == (1, 2)
        assert store.savepoints.runs().items == ("r",)


@SEVERAL
def test_states_of_unknown_types_are_kept_written_back_and_deleted(filled):
    with filled.open() as store:
        store.savepoints.update("r", 3, changed={"e": 5}, removed=["c"])  # over what cannot be rebuilt here
        store.savepoints.save("r", 4, store.savepoints.latest("r").to_dict(raw=True))
    with filled.open(codec=knowing()) as store:
        whole = {"a": 11, "b": Order(2), "d": Order(4), "e": 5}
        assert store.savepoints.at("r", 3).to_dict() == store.savepoints.at("r", 4).to_dict() == whole
    with filled.open() as store:
        assert store.savepoints.keep("r", 1) == 3
        assert store.savepoints.delete_run("r")
        with pytest.raises(NoSavepoint):
            store.savepoints.latest("r")
    filled.codec = knowing()


def test_reading_and_writing_many_entities_gives_way(monkeypatch):
    ways, threads = [], []
    sleep, to_thread = asyncio.sleep, asyncio.to_thread

    async def counted_sleep(seconds, *more):
        ways.append(seconds)
        await sleep(seconds, *more)

    async def counted_thread(function, *args):
        threads.append(function)
        return await to_thread(function, *args)

    monkeypatch.setattr(turns.asyncio, "sleep", counted_sleep)
    monkeypatch.setattr(turns.asyncio, "to_thread", counted_thread)

    async def work():
        async with await stateroom.open_async("memory:") as store:
            await store.savepoints.init("r")
            entities = {f"e{number:06}": "s" * 100 for number in range(20_000)}  # 2 MB, some thirty chunks
            saved = await store.savepoints.save("r", 1, entities)
            assert len(threads) == 1
            assert len(ways) >= 20_000 // 4096
            ways.clear()
            assert len([pair async for pair in saved.entities()]) == 20_000
            assert len(ways) >= 20
            ways.clear()
            assert await saved.to_dict() == entities
            assert len(ways) >= 20
            updated = await store.savepoints.update("r", 2, removed=["e000001"])
            threads.clear()
            assert len(await updated.to_dict()) == 19_999
            assert len(threads) == 1

    asyncio.run(work())
