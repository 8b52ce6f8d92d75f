"""Transition rules of machines: stored, checked by the store, ordered with the saves that they rule."""

import pytest

from kit.model_machine import Place
from stateroom.engines.wrap import Conflicting, Faulty
from stateroom.errors import Conflict, InvalidArgument, Unavailable, WrongState

RULES = {"idle": {"start": "running"}, "running": {"pause": "idle", "finish": "done", "retry": "running"}}


def define(store, **options):
    return store.machines.define("order", RULES, initial="idle", final=("done",), **options)


# --- definitions ---


def test_define_is_stored(store, reopen):
    assert store.machines.definition("order") is None
    made = define(store, keep_history=7)
    assert (made.transitions, made.initial, made.final, made.keep_history) == (RULES, "idle", ("done",), 7)
    assert made.generation == 1
    assert store.machines.define("ship", {"a": {"go": "b"}}).generation == 1
    again = reopen()
    assert again.machines.definition("order") == made
    assert again.machines.define("order", {"x": {"e": "y"}}).generation == 2
    assert again.machines.definition("order").transitions == {"x": {"e": "y"}}


def test_the_first_save_is_the_initial_state(store):
    define(store)
    with pytest.raises(WrongState) as caught:
        store.machines.save("order", "o-1", "running", None)
    assert (caught.value.actual, caught.value.expected) == (None, frozenset({"idle"}))
    assert store.machines.find("order", "o-1") is None
    assert store.machines.save("order", "o-1", "idle", None, event="created").state == "idle"
    store.machines.save("other", "o-1", "whatever", None)  # an undefined machine has no rules


@pytest.mark.parametrize(
    ("state", "event", "allowed"),
    [
        ("idle", "pause", True), ("idle", None, True), ("idle", "start", False), ("running", "retry", True),
        ("running", None, True), ("running", "start", False), ("done", "finish", True), ("done", None, True),
        ("done", "pause", False), ("nowhere", None, False), ("nowhere", "finish", False),
    ],
)  # fmt: skip
def test_transitions_from_running(store, state, event, allowed):
    define(store)
    store.machines.save("order", "o-1", "idle", None)
    before = store.machines.save("order", "o-1", "running", None, event="start")
    if allowed:
        assert store.machines.save("order", "o-1", state, 1, event=event).previous_state == "running"
        return
    with pytest.raises(WrongState):
        store.machines.save("order", "o-1", state, 1, event=event)
    assert store.machines.load("order", "o-1") == before


def test_a_self_transition_needs_an_edge_only_with_an_event(store):
    define(store)
    store.machines.save("order", "o-1", "idle", 1)
    assert store.machines.save("order", "o-1", "idle", 2).payload == 2
    with pytest.raises(WrongState):
        store.machines.save("order", "o-1", "idle", 3, event="poke")


def test_nothing_leaves_a_final_state_even_by_an_edge(store):
    store.machines.define("m", {"a": {"go": "b"}, "b": {"back": "a", "stay": "b"}}, final=["b"])
    store.machines.save("m", "n", "a", None)
    store.machines.save("m", "n", "b", None)
    with pytest.raises(WrongState) as caught:
        store.machines.save("m", "n", "a", None, event="back")
    assert caught.value.terminal is True
    assert store.machines.save("m", "n", "b", 1, event="stay").payload == 1


def test_without_an_initial_state_any_known_one_begins(store):
    store.machines.define("m", {"a": {"go": "b"}}, final=["c"])
    for state in "abc":
        store.machines.save("m", state, state, None)
    with pytest.raises(WrongState):
        store.machines.save("m", "d", "d", None)


@pytest.mark.parametrize(
    ("transitions", "options"),
    [
        ([], {}), ({"a": ["b"]}, {}), ({"a": {"e": 5}}, {}), ({"a": {5: "b"}}, {}), ({"": {}}, {}), ({7: {}}, {}),
        ({"a": {"e": "b"}}, {"initial": "z"}), ({"a": {}}, {"final": "a"}), ({"a": {}}, {"final": [""]}),
        ({"a": {}}, {"keep_history": -1}), ({"a": {}}, {"keep_history": "5"}), ({"a": {}}, {"initial": 5}),
        ({f"{n}{'s' * 200}": {} for n in range(3000)}, {}),
    ],
)  # fmt: skip
def test_definitions_that_are_not_allowed(store, transitions, options):
    with pytest.raises(InvalidArgument):
        store.machines.define("m", transitions, **options)
    assert store.machines.definition("m") is None


def test_define_is_refused_inside_a_transaction(store):
    with pytest.raises(InvalidArgument), store.transaction() as tx:
        tx.machines.define("m", {})


def test_a_definition_and_a_racing_save_are_ordered(store, other):
    """The save has read the rules of its own part: when they change before it commits, it is made again."""
    define(store)
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.machines.save("order", "o-1", "idle", None)
        other.machines.define("order", {"x": {"e": "y"}}, initial="x")
    assert store.machines.find("order", "o-1") is None
    with pytest.raises(WrongState):
        store.machines.save("order", "o-1", "idle", None)


PARTED = pytest.mark.parametrize("database", ["memory", "postgresql"], indirect=True)


@PARTED
def test_a_definition_reaches_every_part_and_an_interrupted_one_is_reported(database):
    place = Place(database)
    store = place.open(database.namespace)
    define(store)
    for number in range(12):  # names in all three parts
        with pytest.raises(WrongState):
            store.machines.save("order", f"n{number}", "running", None)
    assert store.check() == []
    with pytest.raises(Unavailable):
        faulty = Faulty(place.raw, 2, calls=("commit",))
        place.over(faulty, database.namespace).machines.define("order", {"x": {"e": "y"}}, initial="x")
    assert {problem.code for problem in store.check()} == {"definition-behind"}
    assert store.machines.define("order", RULES, initial="running").generation == 3
    assert store.check() == []
    assert all(store.machines.save("order", f"n{number}", "running", None) for number in range(12))


@PARTED
def test_of_two_racing_definitions_one_stands_in_every_part(database):
    place = Place(database)
    store = place.open(database.namespace)

    def interfere(number, part, batch):
        if number == 2:  # the first part has ours, the others have nothing yet
            store.machines.define("order", {"theirs": {}})

    ours = place.over(Conflicting(place.raw, interfere=interfere), database.namespace)
    made = ours.machines.define("order", {"ours": {}})
    assert (made.generation, store.machines.definition("order").generation) == (1, 2)
    assert set(store.machines.definition("order").transitions) == {"theirs"}
    assert store.check() == []
