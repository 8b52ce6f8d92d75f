"""Records that move while a query reads: what matched all the time is there exactly once."""

import random

import pytest

from kit.databases import BLOCKING
from stateroom import Execution, Instance, Policy

pytestmark = BLOCKING

COUNT = 300
"""More than one batch of index rows."""


class Moving:
    """An engine that lets something happen before each scan, as another client would in between."""

    def __init__(self, engine, move):
        self._engine = engine
        self._move = move
        self.scans = 0
        self.parts = engine.parts

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def scan(self, part, start, stop, /, *, limit, reverse=False):
        self._before(start)
        return self._engine.scan(part, start, stop, limit=limit, reverse=reverse)

    def scan_many(self, ranges, /):
        self._before(ranges[0].start)
        return [self._engine.scan(part, start, stop, limit=limit) for part, start, stop, limit in ranges]

    def read_many(self, requests, /):
        return [self._engine.read(part, keys) for part, keys in requests]

    def _before(self, start):
        if b"\0X" in start:  # a scan of an index
            self.scans += 1
            self._move(self.scans)


LIVE = ("bid_accepted", "running", "publishing")
ACTIVE = ("pending", "running", "waiting")


def some(number):
    """A third of the records, and a word for each: others at each call."""
    dice = random.Random(number)
    return [(n, dice.randrange(3)) for n in range(COUNT) if dice.randrange(3) == 0]


def beside(database, move):
    """A store whose index scans others write in between of; they write to the plain one."""
    engine = Moving(database.raw(), move)
    return database.over(engine), engine


@pytest.mark.parametrize("limit", [None, 10])
def test_live_and_for_job(database, store, limit):
    store.executions.create_many([Execution(f"e{n}", "job", state="bid_accepted") for n in range(COUNT)])

    def move(number):
        for n, word in some(number):
            store.executions.update(f"e{n}", state=LIVE[word])

    for number in range(100, 105):
        move(number)

    reader, engine = beside(database, move)
    for call in (reader.executions.live, lambda limit: reader.executions.for_job("job", limit=limit)):
        engine.scans = 0
        ids = [record.id for record in call(limit=limit)]
        assert engine.scans > 1
        assert len(ids) == len(set(ids)) == (limit or COUNT)


@pytest.mark.parametrize("order", ["id", "updated"])
@pytest.mark.parametrize(
    "filters",
    [
        {"status_in": ["pending", "running", "waiting"]},
        {"workflow_prefix": "wf"},
        {"workflow": "wf"},
        {"label": ("all", "yes")},
        {},
    ],
)
def test_instances(database, store, order, filters):
    labels = {"all": "yes"}
    store.instances.put_many([Instance(f"i{n}", "wf", labels=labels) for n in range(COUNT)])

    def move(number):
        for n, word in some(number):
            changes = {"status": ACTIVE[word], "labels": {**labels, "n": str(number)}}
            if filters == {"workflow_prefix": "wf"}:
                store.instances.put(Instance(f"i{n}", f"wf{word}", **changes))
            else:
                store.instances.update(f"i{n}", **changes)

    for number in range(100, 105):
        move(number)

    reader, _ = beside(database, move)
    expected = {f"i{n}" for n in range(COUNT)}
    for records in (
        reader.instances.query(limit=1000, order=order, **filters),
        reader.instances.scan(order=order, **filters),
    ):
        ids = [record.id for record in records]
        assert sorted(ids) == sorted(expected)
    pages, cursor = [], None
    while order == "id":
        page = reader.instances.query(limit=70, cursor=cursor, **filters)
        pages += [record.id for record in page]
        if (cursor := page.cursor) is None:
            assert pages == sorted(expected)
            break


def test_orphans(database, store):
    store.instances.put_many([Instance(f"i{n}", "wf") for n in range(COUNT)])
    store.executions.create_many([Execution(f"e{n}", "job", state="bid_accepted") for n in range(COUNT)])

    def move(number):
        for n, word in some(number):
            store.instances.update(f"i{n}", status=ACTIVE[word])
            store.executions.update(f"e{n}", state=LIVE[word])

    for number in range(100, 105):
        move(number)

    reader, _ = beside(database, move)
    assert sorted(one.id for one in reader.instances.orphans(limit=1000)) == sorted(f"i{n}" for n in range(COUNT))
    assert sorted(one.id for one in reader.executions.orphans(limit=1000)) == sorted(f"e{n}" for n in range(COUNT))


def test_what_ends_or_goes_meanwhile_is_not_there_twice(database, store):
    store.instances.put_many([Instance(f"i{n}", "wf") for n in range(COUNT)])

    def move(number):
        if number == 2:
            for n in range(0, COUNT, 3):
                store.instances.delete(f"i{n}")
            store.instances.update("i1", status="completed")
            store.instances.put(Instance("new", "wf", status="waiting"))

    reader, _ = beside(database, move)
    page = reader.instances.query(limit=1000, status_in=["pending", "waiting"])
    ids = [record.id for record in page]
    assert ids == sorted({*(f"i{n}" for n in range(COUNT) if n % 3 and n != 1), *({"new"} & set(ids))})


def test_a_feed_that_is_pruned_meanwhile(database, store, clock):
    """What changed is not known then: the query begins again."""
    from datetime import timedelta

    store.executions.create_many([Execution(f"r/e{n}", "job", state="bid_accepted") for n in range(COUNT)])
    store.retention.set(Policy("feed", older_than=timedelta(microseconds=1)))

    def move(number):
        if number in (2, 4):
            for n in range(0, COUNT, 5):
                store.executions.update(f"r/e{n}", state="running" if number == 2 else "publishing")
            clock.advance(1)
            assert store.retention.run(max_records=100_000).complete

    reader, engine = beside(database, move)
    ids = [record.id for record in reader.executions.live()]
    assert sorted(ids) == sorted(f"r/e{n}" for n in range(COUNT))
    assert engine.scans > 5


def test_a_quiet_query_reads_no_feed(database, store):
    """Only what moved is looked at again: without writers nothing is."""
    store.executions.create_many([Execution(f"e{n}", "job", state="bid_accepted") for n in range(10)])
    reader, engine = beside(database, lambda number: None)
    before = engine.scans
    assert len(reader.executions.query(state_in=["bid_accepted", "running"])) == 10
    assert engine.scans - before == 2


def test_what_ends_after_it_was_read_is_not_shown_as_it_was(database, store):
    store.executions.create_many([Execution(f"e{n:03}", "job", state="bid_accepted") for n in range(COUNT)])
    first = store.executions.live(limit=1)[0].id
    ended = []

    def move(number):
        if number > len(LIVE) and not ended:  # the first rows of each state were read, and their records too
            ended.append(store.executions.update(first, state="completed").id)

    reader, _ = beside(database, move)
    ids = [record.id for record in reader.executions.live()]
    assert ended == [first]
    assert first not in ids
    assert len(ids) == COUNT - 1
