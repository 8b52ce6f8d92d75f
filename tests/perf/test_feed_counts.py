"""What reading the feed costs, in calls and rows of the engine: counts, which no busy machine can change."""

import pytest

from stateroom import BEGINNING, Instance, Store, codec
from stateroom.clock import SystemClock
from stateroom.core.bridge import run_now
from stateroom.engines import memory
from stateroom.engines.wrap import Recording, Wrapper
from stateroom.feed.feed import Follower
from stateroom.feed.reading import RUN, Filter
from stateroom.testing.faces import ManualClock


class Counted:
    """A store, and the calls of the engine that reads of its feed make."""

    def __init__(self, parts=1, over=lambda engine: engine):
        self.engine = Recording(over(memory.connect("memory:", parts=parts)))
        options = {"namespace": "default", "codec": codec.default, "clock": SystemClock()}
        self.store = Store(self.engine, "memory:", **options)

    def fill(self, records, changes=1):
        for _ in range(changes):
            for number in range(records):
                self.store.instances.put(Instance(f"r{number}", "w"))

    def read(self, after=BEGINNING, **options):
        """A page, the names of the calls that it took, and how many rows they gave."""
        self.engine.clear()
        page = self.store.feed.read(after, **options)
        return page, [call.name for call in self.engine.calls], self.engine.rows


@pytest.fixture(params=[1, 3])
def counted(request):
    counted = Counted(request.param)
    counted.store.feed.latest()  # the database's identity is made
    yield counted
    counted.store.close()


@pytest.fixture
def alone():
    counted = Counted()
    counted.store.feed.latest()
    yield counted
    counted.store.close()


LOOK, FLOOR, SCAN, PEEK = ["read"], ["read"], ["scan"], ["read"]


def test_one_look_a_scan_for_each_run_and_one_look_after(alone):
    alone.fill(2 * RUN + 10)
    page, calls, rows = alone.read(limit=1000)
    assert len(page.items) == 2 * RUN + 10
    assert calls == LOOK + SCAN * 3 + FLOOR
    assert rows == 1 + len(page.items)  # the part's version, and the entries: nothing was pruned, so there is no floor


def test_a_full_page_does_not_look_whether_there_is_more(alone):
    alone.fill(40)
    page, calls, rows = alone.read(limit=20)
    assert calls == LOOK + SCAN + FLOOR
    assert rows == 1 + 20
    assert alone.read(page.next, limit=20)[1:] == (LOOK + SCAN + FLOOR, 1 + 20)


def test_a_page_that_is_not_full_is_known_to_be_the_last(alone):
    alone.fill(RUN)
    # As many as a run: only the scan that gives none says that there are no more.
    assert alone.read(limit=1000)[1] == LOOK + SCAN * 2 + FLOOR


def test_records_before_are_not_read_again_where_the_page_has_them(alone):
    alone.fill(50, changes=4)
    page, calls, _ = alone.read(limit=200)
    assert [change.previous is None for change in page.items] == [True] * 50 + [False] * 150
    assert calls == LOOK + SCAN + FLOOR


def test_records_before_that_the_page_has_not_are_read_at_once(alone):
    alone.fill(50, changes=4)
    page, _, _ = alone.read(limit=50)
    page, calls, rows = alone.read(page.next, limit=100)
    assert all(change.previous is not None for change in page.items)
    assert calls == LOOK + SCAN + PEEK + FLOOR
    assert rows == 1 + 100 + 50


def test_records_before_are_not_read_again_where_a_filter_passed_over_them(alone):
    alone.fill(50, changes=2)
    page, calls, rows = alone.read(ops=["update"], limit=100)
    assert [change.previous.revision for change in page.items] == [1] * 50
    assert calls == LOOK + SCAN + FLOOR
    assert rows == 1 + 100


def test_each_part_costs_the_same(counted):
    counted.fill(60, changes=2)
    parts = counted.engine.parts
    page, calls, rows = counted.read(limit=1000)
    assert len(page.items) == 120
    assert calls == LOOK * parts + SCAN * parts + FLOOR * parts
    assert rows == parts + 120


class Gathers(Wrapper):
    """An engine that looks at several parts in one call, as those on a server do."""

    def read_many(self, requests):
        return [self.engine.read(part, keys) for part, keys in requests]

    def scan_many(self, ranges):
        return [self.engine.scan(part, start, stop, limit=limit) for part, start, stop, limit in ranges]


def test_an_engine_that_can_is_asked_for_all_parts_at_once():
    counted = Counted(3, Gathers)
    counted.fill(60)
    at = counted.store.feed.latest()
    counted.fill(60)
    page, calls, rows = counted.read(at, limit=1000)
    assert [change.previous.revision for change in page.items] == [1] * 60
    # How far they are, their entries, the records before, and whether any was pruned.
    assert calls == ["read_many", "scan_many", "read_many", "read_many"]
    assert rows == 3 + 60 + 60
    counted.store.close()


def test_a_part_that_did_not_move_is_looked_at_and_not_read():
    counted = Counted(3)
    counted.store.feed.latest()
    counted.fill(30)
    follower = counted.store.feed.read(limit=1000).next
    _, calls, rows = counted.read(follower)
    # A read that begins anew cannot know which parts moved, so it scans them; none gives a row.
    assert calls.count("scan") == 3
    assert rows == 3
    counted.store.close()


def test_a_follower_that_found_nothing_looks_once_when_it_is_asked_again():
    clock = ManualClock()

    class Sleepless(Wrapper):
        def wait(self, part, version, timeout, /):
            clock.advance(timeout)

    engine = Recording(Sleepless(memory.connect("memory:", parts=3)))
    with Store(engine, "memory:", namespace="n", codec=codec.default, clock=clock) as store:
        store.feed.emit("note", 1)
        follower = Follower(store._scope, store.feed.latest(), Filter())
        for _ in range(2):
            engine.clear()
            assert run_now(follower.read(10, 1.0)).items == ()
        assert engine.reads == 3, "each part once"
        store.feed.emit("note", 2)
        assert [change.record for change in run_now(follower.read(10, 1.0)).items] == [2]
