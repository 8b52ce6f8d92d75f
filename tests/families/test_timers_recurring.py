"""Timers that come again, that are waited for, read and listed."""

import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from kit.faults import over
from stateroom import Timer
from stateroom.codec import Codec, Raw
from stateroom.engine import Batch
from stateroom.engines.memory import MemoryEngine
from stateroom.errors import InvalidArgument, NotFound, Undecodable
from stateroom.testing.faces import START, ManualClock

BERLIN = ZoneInfo("Europe/Berlin")


def at(seconds):
    return START + timedelta(seconds=seconds)


def test_a_timedelta_is_from_now(store, clock):
    clock.advance(5)
    assert store.timers.set("t", timedelta(seconds=10)).at == at(15)
    assert store.timers.set("t", timedelta(seconds=-10)).at == at(-5)


def test_every(store, clock):
    timer = store.timers.set("t", at(10), {"n": 1}, every=timedelta(seconds=60))
    assert (timer.every, timer.cron, timer.tz, timer.recurring) == (timedelta(seconds=60), None, "UTC", True)
    clock.advance(10)
    assert store.timers.due() == (timer,)
    assert store.timers.done(timer) is True
    (upcoming,) = store.timers.query()
    assert (upcoming.at, upcoming.payload, upcoming.revision, upcoming.every) == (at(70), {"n": 1}, 2, timer.every)
    assert store.timers.done(timer) is False, "it was done already"
    assert store.timers.due() == ()
    clock.advance(60 * 10 + 5)
    (late,) = store.timers.due()
    assert late == upcoming
    store.timers.done(late)
    assert store.timers.get("t").at == at(10 + 60 * 11), "missed times are not made up for"
    assert store.timers.cancel("t") is True
    assert store.timers.next() is None


def test_done_ahead_of_its_time_goes_on_from_there(store):
    timer = store.timers.set("t", at(10), every=60)
    (ahead,) = store.timers.due(at(100))
    assert store.timers.done(ahead)
    assert store.timers.get("t").at == at(70)
    assert timer == ahead


def test_the_first_time_may_be_left_out(store):
    assert store.timers.set("t", every=60).at == at(60)
    assert store.timers.set("c", cron="30 12 * * *").at == datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    with pytest.raises(InvalidArgument):
        store.timers.set("t")


def test_a_timer_set_anew_without_recurrence_does_not_recur(store):
    store.timers.set("t", at(-1), 1, every=60)
    timer = store.timers.set("t", at(-1), 2)
    assert not timer.recurring
    assert store.timers.done(timer)
    assert store.timers.find("t") is None


def test_a_recurring_timer_ends_with_the_calendar(store):
    timer = store.timers.set("t", datetime(9999, 12, 31, tzinfo=UTC), every=timedelta(days=2))
    assert store.timers.done(timer)
    assert store.timers.find("t") is None


def local(*when, fold=0):
    return datetime(*when, tzinfo=BERLIN, fold=fold).astimezone(UTC)


