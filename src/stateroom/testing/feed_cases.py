"""The promises of the feed, sentence by sentence (docs/design/feed.md), over any store."""

import threading
from datetime import timedelta
from typing import Any

import pytest

from ..errors import Compacted, InvalidArgument, NotFound
from ..families.instances.record import Instance
from ..feed.positions import BEGINNING, LATEST
from ..retention.policy import Policy
from .family_harness import StoreTests

_PATIENCE = 30.0


def _emit(store: Any, *numbers: int) -> None:
    for number in numbers:
        store.feed.emit("note", number, id=f"r/{number}")


def _records(store: Any, after: str = BEGINNING, limit: int = 100) -> list[Any]:
    """Return what all changes after a position are about, read page by page."""
    records: list[Any] = []
    while items := (page := store.feed.read(after, limit=limit)).items:
        records += [change.record for change in items]
        after = page.next
    return records


class Promises(StoreTests):
    """Ordered, unique, atomic, reliable, resumable, bookmarkable; and what is gone is said aloud."""

    def test_changes_of_a_root_come_in_commit_order(self, store: Any) -> None:
        _emit(store, *range(50))
        assert _records(store) == list(range(50))
        assert _records(store, limit=7) == list(range(50))

    def test_reading_twice_gives_the_same(self, store: Any) -> None:
        _emit(store, *range(9))
        assert store.feed.read() == store.feed.read()

    def test_no_change_comes_twice(self, store: Any) -> None:
        _emit(store, *range(20))
        positions = [change.position for change in store.feed.read().items]
        assert len(set(positions)) == 20

    def test_changes_of_a_transaction_come_all_or_none(self, store: Any) -> None:
        with store.transaction() as tx:
            tx.feed.emit("note", 1, id="r")
            tx.instances.put(Instance("r/a", "w"))
            assert store.feed.read().items == ()
        assert [change.family for change in store.feed.read().items] == ["note", "instances"]
        with pytest.raises(InvalidArgument), store.transaction() as tx:  # noqa: PT012
            tx.feed.emit("note", 2, id="r")
            tx.feed.emit("instances", 3, id="r")
        assert len(store.feed.read().items) == 2

    def test_every_change_of_a_record_is_there_deletions_too(self, store: Any) -> None:
        for _ in range(5):
            store.instances.put(Instance("r/a", "w"))
        store.instances.delete("r/a")
        changes = store.feed.read().items
        assert [change.op for change in changes] == ["create", *["update"] * 4, "delete"]
        assert [change.previous for change in changes[1:]] == [change.record for change in changes[:-1]]

    def test_no_writer_makes_another_ones_change_vanish(self, store: Any) -> None:
        def write(writer: int) -> None:
            for number in range(20):
                store.feed.emit("note", (writer, number), id=f"r{writer}")

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
        records: list[Any] = []
        after = BEGINNING
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            page = store.feed.read(after, limit=3)
            records += [change.record for change in page.items]
            after = page.next
        records += _records(store, after)
        assert sorted(map(tuple, records)) == [(writer, number) for writer in range(4) for number in range(20)]
        for writer in range(4):
            assert [record[1] for record in records if record[0] == writer] == list(range(20))

    def test_each_position_goes_on_with_the_next_change(self, store: Any) -> None:
        _emit(store, *range(10))
        for number, change in enumerate(store.feed.read().items):
            assert _records(store, change.position) == list(range(number + 1, 10))
            assert _records(store, change.before) == list(range(number, 10))

    def test_what_is_filtered_out_is_behind_the_next_position(self, store: Any) -> None:
        _emit(store, *range(10))
        page = store.feed.read(ids=["r/3"])
        assert [change.record for change in page.items] == [3]
        assert store.feed.read(page.next).items == ()

    def test_the_beginning_and_the_latest_are_positions(self, store: Any) -> None:
        _emit(store, 1)
        end = store.feed.latest()
        assert store.feed.read(LATEST).items == store.feed.read(end).items == ()
        _emit(store, 2)
        assert _records(store, end) == [2]
        assert _records(store, BEGINNING) == [1, 2]

    def test_positions_that_are_none_are_refused(self, store: Any) -> None:
        for bad in ("", "nowhere", "p1.AAAA", None, 7):
            with pytest.raises(InvalidArgument):
                store.feed.read(bad)

    def test_a_checkpoint_keeps_a_position(self, store: Any) -> None:
        _emit(store, 1, 2)
        store.checkpoints.set("consumer", store.feed.read(limit=1).next)
        assert _records(store, store.checkpoints.get("consumer")) == [2]

    def test_a_waiting_reader_is_woken_by_a_match(self, store: Any) -> None:
        at = store.feed.latest()
        results: list[Any] = []

        def read() -> None:
            changes = store.feed.read(at, ids=["r/5"], wait=_PATIENCE)
            while not changes.items:  # the other change was there already, and was skipped at once
                changes = store.feed.read(changes.next, ids=["r/5"], wait=_PATIENCE)
            results.append(changes)

        reader = threading.Thread(target=read)
        reader.start()
        _emit(store, 4, 5)
        reader.join(_PATIENCE)
        assert [change.record for change in results[0].items] == [5]

    def test_a_watcher_delivers_every_change(self, store: Any) -> None:
        records: list[Any] = []
        finished = threading.Event()

        def handle(change: Any) -> None:
            records.append(change.record)
            if change.record == 19:
                finished.set()

        watcher = store.watch("suite", handle)
        watcher.start()
        _emit(store, *range(20))
        assert finished.wait(_PATIENCE)
        watcher.stop()
        assert records == list(range(20))

    def test_what_is_no_longer_retained_is_said_aloud(self, store: Any) -> None:
        _emit(store, 1, 2)
        early = store.feed.read(limit=1).items[0]
        store.retention.set(Policy("feed", older_than=timedelta(0)))
        store.retention.run()
        _emit(store, 3)
        for position in (early.before, early.position):
            with pytest.raises(Compacted) as error:
                store.feed.read(position)
            assert _records(store, str(error.value.first)) == [3]

    def test_the_beginning_is_never_compacted(self, store: Any) -> None:
        _emit(store, 1, 2)
        store.retention.set(Policy("feed", older_than=timedelta(0)))
        store.retention.run()
        _emit(store, 3)
        assert _records(store, BEGINNING) == [3]

    def test_a_checkpoint_holds_back_what_its_consumer_has_not_seen(self, store: Any) -> None:
        _emit(store, 1, 2)
        store.checkpoints.set("consumer", store.feed.read(limit=1).next)
        store.retention.set(Policy("feed", older_than=timedelta(0)))
        store.retention.run()
        assert _records(store) == [2]

    def test_a_record_is_found_as_it_is_though_its_changes_are_pruned(self, store: Any) -> None:
        first = store.instances.put(Instance("r/a", "w"))
        before = store.feed.latest()
        now = store.instances.put(Instance("r/a", "w", status="running"))
        after = store.feed.latest()
        store.retention.set(Policy("feed", older_than=timedelta(0)))
        store.retention.run()
        for when in (after, LATEST, now.updated_at, now.updated_at + timedelta(hours=1)):
            assert store.instances.as_of("r/a", when) == now
        for when in (before, BEGINNING, first.updated_at - timedelta(hours=1)):
            with pytest.raises(NotFound):
                store.instances.as_of("r/a", when)
