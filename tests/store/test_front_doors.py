"""What both front doors offer beside the families: opening, asking for an answer, and namespaces."""

import asyncio
import os
from pathlib import Path

import pytest

import stateroom
from kit.away import Away
from kit.databases import SEVERAL
from stateroom import Execution, Instance
from stateroom.database import namespaces
from stateroom.engines import urls
from stateroom.engines.wrap import Faulty
from stateroom.errors import Closed, InvalidArgument, Unavailable


def test_a_ping_is_answered(store):
    assert store.ping() is None


def test_a_ping_is_refused_while_the_database_is_away(database):
    away = Away(database.raw())
    store = database.over(away)
    away.leave()
    with pytest.raises(Unavailable):
        store.ping()
    away.come_back()
    store.ping()


def test_every_call_of_a_closed_store_says_so(database):
    store = database.open()
    store.close()
    for call in (store.ping, store.namespaces, lambda: store.delete_namespace("a"), store.check, store.stats):
        with pytest.raises(Closed):
            call()


def test_namespaces_are_those_that_hold_something(alone):
    stores = {name: alone.open(namespace=name) for name in ("b", "a", "a.b", "é")}
    assert stores["a"].namespaces() == ()
    for name in ("b", "é", "a.b"):
        stores[name].instances.put(Instance("i", "w"))
    assert stores["a"].namespaces() == ("a.b", "b", "é")


def fill(store):
    large = "x" * 200_000
    for number in range(30):
        store.executions.create(Execution(f"e{number}", "j", details={"n": number}))
    store.instances.start(Instance("i", "w", business_key="i", metadata={"large": large}))
    store.results.put("d", "r", large)
    store.savepoints.init("run")
    store.savepoints.save("run", 1, {"e": 1})
    store.machines.save("m", "n", "s", 1)
    store.checkpoints.set("c", stateroom.LATEST)
    store.leases.acquire("i", "me", 60)


def test_a_namespace_is_deleted_whole_and_no_other(alone, monkeypatch):
    monkeypatch.setattr(namespaces, "_RUN", 7)
    monkeypatch.setattr(namespaces, "_LARGE_RUN", 2)
    gone, kept = alone.open(namespace="gone"), alone.open(namespace="gone-not")
    fill(gone)
    fill(kept)
    assert kept.delete_namespace("gone") == 34
    assert kept.namespaces() == ("gone-not",)
    assert kept.delete_namespace("gone") == 0
    assert kept.executions.count("new") == 30
    assert kept.check() == []
    assert gone.check() == []
    assert gone.executions.count("new") == 0
    fill(gone)  # it is a namespace like any other
    assert gone.check() == []


def test_a_deletion_that_was_interrupted_is_ended_by_the_next(alone, monkeypatch):
    monkeypatch.setattr(namespaces, "_RUN", 7)
    store = alone.open(namespace="gone")
    fill(store)
    half = alone.over(Faulty(alone.raw(), 5, calls=("commit",), once=True), namespace="other")
    with pytest.raises(Unavailable):
        half.delete_namespace("gone")
    assert store.namespaces() == ("gone",)
    half.delete_namespace("gone")
    assert store.namespaces() == ()


def test_a_namespace_that_is_none_is_refused(store):
    for name in ("", " ", "a\0", "x" * 65, 5, None):
        with pytest.raises(InvalidArgument):
            store.delete_namespace(name)


@SEVERAL
def test_a_namespace_goes_in_small_steps(database, monkeypatch):
    monkeypatch.setattr(namespaces, "_RUN", 10)
    sizes = []
    engine = database.raw()
    store = database.open(namespace="small-steps")
    fill(store)

    class Looking(Away):
        def commit(self, part, batch, /):
            sizes.extend(len(self.engine.scan(part, *span, limit=1000)) for span in batch.clear)
            return super().commit(part, batch)

        def _submit(self, part, batch, done, /):
            done(self.commit(part, batch))

    looking = Looking(engine)
    database.over(looking, namespace="other").delete_namespace("small-steps")
    assert 0 < max(sizes) <= 16
    assert len(sizes) > 10


