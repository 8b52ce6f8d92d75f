"""A watcher's handler is given every change that matches, at least once, in order, from where it stopped."""

import threading

import pytest

from stateroom import BEGINNING, LATEST, Instance, keys
from stateroom.errors import AlreadyExists, Compacted, InvalidArgument, Timeout

PATIENCE = 30


class Handler:
    """Keeps what it is given; raises where it is told to; tells who waits."""

    def __init__(self, fails=None, hold=None):
        self.seen = []
        self.calls = 0
        self._fails = fails or (lambda change, calls: False)
        self._hold = hold
        self._told = threading.Condition()

    def __call__(self, change):
        with self._told:
            self.calls += 1
            self._told.notify_all()
            failing = self._fails(change, self.calls)
        if self._hold is not None:
            assert self._hold.wait(PATIENCE)
        if failing:
            raise ValueError(f"cannot handle {change.id}")
        with self._told:
            self.seen.append(change)
            self._told.notify_all()

    def wait(self, count, what="seen"):
        """Wait until so many were handled, and give their ids."""
        with self._told:
            size = (lambda: len(self.seen)) if what == "seen" else (lambda: self.calls)
            assert self._told.wait_for(lambda: size() >= count, PATIENCE), [one.id for one in self.seen]
            return [change.id for change in self.seen]


def emit(store, *ids):
    for id in ids:
        store.feed.emit("note", {"of": id}, id=id)


SEVERAL = ("r/1", "s", "r/2", "t/1", "u", "t/2", "r/3")
"""Ids of several roots: where there are several parts, only what shares a root is in order."""


def in_order(found, written):
    """Everything once, and what shares a root as it was written."""
    assert sorted(found) == sorted(written)
    for root in {keys.root(id) for id in written}:
        of_root = [id for id in written if keys.root(id) == root]
        assert [id for id in found if keys.root(id) == root] == of_root


def until(condition):
    """Look again and again, for what a watcher says of itself."""
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come to be")


def test_every_change_once_in_order_and_again_only_what_is_new(store, other):
    handler = Handler()
    emit(store, "r/1", "r/2")
    watcher = store.watch("w", handler)
    assert watcher.stats().state == "idle"
    assert handler.calls == 0
    watcher.start()
    handler.wait(2)
    emit(other, "r/3")
    assert handler.wait(3) == ["r/1", "r/2", "r/3"]
    watcher.stop()
    assert watcher.stats().state == "stopped"
    stats = watcher.stats()
    assert (stats.handled, stats.skipped, stats.retries, stats.error) == (3, 0, 0, None)
    assert stats.checkpoint == stats.position == handler.seen[-1].position == store.checkpoints.get("w")
    emit(store, "r/4")
    watcher.start()
    assert handler.wait(4) == ["r/1", "r/2", "r/3", "r/4"]
    watcher.stop()


def test_where_it_starts(store):
    emit(store, *SEVERAL)
    first = store.feed.read(limit=3)
    rest = [id for id in SEVERAL if id not in {change.id for change in first.items}]
    later = []
    for name, start, there in (("b", BEGINNING, SEVERAL), ("p", first.next, rest), ("l", LATEST, [])):
        handler = Handler()
        watcher = store.watch(name, handler, start=start)
        watcher.start()
        emit(store, f"new-{name}")
        wanted = [*there, *later, f"new-{name}"] if start != LATEST else [f"new-{name}"]
        later.append(f"new-{name}")
        in_order(handler.wait(len(wanted)), wanted)
        watcher.stop()
        assert handler.calls == len(wanted)


def test_a_checkpoint_beats_the_start(store):
    emit(store, *SEVERAL)
    first = store.feed.read(limit=3)
    store.checkpoints.set("w", first.next)
    handler = Handler()
    watcher = store.watch("w", handler, start=LATEST)
    watcher.start()
    in_order(handler.wait(4), [id for id in SEVERAL if id not in {change.id for change in first.items}])
    watcher.stop()


def test_a_position_beyond_the_end_is_the_end(tmp_path):
    """As after a database was restored from an old backup."""
    import stateroom

    with stateroom.open(tmp_path / "a.db") as store:
        emit(store, "a")
        store.feed.latest()
        store.backup(tmp_path / "b.db")
        emit(store, "b", "c")
        late = store.feed.latest()
    with stateroom.open(tmp_path / "b.db") as store:
        handler = Handler()
        watcher = store.watch("w", handler, start=late)
        watcher.start()
        emit(store, "new")
        assert handler.wait(1) == ["new"]


def test_an_ephemeral_watcher_leaves_nothing_behind(store):
    emit(store, "a")
    handler = Handler()
    watcher = store.watch("w", handler, ephemeral=True)
    watcher.start()
    handler.wait(1)
    with pytest.raises(InvalidArgument):
        watcher.checkpoint()
    watcher.seek(BEGINNING)
    assert handler.wait(2) == ["a", "a"]
    watcher.stop()
    assert store.checkpoints.list() == ()


