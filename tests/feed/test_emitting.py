"""`emit` gives where its change stands; changes and histories show what this process cannot rebuild."""

from dataclasses import dataclass

import pytest

from kit.aging import blocking
from kit.databases import SEVERAL
from kit.faults import over
from stateroom import Event, Execution, Instance
from stateroom.codec import Codec, Raw
from stateroom.engine import Batch
from stateroom.engines.memory import MemoryEngine
from stateroom.engines.wrap import Slow
from stateroom.errors import Undecodable


@dataclass
class Order:
    n: int


def knowing():
    codec = Codec()
    codec.register(Order, name="order")
    return codec


def test_an_emitted_change_is_just_before_its_position(store):
    first = store.feed.emit("note", 1, id="r/1")
    second = store.feed.emit("note", 2, id="r/2")
    assert [change.record for change in store.feed.read(first).items] == [2]
    assert store.feed.read(second).items == ()
    third = store.feed.emit("note", 3, id="r/3")
    changes = store.feed.read(second).items
    assert [change.record for change in changes] == [3]
    assert store.feed.read(third).items == ()
    store.checkpoints.set("c", third)


def test_a_large_one_too(store):
    position = store.feed.emit("note", "x" * 200_000, id="r")
    assert store.feed.read(position).items == ()
    (change,) = store.feed.read().items
    assert len(change.record) == 200_000


def test_what_others_commit_meanwhile_is_behind_the_position_in_other_parts(database, store):
    """So nobody who goes on from there misses it."""
    other, ids = blocking(database), []

    def write(name, part):
        if name == "commit" and not ids:
            ids.append(None)
            for number in range(5):
                ids.append(f"s{number}")
                other.feed.emit("note", number, id=f"s{number}")

    position = database.over(Slow(database.raw(), write)).feed.emit("note", "mine", id="r")
    seen = {change.id for change in store.feed.read(position).items}
    mine = {id for id in ids[1:] if other._scope.part(id) == other._scope.part("r")}
    assert seen == set(ids[1:]) - mine  # those of its own part came before it


def test_in_a_transaction_its_commit_decides(store):
    with store.transaction() as tx:
        assert tx.feed.emit("note", 1, id="r") is None
        tx.executions.create(Execution("r/e", "j"))
    assert [change.op for change in store.feed.read().items] == ["emit", "create"]


@SEVERAL
def test_changes_show_what_cannot_be_rebuilt_here(database):
    database.codec = None
    with database.open(codec=knowing()) as store:
        store.executions.create(
            Execution("r/e", "j", data=Order(1)), events=[Event("a"), Event("b", details={"o": Order(2)})]
        )
        store.executions.update("r/e", message="x")
        store.executions.add_events("r/e", Event("c", details={"o": Order(3)}))
        store.feed.emit("note", {"o": [Order(4)]}, id="r/n")
    with database.open(codec=Codec()) as store:
        created, updated, event, note = store.feed.read().items
    assert (created.record.data.name, created.record.job_id) == ("order", "j")
    assert [event.message for event in created.events] == ["a", "b"]
    assert isinstance(created.events[1].details["o"], Raw)
    assert (updated.record.message, updated.previous.data.name) == ("x", "order")
    assert event.record.details["o"].data == {"n": 3}
    assert note.record["o"][0].data == {"n": 4}
    assert all(isinstance(change.error, Undecodable) for change in (created, updated, event, note))


@SEVERAL
def test_histories_show_it_too_and_one_past_record_is_raw_on_request(database):
    database.codec = None
    with database.open(codec=knowing()) as store:
        store.instances.put(Instance("r/i", "w", metadata={"o": Order(1)}))
        first = store.feed.latest()
        store.instances.put(Instance("r/i", "w", metadata={"o": 2}))
        second = store.feed.latest()
        store.instances.put(Instance("r/i", "w", metadata={"o": Order(3)}))
        third = store.feed.latest()
    with database.open(codec=Codec()) as store:
        page = store.instances.history("r/i")
        assert [record.revision for record in page] == [3, 2, 1]
        assert [isinstance(record.metadata["o"], Raw) for record in page] == [True, False, True]
        assert page.undecodable == 0
        newest = store.instances.history("r/i", limit=1)
        assert [record.revision for record in newest] == [3]
        assert [record.revision for record in store.instances.history("r/i", cursor=newest.cursor)] == [2, 1]
        for position in (first, third):
            with pytest.raises(Undecodable):
                store.instances.as_of("r/i", position)
            assert isinstance(store.instances.as_of("r/i", position, raw=True).metadata["o"], Raw)
        assert store.instances.as_of("r/i", second).metadata["o"] == 2


def test_a_damaged_entry_ends_a_history_and_is_counted():
    memory = MemoryEngine()
    store = over(memory)
    for number in range(4):
        store.instances.put(Instance("i", "w", metadata={"n": number}))
    rows = memory.scan(0, b"n\0F", b"n\0G", limit=10)
    memory.commit(0, Batch(write={rows[1].key: rows[1].value[:-1]}))
    page = store.instances.history("i")
    assert [record.revision for record in page] == [4, 3]
    assert page.undecodable == 1
    assert page.cursor is None


def test_one_id_in_two_families_has_two_histories(store):
    """Their entries stand side by side in one part."""
    places = []
    for number in range(3):
        store.instances.put(Instance("r/same", "w", metadata={"n": number}))
        if number:
            store.executions.update("r/same", details={"n": number})
        else:
            store.executions.create(Execution("r/same", "j", details={"n": 0}))
        places.append(store.feed.latest())
    assert [record.metadata["n"] for record in store.instances.history("r/same")] == [2, 1, 0]
    assert [record.details["n"] for record in store.executions.history("r/same")] == [2, 1, 0]
    for number, place in enumerate(places):
        assert store.instances.as_of("r/same", place).metadata["n"] == number
        assert store.executions.as_of("r/same", place).details["n"] == number
    store.instances.delete("r/same", expected_revision=None)
    gone = store.feed.latest()
    store.executions.update("r/same", details={"n": 9})
    for number, place in enumerate(places):  # of what is deleted the feed is gone through, past the other family's
        assert store.instances.as_of("r/same", place).metadata["n"] == number
    assert store.executions.as_of("r/same", gone).details["n"] == 2


@pytest.mark.embedded("a server's engine is waited for in `passed`, which the wrapper hands through without a call")
def test_who_waits_looks_again_before_it_sleeps(database, store):
    """A commit between the look and the wait must not be slept through: the wait asks for what was looked at."""
    other = blocking(database)
    written = []

    def write(name, part):
        if name == "wait" and not written:
            written.append(name)
            other.executions.create(Execution("r/e", "j"))

    waiter = database.over(Slow(database.raw(), write))
    assert waiter.executions.wait("r/e", lambda execution: True, timeout=60).id == "r/e"
