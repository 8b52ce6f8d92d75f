"""The feed is pruned as a prefix of each part, and nobody misses a change without being told."""

from datetime import timedelta

import pytest

from kit.aging import DAY, HOUR, BeforeScan, blocking, instance
from stateroom import BEGINNING, HistoryEntry, Policy
from stateroom.errors import Compacted


def test_the_feed_is_pruned_by_age_and_says_so(store, clock):
    store.retention.set(Policy("feed", older_than=HOUR))
    store.instances.put(instance("r/a", "running"))
    (first,) = store.feed.read().items
    store.instances.put(instance("r/a"))
    clock.advance(1800)
    store.instances.put(instance("r/b"))
    clock.advance(1800)
    (item,) = store.retention.plan().items
    assert (item.family, item.count) == ("feed", 2)
    assert item.examples == ("create instances r/a", "update instances r/a")
    assert store.retention.run().families["feed"] == 2
    assert [change.id for change in store.feed.read(BEGINNING).items] == ["r/b"]
    for position in (first.before, first.position):
        with pytest.raises(Compacted) as error:
            store.feed.read(position)
        assert [change.id for change in store.feed.read(error.value.first).items] == ["r/b"]
    assert store.instances.get("r/a").revision == 2  # records are no part of the feed
    assert len(store.instances.history("r/a")) == 0
    store.instances.put(instance("r/a", metadata={"more": 1}))
    change = store.feed.read(BEGINNING, ids=["r/a"]).items[0]
    assert (change.op, change.previous) == ("update", None)


def test_an_age_of_nothing_prunes_all_and_numbering_goes_on(store, clock):
    store.retention.set(Policy("feed", older_than=timedelta(0)))
    store.instances.put(instance("a"))
    end = store.feed.latest()
    assert store.retention.run().families["feed"] == 1
    assert store.feed.read(BEGINNING).items == ()
    store.instances.put(instance("b"))
    assert [change.id for change in store.feed.read(end).items] == ["b"]


def test_the_lowest_checkpoint_holds_the_feed_back_and_is_shown(store, clock):
    store.retention.set(Policy("feed", older_than=HOUR))
    for number in range(4):
        store.instances.put(instance(f"r/{number}"))
    changes = store.feed.read().items
    store.checkpoints.set("slow", changes[1].position)
    store.checkpoints.set("quick", changes[3].position)
    began = clock.now()
    clock.advance(3600)
    plan = store.retention.plan()
    assert plan.items[0].count == 2
    (pin,) = plan.pins
    assert (pin.name, pin.since, pin.updated_at, pin.until) == ("slow", began, began, None)
    assert store.retention.run().families["feed"] == 2
    assert len(store.feed.read(store.checkpoints.get("slow")).items) == 2
    store.checkpoints.delete("slow")
    assert store.retention.plan().pins == ()
    assert store.retention.run().families["feed"] == 2


def test_a_checkpoint_of_the_beginning_counts_whatever_comes_after_it(store, clock):
    store.retention.set(Policy("feed", older_than=HOUR))
    store.checkpoints.set("aaa", BEGINNING)
    store.instances.put(instance("a"))
    store.checkpoints.set("zzz", store.feed.latest())
    clock.advance(7200)
    assert [pin.name for pin in store.retention.plan().pins] == ["aaa"]
    assert store.retention.run().families["feed"] == 0
    assert len(store.feed.read(BEGINNING).items) == 1


def test_a_checkpoint_holds_only_so_long_and_then_the_consumer_is_told(store, clock):
    store.retention.set(Policy("feed", older_than=HOUR, max_pinned=DAY))
    store.checkpoints.set("abandoned", store.feed.latest())
    store.instances.put(instance("r/a"))
    began = clock.now()
    clock.advance(86399)
    assert store.retention.plan().pins[0].until == began + DAY
    assert store.retention.run().families["feed"] == 0
    store.instances.put(instance("r/b"))
    clock.advance(1)
    assert store.retention.run().families["feed"] == 1
    with pytest.raises(Compacted):
        store.feed.read(store.checkpoints.get("abandoned"))


def test_a_reader_whose_changes_go_while_it_reads_is_told(store, clock, database):
    """Never a silent gap: the floor is looked at after the changes."""
    store.retention.set(Policy("feed", older_than=HOUR))
    start = store.feed.latest()
    for number in range(3):
        store.instances.put(instance(f"i{number}"))
    clock.advance(3600)
    store.instances.put(instance("young"))
    engine = BeforeScan(database.raw(), blocking(database).retention.run)
    reader = database.over(engine)
    engine.armed = True
    with pytest.raises(Compacted):
        reader.feed.read(start)
    assert engine.done
    clock.advance(3600)
    store.instances.put(instance("younger"))
    engine.done = False
    assert [change.id for change in reader.feed.read(BEGINNING).items] == ["younger"]
    assert engine.done


def test_what_is_due_of_feed_and_records_goes_in_one_run(store, clock):
    store.retention.set(Policy("feed", older_than=HOUR))
    store.retention.set(Policy("instances", terminal_older_than=HOUR))
    store.instances.put(instance("a", history=(HistoryEntry("s", "done", clock.now()),)))
    clock.advance(3600)
    done = store.retention.run()
    assert (done.families["feed"], done.families["instances"]) == (1, 1)
    assert [change.op for change in store.feed.read().items] == ["delete"]
