"""The quick way of making changes gives what the thorough one gives, and hands nothing from one change to another."""

import pytest

from feed.test_feed import pages
from stateroom import Context, Event, Execution, HistoryEntry, Instance, Store, codec
from stateroom.codec import Codec, Raw
from stateroom.engines.memory import MemoryEngine
from stateroom.errors import Damaged, Undecodable
from stateroom.feed import changes as feed_changes
from stateroom.records.entry import feed_prefix

LARGE = "x" * 100_000


def fill(store, clock):
    """Changes of every family and op, small and large, with events and without."""
    store.savepoints.init("run")
    for number in range(4):
        clock.advance(1)
        history = (HistoryEntry("s", "e", clock.now(), {"n": number}),)
        metadata = {"number": number, "large": LARGE if number == 2 else ""}
        instance = Instance(
            "i", "w", status="running", context=Context({"a": [1]}, {"s": {"b": number}}), step_configs={"s": {}},
            active_steps=frozenset("ab"), metadata=metadata, history=history, labels={"team": "t"},
        )  # fmt: skip
        store.instances.put(instance)
        store.machines.save("m", "n", f"s{number}", {"p": number}, event="go")
        store.results.put("d", "r", {"v": number} if number != 2 else LARGE)
        store.savepoints.save("run", number, {"e": number})
        store.feed.emit("note", {"n": (number,)}, id="note")
        store.feed.emit("note", LARGE)
    store.executions.create(Execution("x", "j"), events=[Event("made"), Event("large", details={"x": LARGE})])
    store.executions.update("x", state="bid_accepted", events=[Event("on")])
    store.executions.add_events("x", Event("added"))
    store.machines.fail("m", "n", ValueError("v"))
    store.executions.delete("x")
    store.instances.delete("i")
    store.instances.put(Instance("i", "again"))


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_the_quick_way_gives_what_the_thorough_one_gives(store, clock, monkeypatch, limit):
    fill(store, clock)
    quick = pages(store, limit=limit)
    made = []
    monkeypatch.setattr(feed_changes, "_plain_changes", lambda scope, seen, backs: made.append(0) or [None] * len(seen))
    assert pages(store, limit=limit) == quick
    assert made
    assert {change.op for change in quick} == {"create", "update", "delete", "emit"}
    assert sum(bool(change.events) for change in quick) >= 3
    assert all(change.error is None for change in quick)


def test_most_changes_need_no_more_than_the_quick_way(store, clock, monkeypatch):
    fill(store, clock)
    thorough, asked = feed_changes._change, []

    async def counting(reader, one, back):
        asked.append(one)
        return await thorough(reader, one, back)

    monkeypatch.setattr(feed_changes, "_change", counting)
    changes = pages(store, limit=1000)
    # The emitted ones, the large metadata and result with what came after them, and the large event.
    assert 0 < len(asked) < len(changes) / 2
    assert all(change.error is None for change in changes)


def test_a_change_shares_nothing_that_can_be_changed_with_the_next(store):
    for number in range(3):
        store.instances.put(Instance("a", "w", metadata={"number": number}, context=Context({"list": [number]})))
    changes = store.feed.read().items
    for change in changes:
        change.record.metadata["mine"] = True
        change.record.context.initial["list"].append("mine")
    assert [change.previous and change.previous.metadata for change in changes] == [None, {"number": 0}, {"number": 1}]
    assert [change.previous and change.previous.context.initial for change in changes] == [
        None, {"list": [0]}, {"list": [1]},
    ]  # fmt: skip


class Odd:
    """A type that the reader does not know, or whose decoding fails."""


def test_what_cannot_be_decoded_is_said_and_hinders_nothing_beside_it(clock):
    engine = MemoryEngine()
    knowing, failing = Codec(), Codec()
    knowing.register(Odd, name="odd", encode=lambda odd: 0, decode=lambda state: Odd())
    failing.register(Odd, name="odd", encode=lambda odd: 0, decode=lambda state: 1 / state)
    options = {"namespace": "default", "clock": clock}
    with Store(engine, "memory:", codec=knowing, **options) as writer:
        for number in range(3):
            writer.instances.put(Instance("a", "w", metadata={"odd": Odd() if number == 1 else number}))
            writer.feed.emit("note", number)
        for other in (failing, codec.default):
            changes = Store(engine, "memory:", codec=other, **options).feed.read().items
            first, _, second, _, third, _ = changes
            assert [change.record for change in changes[1::2]] == [0, 1, 2]
            assert isinstance(second.error, Undecodable)
            assert isinstance(second.record.metadata["odd"], Raw)
            assert second.previous == first.record
            assert third.error is None
            assert third.record.metadata == {"odd": 2}
            assert isinstance(third.previous.metadata["odd"], Raw)


@pytest.mark.parametrize(
    "damage", [lambda value: value[:3], lambda value: value[:-1] + b"!", lambda value: b"\2" + value]
)
def test_entries_that_are_damaged_are_given_where_they_stand(clock, damage):
    engine = MemoryEngine()
    store = Store(engine, "memory:", namespace="default", codec=codec.default, clock=clock)
    for number in range(60):
        store.instances.put(Instance("a", "w", metadata={"number": number}))
    prefix = feed_prefix(store._scope)
    held = engine._parts[0].rows
    for key in [key for key in held if key.startswith(prefix)][20:40:10]:
        held[key] = held[key]._replace(value=damage(held[key].value))
    changes = store.feed.read().items
    assert [number for number, change in enumerate(changes) if change.error is not None] == [20, 30]
    assert all(isinstance(changes[number].error, Damaged) for number in (20, 30))
    assert [change.record.metadata["number"] for change in changes if change.error is None] == [
        number for number in range(60) if number not in (20, 30)
    ]
    assert [number for number, change in enumerate(changes) if change.previous is None] == [0, 20, 21, 30, 31]
    assert [change.position for change in changes[:-1]] == [change.before for change in changes[1:]]
    for limit in (1, 7):
        found = pages(store, limit=limit)
        assert [one.position for one in found] == [one.position for one in changes]
    found = pages(store, ops=["delete"], limit=1)
    assert [(one.before, one.position) for one in found] == [
        (changes[number].before, changes[number].position) for number in (20, 30)
    ]
