"""`StateroomStore` against LangGraph's own in-memory store, and what that one lacks."""

import asyncio
from datetime import timedelta

import pytest

pytest.importorskip("langgraph.store.base")

from langgraph.store.base import GetOp, InvalidNamespaceError, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

import stateroom
from stateroom import AsyncStore
from stateroom.adapters.langgraph import StateroomStore
from stateroom.errors import InvalidArgument
from stateroom.testing.faces import ManualClock

from .conftest import ENGINES, opened


class Awaited:
    """The coroutines of a store, called from plain code."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        method = getattr(self._store, f"a{name}")
        return lambda *arguments, **options: asyncio.run(method(*arguments, **options))


@pytest.fixture(params=["reference", *(f"{face} {engine}" for face in ("plain", "awaited") for engine in ENGINES)])
def items(request):
    """LangGraph's own store in memory, and ours on every engine and face."""
    if request.param == "reference":
        yield InMemoryStore()
        return
    face, engine = request.param.split()
    with opened(engine, request) as store:
        yield StateroomStore(store) if face == "plain" else Awaited(StateroomStore(AsyncStore.over(store)))


def keys(found):
    return sorted(item.key for item in found)


def test_put_get_and_delete(items):
    assert items.get(("a",), "k") is None
    items.put(("a",), "k", {"n": 1, "deep": {"list": [1, None, "x"]}})
    item = items.get(("a",), "k")
    assert (item.value, item.key, item.namespace) == ({"n": 1, "deep": {"list": [1, None, "x"]}}, "k", ("a",))
    items.put(("a",), "k", {"n": 2})
    assert items.get(("a",), "k").value == {"n": 2}
    assert items.get(("a",), "k").updated_at >= item.updated_at
    assert items.get(("a", "b"), "k") is None
    items.delete(("a",), "k")
    items.delete(("a",), "k")
    assert items.get(("a",), "k") is None


def test_search_by_prefix_filter_limit_and_offset(items):
    for number in range(6):
        items.put(("docs", f"u{number % 2}"), f"k{number}", {"n": number, "tag": {"even": number % 2 == 0}})
    items.put(("doc",), "other", {"n": 1})
    assert keys(items.search(("docs",))) == [f"k{number}" for number in range(6)]
    assert keys(items.search(("docs", "u1"))) == ["k1", "k3", "k5"]
    assert keys(items.search(())) == [*(f"k{number}" for number in range(6)), "other"]
    assert keys(items.search(("docs",), filter={"n": 3})) == ["k3"]
    assert keys(items.search(("docs",), filter={"n": {"$gte": 2, "$lt": 5}})) == ["k2", "k3", "k4"]
    assert keys(items.search(("docs",), filter={"tag": {"even": True}, "n": {"$ne": 0}})) == ["k2", "k4"]
    assert items.search(("docs",), filter={"missing": 1}) == []
    paged = [items.search(("docs",), limit=4, offset=offset) for offset in (0, 4, 8)]
    assert [len(page) for page in paged] == [4, 2, 0]
    assert keys(item for page in paged for item in page) == [f"k{number}" for number in range(6)]


def test_namespaces_are_listed_by_prefix_suffix_and_depth(items):
    for namespace in (("a", "b", "c"), ("a", "b", "d"), ("a", "x", "c"), ("z",)):
        items.put(namespace, "k", {})
    assert items.list_namespaces() == [("a", "b", "c"), ("a", "b", "d"), ("a", "x", "c"), ("z",)]
    assert items.list_namespaces(prefix=("a", "b")) == [("a", "b", "c"), ("a", "b", "d")]
    assert items.list_namespaces(suffix=("c",)) == [("a", "b", "c"), ("a", "x", "c")]
    assert items.list_namespaces(prefix=("a", "*", "c")) == [("a", "b", "c"), ("a", "x", "c")]
    assert items.list_namespaces(max_depth=2) == [("a", "b"), ("a", "x"), ("z",)]
    assert items.list_namespaces(limit=2, offset=1) == [("a", "b", "d"), ("a", "x", "c")]


def test_a_batch_reads_before_it_writes_and_the_last_put_of_a_key_counts(items):
    results = items.batch(
        [PutOp(("a",), "k", {"n": 1}), GetOp(("a",), "k"), SearchOp(("a",)), PutOp(("a",), "k", {"n": 2})]
    )
    assert results == [None, None, [], None]
    assert items.get(("a",), "k").value == {"n": 2}


