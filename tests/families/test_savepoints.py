"""Savepoints: cuts, updates, layers, sharing; on every engine and face."""

import random

import pytest

from kit.blob_store import shrink
from kit.databases import BLOCKING
from kit.model_machine import Place
from stateroom import Savepoint, Schedule, Store, codec, keys
from stateroom.core.bridge import run_now
from stateroom.engines.memory import MemoryEngine
from stateroom.engines.wrap import Conflicting, Faulty, Recording
from stateroom.errors import Conflict, InvalidArgument, NoSavepoint, NotFound, NotInitialized, StoreError
from stateroom.families.savepoints import chunks, writing
from stateroom.testing.faces import ManualClock
from stateroom.values.uploads import free


@pytest.fixture
def run(store):
    assert store.savepoints.init("r") is True
    return store.savepoints


def people(count, seed=1):
    draw = random.Random(seed)
    return {f"entity-{draw.randrange(10**9):09d}": {"n": at, "x": "y" * draw.randint(0, 150)} for at in range(count)}


def test_what_is_saved_comes_back(store, run):
    states = {"b": None, "a/1": {"deep": [1, (2, {3})]}, "ü": b"\0", "c": 1.5, "big": b"z" * 2_000_000}
    saved = run.save("r", 1000, states)
    assert (saved.run, saved.timestamp, saved.count) == ("r", 1000, 5)
    assert saved.bytes > 2_000_000
    for found in (saved, run.latest("r"), run.at("r", 1000), run.at("r", 5000)):
        assert found.timestamp == 1000
        assert found.to_dict() == states
        assert list(found.entities()) == sorted(states.items())
        for id, state in states.items():
            assert found.get(id) == state
    with pytest.raises(NotFound):
        saved.get("d")
    assert run.latest_timestamp("r") == 1000
    assert run.list("r") == (1000,)


def test_a_run_is_initialised_once_and_keeps_what_it_has(run):
    assert run.initialized("r") is True
    assert run.initialized("other") is False
    run.save("r", 5, {"a": 1})
    assert run.init("r", start=9, schedule=Schedule(7)) is False
    assert run.list("r") == (5,)


def test_nothing_there(store, run):
    for name in ("r", "never"):
        for call in (run.latest, run.latest_timestamp, lambda name: run.at(name, 5), lambda name: run.update(name, 5)):
            with pytest.raises(NoSavepoint) as caught:
                call(name)
            assert caught.value.run == name
        assert run.list(name) == ()
        assert run.keep(name, 1) == 0
    with pytest.raises(NotInitialized):
        run.save("never", 5, {"a": 1})
    assert run.delete_run("never") is False
    assert run.delete_run("r") is True
    assert run.initialized("r") is False
    assert [one.key for one in store.feed.read().items] == [("r",)]


def test_pairs_and_iterators_and_nothing(run):
    run.save("r", 1, iter([("b", 3), ("a", 2)]))
    assert run.latest("r").to_dict() == {"a": 2, "b": 3}
    empty = run.save("r", 2, {})
    assert (empty.count, empty.to_dict(), list(empty.entities())) == (0, {}, [])
    assert run.update("r", 3, changed={"x": 1}, removed=["a"]).to_dict() == {"x": 1}
    assert run.update("r", 4, removed=["x"]).to_dict() == {}
    with pytest.raises(NotFound):
        run.latest("r").get("x")


def test_the_same_time_replaces_and_an_older_one_is_kept(store, run):
    first = run.save("r", 10, {"a": 1})
    assert run.save("r", 10, {"a": 2}).to_dict() == {"a": 2}
    run.save("r", 5, {"old": True})
    assert run.list("r") == (5, 10)
    assert run.latest("r").to_dict() == {"a": 2}
    assert run.at("r", 9).to_dict() == {"old": True}
    with pytest.raises(NoSavepoint):
        run.at("r", 4)
    with pytest.raises(NoSavepoint, match="replaced"):
        first.to_dict()
    assert run.update("r", 10, changed={"b": 3}).to_dict() == {"a": 2, "b": 3}
    assert run.list("r") == (5, 10)


