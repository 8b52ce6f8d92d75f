"""Rows that cannot be opened: they hide no other, are counted on their page, and are said once."""

import logging

import pytest

from kit.faults import over
from stateroom import Context, Event, Execution, Instance
from stateroom.engine import Batch
from stateroom.engines.memory import MemoryEngine
from stateroom.errors import Damaged
from stateroom.testing.faces import ManualClock


@pytest.fixture
def engine():
    return MemoryEngine()


@pytest.fixture
def store(engine):
    return over(engine, ManualClock())


def rows(engine, tag):
    return engine.scan(0, b"n\0" + tag, b"n\0" + tag + b"\xff", limit=1000)


def spoil(engine, tag, *numbers):
    """Put the bytes of another row under the rows with these numbers."""
    found = rows(engine, tag)
    write = {found[number].key: found[number - 1].value for number in numbers}
    engine.commit(0, Batch(write=write))


def test_a_page_is_full_and_counts_what_it_left_out(engine, store, caplog):
    for n in range(10):
        store.executions.create(Execution(f"e{n}", "job"))
    spoil(engine, b"Re", 1, 3, 4, 6, 9)
    pages, cursor = [], None
    while True:
        page = store.executions.query(limit=2, cursor=cursor)
        pages.append(([one.id for one in page], page.undecodable))
        if (cursor := page.cursor) is None:
            break
    assert pages == [(["e0", "e2"], 1), (["e5", "e7"], 3), (["e8"], 1)]
    for call in (store.executions.live, lambda: store.executions.for_job("job"), lambda: list(store.executions.scan())):
        assert len(call()) in (0, 5)
    assert list(store.executions.get_many(["e0", "e1", "e2"])) == ["e0", "e2"]
    warnings = [record for record in caplog.records if record.name == "stateroom"]
    assert len(warnings) == 1
    assert warnings[0].levelno == logging.WARNING
    assert "e1" in warnings[0].getMessage()


@pytest.mark.parametrize("order", ["id", "updated"])
def test_the_row_looked_at_ahead_belongs_to_the_next_page(engine, store, order):
    for n in range(4):
        store.instances.put(Instance(f"i{n}", "wf", status="running"))
    spoil(engine, b"Ri", 1, 2)
    first = store.instances.query(limit=1, order=order, status="running")
    second = store.instances.query(limit=1, order=order, status="running", cursor=first.cursor)
    assert [one.id for one in (*first, *second)] == (["i0", "i3"] if order == "id" else ["i3", "i0"])
    assert (first.undecodable, second.undecodable, second.cursor) == (0, 2, None)
    page = store.instances.orphans(limit=1)
    last = store.instances.orphans(limit=1, cursor=page.cursor)
    assert ([one.id for one in (*page, *last)], page.undecodable, last.undecodable) == (["i0", "i3"], 0, 2)


def test_an_event_that_cannot_be_opened_hides_no_other(engine, store, caplog):
    store.executions.create(Execution("e", "job"), events=[Event(f"m{n}") for n in range(1, 7)])
    spoil(engine, b"Ee", 1, 3)
    assert [event.seq for event in store.executions.events("e")] == [1, 3, 5, 6]
    assert [event.seq for event in store.executions.events("e", last=4)] == [3, 5, 6]
    assert [event.seq for event in store.executions.events("e", after=2, last=2)] == [5, 6]
    store.executions.add_events("e", Event("m7"))
    assert store.executions.events("e", after=6)[0].message == "m7"
    assert len([record for record in caplog.records if record.name == "stateroom"]) == 1
    assert store.executions.delete("e") is True


def test_claims_pass_it_by(engine, store):
    for n in range(4):
        store.executions.create(Execution(f"e{n}", "job"))
        store.instances.put(Instance(f"i{n}", "wf", context=Context({"n": n})))
    spoil(engine, b"Re", 1)
    spoil(engine, b"Ri", 1)
    assert [claim.record.id for claim in store.executions.claim("me", 10, limit=9)] == ["e0", "e2", "e3"]
    assert [claim.record.id for claim in store.instances.claim("me", 10, limit=9)] == ["i0", "i2", "i3"]
    for call in (lambda: store.executions.get("e1"), lambda: store.instances.get("i1")):
        with pytest.raises(Damaged):
            call()


def test_a_lease_that_cannot_be_read_hides_no_other(engine, store):
    for key in "abc":
        store.leases.acquire(key, "me", 60)
        store.instances.put(Instance(key, "wf"))
    spoil(engine, b"LT", 1)
    assert [lease.key for lease in store.leases.query()] == ["a", "c"]
    assert [one.id for one in store.instances.orphans()] == []
