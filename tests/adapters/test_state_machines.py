"""State machines of two packages, kept in a store: restored without callbacks, and refused where stale."""

import asyncio
import enum

import pytest

import stateroom
from stateroom import AsyncStore
from stateroom.errors import AlreadyExists, InvalidArgument, StaleRevision

pytest.importorskip("transitions")
pytest.importorskip("statemachine")

import statemachine
import transitions
from statemachine import State, StateChart, StateMachine
from transitions.extensions import HierarchicalMachine
from transitions.extensions.asyncio import AsyncMachine

from stateroom.adapters.statemachine import PersistentModel
from stateroom.adapters.transitions import persist

STATES = ["new", "paid", "sent"]
TRIGGERS = [["pay", "new", "paid"], ["send", "paid", "sent"]]


class Order:
    def __init__(self):
        self.calls = []
        self.amount = 0

    def on_enter_paid(self, *_):
        self.calls.append("paid")


def order(store, name="o-1", send_event=False, **options):
    model = Order()
    machine = transitions.Machine(model, STATES, transitions=TRIGGERS, initial="new", send_event=send_event)
    return model, persist(machine, store, name, **options)


@pytest.mark.parametrize("send_event", [False, True])
def test_a_transitions_model_is_restored_without_callbacks(store, send_event):
    model, kept = order(store, send_event=send_event, attributes=["amount"])
    assert not kept.restored
    model.amount = 7
    model.pay(*(() if send_event else ("ann",)))
    assert model.calls == ["paid"]
    again, restored = order(store, send_event=send_event, attributes=["amount"])
    assert (again.state, again.amount, again.calls, restored.restored) == ("paid", 7, [], True)
    again.send()
    assert [(s.state, s.event) for s in restored.history()] == [("sent", "send"), ("paid", "pay")]
    assert store.machines.load("Order", "o-1").state == "sent"


def test_a_stale_transitions_model_is_refused_before_its_callbacks(store):
    first, _ = order(store)
    second, kept = order(store)
    first.pay()
    with pytest.raises(StaleRevision):
        second.pay()
    assert (second.state, second.calls) == ("new", [])
    assert kept.last_error() is None
    kept.reload()
    second.send()
    assert store.machines.load("Order", "o-1").state == "sent"


def test_a_write_that_comes_during_callbacks_is_not_overwritten(store):
    model, kept = order(store)
    kept.save()
    model.on_enter_paid = lambda: store.machines.save("Order", "o-1", "sent", {})
    with pytest.raises(StaleRevision):
        model.pay()
    assert model.state == "new"
    assert store.machines.load("Order", "o-1").state == "sent"


def test_an_exception_is_kept_and_comes_through(store):
    model, kept = order(store)
    kept.save()

    def burst():
        raise ValueError("no money")

    model.on_enter_paid = burst
    with pytest.raises(ValueError, match="no money"):
        model.pay()
    assert "no money" in str(kept.last_error().reason)
    assert store.machines.load("Order", "o-1").state == "new"


def test_an_exception_that_a_handler_takes_stays_taken(store):
    taken = []
    model = Order()
    machine = transitions.Machine(
        model,
        STATES,
        transitions=TRIGGERS,
        initial="new",
        send_event=True,
        on_exception=lambda e: taken.append(e.error),
    )
    kept = persist(machine, store, "o-1")
    model.on_enter_paid = lambda event: 1 / 0
    model.pay()
    assert [type(error) for error in taken] == [ZeroDivisionError]
    assert "ZeroDivisionError" in str(kept.last_error().reason)


def test_parallel_and_enum_states_are_restored(store):
    states = ["off", {"name": "on", "parallel": [{"name": "a", "children": ["1", "2"], "initial": "1"}, "b"]}]
    for expected in ("off", ["on_a_1", "on_b"]):
        machine = HierarchicalMachine(states=states, initial="off", transitions=[["start", "off", "on"]])
        persist(machine, store, "m", machine_name="parallel")
        assert machine.state == expected
        if expected == "off":
            machine.start()
    Light = enum.Enum("Light", ["RED", "GREEN"])
    for expected in (Light.RED, Light.GREEN):
        machine = transitions.Machine(states=Light, initial=Light.RED, transitions=[["go", Light.RED, Light.GREEN]])
        persist(machine, store, "light", machine_name="lights")
        assert machine.state is expected
        if expected is Light.RED:
            machine.go()