@pytest.mark.parametrize(
    ("cron", "now", "times"),
    [
        # Every day at nine by the clock on the wall, winter and summer.
        ("0 9 * * *", local(2026, 3, 27, 12), [local(2026, 3, 28, 9), local(2026, 3, 29, 9), local(2026, 3, 30, 9)]),
        # 02:30 does not exist on the 29th: it comes once all the same, and once on each other day.
        (
            "30 2 * * *",
            local(2026, 3, 27, 12),
            [local(2026, 3, 28, 2, 30), local(2026, 3, 29, 3, 0), local(2026, 3, 30, 2, 30)],
        ),
        # 02:30 comes twice on the 25th of October: it is due once.
        ("30 2 * * *", local(2026, 10, 24, 12), [local(2026, 10, 25, 2, 30), local(2026, 10, 26, 2, 30)]),
        # Every half hour goes on through both.
        (
            "*/30 * * * *",
            local(2026, 10, 25, 1, 45),
            [
                local(2026, 10, 25, 2, 0),
                local(2026, 10, 25, 2, 30),
                local(2026, 10, 25, 2, 0, fold=1),
                local(2026, 10, 25, 2, 30, fold=1),
                local(2026, 10, 25, 3, 0),
            ],
        ),
        ("0 0 29 2 *", local(2026, 1, 1), [local(2028, 2, 29), local(2032, 2, 29)]),
        ("0 12 * * MON#2", local(2026, 1, 1), [local(2026, 1, 12, 12), local(2026, 2, 9, 12)]),
    ],
)
def test_cron(store, clock, cron, now, times):
    clock.advance((now - clock.now()).total_seconds())
    timer = store.timers.set("t", cron=cron, tz="Europe/Berlin")
    assert (timer.cron, timer.tz) == (cron, "Europe/Berlin")
    assert timer.at == times[0]
    for upcoming in times[1:]:
        clock.advance((timer.at - clock.now()).total_seconds())
        assert store.timers.due() == (timer,)
        assert store.timers.done(timer)
        timer = store.timers.get("t")
        assert timer.at == upcoming


def test_an_hour_that_comes_twice_is_over_once(store, clock):
    """After the first 02:30 the clock is set back to 02:00: what is next is tomorrow, not half past two again."""
    clock.advance((local(2026, 10, 25, 2, 10, fold=1) - clock.now()).total_seconds())
    assert store.timers.set("t", cron="30 2 * * *", tz="Europe/Berlin").at > clock.now()


def test_wait(store, other, clock):
    assert store.timers.wait(0) == store.timers.wait(0.01) == ()
    timer = store.timers.set("t", at(-1))
    assert store.timers.wait(60) == (timer,)
    store.timers.done(timer)
    store.timers.set("later", at(3600))
    threading.Timer(0.02, lambda: other.timers.set("now", at(-5))).start()
    assert [one.id for one in store.timers.wait(60)] == ["now"]


def test_wait_ends_at_the_time_of_a_timer(database):
    """In real time: the store's own clock."""
    from stateroom.clock import SystemClock

    store = database.open(clock=SystemClock())
    store.timers.set("t", timedelta(milliseconds=30))
    assert [one.id for one in store.timers.wait(60)] == ["t"]


def test_get_find_and_query(store):
    timers = {id: store.timers.set(id, at(n), n) for n, id in enumerate(("b", "a/2", "a/1", "c", "a"))}
    assert store.timers.get("a/1") == store.timers.find("a/1") == timers["a/1"]
    assert store.timers.find("x") is None
    with pytest.raises(NotFound) as caught:
        store.timers.get("x")
    assert (caught.value.kind, caught.value.id) == ("timers", "x")
    assert [one.id for one in store.timers.query()] == ["a", "a/1", "a/2", "b", "c"]
    assert list(store.timers.query("a/")) == [timers["a/1"], timers["a/2"]]
    assert [one.id for one in store.timers.query(before=at(2))] == ["a/2", "b"]
    page = store.timers.query(limit=3)
    last = store.timers.query(limit=3, cursor=page.cursor)
    assert [one.id for one in (*page, *last)] == ["a", "a/1", "a/2", "b", "c"]
    assert last.cursor is None
    assert list(store.timers.scan()) == [*page, *last]
    assert [one.id for one in store.timers.scan("a", before=at(4))] == ["a/1", "a/2"]
    with pytest.raises(InvalidArgument):
        store.timers.query("a", limit=3, cursor=page.cursor)


class Order:
    def __init__(self, n):
        self.n = n


def knowing():
    codec = Codec()
    codec.register(Order, name="order", encode=lambda order: order.n, decode=Order)
    return codec


