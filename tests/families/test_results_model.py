"""Results against dicts, beside racing clients, and failing at every call."""

from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from kit.databases import BLOCKING
from kit.faults import at_every_call, over
from kit.model_machine import InPlace, Place
from stateroom import OMITTED
from stateroom.engines.memory import MemoryEngine
from stateroom.engines.wrap import Conflicting
from stateroom.store import moving

LARGE = b"large" * 20_000


def _prepare(store):
    store.results.put("d", "x", "small", ttl=60)
    store.results.put("d", "large", LARGE)
    store.results.put("d/e", "x", LARGE)


def _view(store):
    every = [(one, store.results.get(one.dag, one.id)) for one in store.results.scan()]
    changes = store.feed.read(limit=1000).items
    return every, [(change.op, change.key) for change in changes], store.results.count("d"), store.results.ids("d")


@BLOCKING
@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.results.put("d", "new", 1),
        lambda store: store.results.put("d", "x", 2, ttl=5),
        lambda store: store.results.put("d", "x", LARGE + b"!"),
        lambda store: store.results.put("d", "large", "small"),
        lambda store: store.results.put("d", "twice", LARGE, inputs=[LARGE]),
        lambda store: store.results.delete("d", "x"),
        lambda store: store.results.delete("d", "large"),
        lambda store: store.results.clear("d"),
    ],
    ids=["new", "again", "larger", "smaller", "shared", "delete", "delete-large", "clear"],
)
def test_all_or_nothing_at_every_call(act, database):
    at_every_call(database, _prepare, act, _view)


def test_clear_beside_writers():
    """What another client writes between the look and the commit is either cleared and counted, or stays whole."""
    for theirs in (
        lambda store: store.results.put("d", "new", LARGE + b"of its own"),
        lambda store: store.results.put("d", "new", "small"),
        lambda store: store.results.put("d", "x", LARGE + b"of its own", ttl=9),
        lambda store: store.results.put("d", "large", 1),
        lambda store: store.results.delete("d", "large"),
        lambda store: store.results.clear("d"),
    ):
        engine = MemoryEngine()
        store = over(engine)
        _prepare(store)

        def interfere(number, part, batch, theirs=theirs, store=store):
            if number == 1:
                theirs(store)

        before = len(store.results.ids("d"))
        cleared = over(Conflicting(engine, interfere=interfere)).results.clear("d")
        assert cleared <= before + 1
        assert store.results.ids("d") == ()
        assert store.results.get("d/e", "x") == LARGE
        assert store.check() == []


def test_a_copy_has_everything():
    source = over(MemoryEngine())
    _prepare(source)
    source.results.put("d", "both", "t" * 65_000, inputs=LARGE)
    source.results.memo("d", "f", 1, lambda: LARGE)
    source.results.delete("d", "x")
    target = over(MemoryEngine(parts=3))
    moving.copy_stores(source, target)
    assert [one.value for one in target.results.scan()] == [one.value for one in source.results.scan()]
    assert target.results.get("d", "large") == LARGE
    assert target.results.find("d", "both") == source.results.find("d", "both")
    assert target.check() == []
    assert target.results.clear("d") == 3
    assert target.check() == []


class ResultsAsDicts(InPlace):
    dags, names = st.sampled_from(["d", "d/e", "d%", "_", "de"]), st.sampled_from(["x", "y", "x/y", "é"])
    values = st.none() | st.booleans() | st.integers() | st.sampled_from([LARGE, LARGE + b"2", "t" * 70_000])
    ttls = st.none() | st.integers(1, 5)

    def __init__(self, place):
        super().__init__(place)
        self.model = {}

    def there(self, dag=None):
        return {
            key: value
            for key, (value, until) in self.model.items()
            if dag in (None, key[0]) and (until is None or until > self.clock.now())
        }

    def write(self, store, dag, id, value, ttl):
        made = store.results.put(dag, id, value, ttl=ttl)
        self.model[dag, id] = (value, self.end(ttl))
        assert (made.value, made.expires_at) == self.model[dag, id]

    def end(self, ttl):
        return None if ttl is None else self.clock.now() + timedelta(seconds=ttl)

    @rule(dag=dags, id=names, value=values, ttl=ttls)
    def put(self, dag, id, value, ttl):
        self.write(self.store, dag, id, value, ttl)

    @rule(dag=dags, id=names, ttl=ttls)
    def put_stream(self, dag, id, ttl):
        self.store.results.put_stream(dag, id, [LARGE, b"!"], ttl=ttl)
        self.model[dag, id] = (LARGE + b"!", self.end(ttl))

    @rule(dag=dags, id=names, ours=values, theirs=values, ttl=ttls)
    def another_client_commits_now(self, dag, id, ours, theirs, ttl):
        self.write(self.beside(lambda other: other.results.put(dag, id, theirs, ttl=ttl)), dag, id, ours, None)

    @rule(dag=dags, id=names)
    def delete(self, dag, id):
        assert self.store.results.delete(dag, id) == ((dag, id) in self.there())
        if (dag, id) in self.there():
            del self.model[dag, id]

    @rule(dag=dags)
    def clear(self, dag):
        assert self.store.results.clear(dag) == len(self.there(dag))
        self.model = {key: value for key, value in self.model.items() if key[0] != dag}

    @rule(seconds=st.integers(1, 3))
    def time_goes_by(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def retention(self):
        self.store.retention.run()

    @rule(dag=dags, id=names)
    def look(self, dag, id):
        there = self.there()
        assert self.store.results.has(dag, id) == ((dag, id) in there)
        found = self.store.results.find(dag, id)
        assert (None if found is None else (found.value,)) == ((there[dag, id],) if (dag, id) in there else None)

    @rule(dag=st.none() | dags)
    def pages(self, dag):
        expected = [
            (key, OMITTED if isinstance(value, bytes | str) else value) for key, value in self.there(dag).items()
        ]
        assert [((one.dag, one.id), one.value) for one in self.store.results.scan(dag=dag)] == sorted(
            expected, key=lambda one: one[0]
        )
        if dag is not None:
            ids = sorted(id for _, id in self.there(dag))
            assert (self.store.results.ids(dag), self.store.results.count(dag)) == (tuple(ids), len(ids))

    @invariant()
    def holds_together(self):
        if len(self.model) % 4 == 3:
            assert self.store.check() == []


@pytest.mark.older
def test_results_are_as_dicts(database):
    Place(database).run(ResultsAsDicts, 30, 6, 10)


@pytest.mark.older
@pytest.mark.torture
def test_results_are_as_dicts_for_long(database):
    Place(database).run_for_long(ResultsAsDicts)
