"""Every change is in the feed, once, in commit order, and a position says exactly where to go on."""

import threading
import uuid

import pytest

import stateroom
from kit.aging import Over, blocking
from stateroom import BEGINNING, LATEST, Event, Execution, Instance, Store, codec
from stateroom.engines.memory import MemoryEngine
from stateroom.errors import InvalidArgument, NotFound, Undecodable


def put(store, id, **fields):
    return store.instances.put(Instance(id, "w", **fields))


def emit(store, *ids):
    for id in ids:
        store.feed.emit("note", {"of": id}, id=id)


def ids(changes):
    return [change.id for change in changes.items]


def pages(store, after=BEGINNING, **options):
    """All changes, a page at a time."""
    found = []
    while items := (page := store.feed.read(after, **options)).items:
        found += items
        after = page.next
    return found


# --- what is in a change ---


def test_a_change_says_what_was_before_and_after(store, clock):
    made = put(store, "r/a")
    clock.advance(1)
    changed = put(store, "r/a", status="running")
    clock.advance(1)
    assert store.instances.delete("r/a")
    create, update, delete = store.feed.read().items
    assert [one.op for one in (create, update, delete)] == ["create", "update", "delete"]
    assert [one.record for one in (create, update, delete)] == [made, changed, None]
    assert [one.previous for one in (create, update, delete)] == [None, made, changed]
    assert [one.at for one in (create, update)] == [made.updated_at, changed.updated_at]
    assert {one.id for one in (create, update, delete)} == {"r/a"}
    assert {one.key for one in (create, update, delete)} == {("r/a",)}
    assert {one.family for one in (create, update, delete)} == {"instances"}
    assert create.error is None


def test_previous_is_found_in_the_same_commit_and_in_an_earlier_page(store):
    with store.transaction() as tx:
        put(tx, "r/a")
        put(tx, "r/a", status="running")
    first, second = store.feed.read().items
    assert second.previous == first.record
    put(store, "r/a", status="waiting")
    (third,) = store.feed.read(second.position).items
    assert third.previous == second.record
    (again,) = store.feed.read(first.position, limit=1).items
    assert again == second


def test_events_are_part_of_their_change_and_added_ones_are_changes(store):
    store.executions.create(Execution("r/e", "j"), events=[Event("one"), Event("two")])
    store.executions.add_events("r/e", Event("three"), Event("four"))
    store.executions.update("r/e", state="running", events=[Event("five")])
    create, three, four, update = store.feed.read().items
    assert [event.message for event in create.events] == ["one", "two"]
    assert [(one.family, one.record.message, one.key) for one in (three, four)] == [
        ("execution_events", "three", ("r/e", 3)),
        ("execution_events", "four", ("r/e", 4)),
    ]
    assert [event.seq for event in update.events] == [5]
    assert update.previous == create.record


def test_what_is_no_record_is_not_in_the_feed(store, clock):
    lease = store.leases.acquire("r", "me", 10)
    store.leases.release(lease)
    store.checkpoints.set("c", LATEST)
    store.timers.set("t", clock.now())
    store.machines.define("m", {"a": {"go": "b"}})
    assert store.feed.read().items == ()


def test_changes_of_your_own(store):
    store.feed.emit("order", {"paid": 5})
    store.feed.emit("order", "anything", id="order/7")
    first, second = store.feed.read().items
    assert (first.op, first.family, first.id, first.key) == ("emit", "order", "order", ("order",))
    assert (first.record, first.previous, first.events) == ({"paid": 5}, None, ())
    assert (second.id, second.record) == ("order/7", "anything")


@pytest.mark.parametrize("type", ["instances", "execution_events", "", " ", "a\0b", 5, "x" * 257])
def test_types_that_cannot_be_emitted(store, type):
    with pytest.raises(InvalidArgument):
        store.feed.emit(type, 1)
    with pytest.raises(InvalidArgument):
        store.feed.emit("fine", object())
    assert store.feed.read().items == ()


def test_a_rolled_back_transaction_leaves_no_change_and_no_gap(store):
    put(store, "r/a")
    with pytest.raises(RuntimeError), store.transaction() as tx:
        tx.feed.emit("note", 1, id="r/a")
        raise RuntimeError
    put(store, "r/b")
    assert ids(store.feed.read()) == ["r/a", "r/b"]