@pytest.mark.parametrize("running", [True, False])
def test_seek_goes_back_and_forth(store, running):
    emit(store, *SEVERAL)
    first = store.feed.read(limit=3)
    handler = Handler()
    watcher = store.watch("w", handler)
    watcher.start()
    in_order(handler.wait(7), SEVERAL)
    if not running:
        watcher.stop()
    watcher.seek(first.next)
    if not running:
        assert store.checkpoints.get("w") == first.next
        watcher.start()
    again = [id for id in SEVERAL if id not in {change.id for change in first.items}]
    in_order(handler.wait(11)[7:], again)
    watcher.seek(LATEST)
    emit(store, "v")
    assert handler.wait(12)[11:] == ["v"]
    with pytest.raises(InvalidArgument):
        watcher.seek("nowhere")
    watcher.stop()


def test_checkpoints_only_when_told_to(store):
    emit(store, "a", "b")
    handler = Handler()
    watcher = store.watch("w", handler, checkpoint_every=0)
    watcher.start()
    handler.wait(2)
    until(lambda: watcher.stats().handled == 2)
    assert store.checkpoints.find("w") is None
    watcher.stop()
    watcher.start()  # what has no checkpoint is delivered again only to another watcher
    saved = watcher.checkpoint()
    assert saved.position == store.checkpoints.get("w") == handler.seen[1].position
    back = watcher.checkpoint(handler.seen[0].position)
    assert back.position == store.checkpoints.get("w")
    watcher.stop()


def test_checkpoints_every_so_many(store):
    handler = Handler()
    watcher = store.watch("w", handler, checkpoint_every=3)
    watcher.start()
    emit(store, "a", "b", "c", "d")
    handler.wait(4)
    until(lambda: store.checkpoints.find("w") == handler.seen[2].position)
    watcher.stop()


def test_blocked_it_tries_for_ever_and_delivers_nothing_else(store):
    handler = Handler(lambda change, calls: change.id == "r/bad" and calls < 8)
    emit(store, "r/good", "r/bad", "r/after")
    watcher = store.watch("w", handler, backoff=(0, 0))
    watcher.start()
    assert handler.wait(3) == ["r/good", "r/bad", "r/after"]
    until(lambda: watcher.stats().handled == 3)
    assert watcher.stats().retries == 6
    assert store.dead_letters.list() == ()
    watcher.stop()


def test_stopped_while_blocked_it_sees_the_change_again(store):
    handler = Handler(lambda change, calls: True)
    emit(store, "bad")
    watcher = store.watch("w", handler, backoff=(100, 100))
    watcher.start()
    handler.wait(1, "calls")
    watcher.stop()
    assert store.checkpoints.find("w") is None
    assert "cannot handle bad" in str(watcher.stats().error)
    again = Handler()
    watcher = store.watch("w", again)
    watcher.start()
    assert again.wait(1) == ["bad"]
    watcher.stop()


@pytest.mark.parametrize("retries", [0, 2])
def test_skipping_calls_the_handler_once_and_then_as_often_as_told(store, retries):
    handler = Handler(lambda change, calls: change.id == "r/bad")
    emit(store, "r/bad", "r/good")
    watcher = store.watch("w", handler, on_error="skip", max_retries=retries, backoff=(0, 0))
    watcher.start()
    assert handler.wait(1) == ["r/good"]
    until(lambda: watcher.stats().handled == 1)
    watcher.stop()
    assert handler.calls == 1 + retries + 1
    assert (watcher.stats().skipped, watcher.stats().handled) == (1, 1)
    (letter,) = store.dead_letters.list("w")
    assert (letter.key, letter.attempts, letter.op, letter.family) == (("r/bad",), 1 + retries, "emit", "note")
    assert letter.error == "ValueError: cannot handle r/bad"
    assert store.feed.read(letter.before).items[0].id == "r/bad"


def test_stop_waits_for_the_handler_or_says_that_it_did_not(store):
    hold = threading.Event()
    handler = Handler(hold=hold)
    emit(store, "r/a", "r/b")
    watcher = store.watch("w", handler)
    watcher.start()
    handler.wait(1, "calls")
    with pytest.raises(Timeout):
        watcher.stop(0.01)
    assert watcher.stats().state == "stopping"
    hold.set()
    watcher.stop(PATIENCE)
    assert handler.wait(1) == ["r/a"]
    assert store.checkpoints.get("w") == handler.seen[0].position


def test_stopping_is_idempotent_and_an_idle_one_can_be_stopped(store):
    watcher = store.watch("w", Handler())
    watcher.stop()
    watcher.stop()
    assert watcher.stats().state == "stopped"
    watcher.start()
    with pytest.raises(AlreadyExists):
        watcher.start()
    watcher.stop()


