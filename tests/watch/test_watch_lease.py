"""Who loses the lease writes nothing more and gives nothing up: the next holder handles the change again."""

import threading

import pytest

from stateroom import LATEST
from stateroom.watch import loop
from watch.test_watch import PATIENCE, Handler, emit, until

LEASE = "w/\x01watch"


def taken(store, clock):
    """Let the lease of watcher "w" run out, and another process take it."""
    clock.advance(loop.LEASE_SECONDS + 1)
    return store.leases.acquire(LEASE, "another process", 1000)


def test_a_change_in_hand_is_not_given_up_when_the_lease_is_lost(store, other, clock):
    """Before there is any checkpoint: nothing but the watcher itself could have told where it stood."""
    lease = []

    def fails(change, calls):
        if calls == 1:
            lease.append(taken(other, clock))
        return calls == 1

    handler = Handler(fails)
    emit(store, "r/1", "r/2")
    watcher = store.watch("w", handler, on_error="skip", max_retries=1000, backoff=(0, 0))
    watcher.start()
    until(lambda: watcher.stats().state == "waiting" and lease)
    assert handler.calls == 1
    assert store.dead_letters.list() == ()
    assert store.checkpoints.find("w") is None
    other.leases.release(lease[0])
    assert handler.wait(2) == ["r/1", "r/2"]
    watcher.stop()
    assert (watcher.stats().skipped, store.dead_letters.list()) == (0, ())


def test_the_last_call_of_a_handler_that_lost_the_lease_leaves_no_letter(store, other, clock):
    lease = []

    def fails(change, calls):
        if not lease:
            lease.append(taken(other, clock))
        return calls == 1

    handler = Handler(fails)
    emit(store, "r/1")
    watcher = store.watch("w", handler, on_error="skip", max_retries=0, backoff=(0, 0))
    watcher.start()
    until(lambda: watcher.stats().state == "waiting" and lease)
    assert store.dead_letters.list() == ()
    assert store.checkpoints.find("w") is None
    other.leases.release(lease[0])
    assert handler.wait(1) == ["r/1"]
    watcher.stop()


def test_a_lease_lost_while_a_letter_is_handled_again_leaves_the_letter(store, other, clock):
    lease = []

    def fails(change, calls):
        if calls == 2:
            lease.append(taken(other, clock))
        return calls < 3

    handler = Handler(fails)
    watcher = store.watch("w", handler, on_error="skip", max_retries=0, backoff=(0, 0))
    watcher.start()
    emit(store, "r/1")
    until(lambda: len(store.dead_letters.list()) == 1)
    (letter,) = store.dead_letters.list()
    store.dead_letters.retry(letter)
    until(lambda: watcher.stats().state == "waiting" and lease)
    (kept,) = store.dead_letters.list()
    assert (kept.retry, kept.attempts) == (True, letter.attempts)
    other.leases.release(lease[0])
    handler.wait(1)
    until(lambda: store.dead_letters.list() == ())
    watcher.stop()


def test_a_stop_while_a_letter_is_handled_again_leaves_the_letter(store):
    handler = Handler(lambda change, calls: True)
    watcher = store.watch("w", handler, on_error="skip", max_retries=0, backoff=(0, 0))
    watcher.start()
    emit(store, "r/1")
    until(lambda: len(store.dead_letters.list()) == 1)
    watcher.stop()
    (letter,) = store.dead_letters.list()
    store.dead_letters.retry(letter)
    handler = Handler(lambda change, calls: True)
    again = store.watch("w", handler, on_error="block", backoff=(1000, 1000))
    again.start()
    handler.wait(1, "calls")
    again.stop()
    (kept,) = store.dead_letters.list()
    assert (kept.retry, kept.attempts) == (True, letter.attempts)


