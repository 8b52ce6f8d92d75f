"""Many records at once, changes of some fields, events from where one was, deletes that expect a revision."""

import pytest

from kit.databases import BLOCKING
from stateroom import Context, Event, Execution, Instance
from stateroom.engines.wrap import Recording
from stateroom.errors import AlreadyExists, InvalidArgument, NotFound, StaleRevision, WrongState
from stateroom.families.bulk import BATCH
from stateroom.testing.family_harness import changes, ids, nothing_changes


def test_create_many(store):
    given = [Execution(f"r{n % 4}/{n}", "job", details={"n": n}) for n in range(50)]
    made = store.executions.create_many(iter(given))
    assert [(one.id, one.details, one.revision) for one in made] == [(one.id, one.details, 1) for one in given]
    assert sorted(store.executions.scan(), key=lambda one: one.details["n"]) == list(made)
    assert store.executions.count("new") == 50
    assert {change.op for change in changes(store)} == {"create"}
    assert store.executions.create_many([]) == ()


def test_put_many(store):
    store.instances.put(Instance("r1/1", "wf", metadata={"old": 1}, business_key="r1"))
    given = [Instance(f"r{n % 4}/{n}", "wf", business_key=f"r{n % 4}", metadata={"n": n}) for n in range(20)]
    made = store.instances.put_many(given)
    assert [one.id for one in made] == [one.id for one in given]
    assert [one.revision for one in made] == [2 if one.id == "r1/1" else 1 for one in given]
    assert store.instances.get("r1/1").metadata == {"n": 1}
    assert store.instances.count(status="pending") == 20
    with pytest.raises(AlreadyExists):
        store.instances.start(Instance("r2/new", "wf", business_key="r2"))


def test_get_many(store):
    made = store.executions.create_many([Execution(f"r{n}", "job") for n in range(30)])
    store.instances.put_many([Instance(f"r{n}", "wf") for n in range(30)])
    asked = ["r5", "none", "r2", "r29", "r5"]
    assert store.executions.get_many(asked) == {one: made[int(one[1:])] for one in ("r5", "r2", "r29")}
    assert list(store.instances.get_many(asked)) == ["r5", "r2", "r29"]
    assert store.instances.get_many([]) == {}
    with store.transaction() as tx:
        tx.executions.update("r5", state="running")
        assert tx.executions.get_many(["r5", "r5/none"])["r5"].state == "running"
    for wrong in ("r5", [""], 5):
        with pytest.raises(InvalidArgument):
            store.executions.get_many(wrong)


def test_a_refusal_names_the_record(store):
    store.executions.create(Execution("r/5", "job"))
    with nothing_changes(store), pytest.raises(AlreadyExists) as caught:
        store.executions.create_many([Execution(f"r/{n}", "job") for n in range(9)])
    assert (caught.value.id, caught.value.fields["written"]) == ("r/5", 0)
    with nothing_changes(store), pytest.raises(WrongState) as refused:
        store.executions.create_many([Execution("r/a", "job"), Execution("r/b", "job", state="running")])
    assert (refused.value.id, refused.value.fields["written"]) == ("r/b", 0)
    with nothing_changes(store), pytest.raises(AlreadyExists) as twice:
        store.executions.create_many([Execution("r/a", "job"), Execution("r/a", "job")])
    assert twice.value.id == "r/a"


def test_bad_input_is_refused_before_anything_is_written(store):
    for call, named in (
        (lambda: store.executions.create_many([Execution("a", "job"), Execution("b", "")]), "b"),
        (lambda: store.executions.create_many([Execution("a", "job"), Execution("b", "job", data=object())]), "b"),
        (lambda: store.instances.put_many([Instance("a", "wf"), Instance("b", "wf", status="bogus")]), "b"),
        (lambda: store.instances.put_many([Instance("a", "wf"), "b"]), None),
        (lambda: store.instances.put_many("ab"), None),
    ):
        with nothing_changes(store), pytest.raises(InvalidArgument) as caught:
            call()
        assert caught.value.fields.get("id") == named
        assert caught.value.fields.get("written", 0) == 0


def test_how_many_were_written_before(store):
    """One commit for each part and batch: what was committed before the refusal stays, and is counted."""
    store.executions.create(Execution("r/1500", "job"))
    with pytest.raises(AlreadyExists) as caught:
        store.executions.create_many([Execution(f"r/{n}", "job") for n in range(2000)])
    written = caught.value.fields["written"]
    assert caught.value.id == "r/1500"
    assert 0 < written <= 1500
    assert store.executions.count("new") == written + 1


def test_in_a_transaction(store):
    with store.transaction() as tx:
        tx.executions.create_many([Execution("r/a", "job"), Execution("r/b", "job")])
        tx.instances.put_many([Instance("r/a", "wf")])
        assert list(tx.executions.get_many(["r/a", "r/b"])) == ["r/a", "r/b"]
        assert store.executions.get_many(["r/a"]) == {}
    assert ids(store.executions.query()) == ["r/a", "r/b"]
    with nothing_changes(store), pytest.raises(InvalidArgument), store.transaction() as tx:
        tx.executions.create_many([Execution("r/c", "job"), Execution("s", "job")])