@pytest.mark.parametrize("batch", [1, 2, 1000])
def test_batches_of_any_size_deliver_the_same(store, batch):
    handler = Handler()
    emit(store, *SEVERAL)
    watcher = store.watch("w", handler, batch=batch)
    watcher.start()
    in_order(handler.wait(7), SEVERAL)
    watcher.stop()
    assert handler.calls == 7


def test_a_filter_that_lets_little_through_still_moves_the_checkpoint(store):
    with store.transaction() as tx:
        for number in range(2500):
            tx.feed.emit("noise", number, id="r")
    emit(store, "match")
    handler = Handler()
    watcher = store.watch("w", handler, families=["note"], ops=["emit"])
    watcher.start()
    assert handler.wait(1) == ["match"]
    store.feed.emit("noise", 1)
    until(lambda: store.feed.read(store.checkpoints.find("w") or BEGINNING).items == ())
    watcher.stop()
    assert len(handler.seen) == 1


def test_a_handler_may_write_to_the_store(store, database):
    if database.asynchronous:
        pytest.skip("here the handler is a coroutine function, tested beside this")
    done = threading.Event()

    def handler(change):
        number = int(change.id[2:])
        if number < 5:
            emit(store, f"r/{number + 1}")
        else:
            done.set()

    watcher = store.watch("w", handler)
    watcher.start()
    emit(store, "r/1")
    assert done.wait(PATIENCE)
    watcher.stop()
    assert [change.id for change in store.feed.read().items] == ["r/1", "r/2", "r/3", "r/4", "r/5"]


def test_a_name_is_live_once_in_a_store(store):
    first = store.watch("w", Handler())
    with pytest.raises(AlreadyExists):
        store.watch("w", Handler())
    store.watch("v", Handler())
    assert len(store.watchers()) == 2
    first.stop()
    assert len(store.watchers()) == 1
    store.watch("w", Handler())


def test_of_several_stores_one_is_active_and_another_takes_over(store, other):
    first, second = Handler(), Handler()
    one = store.watch("w", first)
    one.start()
    emit(store, "r/1")
    first.wait(1)
    two = other.watch("w", second)
    two.start()
    until(lambda: two.stats().state == "waiting")
    emit(store, "r/2")
    assert first.wait(2) == ["r/1", "r/2"]
    one.stop()
    emit(store, "r/3")
    assert second.wait(1) == ["r/3"]
    assert two.stats().state == "running"
    two.stop()
    assert len(first.seen) == 2


def test_a_lease_that_was_taken_keeps_the_checkpoint_of_the_one_who_has_it(store, clock):
    hold = threading.Event()
    handler = Handler(hold=hold)
    emit(store, "a")
    watcher = store.watch("w", handler)
    watcher.start()
    handler.wait(1, "calls")
    clock.advance(60)  # the process was paused for long, and another one took over
    store.leases.acquire("w/\x01watch", "another", 1000)
    store.checkpoints.set("w", BEGINNING)
    hold.set()
    until(lambda: watcher.stats().state == "waiting")
    watcher.stop()
    assert store.checkpoints.get("w") == BEGINNING


def test_compacted_ends_it_aloud(store, clock):
    from datetime import timedelta

    from stateroom import Policy

    emit(store, "a", "b")
    early = store.feed.read(limit=1).items[0].before
    clock.advance(10)
    store.retention.set(Policy("feed", older_than=timedelta(seconds=1)))
    assert store.retention.run().families["feed"] == 2
    watcher = store.watch("w", Handler(), start=early)
    watcher.start()
    until(lambda: watcher.stats().state == "stopped")
    assert isinstance(watcher.stats().error, Compacted)


@pytest.mark.parametrize(
    "options",
    [
        {"on_error": "ignore"},
        {"batch": 0},
        {"batch": 1001},
        {"max_retries": -1},
        {"backoff": (1,)},
        {"backoff": (2, 1)},
        {"backoff": 5},
        {"checkpoint_every": -1},
        {"start": 5},
        {"ops": ["destroy"]},
        {"families": "note"},
        {"name": " "},
    ],
)
def test_options_that_are_refused(store, options):
    with pytest.raises(InvalidArgument):
        store.watch(**{"name": "w", "handler": Handler(), **options})
    assert store.watchers() == ()


def test_close_stops_every_watcher(database):
    store = database.open()
    watchers = [store.watch(name, Handler()) for name in "ab"]
    for watcher in watchers:
        watcher.start()
    store.close()
    assert [watcher.stats().state for watcher in watchers] == ["stopped", "stopped"]
    database.open().instances.put(Instance("a", "w"))


def test_transactions_have_no_watchers(store):
    with store.transaction() as tx, pytest.raises(InvalidArgument):
        tx.watch("w", Handler())
