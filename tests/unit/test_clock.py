"""Time and ids."""

import multiprocessing
import os
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stateroom import clock
from stateroom.clock import EPOCH, SystemClock, from_micros, new_id, to_micros
from stateroom.errors import InvalidArgument

ZONE = timezone(timedelta(hours=5, minutes=45))


@given(st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.just(ZONE)))
def test_micros_and_back_is_the_same_moment(at):
    again = from_micros(to_micros(at))
    assert again == at
    assert again.utcoffset() == timedelta(0)


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_micros_are_ordered_as_time_is(one, other):
    assert (to_micros(one) < to_micros(other)) == (one < other)


def test_micros_count_from_1970():
    assert to_micros(EPOCH) == 0
    assert to_micros(EPOCH + timedelta(microseconds=1)) == 1
    assert to_micros(EPOCH - timedelta(microseconds=1)) == -1
    assert to_micros(datetime(2001, 9, 9, 1, 46, 40, 5, tzinfo=UTC)) == 10**15 + 5


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(InvalidArgument, match="due") as caught:
        to_micros(datetime(2020, 1, 1), "due")
    assert caught.value.what == "due"


def test_the_system_clock_is_aware_and_does_not_go_back():
    system = SystemClock()
    before = datetime.now(UTC)
    assert before <= system.now() <= datetime.now(UTC)
    assert system.now().utcoffset() == timedelta(0)
    ticks = [system.monotonic() for _ in range(100)]
    assert ticks == sorted(ticks)


def test_ids_sort_as_they_were_made():
    made = [new_id() for _ in range(5000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {len(each) for each in made} == {26}
    assert set("".join(made)) <= set("0123456789abcdefghjkmnpqrstvwxyz")


def test_ids_sort_though_the_clock_goes_back(monkeypatch):
    now = clock.time.time_ns() + 10**15
    times = iter([now, now - 10**12, now - 10**14, now])
    monkeypatch.setattr(clock, "_last", 0)
    monkeypatch.setattr(clock.time, "time_ns", lambda: next(times))
    made = [new_id() for _ in range(4)]
    assert made == sorted(made)
    assert len(set(made)) == 4


def test_ids_of_a_later_time_come_later(monkeypatch):
    start = clock.time.time_ns()
    monkeypatch.setattr(clock, "_last", 0)
    made = []
    for days in (1, 2, 400, 40_000):
        monkeypatch.setattr(clock.time, "time_ns", lambda days=days: start + days * 86_400 * 10**9)
        made.append(new_id())
    assert made == sorted(made)


def test_threads_never_get_the_same_id():
    made, barrier = [], threading.Barrier(8)

    def make():
        barrier.wait()
        made.extend([new_id() for _ in range(500)])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 4000


def test_an_id_under_a_business_key_shares_its_root():
    made = new_id("order-17")
    root, _, rest = made.partition("/")
    assert root == "order-17"
    assert len(rest) == 26


@pytest.mark.parametrize("key", ["", " ", "\t\n", "a\0b", "x" * 201, "\u00e4" * 101])
def test_a_bad_business_key_is_refused(key):
    with pytest.raises(InvalidArgument) as caught:
        new_id(key)
    assert caught.value.what == "business_key"


def test_a_business_key_of_200_bytes_is_taken():
    assert new_id("\u00e4" * 100).startswith("\u00e4" * 100 + "/")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_makes_ids_though_the_lock_was_held_at_the_fork():
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    with clock._lock:
        child = context.Process(target=lambda: queue.put(new_id()))
        child.start()
    child.join(30)
    child.kill()  # one that hangs would hold up the end of the run
    assert child.exitcode == 0
    assert queue.get() != new_id()