def test_large_records_are_more_commits(store):
    made = store.executions.create_many([Execution(f"r/{n}", "job", data=bytes([n]) * 60_000) for n in range(150)])
    assert len(made) == store.executions.count("new") == 150
    big = store.instances.put_many([Instance(f"r/{n}", "wf", metadata={"x": bytes([n]) * 900_000}) for n in range(12)])
    assert store.instances.get("r/11") == big[11]


@BLOCKING
def test_commits(database):
    """One for each part and batch, however many records."""
    engine = Recording(database.raw())
    store = database.over(engine)
    store.executions.create_many([Execution(f"r{n}", "job") for n in range(400)])
    commits = [call for call in engine.calls if call.name == "commit"]
    assert len(commits) == engine.parts
    engine.calls.clear()
    store.executions.create_many([Execution(f"x/{n}", "job", node_id="n") for n in range(BATCH + 1)])
    assert 2 <= len([call for call in engine.calls if call.name == "commit"]) <= 3


def test_update(store):
    made = store.instances.put(
        Instance("r", "wf", business_key="r", labels={"a": "b"}, context=Context({"n": 1}), metadata={"k": 1})
    )
    changed = store.instances.update("r", status="running", current_step="s", metadata={"z": 2})
    assert (changed.status, changed.current_step, changed.metadata, changed.revision) == ("running", "s", {"z": 2}, 2)
    assert (changed.labels, changed.context, changed.business_key) == (made.labels, made.context, "r")
    cleared = store.instances.update("r", current_step=None, metadata=None, labels=None, status=None)
    assert (cleared.status, cleared.current_step, cleared.metadata, cleared.labels) == ("pending", None, {}, {})
    again = store.instances.update("r", expected_statuses=["pending"], expected_revision=3, completed_steps={"s"})
    assert again.completed_steps == frozenset({"s"})
    assert store.instances.get("r") == again


def test_update_is_checked_in_this_order(store):
    with pytest.raises(NotFound):
        store.instances.update("r", status="running", expected_revision=7)
    store.instances.put(Instance("r", "wf", status="completed"))
    with nothing_changes(store):
        with pytest.raises(WrongState) as caught:
            store.instances.update("r", expected_statuses=["running"], expected_revision=7, status="failed")
        assert (caught.value.actual, caught.value.expected) == ("completed", {"running"})
        assert not caught.value.terminal
        with pytest.raises(StaleRevision):
            store.instances.update("r", expected_revision=7, status="failed")
        with pytest.raises(WrongState) as caught:
            store.instances.update("r", status="failed")
        assert caught.value.terminal is True
    assert store.instances.update("r", expected_revision=1, status="running").status == "running"


def test_update_that_makes_it_active_again_is_checked_for_uniqueness(store):
    first = store.instances.start(Instance("r/1", "wf", business_key="r"))
    store.instances.update("r/1", status="completed")
    store.instances.start(Instance("r/2", "wf", business_key="r"))
    with pytest.raises(AlreadyExists) as caught:
        store.instances.update("r/1", status="running", expected_revision=first.revision + 1)
    assert caught.value.id == "r/2"


@pytest.mark.parametrize(
    "changes",
    [
        {"workflow": "x"}, {"business_key": "x"}, {"revision": 3}, {"created_at": None},
        {"updated_at": None}, {"stat": "running"}, {"status": "bogus"}, {"workflow_version": 0}, {"labels": 5},
        {"expected_statuses": "running"}, {"expected_statuses": ["bogus"]}, {"expected_revision": -1},
        {"metadata": {"x": object()}}, {"context": {}}, {"unique": "bogus"},
    ],
)  # fmt: skip
def test_update_refuses(store, changes):
    store.instances.put(Instance("r", "wf"))
    with nothing_changes(store), pytest.raises(InvalidArgument):
        store.instances.update("r", **changes)


def test_events_from_where_one_was(store):
    store.executions.create(Execution("r", "job"), events=[Event(f"e{n}") for n in range(1, 6)])
    store.executions.add_events("r", *[Event(f"e{n}") for n in range(6, 2501)])

    def seqs(**options):
        return [event.seq for event in store.executions.events("r", **options)]

    assert seqs() == list(range(1, 2501))
    assert seqs(after=2498) == [2499, 2500]
    assert seqs(after=2500) == seqs(after=9999) == seqs(last=0) == []
    assert seqs(last=3) == [2498, 2499, 2500]
    assert seqs(last=1500) == list(range(1001, 2501))
    assert seqs(last=9999, after=3) == list(range(4, 2501))
    assert seqs(last=2, after=2499) == [2500]
    for wrong in ({"after": -1}, {"last": -1}, {"last": "x"}, {"after": None}):
        with pytest.raises(InvalidArgument):
            store.executions.events("r", **wrong)
    with pytest.raises(NotFound):
        store.executions.events("x", last=1)
    with store.transaction() as tx:
        tx.executions.add_events("r", Event("own"))
        assert [event.message for event in tx.executions.events("r", last=2)] == ["e2500", "own"]