def test_updates_change_add_and_remove(run):
    states = people(3000)
    run.save("r", 0, states)
    draw = random.Random(2)
    for step in range(1, 6):
        changed = {draw.choice(list(states)): {"step": step} for _ in range(30)} | {f"new-{step}": step, "!": step}
        removed = set(draw.sample(sorted(states), 20)) - changed.keys()
        states = {id: state for id, state in {**states, **changed}.items() if id not in removed}
        found = run.update("r", step, changed=changed, removed=[*removed, "unknown", "nobody"])
        assert found.count == len(states)
        assert found.to_dict() == states
        assert list(found.entities()) == sorted(states.items())
        for id in [*changed, *draw.sample(sorted(states), 5)]:
            assert found.get(id) == states[id]
        for id in removed:
            with pytest.raises(NotFound):
                found.get(id)
    assert run.at("r", 0).to_dict() == people(3000)
    same = run.update("r", 6, removed=["unknown"])
    assert (same.count, same.to_dict()) == (len(states), states)


def test_bad_arguments_change_nothing(store, run):
    run.save("r", 10, {"a": 1})
    before = store.feed.latest()
    calls = [
        lambda: run.update("r", 9, changed={"a": 2}),
        lambda: run.update("r", 11, changed={"a": 2}, removed=["a"]),
        lambda: run.update("r", 11, removed="abc"),
        lambda: run.update("r", 11, removed=[""]),
        lambda: run.update("r", 11, changed={"": 1}),
        lambda: run.save("r", -1, {}),
        lambda: run.save("r", 1.5, {}),
        lambda: run.save("", 1, {}),
        lambda: run.save("r", 11, "text"),
        lambda: run.save("r", 11, [1, 2]),
        lambda: run.save("r", 11, [("a", 1, 2)]),
        lambda: run.save("r", 11, {5: 1}),
        lambda: run.save("r", 11, {"a\0b": 1}),
        lambda: run.save("r", 11, {" ": 1}),
        lambda: run.save("r", 11, {"x" * 257: 1}),
        lambda: run.save("r", 11, {"ü" * 129: 1}),
        lambda: run.save("r", 11, {"a": object()}),
        lambda: run.keep("r", 0),
        lambda: run.init("s", start=-1),
        lambda: run.init("s", schedule=0),
        lambda: run.latest("r").get(""),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument):
            call()
    with pytest.raises(InvalidArgument, match="entity 'a'") as caught:
        run.save("r", 11, {"a": {"deep": [object()]}})
    assert caught.value.path == "$['a'].deep[0]"
    assert store.feed.latest() == before
    assert run.list("r") == (10,)
    assert not run.initialized("s")


def test_an_id_that_comes_twice_is_refused_by_name(store, run):
    class Loud(str):
        def __eq__(self, other):
            return self is other

        __hash__ = str.__hash__

    run.save("r", 10, {"a": 1})
    for call in (
        lambda: run.save("r", 11, [("b", 1), ("a", 1), ("b", 1)]),
        lambda: run.save("r", 11, iter([("b", 1), ("b", 2)])),
        lambda: run.update("r", 11, changed=[("b", 1), ("b", 2)]),
    ):
        with pytest.raises(InvalidArgument, match="'b' twice"):
            call()
    with pytest.raises(InvalidArgument, match="same id"):
        run.save("r", 11, {Loud("a"): 1, Loud("a"): 2})
    assert run.list("r") == (10,)


def test_what_a_source_raises_comes_through(run):
    def source():
        yield "a", 1
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        run.save("r", 1, source())
    assert run.list("r") == ()


def test_keep_gives_the_space_back(store, database, run):
    for step in range(5):
        run.save("r", step, people(2000, seed=step))
    assert run.keep("r", 9) == 0
    assert run.keep("r", 2) == 3
    assert run.list("r") == (3, 4)
    assert run.latest("r").to_dict() == people(2000, seed=4)
    assert run.keep("r", 1) == 1
    assert store.check() == []
    stale = run.latest("r")
    assert run.delete_run("r") is True
    with pytest.raises(NoSavepoint):
        stale.get("a")
    if not database.asynchronous:
        start = store._scope.key(b"B")
        assert store._engine.scan(0, start, start + keys.END * 50, limit=10) == []
    run.init("r")
    with pytest.raises(NoSavepoint):
        run.latest("r")


def test_changes_tell_of_savepoints(store, run):
    run.save("r", 3, {"a": 1, "b": 2})
    run.save("r", 3, {"a": 1})
    run.save("r", 4, {"a": 1})
    run.keep("r", 1)
    run.delete_run("r")
    changes = store.feed.read(families=["savepoints"]).items
    assert [(one.op, one.key) for one in changes] == [
        ("create", ("r", 3)), ("update", ("r", 3)), ("create", ("r", 4)), ("delete", ("r", 3)), ("delete", ("r",)),
    ]  # fmt: skip
    assert all(one.id == "r" for one in changes)
    assert (changes[1].record.count, changes[1].previous.count, changes[1].record.timestamp) == (1, 2, 3)
    assert changes[1].record.content == b""
    assert changes[-1].record is None