def test_an_asynchronous_machine_is_kept_too(store):
    async def run():
        shared = AsyncStore.over(store)
        models = []
        for _ in range(2):
            model = Order()
            machine = AsyncMachine(model, STATES, transitions=TRIGGERS, initial="new")
            models.append((model, persist(machine, shared, "o-1")))
        await models[0][0].pay()
        with pytest.raises(StaleRevision):
            await models[1][0].pay()
        assert models[1][0].calls == []
        return models[0][0].state

    assert asyncio.run(run()) == "paid"
    assert store.machines.load("Order", "o-1").state == "paid"


def test_a_url_is_opened_and_closed_and_bad_input_is_refused(tmp_path):
    url = str(tmp_path / "orders.db")
    with order(url)[1] as kept:
        kept.save()
    with stateroom.open(url) as store:
        assert store.machines.load("Order", "o-1").state == "new"
        with pytest.raises(InvalidArgument, match="Machine of transitions"):
            persist(object(), store, "x")
        machine = transitions.Machine([Order(), Order()], STATES, initial="new")
        with pytest.raises(InvalidArgument, match="2 models"):
            persist(machine, store, "x")


class Traffic(StateMachine):
    green = State(initial=True)
    yellow = State()
    red = State(final=True)
    slow = green.to(yellow)
    stop = yellow.to(red)

    def __init__(self, *args, **kwargs):
        self.entered = []
        super().__init__(*args, **kwargs)

    def on_enter_state(self, target):
        self.entered.append(target.id)


def test_a_persistent_model_is_restored_without_callbacks(store):
    model = PersistentModel(store, "traffic", "corner", attributes={"cars": 0})
    machine = Traffic(model)
    model.save()
    assert store.machines.load("traffic", "corner").state == "green"
    model.cars = 3
    machine.slow()
    again = PersistentModel(store, "traffic", "corner", attributes={"cars": 0})
    restored = Traffic(again)
    assert (again.state, again.cars, restored.entered) == ("yellow", 3, [])
    restored.stop()
    assert [(s.state, s.event) for s in again.history()] == [("red", "stop"), ("yellow", "slow"), ("green", None)]
    again.fail(ValueError("dark"), "stop")
    assert "dark" in str(again.last_error().reason)


def test_a_stale_persistent_model_is_refused_before_its_callbacks(store):
    first, second = (Traffic(PersistentModel(store, "traffic", "corner")) for _ in range(2))
    first.slow()
    with pytest.raises(StaleRevision):
        second.slow()
    assert second.model.state == "green"
    assert second.entered == ["green"]
    second.model.reload()
    second.stop()
    assert store.machines.load("traffic", "corner").state == "red"


def test_of_two_that_start_at_once_one_goes_on(store):
    first, second = (Traffic(PersistentModel(store, "traffic", "corner")) for _ in range(2))
    first.slow()
    with pytest.raises(StaleRevision):
        second.slow()
    with pytest.raises(AlreadyExists):
        second.model.save()
    assert [snapshot.state for snapshot in first.model.history()] == ["yellow"]


class Player(StateChart):
    class playing(State.Compound):
        slow = State(initial=True)
        fast = State()
        back = statemachine.HistoryState()
        faster = slow.to(fast)

    class wide(State.Parallel):
        class left(State.Compound):
            low = State(initial=True)
            high = State()
            louder = low.to(high)

        class right(State.Compound):
            dim = State(initial=True)
            bright = State()
            lighter = dim.to(bright)

    stopped = State(initial=True)
    play = stopped.to(playing)
    stop = playing.to(stopped)
    resume = stopped.to(playing.back)
    split = stopped.to(wide)


def test_compound_parallel_and_history_states_are_restored(store):
    def player():
        return Player(PersistentModel(store, "player", "p"))

    player().send("play")
    player().send("faster")
    assert set(player().model.state) == {"playing", "fast"}
    player().send("stop")
    player().send("resume")
    assert set(player().model.state) == {"playing", "fast"}
    player().send("stop")
    player().send("split")
    player().send("louder")
    assert set(player().model.state) == {"wide", "left", "high", "right", "dim"}
