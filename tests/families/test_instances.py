"""Instances: queries, pages, order, history; beside the published cases."""

from datetime import datetime, timedelta

import msgspec
import pytest

import stateroom
from stateroom import BEGINNING, LATEST, Context, Instance
from stateroom.errors import AlreadyExists, InvalidArgument, NotFound, StaleRevision, Timeout
from stateroom.testing.family_harness import changes, ids, nothing_changes


@pytest.fixture
def filled(store, clock):
    for n in range(12):
        clock.advance(1)
        store.instances.put(
            Instance(
                f"i{n:02}",
                f"flow.{'a' if n % 2 else 'b'}{n % 3}",
                workflow_version=1 + n % 2,
                status=("pending", "running", "completed")[n % 3],
                labels={"team": "red" if n < 6 else "blue", "n": str(n)},
            )
        )
    return store


def test_filters(filled, clock):
    query = filled.instances.query
    assert ids(query(label=("team", "red"))) == [f"i{n:02}" for n in range(6)]
    assert ids(query(label=("team", "green"))) == []
    assert ids(query(workflow="flow.a1")) == ["i01", "i07"]
    assert ids(query(workflow_prefix="flow.a", workflow_version=2, status="running")) == ["i01", "i07"]
    assert ids(query(workflow_prefix="flow.b")) == [f"i{n:02}" for n in range(0, 12, 2)]
    assert ids(query(workflow_prefix="flow%")) == ids(query(workflow_prefix="low")) == []
    start = clock.now() - timedelta(seconds=11)
    assert ids(query(updated_after=start)) == [f"i{n:02}" for n in range(1, 12)]
    assert ids(query(updated_before=start + timedelta(seconds=2))) == ["i00", "i01"]
    middle = {"updated_after": start, "updated_before": start + timedelta(seconds=3)}
    assert ids(query(**middle)) == ["i01", "i02"]
    assert ids(query(**middle, order="updated")) == ["i02", "i01"]
    assert ids(query(order="updated", workflow_prefix="flow.a", label=("team", "red"))) == ["i05", "i03", "i01"]
    assert ids(query(status_in=("pending", "running"), order="updated", limit=3)) == ["i10", "i09", "i07"]
    assert ids(query(status_in=(status for status in ("pending",)))) == ["i00", "i03", "i06", "i09"]
    assert ids(filled.instances.scan(label=("n", "7"))) == ["i07"]
    count = filled.instances.count
    assert (count(), count(status="running"), count(workflow="flow.a1")) == (12, 4, 2)
    assert count(workflow="flow.a1", status="running") == 2
    assert count(workflow="flow.a1", status="failed") == count(workflow="none") == 0


@pytest.mark.parametrize("order", ["id", "updated"])
@pytest.mark.parametrize("filters", [{}, {"status_in": ["pending", "running"]}, {"workflow_prefix": "flow.a"}], ids=str)
def test_pages(filled, order, filters):
    whole = ids(filled.instances.scan(order=order, **filters))
    assert whole == sorted(whole, reverse=order == "updated")
    for limit in (1, 3, 1000):
        found, cursor = [], None
        while True:
            page = filled.instances.query(limit=limit, cursor=cursor, order=order, **filters)
            found += ids(page)
            if page.cursor is None:
                break
            assert len(page) == limit
            cursor = page.cursor
        assert found == whole


def test_a_cursor_belongs_to_its_query(filled):
    query = filled.instances.query
    cursor = query(limit=2, status="pending").cursor
    for other in (
        {},
        {"status": "running"},
        {"status": "pending", "order": "updated"},
        {"status": "pending", "workflow": "flow.a1"},
    ):
        with pytest.raises(InvalidArgument):
            query(cursor=cursor, **other)
    for bad in ("", "x", cursor[:-2], cursor + "A", 5, b"x", "p1.xx"):
        with pytest.raises(InvalidArgument):
            query(status="pending", cursor=bad)
    with pytest.raises(InvalidArgument):
        filled.executions.query(cursor=cursor)
    with pytest.raises(InvalidArgument):
        filled.namespace("elsewhere").instances.query(status="pending", cursor=cursor)
    assert ids(query(status="pending", cursor=cursor, limit=5)) == ["i06", "i09"]