def test_delete_expects_a_revision(store):
    store.executions.create(Execution("r", "job"))
    with nothing_changes(store), pytest.raises(StaleRevision) as caught:
        store.executions.delete("r", expected_revision=2)
    assert (caught.value.actual, caught.value.expected) == (1, 2)
    assert store.executions.delete("r", expected_revision=1) is True
    assert store.executions.delete("r", expected_revision=1) is False


def test_id_prefix(store):
    names = ["a", "a/1", "a/2", "ab", "b", "b/1", "é/1"]
    store.executions.create_many([Execution(id, "job", state="bid_accepted") for id in names])
    store.instances.put_many([Instance(id, "wf") for id in names])
    for prefix in ("", "a", "a/", "b/1", "é", "x", "a/1/"):
        expected = [id for id in names if id.startswith(prefix)]
        for query in (store.executions.query, store.instances.query, store.executions.scan, store.instances.scan):
            assert ids(query(id_prefix=prefix)) == expected
        assert ids(store.executions.query(id_prefix=prefix, state_in=["new", "bid_accepted"])) == expected
        assert ids(store.executions.query(id_prefix=prefix, job_id="job")) == expected
        assert sorted(ids(store.instances.query(id_prefix=prefix, order="updated"))) == sorted(expected)
        assert ids(store.instances.query(id_prefix=prefix, workflow_prefix="w", label=None)) == expected
    page = store.instances.query(id_prefix="a", limit=2)
    assert ids(store.instances.query(id_prefix="a", limit=2, cursor=page.cursor)) == ["a/2", "ab"]
    with pytest.raises(InvalidArgument):
        store.instances.query(id_prefix="b", limit=2, cursor=page.cursor)
    for wrong in (5, "\0", "x" * 300):
        with pytest.raises(InvalidArgument):
            store.executions.query(id_prefix=wrong)
    with store.transaction() as tx:
        tx.instances.put(Instance("z", "wf"))
        assert ids(tx.instances.query(id_prefix="b/")) == ["b/1"]


def test_orphans_as_pages(store, clock):
    store.instances.put_many([Instance(f"i{n}", f"wf{n % 2}", status=("pending", "running")[n % 2]) for n in range(9)])
    store.executions.create_many([Execution(f"e{n}", f"job{n % 2}", state="bid_accepted") for n in range(9)])
    store.executions.create(Execution("new", "job0"))
    for n in (0, 1, 5):
        store.leases.acquire(f"i{n}", "me", 60)
        store.leases.acquire(f"e{n}", "me", 60)
    clock.advance(1)
    later = clock.now()
    store.instances.update("i2", current_step="s")
    store.executions.update("e2", message="m")
    assert ids(store.instances.orphans()) == ["i2", "i3", "i4", "i6", "i7", "i8"]
    assert ids(store.executions.orphans()) == ["e2", "e3", "e4", "e6", "e7", "e8"]
    assert ids(store.instances.orphans(workflow="wf1")) == ["i3", "i7"]
    assert ids(store.instances.orphans(status_in=["pending", "completed"])) == ["i2", "i4", "i6", "i8"]
    assert ids(store.instances.orphans(status_in=["completed"])) == []
    assert ids(store.instances.orphans(updated_before=later, workflow="wf0")) == ["i4", "i6", "i8"]
    assert ids(store.executions.orphans(job_id="job1", updated_before=later)) == ["e3", "e7"]
    assert ids(store.executions.orphans(state_in=["running", "new"])) == []
    page, found = store.instances.orphans(limit=2), []
    while True:
        found += ids(page)
        if page.cursor is None:
            break
        page = store.instances.orphans(limit=2, cursor=page.cursor)
    assert found == ["i2", "i3", "i4", "i6", "i7", "i8"]
    with pytest.raises(InvalidArgument):
        store.instances.orphans(limit=2, workflow="wf1", cursor=store.instances.orphans(limit=2).cursor)


def test_starts_that_are_not_checked_do_not_meet(database, store):
    """`unique=None` of different ids under one business key: each commits at its first try."""
    commits = []
    if not database.asynchronous:
        recording = Recording(database.raw())
        store, commits = database.over(recording), recording.calls
    for n in range(5):
        store.instances.start(Instance(f"k/{n}", "wf", business_key="k"), unique=None)
    assert not [call for call in commits if call.name == "commit" and any(b"Hk" in key for key in call.what.expect)]
    with pytest.raises(AlreadyExists):
        store.instances.start(Instance("k/x", "wf", business_key="k"))
    for n in range(5):
        store.instances.update(f"k/{n}", status="completed")
    assert store.instances.start(Instance("k/x", "wf", business_key="k")).revision == 1
