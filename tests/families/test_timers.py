"""Timers: in the order of their times over all parts, there until they are done."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from kit.databases import BLOCKING
from kit.faults import at_every_call, over
from kit.model_machine import GivenUpError, InPlace, Place
from stateroom import Timer
from stateroom.engine import Batch
from stateroom.engines.memory import MemoryEngine
from stateroom.engines.wrap import Conflicting
from stateroom.errors import Closed, InvalidArgument

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def at(seconds):
    return T0 + timedelta(seconds=seconds)


def test_due_in_the_order_of_times_over_all_parts(store, reopen, clock):
    timers = {n: store.timers.set(f"t{n}", at(n), {"n": n}) for n in (5, 3, 9, 1, 7, 4)}
    assert store.timers.due() == ()
    assert store.timers.next() == at(1)
    clock.advance(5)
    again = reopen()
    assert again.timers.due() == (timers[1], timers[3], timers[4], timers[5])
    assert again.timers.due(limit=2) == (timers[1], timers[3])
    assert again.timers.due(at(100))[-1] == timers[9]
    assert again.timers.due(at(0)) == ()
    assert again.timers.due(at(3)) == (timers[1], timers[3])


def test_a_timer_stays_until_it_is_done(store, other, clock):
    timer = store.timers.set("t", at(1), "payload")
    assert (timer.id, timer.at, timer.payload, timer.revision, timer.created_at) == (
        "t",
        at(1),
        "payload",
        1,
        clock.now(),
    )
    clock.advance(2)
    assert store.timers.due() == other.timers.due() == (timer,)
    assert other.timers.done(timer) is True
    assert store.timers.due() == ()
    assert store.timers.done(timer) is False
    assert store.timers.next() is None


def test_done_leaves_a_timer_that_changed_since(store, other):
    first = store.timers.set("t", at(-1), 1)
    second = other.timers.set("t", at(-1), 1)
    assert second.revision == 2
    assert store.timers.done(first) is False
    assert store.timers.due() == (second,)
    assert store.timers.cancel("t") is True
    third = store.timers.set("t", at(-1), 1)  # equal to the first in all that the caller gave
    assert store.timers.done(first) is False
    assert store.timers.done(second) is False
    assert store.timers.done(third) is True


def test_set_anew_moves_it(store):
    store.timers.set("t", at(5))
    moved = store.timers.set("t", at(-5), "x")
    assert store.timers.due() == (moved,)
    store.timers.set("t", at(50))
    assert store.timers.due() == ()
    assert store.timers.next() == at(50)


def test_cancel(store):
    assert store.timers.cancel("t") is False
    store.timers.set("t", at(-1))
    store.timers.set("t/child", at(-1))
    assert store.timers.cancel("t") is True
    assert [timer.id for timer in store.timers.due()] == ["t/child"]


def test_equal_times_are_in_the_order_of_ids(store):
    for id in ("b", "a", "c", "a/x"):
        store.timers.set(id, at(-1))
    assert [timer.id for timer in store.timers.due()] == ["a", "a/x", "b", "c"]


def test_any_time_and_zone(store):
    old = store.timers.set("old", datetime(1, 1, 2, tzinfo=UTC))
    east = store.timers.set("east", datetime(2026, 3, 1, 13, 59, 59, 999999, tzinfo=timezone(timedelta(hours=2))))
    store.timers.set("far", datetime(9999, 12, 30, tzinfo=UTC))
    assert store.timers.next() == old.at
    assert store.timers.due() == (old, east)
    assert east.at == at(-0.000001)


@pytest.mark.parametrize(
    "call",
    [
        lambda timers: timers.set("", T0),
        lambda timers: timers.set("t", datetime(2026, 1, 1)),
        lambda timers: timers.set("t", 5),
        lambda timers: timers.set("t", T0, object()),
        lambda timers: timers.due(datetime(2026, 1, 1)),
        lambda timers: timers.due(limit=0),
        lambda timers: timers.due(limit=1001),
        lambda timers: timers.done("t"),
        lambda timers: timers.cancel("a\0"),
    ],
)
def test_arguments_that_are_not_allowed(store, call):
    kept = store.timers.set("kept", at(-1))
    with pytest.raises(InvalidArgument):
        call(store.timers)
    assert store.timers.due() == (kept,)


def test_a_timer_made_by_hand_is_not_there(store):
    store.timers.set("t", at(-1))
    assert store.timers.done(Timer("t", at(-1))) is False


def test_large_payloads(store, reopen):
    timer = store.timers.set("t", at(-1), b"x" * 300_000)
    again = reopen()
    assert again.timers.due() == (timer,)
    assert again.timers.done(timer)


def test_not_in_the_feed_and_in_transactions(store):
    position = store.feed.latest()
    with store.transaction() as tx:
        early = tx.timers.set("r/a", at(-2))
        tx.timers.set("r/b", at(-1))
        assert [timer.id for timer in tx.timers.due()] == ["r/a", "r/b"]
        assert tx.timers.done(early)
        assert tx.timers.next() == at(-1)
        assert store.timers.due() == ()
    assert [timer.id for timer in store.timers.due()] == ["r/b"]
    assert store.feed.read(position).items == ()
    with pytest.raises(InvalidArgument), store.transaction() as tx:
        tx.timers.set("r/a", at(0))
        tx.timers.set("other", at(0))


def test_closed(store, database):
    gone = database.open()
    gone.close()
    for call in (lambda: gone.timers.set("t", T0), lambda: gone.timers.due(), lambda: gone.timers.next()):
        with pytest.raises(Closed):
            call()


def test_done_that_races_with_set(store):
    engine = MemoryEngine()
    plain = over(engine)
    timer = plain.timers.set("t", at(-1), 1)

    def interfere(number, part, batch):
        if number == 1:
            plain.timers.set("t", at(-1), 2)

    assert over(Conflicting(engine, interfere=interfere)).timers.done(timer) is False
    assert [one.payload for one in plain.timers.due()] == [2]


def _prepare(store):
    store.timers.set("t", at(-1), 1)
    store.timers.set("u", at(1), 2)


def _view(store):
    return [(one.id, one.at, one.payload, one.revision) for one in store.timers.due(at(100))]


@BLOCKING
@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.timers.set("t", at(2), 3),
        lambda store: store.timers.set("new", at(2), 3),
        lambda store: store.timers.cancel("t"),
        lambda store: store.timers.done(store.timers.due()[0]),
    ],
)
def test_all_or_nothing_at_every_call(act, database):
    at_every_call(database, _prepare, act, _view)


def test_a_timer_that_cannot_be_read_hides_no_other():
    engine = MemoryEngine()
    store = over(engine)
    for id in "abc":
        store.timers.set(id, at(-1))
    rows = engine.scan(0, b"n\0TT", b"n\0TU", limit=10)
    engine.commit(0, Batch(write={rows[0].key: rows[1].value}))
    assert [timer.id for timer in store.timers.due(limit=2)] == ["b", "c"]
    assert [problem.code for problem in store.check()] == ["damaged"]


def test_check_finds_a_missing_and_a_stale_place():
    engine = MemoryEngine()
    store = over(engine)
    store.timers.set("a", at(-1))
    (row,) = engine.scan(0, b"n\0TD", b"n\0TE", limit=10)
    engine.commit(0, Batch(write={row.key: None, row.key[:-2] + b"b\0": b""}))
    assert {problem.code for problem in store.check()} == {"index-missing", "index-stale"}


def in_order(timer):
    return timer.at, timer.id.encode()


class TimersAsADict(InPlace):
    """What is due, when and in which order, against a dict; now and then over another client."""

    ids = st.sampled_from(["a", "b", "a/b", "é", "a%"])
    times = st.integers(-3, 3)

    def __init__(self, place):
        super().__init__(place)
        self.model, self.seen = {}, []

    @rule(id=ids, when=times, payload=st.integers() | st.text(max_size=3))
    def set(self, id, when, payload):
        self.model[id] = self.store.timers.set(id, at(when), payload)
        self.seen.append(self.model[id])

    @rule(id=ids)
    def cancel(self, id):
        assert self.store.timers.cancel(id) == (self.model.pop(id, None) is not None)

    @rule(data=st.data())
    def done(self, data):
        if self.seen:
            timer = data.draw(st.sampled_from(self.seen))
            there = self.model.get(timer.id) == timer
            assert self.store.timers.done(timer) == there
            if there:
                del self.model[timer.id]

    @rule(id=ids, when=times)
    def another_client_commits_now(self, id, when):
        ours = self.beside(lambda other: self.seen.append(other.timers.set(id, at(when), "theirs")))
        self.model[id] = ours.timers.set(id, at(when), "ours")
        self.seen.append(self.model[id])

    @rule(id=ids, when=times)
    def another_client_sets_it_just_before_it_is_done(self, id, when):
        def sets(other):
            self.model[id] = other.timers.set(id, at(when), "theirs")
            self.seen.append(self.model[id])

        if id in self.model:
            assert self.beside(sets).timers.done(self.model[id]) is False

    @rule(data=st.data(), root=st.just("a"), keep=st.booleans())
    def a_transaction(self, data, root, keep):
        before = dict(self.model)
        try:
            with self.store.transaction() as tx:
                for id in data.draw(st.lists(st.sampled_from(["a", "a/b", "a/c"]), min_size=1, max_size=3)):
                    if data.draw(st.booleans()):
                        self.model[id] = tx.timers.set(id, at(data.draw(self.times)), "together")
                    else:
                        assert tx.timers.cancel(id) == (self.model.pop(id, None) is not None)
                own = [one for one in self.model.values() if one.id in ("a", "a/b", "a/c") and one.at <= at(3)]
                assert [one for one in tx.timers.due(at(3)) if one.id.startswith("a") and one.id != "a%"] == sorted(
                    own, key=in_order
                )
                if not keep:
                    raise GivenUpError
        except GivenUpError:
            self.model = before

    @rule(now=times, limit=st.integers(1, 3))
    def due(self, now, limit):
        expected = sorted((one for one in self.model.values() if one.at <= at(now)), key=in_order)
        assert self.store.timers.due(at(now), limit) == tuple(expected[:limit])

    @invariant()
    def next(self):
        assert self.store.timers.next() == min((one.at for one in self.model.values()), default=None)


@pytest.mark.older
def test_timers_are_as_a_dict(database):
    Place(database).run(TimersAsADict, 30, 6, 10)


@pytest.mark.older
@pytest.mark.torture
def test_timers_are_as_a_dict_for_long(database):
    Place(database).run_for_long(TimersAsADict)
