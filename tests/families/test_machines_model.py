"""Machines against dicts, in transactions, beside racing clients, and failing at every call."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

import stateroom
import stateroom.store.moving
from kit.databases import BLOCKING
from kit.faults import at_every_call, over
from kit.model_machine import InPlace, Place
from stateroom.engine import Batch
from stateroom.engines.memory import MemoryEngine
from stateroom.engines.wrap import Conflicting, Recording
from stateroom.errors import WrongState

RULES = {"idle": {"start": "running"}, "running": {"pause": "idle", "finish": "done", "retry": "running"}}


def define(store, **options):
    return store.machines.define("order", RULES, initial="idle", final=("done",), **options)


# --- transactions, races, faults ---


def test_in_a_transaction(store):
    define(store)
    with store.transaction() as tx:
        tx.machines.save("order", "o", "idle", 1)
        with pytest.raises(WrongState):
            tx.machines.save("order", "o", "done", 2)
        tx.machines.save("order", "o", "running", 2)
        tx.machines.fail("order", "o", "x")
        assert [one.payload for one in tx.machines.history("order", "o")] == [2, 1]
        assert tx.machines.count("order", "running") == 1
        assert tx.machines.last_error("order", "o").state == "running"
        assert store.machines.find("order", "o") is None
    assert store.machines.load("order", "o").revision == 2
    assert [one.payload for one in store.machines.history("order", "o")] == [2, 1]
    with store.transaction() as tx:
        tx.machines.purge("order", "o")
        tx.machines.save("order", "o", "idle", 3)
        assert [one.payload for one in tx.machines.history("order", "o")] == [3]
    assert store.machines.load("order", "o").revision == 1


def test_an_interrupting_save_is_seen_by_the_rules():
    engine = MemoryEngine()
    store = over(engine)
    define(store)
    store.machines.save("order", "o", "idle", None)

    def interfere(number, part, batch):
        if number == 1:
            for state in ("running", "done"):
                store.machines.save("order", "o", state, "theirs")

    with pytest.raises(WrongState) as caught:
        over(Conflicting(engine, interfere=interfere)).machines.save("order", "o", "running", "ours")
    assert caught.value.actual == "done"
    assert store.machines.load("order", "o").payload == "theirs"


def _prepare(store):
    store.machines.define("m", {"a": {"go": "b"}, "b": {"go": "a"}}, keep_history=2)
    for state in "abab":
        store.machines.save("m", "n", state, state)
    store.machines.fail("m", "n", "reason")


def _view(store):
    machines = store.machines
    return (
        list(machines.scan()), list(machines.history("m", "n")), machines.last_error("m", "n"), machines.count("m"),
        machines.count("m", "a"), [change.op for change in store.feed.read(limit=1000).items],
    )  # fmt: skip


@BLOCKING
@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.machines.save("m", "n", "a", "new", event="go"),
        lambda store: store.machines.save("m", "n/other", "a", "new"),
        lambda store: store.machines.fail("m", "n", "another"),
        lambda store: store.machines.clear_error("m", "n"),
        lambda store: store.machines.purge("m", "n"),
    ],
)
def test_all_or_nothing_at_every_call(act, database):
    at_every_call(database, _prepare, act, _view)


def test_a_save_reads_two_rows_and_commits_once():
    engine = Recording(MemoryEngine())
    store = over(engine)
    _prepare(store)
    engine.clear()
    store.machines.save("m", "n", "a", "new", event="go")
    assert (engine.count("read"), engine.count("scan"), engine.count("commit")) == (2, 1, 1)
    engine.clear()
    store.machines.load("m", "n")
    assert (engine.count("read"), engine.count("scan"), engine.count("commit")) == (1, 0, 0)


def test_check_finds_what_is_wrong():
    engine = MemoryEngine()
    store = over(engine)
    _prepare(store)
    rows = {row.key: row for row in engine.scan(0, b"n\0M", b"n\0N", limit=100)}
    history = sorted(key for key in rows if key.startswith(b"n\0MH"))
    engine.commit(0, Batch(write={history[-1]: None}))
    assert [problem.code for problem in store.check()] == ["history-missing"]
    engine.commit(0, Batch(write={history[-1]: rows[history[0]].value}))
    assert [problem.code for problem in store.check()] == ["damaged"]
    stray = history[0][:-9] + b"?" + history[0][-8:]
    engine.commit(0, Batch(write={history[-1]: rows[history[-1]].value, stray: rows[history[0]].value}))
    assert [problem.code for problem in store.check()] == ["history-stale"]
    engine.commit(0, Batch(write={stray: None, next(iter(rows.keys() - set(history))): b"x"}))
    assert [problem.code for problem in store.check()] == ["damaged"]


class MachinesAsDicts(InPlace):
    """Snapshots, histories and last errors against dicts, under the rules; now and then another client comes first."""

    machines, names = st.sampled_from(["order", "ship", "o"]), st.sampled_from(["a", "b", "a/b", "rder", "é%"])
    states, events = st.sampled_from(["idle", "running", "done", "x"]), st.sampled_from([None, "start", "finish"])
    payloads = st.none() | st.booleans() | st.integers() | st.text(max_size=4)

    def __init__(self, place):
        super().__init__(place)
        self.past, self.errors = {}, {}
        self.store.machines.define("order", RULES, initial="idle", final=["done"], keep_history=3)

    def allowed(self, machine, before, state, event):
        if machine != "order":
            return True
        if before is None:
            return state == "idle"
        if state == before and event is None:
            return True
        edges = RULES.get(before, {})
        return edges.get(event) == state if event else state in edges.values()

    def saved(self, store, machine, name, state, event, payload):
        past = self.past.get((machine, name), [])
        before = past[-1].state if past else None
        if not self.allowed(machine, before, state, event):
            with pytest.raises(WrongState):
                store.machines.save(machine, name, state, payload, event=event)
            return
        made = store.machines.save(machine, name, state, payload, event=event)
        past = self.past.get((machine, name), [])
        assert (made.state, made.payload, made.event) == (state, payload, event)
        assert (made.previous_state, made.revision) == (past[-1].state if past else None, len(past) + 1)
        self.past.setdefault((machine, name), []).append(made)

    @rule(machine=machines, name=names, state=states, event=events, payload=payloads)
    def save(self, machine, name, state, event, payload):
        self.saved(self.store, machine, name, state, event, payload)

    @rule(machine=machines, name=names, payload=payloads)
    def another_client_commits_now(self, machine, name, payload):
        past = self.past.get((machine, name))
        state = past[-1].state if past else "idle"
        store = self.beside(lambda other: self.saved(other, machine, name, state, None, "theirs"))
        self.saved(store, machine, name, state, None, payload)

    @rule(machine=machines, name=names, reason=payloads)
    def fail(self, machine, name, reason):
        self.errors[machine, name] = self.store.machines.fail(machine, name, reason)

    @rule(machine=machines, name=names)
    def clear_error(self, machine, name):
        there = self.errors.pop((machine, name), None) is not None
        assert self.store.machines.clear_error(machine, name) == there

    @rule(machine=machines, name=names)
    def purge(self, machine, name):
        there = [kept.pop((machine, name), None) is not None for kept in (self.past, self.errors)]
        assert self.store.machines.purge(machine, name) == any(there)

    @rule(machine=machines, name=names)
    def look(self, machine, name):
        past = self.past.get((machine, name), [])
        assert self.store.machines.find(machine, name) == (past[-1] if past else None)
        keep = 3 if machine == "order" else 100
        assert list(self.store.machines.history(machine, name)) == past[::-1][:keep]
        assert self.store.machines.last_error(machine, name) == self.errors.get((machine, name))

    @rule(machine=st.none() | machines, state=st.none() | states)
    def query(self, machine, state):
        now = [past[-1] for _, past in sorted(self.past.items())]
        found = [one for one in now if machine in (None, one.machine) and state in (None, one.state)]
        assert list(self.store.machines.scan(machine=machine, state=state)) == found
        if machine is not None:
            assert self.store.machines.count(machine, state) == len(found)


@pytest.mark.older
def test_machines_are_as_dicts(database):
    Place(database).run(MachinesAsDicts, 30, 6, 10, steps=25)


@pytest.mark.older
@pytest.mark.torture
def test_machines_are_as_dicts_for_long(database):
    Place(database).run_for_long(MachinesAsDicts)


def test_a_copy_has_everything_and_holds_together(tmp_path):
    """History, failures, rules and timers come along, whatever the number of parts."""
    source = over(MemoryEngine())
    for name in ("a", "b", "c"):
        _prepare(source)
        source.machines.save("m", name, "a", b"large" * 50_000)
        source.machines.fail("m", name, "x" * 100_000)
        source.timers.set(name, stateroom.clock.EPOCH, "y" * 100_000)
    target = over(MemoryEngine(parts=3))
    stateroom.store.moving.copy_stores(source, target)
    assert _view(target)[:5] == _view(source)[:5]
    assert target.timers.due() == source.timers.due()
    assert target.machines.last_error("m", "a") == source.machines.last_error("m", "a")
    assert target.machines.definition("m") == source.machines.definition("m")
    assert target.check() == []
    assert target.machines.save("m", "a", "b", 1).previous_state == "a"
