"""A checkpoint is a consumer's position, kept until it is deleted."""

import pytest

from stateroom import BEGINNING, LATEST
from stateroom.errors import InvalidArgument, NotFound


def test_a_checkpoint_is_kept_overwritten_and_deleted(store, other, clock):
    store.feed.emit("note", 1, id="r")
    (change,) = store.feed.read().items
    made = store.checkpoints.set("c", change.position)
    assert (made.name, made.position, made.updated_at) == ("c", change.position, clock.now())
    assert other.checkpoints.get("c") == other.checkpoints.find("c") == change.position
    clock.advance(1)
    store.checkpoints.set("c", change.before)  # it may go back
    assert other.checkpoints.get("c") == change.before
    assert other.checkpoints.list()[0].updated_at == clock.now()
    assert store.checkpoints.delete("c") is True
    assert store.checkpoints.delete("c") is False
    assert other.checkpoints.find("c") is None
    with pytest.raises(NotFound):
        other.checkpoints.get("c")


def test_checkpoints_are_listed_by_name(store):
    assert store.checkpoints.list() == ()
    for name in ("b", "a/2", "a", "ü"):
        store.checkpoints.set(name, BEGINNING)
    assert [one.name for one in store.checkpoints.list()] == ["a", "a/2", "b", "ü"]


def test_more_checkpoints_than_one_read_gives(store):
    for number in range(1001):
        store.checkpoints.set(f"c{number:04}", BEGINNING)
    assert [one.name for one in store.checkpoints.list()] == [f"c{number:04}" for number in range(1001)]


def test_the_beginning_stays_what_it_is_and_the_latest_is_fixed(store):
    store.feed.emit("note", 1)
    store.checkpoints.set("first", BEGINNING)
    store.checkpoints.set("last", LATEST)
    store.feed.emit("note", 2)
    assert store.checkpoints.get("first") == BEGINNING
    assert [change.record for change in store.feed.read(store.checkpoints.get("last")).items] == [2]


@pytest.mark.parametrize("name", ["", " ", "a\0b", "x" * 257, 5, None])
def test_names_that_are_refused(store, name):
    for call in (store.checkpoints.get, store.checkpoints.find, store.checkpoints.delete):
        with pytest.raises(InvalidArgument):
            call(name)
    with pytest.raises(InvalidArgument):
        store.checkpoints.set(name, BEGINNING)
    assert store.checkpoints.list() == ()


def test_checkpoints_belong_to_a_namespace_and_survive_reopening(store, database, reopen):
    at = store.feed.latest()
    store.checkpoints.set("c", at)
    assert store.namespace("other").checkpoints.find("c") is None
    assert reopen().checkpoints.get("c") == at


def test_a_checkpoint_moves_with_the_transaction_it_is_set_in(store):
    """A consumer that writes its results and its checkpoint at once handles every change exactly once."""
    store.feed.emit("note", 1, id="c/in")
    (change,) = store.feed.read().items
    with pytest.raises(RuntimeError), store.transaction() as tx:
        tx.checkpoints.set("c", change.position)
        raise RuntimeError
    assert store.checkpoints.find("c") is None
    with store.transaction() as tx:
        tx.feed.emit("result", 2, id="c/out")
        tx.checkpoints.set("c", change.position)
        assert tx.checkpoints.get("c") == change.position
    assert store.checkpoints.get("c") == change.position


def test_checkpoints_are_no_changes(store):
    store.checkpoints.set("c", BEGINNING)
    store.checkpoints.delete("c")
    assert store.feed.read().items == ()