def test_values_that_cannot_be_rebuilt_here(database):
    database.codec = knowing()
    with database.open(codec=knowing()) as store:
        store.timers.set("r/a", at(-1), Order(1), every=60)
        store.timers.set("r/b", at(-1), 2)
    with database.open() as store:
        first, second = store.timers.due()
        assert (first.payload.name, first.payload.data, second.payload) == ("order", 1, 2)
        assert isinstance(first.payload, Raw)
        assert store.timers.next() == at(-1)
        assert [one.id for one in store.timers.query()] == ["r/a", "r/b"]
        for call in (store.timers.get, store.timers.find):
            with pytest.raises(Undecodable):
                call("r/a")
            assert call("r/a", raw=True) == first
        assert store.timers.done(first)
        assert store.timers.set("r/c", at(-1), first.payload)
    with database.open(codec=knowing()) as store:
        assert store.timers.get("r/a").payload.n == store.timers.get("r/c").payload.n == 1
        assert store.timers.get("r/a").at == at(59)


def test_next_names_no_timer_that_due_leaves_out(caplog):
    """Or whoever sleeps until then would find nothing, again and again."""
    engine = MemoryEngine()
    store = over(engine, ManualClock())
    for id, seconds in (("a", -9), ("b", -8), ("c", 5)):
        store.timers.set(id, at(seconds))
    first, second, third = engine.scan(0, b"n\0TT", b"n\0TU", limit=10)
    engine.commit(0, Batch(write={first.key: third.value, second.key: third.value}))
    assert store.timers.due() == ()
    assert store.timers.next() == at(5)
    assert store.timers.wait(0) == ()
    page = store.timers.query()
    assert ([one.id for one in page], page.undecodable) == (["c"], 2)
    assert len([record for record in caplog.records if "left out" in record.message]) == 1
    assert store.timers.cancel("a") is True, "what cannot be read can be removed"
    assert store.timers.set("b", at(-1)).revision == 1
    assert [one.id for one in store.timers.due()] == ["b"]
    assert store.check() == []


def test_a_timer_that_moves_is_due_once(database, store):
    """Set anew between two reads, it is not given twice."""
    for n in range(3):
        store.timers.set(f"r/{n}", at(-9 + n))
    assert [one.id for one in store.timers.due(limit=1)] == ["r/0"]
    assert len({one.id for one in store.timers.due(limit=2)}) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda timers: timers.set("t", at(1), every=0),
        lambda timers: timers.set("t", at(1), every=-5),
        lambda timers: timers.set("t", at(1), every="daily"),
        lambda timers: timers.set("t", at(1), every=60, cron="* * * * *"),
        lambda timers: timers.set("t", at(1), cron="bogus"),
        lambda timers: timers.set("t", at(1), cron="* * * *"),
        lambda timers: timers.set("t", at(1), cron="61 * * * *"),
        lambda timers: timers.set("t", at(1), cron="0 0 31 2 *"),
        lambda timers: timers.set("t", at(1), cron="0 0 30 2 *"),
        lambda timers: timers.set("t", at(1), cron=5),
        lambda timers: timers.set("t", at(1), cron="* * * * *", tz="Mars/Olympus"),
        lambda timers: timers.set("t", at(1), cron="* * * * *", tz="../../etc/passwd"),
        lambda timers: timers.set("t", at(1), cron="* * * * *", tz=""),
        lambda timers: timers.set("t", timedelta.max),
        lambda timers: timers.set("t", datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))),
        lambda timers: timers.due(datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))),
        lambda timers: timers.wait(-1),
        lambda timers: timers.wait(1, limit=0),
        lambda timers: timers.query(before=datetime(2026, 1, 1)),
        lambda timers: timers.get(""),
    ],
)
def test_arguments_that_are_not_allowed(store, call):
    kept = store.timers.set("t", at(-1))
    with pytest.raises(InvalidArgument):
        call(store.timers)
    assert store.timers.due() == (kept,)


def test_a_missing_package_is_named(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(InvalidArgument, match=r"stateroom\[cron\]"):
        store.timers.set("t", at(1), cron="* * * * *")
    assert isinstance(store.timers.set("t", at(1), every=60), Timer)
