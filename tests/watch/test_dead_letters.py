"""What a watcher that skips gave up on is kept until somebody decides."""

import threading
from datetime import timedelta

import pytest

from stateroom import Policy
from stateroom.errors import InvalidArgument, NotFound
from watch.test_watch import Handler, emit, until


def skipping(store, handler, name="w"):
    watcher = store.watch(name, handler, on_error="skip", max_retries=0, backoff=(0, 0))
    watcher.start()
    return watcher


def failed(store, *ids, name="w"):
    """Letters for these changes, of a watcher that has been stopped."""
    emit(store, *ids)
    watcher = skipping(store, Handler(lambda change, calls: True), name)
    until(lambda: watcher.stats().skipped == len(ids))
    watcher.stop()
    return store.dead_letters.list(name)


def test_letters_are_listed_by_watcher_oldest_first_and_deleted(store, other):
    mine = failed(store, "r/a", "r/b")
    theirs = failed(store, name="v") if store.dead_letters.list("v") else ()
    assert theirs == ()
    assert [letter.key for letter in mine] == [("r/a",), ("r/b",)]
    assert other.dead_letters.list() == mine
    assert other.dead_letters.list("nobody") == ()
    assert store.dead_letters.delete(mine[0]) is True
    assert store.dead_letters.delete(mine[0]) is False
    assert other.dead_letters.list("w") == mine[1:]
    with pytest.raises(NotFound):
        store.dead_letters.retry(mine[0])


def test_a_letter_that_is_handed_back_is_handled_again_and_gone(store, other):
    letters = failed(store, "r/a", "r/b")
    handler = Handler()
    watcher = skipping(store, handler)
    emit(store, "r/c")
    assert handler.wait(1) == ["r/c"]
    other.dead_letters.retry(letters[1])
    assert handler.wait(2) == ["r/c", "r/b"]
    until(lambda: other.dead_letters.list("w") == letters[:1])
    watcher.stop()


def test_a_letter_that_fails_again_stays_with_its_new_error(store):
    (letter,) = failed(store, "a")
    store.dead_letters.retry(letter)
    assert store.dead_letters.list()[0].retry is True
    watcher = skipping(store, Handler(lambda change, calls: True))
    until(lambda: not store.dead_letters.list()[0].retry)
    watcher.stop()
    (kept,) = store.dead_letters.list()
    assert (kept.id, kept.attempts) == (letter.id, 2)


def test_a_letter_whose_change_is_no_longer_retained_says_so(store, clock):
    (letter,) = failed(store, "a")
    clock.advance(10)
    store.retention.set(Policy("feed", older_than=timedelta(seconds=1)))
    store.retention.run()
    store.dead_letters.retry(letter)
    handler = Handler()
    watcher = skipping(store, handler)
    until(lambda: not store.dead_letters.list()[0].retry)
    watcher.stop()
    assert store.dead_letters.list()[0].error.startswith("Compacted")
    assert handler.calls == 0


def test_a_letter_and_the_checkpoint_past_its_change_are_one_commit(store):
    (letter,) = failed(store, "a")
    assert store.checkpoints.get("w") == letter.position
    assert store.feed.read(letter.before).items[0].id == "a"


def test_what_is_no_letter_is_refused(store):
    for call in (store.dead_letters.retry, store.dead_letters.delete):
        with pytest.raises(InvalidArgument):
            call("letter")
    with pytest.raises(InvalidArgument):
        store.dead_letters.list(" ")


def test_letters_are_no_changes(store):
    before = len(failed(store, "a"))
    assert before == 1
    assert [change.family for change in store.feed.read().items] == ["note"]


def test_an_ephemeral_watcher_that_skips_leaves_letters_and_no_checkpoint(store):
    done = threading.Event()

    def refuse(change, calls):
        done.set()
        return True

    watcher = store.watch("w", Handler(refuse), on_error="skip", max_retries=0, backoff=(0, 0), ephemeral=True)
    watcher.start()
    emit(store, "a")
    until(lambda: len(store.dead_letters.list("w")) == 1)
    watcher.stop()
    assert store.checkpoints.list() == ()