def test_changes_of_one_transaction_come_together_in_their_order(store):
    with store.transaction() as tx:
        for number in range(5):
            tx.feed.emit("note", number, id="r")
    assert [change.record for change in store.feed.read().items] == [0, 1, 2, 3, 4]
    assert [change.record for change in pages(store, limit=2)] == [0, 1, 2, 3, 4]


# --- where to go on ---


def test_every_position_resumes_without_repeating_or_skipping(store):
    emit(store, *(f"r/{number}" for number in range(7)))
    changes = store.feed.read().items
    for number, change in enumerate(changes):
        assert ids(store.feed.read(change.position)) == [f"r/{after}" for after in range(number + 1, 7)]
        assert store.feed.read(change.before).items[0] == change
    assert [change.id for change in pages(store, limit=3)] == [f"r/{number}" for number in range(7)]


def test_the_beginning_the_latest_and_the_end(store):
    assert store.feed.read(BEGINNING).items == ()
    emit(store, "r/a", "r/b", "s")
    assert store.feed.read(LATEST).items == ()
    end = store.feed.latest()
    assert store.feed.read(end).items == ()
    emit(store, "r/c")
    assert ids(store.feed.read(end)) == ["r/c"]
    assert ids(store.feed.read(store.feed.read(LATEST).next)) == []
    found = ids(store.feed.read(BEGINNING))
    assert sorted(found) == ["r/a", "r/b", "r/c", "s"]
    assert [id for id in found if id != "s"] == ["r/a", "r/b", "r/c"]


def test_positions_survive_reopening_and_hold_for_every_client(store, other, database, reopen):
    emit(store, "r/a", "r/b")
    at = store.feed.read(limit=1).next
    assert ids(other.feed.read(at)) == ["r/b"]
    if database.engine == "sqlite":
        assert ids(reopen().feed.read(at)) == ["r/b"]


def test_positions_hold_in_a_hot_backup(tmp_path):
    with stateroom.open(tmp_path / "a.db") as store:
        emit(store, "a", "b")
        at = store.feed.read(limit=1).next
        store.backup(tmp_path / "b.db")
    with stateroom.open(tmp_path / "b.db") as copy:
        assert ids(copy.feed.read(at)) == ["b"]
        emit(copy, "c")
        assert ids(copy.feed.read(at)) == ["b", "c"]


def test_malformed_positions_are_refused(store):
    emit(store, "a")
    good = store.feed.latest()
    for bad in (
        "",
        "p1.",
        "p2" + good[2:],
        good + "A",
        good[:-4],
        good[:-1] + "!",
        good + "====",
        5,
        None,
        b"p1.",
        "é",
    ):
        with pytest.raises(InvalidArgument):
            store.feed.read(bad)
        with pytest.raises(InvalidArgument):
            store.checkpoints.set("c", bad)


def test_positions_of_another_database_or_namespace_are_refused(store):
    emit(store, "a")
    with Store(
        MemoryEngine(), "memory:", namespace="default", codec=codec.default, clock=store_clock(store)
    ) as foreign:
        with pytest.raises(InvalidArgument, match="another database"):
            store.feed.read(foreign.feed.latest())
    with pytest.raises(InvalidArgument, match="namespace"):
        store.feed.read(another(store).feed.latest())


def store_clock(store):
    return store._scope.clock


def another(store):
    """The same database for another tenant; on a server the tests share a schema, so it is this test's alone."""
    return store.namespace(uuid.uuid4().hex)


def test_namespaces_have_feeds_of_their_own(store):
    other = another(store)
    emit(store, "a")
    emit(other, "b")
    assert ids(store.feed.read()) == ["a"]
    assert ids(other.feed.read()) == ["b"]


# --- filters ---