def test_a_bad_namespace_is_refused(items):
    for namespace in ((), ("langgraph",), ("a.b",), ("",), ("a\0",), (1,)):
        with pytest.raises(InvalidNamespaceError):
            items.put(namespace, "k", {})


# --- beyond the reference


@pytest.fixture
def memories(store):
    return StateroomStore(store)


def test_names_and_values_of_any_kind_and_size(memories, store):
    for key in ("k/1", "k ", " ", "x" * 5000, "ü", "%", "a\nb"):
        memories.put(("users", "ann/1", "ü" * 100), key, {"key": key, "big": "v" * 100_000})
        assert memories.get(("users", "ann/1", "ü" * 100), key).key == key
    found = memories.search(("users",), limit=100)
    assert all(item.value["key"] == item.key for item in found)
    assert len(found) == 7
    memories.delete(("users", "ann/1", "ü" * 100), "k ")
    assert len(memories.search(("users",), limit=100)) == 6
    assert {change.family for change in store.feed.read(limit=1000).items} == {"machines", "results"}


def test_the_newest_change_comes_first(memories):
    for key in "abc":
        memories.put(("n",), key, {})
    memories.put(("n",), "a", {"again": True})
    assert [item.key for item in memories.search(("n",), limit=2)] == ["a", "c"]


def test_a_namespace_without_items_is_not_listed(memories):
    memories.put(("a",), "k", {})
    memories.delete(("a",), "k")
    assert memories.list_namespaces() == []
    memories.put(("a",), "k", {})
    assert memories.list_namespaces() == [("a",)]


def test_it_is_there_after_reopening_and_for_other_processes(url):
    with StateroomStore(url) as one, StateroomStore(url) as two:
        one.put(("a",), "k", {"n": 1})
        assert two.get(("a",), "k") == one.get(("a",), "k")
    with StateroomStore(url) as again:
        assert again.search(("a",))[0].value == {"n": 1}


def test_items_expire_and_reading_lets_them_live_longer(tmp_path):
    clock = ManualClock()
    with stateroom.open(tmp_path / "s.db", clock=clock) as store:
        memories = StateroomStore(store, ttl={"default_ttl": 10})
        for key in ("read", "searched", "left", "unrefreshed"):
            memories.put(("n",), key, {"key": key})
        memories.put(("n",), "for ever", {}, ttl=None)
        before = {item.key: item for item in memories.search(("n",), refresh_ttl=False)}
        clock.advance(6 * 60)
        assert memories.get(("n",), "read") == before["read"]
        assert memories.search(("n",), filter={"key": "searched"}) == [before["searched"]]
        assert memories.get(("n",), "unrefreshed", refresh_ttl=False) is not None
        clock.advance(6 * 60)
        assert keys(memories.search(("n",), refresh_ttl=False)) == ["for ever", "read", "searched"]
        assert memories.get(("n",), "read") == before["read"]  # neither value nor times have changed
        store.retention.run()
        clock.advance(timedelta(days=1).total_seconds())
        assert [item.key for item in memories.search(("n",))] == ["for ever"]
        assert store.check() == []


def test_vector_search_is_refused_by_name(memories):
    with pytest.raises(InvalidArgument, match="vector search"):
        memories.search(("a",), query="like this")
    with pytest.raises(InvalidArgument, match="vector search"):
        StateroomStore("memory:", index={"dims": 3, "embed": "x"})
    with pytest.raises(InvalidArgument, match="regex"):
        memories.put(("a",), "k", {"n": 1})
        memories.search(("a",), filter={"n": {"$regex": "x"}})
    with pytest.raises(InvalidArgument):
        memories.batch(["get"])
    with pytest.raises(InvalidArgument):
        memories.put(("a",), "k", {"n": object()})
    assert memories.get(("a",), "k").value == {"n": 1}


def test_a_graph_uses_it(store):
    from typing import TypedDict

    from langgraph.graph import START, StateGraph
    from langgraph.store.base import BaseStore

    class State(TypedDict):
        text: str

    def remember(state: State, *, store: BaseStore) -> State:
        store.put(("memories",), "last", {"text": state["text"]})
        return state

    builder = StateGraph(State)
    builder.add_node("remember", remember)
    builder.add_edge(START, "remember")
    memories = StateroomStore(store)
    builder.compile(store=memories).invoke({"text": "tea"})
    asyncio.run(builder.compile(store=StateroomStore(AsyncStore.over(store))).ainvoke({"text": "more tea"}))
    assert memories.get(("memories",), "last").value == {"text": "more tea"}