def test_in_a_transaction_it_is_all_or_nothing(store, run):
    states = people(20_000)
    with pytest.raises(KeyError), store.transaction() as tx:
        tx.savepoints.save("r", 1, states)
        raise KeyError
    assert run.list("r") == ()
    with store.transaction() as tx:
        assert tx.savepoints.init("r/2") is True
        saved = tx.savepoints.save("r/2", 1, states)
        assert saved.get(min(states)) == states[min(states)]
        assert tx.savepoints.latest("r/2").to_dict() == states
        tx.savepoints.update("r/2", 2, changed={"x": 1})
        assert tx.savepoints.list("r/2") == (1, 2)
        assert tx.savepoints.keep("r/2", 1) == 1
        assert tx.savepoints.list("r/2") == (2,)
        assert run.list("r/2") == ()
    assert run.latest("r/2").to_dict() == {**states, "x": 1}
    with store.transaction() as tx:
        tx.savepoints.delete_run("r/2")
        tx.savepoints.init("r/2")
        tx.savepoints.save("r/2", 7, {"y": 1})
    assert run.list("r/2") == (7,)


def fresh(engine, clock=None):
    return Store(engine, "memory:", namespace="default", codec=codec.default, clock=clock or ManualClock(), owner=False)


def test_two_runs_of_one_name_prefix_are_apart(run):
    run.init("r2")
    run.save("r", 1, {"a": 1})
    run.save("r2", 2, {"b": 1})
    assert (run.list("r"), run.list("r2")) == ((1,), (2,))
    run.delete_run("r")
    assert run.latest("r2").to_dict() == {"b": 1}


def test_an_update_over_a_savepoint_that_changes_meanwhile_starts_again():
    inner = MemoryEngine()
    other = fresh(inner)
    other.savepoints.init("r")
    other.savepoints.save("r", 1, {"a": 1, "b": 1})

    def interfere(number, part, batch):
        if number == 1:
            other.savepoints.update("r", 1, changed={"c": 1}, removed=["b"])

    store = fresh(Conflicting(inner, interfere=interfere))
    assert store.savepoints.update("r", 2, changed={"b": 2, "d": 2}).to_dict() == {"a": 1, "b": 2, "c": 1, "d": 2}
    assert store.savepoints.latest("r").count == 4
    assert store.check() == []
    tx = store.transaction()
    with pytest.raises(Conflict), tx as families:
        families.savepoints.update("r", 3, changed={"e": 1})
        other.savepoints.update("r", 2, changed={"f": 1})


def written(recording):
    return sum(len(key) + len(value or b"") for batch in recording.batches for key, value in batch.write.items())


def test_an_update_of_one_percent_writes_at_most_three():
    recording = Recording(MemoryEngine())
    run = fresh(recording).savepoints
    run.init("r")
    states = {f"entity-{at:08d}": "x" * 90 for at in range(50_000)}
    recording.clear()
    run.save("r", 0, states)
    whole = written(recording)
    draw = random.Random(3)
    for step in range(1, 11):
        recording.clear()
        changed = dict.fromkeys(draw.sample(sorted(states), 500), "y" * 90)
        states.update(changed)
        run.update("r", step, changed=changed)
        assert written(recording) <= 0.03 * whole
    last = run.latest("r")
    recording.clear()
    assert last.to_dict() == states
    read = sum(len(row.value) for call in recording.calls if call.name == "read" for row in call.outcome if row)
    assert read <= 1.3 * whole
    recording.clear()
    assert last.get("entity-00000007") == states["entity-00000007"]
    read = sum(len(row.value) for call in recording.calls if call.name == "read" for row in call.outcome if row)
    assert read <= 0.2 * whole


def test_what_did_not_change_is_not_written_again():
    recording = Recording(MemoryEngine())
    run = fresh(recording).savepoints
    run.init("r")
    states = {f"entity-{at:08d}": "x" * 90 for at in range(20_000)}
    recording.clear()
    run.save("r", 0, states)
    whole = written(recording)
    recording.clear()
    del states["entity-00000500"]
    states["entity-00009999-b"] = 1
    run.save("r", 1, states)
    assert written(recording) < 0.25 * whole
    assert run.at("r", 0).count == 20_000
    recording.clear()
    run.save("r", 2, states)
    assert written(recording) < 0.02 * whole