def test_limits(filled):
    for limit in (0, -1, 1001, 1.5, "2", True, None):
        with pytest.raises(InvalidArgument):
            filled.instances.query(limit=limit)
    assert len(filled.instances.query(limit=1000)) == 12


def test_filters_that_are_none(filled, clock):
    naive = datetime(2026, 1, 1)
    for wrong in (
        {"status": "resting"},
        {"status_in": ["resting"]},
        {"status_in": 5},
        {"status_in": b"x"},
        {"order": "name"},
        {"label": "team"},
        {"label": ("team",)},
        {"label": ("team", 5)},
        {"workflow": ""},
        {"workflow_prefix": " "},
        {"workflow_version": 0},
        {"business_key": "a\0"},
        {"id": "x" * 257},
        {"updated_after": naive},
        {"updated_before": 5},
        {"updated_after": "2026-01-01"},
    ):
        with pytest.raises(InvalidArgument):
            filled.instances.query(**wrong)
        with pytest.raises(InvalidArgument):
            list(filled.instances.scan(**wrong))
    with pytest.raises(InvalidArgument):
        filled.instances.count(status="resting")


def test_equal_times_are_in_commit_order(store, clock):
    for id in ("r/b", "r/c", "r/a"):
        store.instances.put(Instance(id, "w"))
    assert ids(store.instances.query(order="updated")) == ["r/a", "r/c", "r/b"]
    store.instances.put(Instance("r/c", "w"))
    clock.advance(-60)  # a clock that went back: what is written stands at the time of the one before
    store.instances.put(Instance("r/b", "w"))
    assert ids(store.instances.query(order="updated")) == ["r/b", "r/c", "r/a"]
    pages = [ids(store.instances.query(order="updated", limit=1))]
    page = store.instances.query(order="updated", limit=1)
    while page.cursor:
        page = store.instances.query(order="updated", limit=1, cursor=page.cursor)
        pages.append(ids(page))
    assert pages == [["r/b"], ["r/c"], ["r/a"]]
    got = store.instances.get("r/b")
    assert got.updated_at == got.created_at


def test_history_and_as_of(store, clock):
    times, positions = [], []
    for status in ("pending", "running", "waiting", "running", "completed"):
        clock.advance(10)
        store.instances.put(Instance("a", "w", status=status))
        times.append(clock.now())
        positions.append(store.feed.latest())
        store.instances.put(Instance(f"noise-{status}", "w"))
    page = store.instances.history("a", limit=2)
    assert [one.status for one in page] == ["completed", "running"]
    rest = store.instances.history("a", limit=10, cursor=page.cursor)
    assert [(one.revision, one.status) for one in rest] == [(3, "waiting"), (2, "running"), (1, "pending")]
    assert rest.cursor is None
    for n, (time, position) in enumerate(zip(times, positions, strict=True), 1):
        assert store.instances.as_of("a", time).revision == n
        assert store.instances.as_of("a", time + timedelta(seconds=9)).revision == n
        assert store.instances.as_of("a", position).revision == n
    assert store.instances.as_of("a", LATEST).revision == 5
    for nothing in (times[0] - timedelta(microseconds=1), BEGINNING):
        with pytest.raises(NotFound):
            store.instances.as_of("a", nothing)
    with pytest.raises(NotFound):
        store.instances.history("b")
    for wrong in ("yesterday", 5, None, datetime(2026, 1, 1)):
        with pytest.raises(InvalidArgument):
            store.instances.as_of("a", wrong)
    with pytest.raises(InvalidArgument):
        store.instances.history("b", cursor=page.cursor)
    with pytest.raises(InvalidArgument):
        store.instances.history("a", limit=0)