@pytest.mark.parametrize("word", ["memory", "Memory", "sqlite", "postgres", "postgresql"])
def test_the_bare_name_of_a_scheme_is_refused_with_what_is_meant(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for opening in (stateroom.open, lambda url: asyncio.run(stateroom.open_async(url))):
        with pytest.raises(InvalidArgument, match="write '") as refused:
            opening(word)
        assert (refused.value.what, refused.value.value) == ("url", word)
    assert os.listdir(tmp_path) == []


def test_a_file_may_have_such_a_name_all_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stateroom.open("./memory").close()
    assert "memory" in os.listdir(tmp_path)


@pytest.mark.parametrize("url", ["~/runs.db", "sqlite:///~/runs.db", Path("~/runs.db")])
def test_the_home_folder_is_known(url, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with stateroom.open(url) as store:
        store.instances.put(Instance("i", "w"))
    assert (tmp_path / "runs.db").exists()


def test_the_home_folder_is_known_in_the_environment_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(urls.ENVIRONMENT, "~/runs.db")
    stateroom.open().close()
    assert (tmp_path / "runs.db").exists()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+psycopg", "PostgreSQL+psycopg"])
def test_other_spellings_of_the_scheme_are_taken(scheme):
    assert urls.resolve(f"{scheme}://u@h/db?x=1") == "postgresql://u@h/db?x=1"


def test_what_is_no_other_spelling_is_left_alone():
    for url in ("postgresql://h/db", "a~b.db", "./~/x", "dir/memory"):
        assert urls.resolve(url) == url


def test_opening_is_a_context_manager_that_closes(tmp_path):
    async def work():
        async with stateroom.open_async(tmp_path / "s.db") as store:
            await store.instances.put(Instance("i", "w"))
        with pytest.raises(Closed):
            await store.instances.get("i")
        store = await stateroom.open_async(tmp_path / "s.db")
        async with store:
            assert (await store.instances.get("i")).id == "i"
        async with await stateroom.open_async(tmp_path / "s.db") as again:
            assert await again.instances.count() == 1
        task = asyncio.create_task(stateroom.open_async("memory:"))
        await (await task).close()

    asyncio.run(work())


def test_opening_that_fails_raises_where_it_is_entered(tmp_path):
    async def work():
        async with stateroom.open_async(tmp_path / "none.db", create=False):
            raise AssertionError("it was opened")

    with pytest.raises(stateroom.errors.NotFound):
        asyncio.run(work())


def test_rows_of_the_database_itself_are_no_namespace(alone):
    store = alone.open(namespace="n")
    store.feed.latest()  # makes the database's identity
    assert store.namespaces() == ()


def test_what_was_done_once_is_not_called_again(database, store):
    """With a key that says its root, the function is not called: it may do more than write here."""
    calls = []

    def work(tx):
        calls.append(1)
        tx.results.put("order-17", "x", len(calls))
        return {"call": len(calls)}

    for _ in range(3):
        assert store.transact(work, once="order-17/charge") == {"call": 1}
    assert len(calls) == 1
    assert store.results.get("order-17", "x") == 1
    for _ in range(3):  # with another key it is called up to its first look, and what it gave comes back
        assert store.transact(work, once="charge") == {"call": 2}
    assert store.results.get("order-17", "x") == 2


def test_a_function_that_writes_nothing_is_done_once_too(store):
    calls = []
    for _ in range(3):
        assert store.transact(lambda tx: calls.append(1) or "done", once="a/key") == "done"
    assert len(calls) == 1


def test_what_was_cleared_in_a_transaction_is_not_found_in_it(store):
    store.results.put("d", "x", 1)
    store.results.put("d", "y", 2)
    with store.transaction() as tx:
        assert tx.results.get("d", "x") == 1
        assert tx.results.clear("d") == 2
        assert tx.results.find("d", "x") is None
        assert tx.results.ids("d") == ()
        assert not tx.results.has("d", "y")
        tx.results.put("d", "y", 3)
        assert tx.results.get("d", "y") == 3
        assert tx.results.ids("d") == ("y",)
    assert store.results.ids("d") == ("y",)
    assert store.results.find("d", "x") is None