def test_filters_are_anded_and_sets(store):
    put(store, "r/a")
    put(store, "r/a", status="running")
    store.executions.create(Execution("r/a", "j"))
    store.executions.add_events("r/a", Event("x"))
    store.instances.delete("r/a")
    emit(store, "r/b")

    def found(**options):
        return [(change.op, change.family) for change in store.feed.read(**options).items]

    assert found(families=["executions"]) == [("create", "executions")]
    assert found(ops={"create"}) == [("create", "instances"), ("create", "executions"), ("create", "execution_events")]
    assert found(families=["instances"], ops=["delete"]) == [("delete", "instances")]
    assert found(ids=["r/b"]) == [("emit", "note")]
    assert found(ids=[("r/a", 1)]) == [("create", "execution_events")]
    assert len(found(ids=["r/a"])) == 5
    assert len(found(ids=[["r/a"]])) == 4  # a whole key: events have another
    assert found(families=[]) == found(ops=()) == found(ids=()) == []
    assert found(families=["no such"]) == []


@pytest.mark.parametrize(
    "options",
    [
        {"families": "instances"},
        {"ops": "create"},
        {"ids": "a"},
        {"ops": ["destroy"]},
        {"families": [5]},
        {"limit": 0},
        {"limit": 1001},
        {"limit": True},
        {"wait": -1},
        {"wait": "1"},
        {"wait": float("nan")},
    ],
)
def test_arguments_that_are_refused(store, options):
    with pytest.raises(InvalidArgument):
        store.feed.read(**options)


def test_the_limit_counts_matches_and_next_is_after_the_last_looked_at(store):
    emit(store, "r/a", "r/x", "r/b", "r/x", "r/c", "r/x")
    wanted = ["r/a", "r/b", "r/c"]
    page = store.feed.read(ids=wanted, limit=2)
    assert ids(page) == ["r/a", "r/b"]
    page = store.feed.read(page.next, ids=wanted, limit=2)
    assert ids(page) == ["r/c"]
    assert ids(store.feed.read(page.next)) == []


def test_much_that_does_not_match_is_skipped_in_bounded_steps(store):
    with store.transaction() as tx:
        for number in range(2500):
            tx.feed.emit("noise", number, id="r")
    emit(store, "r")
    first = store.feed.read(families=["note"])
    assert first.items == ()
    assert first.next != BEGINNING
    second = store.feed.read(first.next, families=["note"])
    assert ids(second) == ["r"]


# --- waiting ---


class Waits(Over):
    """An engine where something happens instead of waiting, which is counted."""

    def __init__(self, inner, *acts):
        self._inner = inner
        self._acts = list(acts)
        self.waited = 0
        self.scans = self.reads = 0

    def wait(self, part, version, timeout):
        self.waited += 1
        if self._acts:
            self._acts.pop(0)()

    def scan(self, *args, **kwargs):
        self.scans += 1
        return self._inner.scan(*args, **kwargs)

    def read(self, *args, **kwargs):
        self.reads += 1
        return self._inner.read(*args, **kwargs)


def waiter(database, clock, *acts):
    """A plain store whose waits do these things one after another, and its engine."""
    engine = Waits(database.raw(), *acts)
    options = {"namespace": database.namespace, "clock": clock, "codec": codec.default}
    return Store(engine, "memory:", owner=False, **options), engine


def test_it_returns_at_once_for_a_match_the_beginning_the_latest_and_what_is_skipped(store, database, clock):
    reader, engine = waiter(database, clock)
    assert reader.feed.read(BEGINNING, wait=10).items == ()
    assert reader.feed.read(LATEST, wait=10).items == ()
    start = reader.feed.latest()
    emit(store, "a", "b")
    assert ids(reader.feed.read(start, ids=["a"], wait=10)) == ["a"]
    skipped = reader.feed.read(start, ids=["c"], wait=10)
    assert skipped.items == ()
    assert skipped.next != start
    assert engine.waited == 0


def test_once_waiting_only_a_match_wakes_it(store, database, clock):
    """Changes that do not match come first; they are skipped without a word."""
    writer = blocking(database)
    reader, engine = waiter(
        database,
        clock,
        lambda: emit(writer, "noise"),
        lambda: writer.leases.acquire("r", "me", 5),
        lambda: emit(writer, "noise", "r/match", "r/later"),
    )
    at = reader.feed.latest()
    page = reader.feed.read(at, ids=["r/match"], wait=10)
    assert ids(page) == ["r/match"]
    assert engine.waited == 3
    assert reader.feed.read(page.next).items == ()  # "later" was looked at, too