def test_a_recreated_id_inherits_nothing(store, clock):
    first = store.instances.put(Instance("a", "w", labels={"x": "y"}, metadata={"n": 1}))
    clock.advance(10)
    store.instances.delete("a")
    gone = clock.now()
    clock.advance(10)
    again = store.instances.put(Instance("a", "w2"))
    assert (again.revision, again.labels, again.metadata) == (1, {}, {})
    assert again.created_at > first.created_at
    assert [one.workflow for one in store.instances.history("a")] == ["w2"]
    assert ids(store.instances.query(label=("x", "y"))) == ids(store.instances.query(workflow="w")) == []
    assert changes(store)[-1].previous is None
    assert store.instances.as_of("a", first.updated_at) == first
    with pytest.raises(NotFound):
        store.instances.as_of("a", gone)
    assert store.instances.as_of("a", clock.now()) == again


def test_revisions(store):
    put, delete = store.instances.put, store.instances.delete
    put(Instance("a", "w"), expected_revision=0)
    with nothing_changes(store):
        with pytest.raises(AlreadyExists):
            put(Instance("a", "w"), expected_revision=0)
        for revision in (2, 5):
            with pytest.raises(StaleRevision) as caught:
                put(Instance("a", "w"), expected_revision=revision)
            assert (caught.value.actual, caught.value.expected) == (1, revision)
            with pytest.raises(StaleRevision):
                delete("a", expected_revision=revision)
        with pytest.raises(StaleRevision):
            put(Instance("b", "w"), expected_revision=1)
        for wrong in (-1, 1.0, "1", True):
            with pytest.raises(InvalidArgument):
                put(Instance("a", "w"), expected_revision=wrong)
            with pytest.raises(InvalidArgument):
                delete("a", expected_revision=wrong)
    assert put(Instance("a", "w"), expected_revision=1).revision == 2
    assert delete("a", expected_revision=2) is True


def test_wait(store, other, database):
    import threading

    store.instances.put(Instance("a", "w"))
    assert store.instances.wait("a", lambda one: one.status == "pending", timeout=0).revision == 1
    with pytest.raises(Timeout):
        store.instances.wait("a", lambda one: one.revision == 2, timeout=0)
    with pytest.raises(Timeout):
        store.instances.wait("absent", lambda one: True, timeout=0.01)
    asked = threading.Event()

    def predicate(one):
        asked.set()
        return one.status == "cancelled"

    def cancel():
        asked.wait(30)
        other.instances.cancel("a")

    thread = threading.Thread(target=cancel)
    thread.start()
    assert store.instances.wait("a", predicate, timeout=60).revision == 2
    thread.join()
    for wrong in (-1, "5", None, float("nan"), True):
        with pytest.raises(InvalidArgument):
            store.instances.wait("a", predicate, timeout=wrong)


def test_lists_and_sets_come_back_as_they_are_read(store):
    given = Instance("a", "w", active_steps={"x"}, completed_steps=["y", "y"], history=[])
    made = store.instances.put(given)
    assert store.instances.get("a") == made
    assert (made.active_steps, made.completed_steps, made.history) == (frozenset("x"), frozenset("y"), ())


def test_new_ids():
    made = [stateroom.new_id("order 17") for _ in range(100)]
    assert made == sorted(set(made))
    assert all(one.startswith("order 17/") for one in made)
    assert len(stateroom.new_id()) == 26
    for bad in ("", " ", "a\0", "k" * 201):
        with pytest.raises(InvalidArgument):
            stateroom.new_id(bad)


def test_records_compare_and_are_frozen(store):
    made = store.instances.put(Instance("a", "w", context=Context({"x": 1})))
    assert made == store.instances.get("a")
    assert made != msgspec.structs.replace(made, status="running")
    with pytest.raises(AttributeError):
        made.status = "running"