def test_the_lease_is_kept_between_the_calls_of_a_failing_handler(store, other, clock, monkeypatch):
    """A pause may be far longer than the lease lasts."""
    monkeypatch.setattr(loop, "_SLICE_SECONDS", 0.01)
    handler = Handler(lambda change, calls: True)
    watcher = store.watch("w", handler, backoff=(1000, 1000))
    watcher.start()
    emit(store, "r/1")
    handler.wait(1, "calls")
    first = store.leases.holder(LEASE)
    for _ in range(5):
        before = store.leases.holder(LEASE)
        assert before.token == first.token
        clock.advance(loop.LEASE_SECONDS / 2)
        until(lambda before=before: store.leases.holder(LEASE).expires_at > before.expires_at)
    watcher.stop()
    assert handler.calls == 1


def test_a_watcher_that_nobody_replaced_goes_on_from_where_it_stood(store, clock):
    """Its lease ran out, but nobody took it: what it has handled since its checkpoint is not handled again."""
    handler = Handler()
    watcher = store.watch("w", handler, checkpoint_every=100)
    watcher.start()
    emit(store, "r/1", "r/2")
    handler.wait(2)
    clock.advance(loop.LEASE_SECONDS + 1)
    emit(store, "r/3")
    assert handler.wait(3) == ["r/1", "r/2", "r/3"]
    watcher.stop()


def test_a_clock_that_was_set_back_does_not_keep_a_watcher_from_renewing(store, clock):
    handler = Handler()
    watcher = store.watch("w", handler)
    watcher.start()
    emit(store, "r/1")
    handler.wait(1)
    first = store.leases.holder(LEASE)
    clock._now -= first.expires_at - first.expires_at.replace(year=first.expires_at.year - 1)
    clock._moved += loop.LEASE_SECONDS / 2  # time goes on all the same
    until(lambda: store.leases.holder(LEASE).expires_at < first.expires_at)
    watcher.stop()


@pytest.mark.parametrize("length", [249, 250, 256])
def test_a_name_may_be_as_long_as_any_name(store, length):
    handler = Handler()
    name = "w" * length
    watcher = store.watch(name, handler)
    watcher.start()
    emit(store, "r/1", "r/2")
    assert handler.wait(2) == ["r/1", "r/2"]
    until(lambda: store.checkpoints.find(name) is not None)
    assert watcher.stats().state == "running"
    watcher.stop()


def test_a_watcher_from_the_end_that_saw_nothing_goes_on_from_there(store):
    emit(store, "r/before")
    first = store.watch("mailer", Handler(), start=LATEST)
    first.start()
    first.stop()
    assert store.checkpoints.find("mailer") is not None
    emit(store, "r/meanwhile")
    handler = Handler()
    second = store.watch("mailer", handler, start=LATEST)
    second.start()
    emit(store, "r/after")
    assert handler.wait(2) == ["r/meanwhile", "r/after"]
    second.stop()


def test_also_one_that_keeps_its_own_checkpoints(store):
    first = store.watch("mailer", Handler(), start=LATEST, checkpoint_every=0)
    first.start()
    first.stop()
    emit(store, "r/meanwhile")
    handler = Handler()
    second = store.watch("mailer", handler, start=LATEST, checkpoint_every=0)
    second.start()
    assert handler.wait(1) == ["r/meanwhile"]
    second.stop()


def test_an_ephemeral_watcher_from_the_end_leaves_nothing(store):
    watcher = store.watch("w", Handler(), start=LATEST, ephemeral=True)
    watcher.start()
    watcher.stop()
    assert store.checkpoints.list() == ()


def test_an_iterator_from_the_end_that_saw_nothing_goes_on_from_there(database, store):
    reader = database.open()
    entered = threading.Event()
    changes = reader.feed.follow("mailer", start=LATEST)
    ids = []

    def read():
        entered.set()
        ids.append(next(iter(changes)).id)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    until(lambda: store.checkpoints.find("mailer") is not None)
    emit(store, "r/1")
    thread.join(PATIENCE)
    assert ids == ["r/1"]
    emit(store, "r/2")
    again = iter(store.feed.follow("mailer", start=LATEST))
    assert [next(again).id, next(again).id] == ["r/1", "r/2"]  # the first was in hand