def test_at_the_end_of_its_time_next_includes_what_was_skipped(store, database, clock):
    writer = blocking(database)
    reader, engine = waiter(database, clock, lambda: emit(writer, "noise"), lambda: clock.advance(11))
    at = reader.feed.latest()
    page = reader.feed.read(at, ids=["match"], wait=10)
    assert page.items == ()
    assert engine.waited == 2
    assert page.next != at
    assert reader.feed.read(page.next).items == ()


def test_a_wait_without_an_end_in_sight_returns_at_its_end(store, database, clock):
    reader, engine = waiter(database, clock, lambda: None, lambda: clock.advance(5))
    at = reader.feed.latest()
    assert reader.feed.read(at, wait=5).next == at
    assert engine.waited == 2


def test_an_idle_reader_makes_one_read_of_each_part_for_each_look_and_no_scan(store, database, clock):
    emit(store, "a")
    reader, engine = waiter(database, clock, *[lambda: None] * 20, lambda: clock.advance(60))
    at = reader.feed.latest()
    engine.reads = engine.scans = 0
    assert reader.feed.read(at, wait=50).items == ()
    assert engine.waited == 21
    assert engine.scans == engine.parts  # only the first look: nothing moved since
    assert engine.reads == (22 + 1) * engine.parts  # and that one saw that nothing was pruned while it scanned


def test_a_commit_wakes_a_waiting_reader(store, other):
    at = store.feed.latest()
    found = []
    thread = threading.Thread(target=lambda: found.append(store.feed.read(at, wait=60)))
    thread.start()
    emit(other, "r")
    thread.join(30)
    assert ids(found[0]) == ["r"]


def test_inside_a_transaction_it_reads_what_is_committed_and_does_not_wait(store):
    with store.transaction() as tx:
        tx.feed.emit("note", 1, id="r")
        assert tx.feed.read().items == ()
        with pytest.raises(InvalidArgument):
            tx.feed.read(wait=1)
    assert ids(store.feed.read()) == ["r"]


# --- what cannot be read blocks nothing ---


def test_one_undecodable_change_does_not_block_the_others(database, clock):
    class Gone:
        pass

    mine = codec.Codec()
    mine.register(Gone, name="gone", encode=lambda value: {}, decode=lambda state: Gone())
    writer = database.open(codec=mine)
    database.codec = mine
    emit(writer, "r/a")
    writer.feed.emit("note", Gone(), id="r/b")
    emit(writer, "r/c")
    reader = database.open()
    first, second, third = reader.feed.read().items
    assert isinstance(second.error, Undecodable)
    assert (second.id, second.record.name) == ("r/b", "gone")
    assert (first.error, third.error) == (None, None)


def test_one_damaged_change_does_not_block_the_others(database, clock):
    class Flipped(Over):
        def __init__(self, inner):
            self._inner = inner

        def scan(self, *args, **kwargs):
            rows = self._inner.scan(*args, **kwargs)
            return [row._replace(value=row.value[:-1] + bytes([row.value[-1] ^ 1])) if at == 1 else row
                    for at, row in enumerate(rows)]  # fmt: skip

    emit(database.open(), "r/a", "r/b", "r/c")
    first, second, third = database.over(Flipped(database.raw())).feed.read().items
    assert (first.id, third.id) == ("r/a", "r/c")
    assert second.error.code == "damaged"
    assert ids(database.open().feed.read(second.position)) == ["r/c"]


# --- history ---


def test_the_feed_of_an_id_is_its_history(store, clock):
    for status in ("pending", "running", "completed"):
        clock.advance(1)
        put(store, "a", status=status)
        put(store, "b")
    told = [change.record for change in store.feed.read(ids=["a"]).items]
    assert list(store.instances.history("a")) == told[::-1]
    times = [record.updated_at for record in told]
    assert [store.instances.as_of("a", at).status for at in times] == ["pending", "running", "completed"]
    position = store.feed.read(ids=["a"], limit=2).next
    assert store.instances.as_of("a", position).status == "running"
    assert store.instances.as_of("a", LATEST).status == "completed"
    with pytest.raises(NotFound):
        store.instances.as_of("a", BEGINNING)