def test_many_small_updates_are_put_together(monkeypatch):
    monkeypatch.setattr(writing, "LAYERS", 4)
    engine = MemoryEngine()
    store = fresh(engine)
    store.savepoints.init("r")
    states = {f"e{at:05d}": at for at in range(5000)}
    store.savepoints.save("r", 0, states)
    for step in range(1, 40):
        states[f"e{step * 7:05d}"] = f"changed {step}"
        gone = f"e{step * 11 + 3000:05d}"
        states.pop(gone)
        store.savepoints.update("r", step, changed={f"e{step * 7:05d}": f"changed {step}"}, removed=[gone])
        found = store.savepoints.latest("r")
        assert found.to_dict() == states
        assert found.count == len(states)
    assert store.check() == []
    store.savepoints.keep("r", 1)
    assert store.check() == []


@BLOCKING
@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("step", ["save", "replace", "update", "keep", "delete_run"])
def test_a_failure_at_any_call_leaves_all_or_nothing(monkeypatch, database, step, lost):
    shrink(monkeypatch)
    monkeypatch.setattr(chunks, "DIRECT_BYTES", 3000)
    monkeypatch.setattr(chunks, "TARGET_BYTES", 500)
    states = [{f"e{at}": "x" * 50 for at in range(80)}, {f"e{at}": "y" * 50 for at in range(100)}]
    changed = {f"e{at}": "z" * 40 for at in range(0, 80, 9)}
    calls = {
        "save": lambda run: run.save("r", 3, states[1]),
        "replace": lambda run: run.save("r", 2, states[0]),
        "update": lambda run: run.update("r", 3, changed=changed),
        "keep": lambda run: run.keep("r", 1),
        "delete_run": lambda run: run.delete_run("r"),
    }
    place = Place(database)
    engine, clock, number = place.raw, place.clock, 0
    while True:
        number += 1
        namespace = place.namespace()
        store = place.open(namespace)
        store.savepoints.init("r")
        store.savepoints.save("r", 1, states[0])
        store.savepoints.save("r", 2, states[1])
        faulty = Faulty(engine, number, lost=lost)
        try:
            calls[step](place.over(faulty, namespace).savepoints)
        except StoreError:
            pass
        else:
            assert faulty.count < number
            break
        assert store.check() == []
        found = {at: store.savepoints.at("r", at).to_dict() for at in store.savepoints.list("r")}
        before = {1: states[0], 2: states[1]}
        after = {
            "save": {**before, 3: states[1]},
            "replace": {1: states[0], 2: states[0]},
            "update": {**before, 3: {**states[1], **changed}},
            "keep": {2: states[1]},
            "delete_run": {},
        }[step]
        assert found in (before, after)
        clock.advance(7200)
        run_now(free(store._scope, clock.now()))
        assert store.check() == []
        store.savepoints.delete_run("r")
        assert store.check() == []
        for part in range(engine.parts):
            assert engine.scan(part, store._scope.key(b"B"), store._scope.key(b"C"), limit=9) == []
    assert number > 3


def test_savepoints_are_values(store, database, run):
    run.save("r", 1, {"a": 1})
    if not database.asynchronous:
        assert isinstance(run.latest("r"), Savepoint)
        assert run.latest("r") == run.at("r", 5)
        assert hash(run.latest("r")) == hash(run.at("r", 5))
        assert "timestamp=1 count=1" in repr(run.latest("r"))
        first = run.latest("r")
        assert run.save("r", 1, {"a": 2}) != first


def test_one_state_that_cannot_be_decoded_hides_no_other(run, monkeypatch):
    from stateroom.codec import Codec
    from stateroom.errors import Undecodable

    run.save("r", 1, {"a": 1, "b": "poison", "c": 3})
    decode = Codec.decode

    def poisoned(self, data, **options):
        if b"poison" in data:
            raise Undecodable("poison", tag="p")
        return decode(self, data, **options)

    monkeypatch.setattr(Codec, "decode", poisoned)
    found = run.latest("r")
    assert (found.get("a"), found.get("c")) == (1, 3)
    for call in (found.to_dict, lambda: list(found.entities()), lambda: found.get("b")):
        with pytest.raises(Undecodable, match="entity 'b'") as caught:
            call()
        assert caught.value.id == "b"
