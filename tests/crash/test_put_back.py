"""A backup put in the place of the live file: what was seen after it was made is never taken for what comes instead."""

import contextlib
import os
import threading

import pytest

import stateroom
from stateroom import BEGINNING, Instance
from stateroom.errors import InvalidArgument


def put_back(path, copy):
    """As an operator does it: stop, move the copy in, start."""
    for suffix in ("-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    os.replace(copy, path)


@contextlib.contextmanager
def _running(watcher):
    watcher.start()
    try:
        yield
    finally:
        watcher.stop()


@pytest.mark.parametrize("known_before", [True, False], ids=["positions given before", "none given before"])
def test_positions_from_after_the_backup_are_refused(tmp_path, known_before):
    path, copy = str(tmp_path / "runs.db"), str(tmp_path / "copy.db")
    with stateroom.open(path) as store:
        store.instances.put(Instance("a", "wf"))
        before = store.feed.latest() if known_before else None
        store.backup(copy)
        store.instances.put(Instance("lost", "wf"))
        after = store.feed.latest()
        store.checkpoints.set("consumer", after)
    put_back(path, copy)
    with stateroom.open(path) as store:
        store.instances.put(Instance("instead", "wf"))
        store.instances.put(Instance("more", "wf"))
        with pytest.raises(InvalidArgument, match="after the backup"):
            store.feed.read(after=after)
        if before is not None:
            assert [change.id for change in store.feed.read(after=before).items] == ["instead", "more"]
        assert store.checkpoints.find("consumer") is None
        assert store.check() == []


def test_a_consumer_goes_on_from_its_checkpoint_in_the_backup(tmp_path):
    path, copy = str(tmp_path / "runs.db"), str(tmp_path / "copy.db")
    with stateroom.open(path) as store:
        for number in range(3):
            store.instances.put(Instance(f"a{number}", "wf"))
        position = store.feed.read(after=BEGINNING, limit=2).next
        store.checkpoints.set("consumer", position)
        store.backup(copy)
    put_back(path, copy)
    with stateroom.open(path) as store:
        store.instances.put(Instance("new", "wf"))
        assert [each.id for each in store.feed.read(after=store.checkpoints.get("consumer")).items] == ["a2", "new"]


def test_a_backup_of_a_backup_knows_both(tmp_path):
    paths = [str(tmp_path / f"{number}.db") for number in range(4)]
    positions, late = [], []
    for number in range(3):
        with stateroom.open(paths[number]) as store:
            store.instances.put(Instance(f"a{number}", "wf"))
            positions.append(store.feed.latest())
            store.backup(paths[number + 1])
            store.instances.put(Instance(f"late{number}", "wf"))
            late.append(store.feed.latest())
    with stateroom.open(paths[3]) as store:
        store.instances.put(Instance("a3", "wf"))
        for number in range(3):
            expected = [f"a{each}" for each in range(number + 1, 4)]
            assert [each.id for each in store.feed.read(after=positions[number]).items] == expected
            with pytest.raises(InvalidArgument):
                store.feed.read(after=late[number])
    with stateroom.open(paths[0]) as store, pytest.raises(InvalidArgument):
        store.feed.read(after=positions[2])


def test_a_watcher_that_was_further_than_the_backup_goes_on_from_where_it_was_made(tmp_path):
    path, copy = str(tmp_path / "runs.db"), str(tmp_path / "copy.db")
    with stateroom.open(path) as store:
        store.instances.put(Instance("a", "wf"))
        store.feed.latest()
        store.backup(copy)
        for number in range(9):
            store.instances.put(Instance(f"lost{number}", "wf"))
        late = store.feed.latest()
    with stateroom.open(copy) as store:
        seen, all_seen = [], threading.Event()

        def handler(change):
            seen.append(change.id)
            if len(seen) == 20:
                all_seen.set()

        for number in range(20):  # more than were lost: their numbers stand for other commits
            store.instances.put(Instance(f"new{number}", "wf"))
        with _running(store.watch("w", handler, start=late)):
            assert all_seen.wait(30)
        assert seen == [f"new{number}" for number in range(20)]


def test_several_parts(tmp_path):
    path, copy = str(tmp_path / "runs.db"), str(tmp_path / "copy.db")
    with stateroom.open(path, parts=3) as store:
        for number in range(9):
            store.instances.put(Instance(f"a{number}", "wf"))
        before = store.feed.latest()
        store.backup(copy)
        store.instances.put(Instance("late", "wf"))
        after = store.feed.latest()
    with stateroom.open(copy) as store:
        assert not store.feed.read(after=before).items
        with pytest.raises(InvalidArgument):
            store.feed.read(after=after)
