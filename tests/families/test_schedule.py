"""Runbox' schedule arithmetic (seeds 5.4)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stateroom import Schedule
from stateroom.errors import InvalidArgument

times = st.integers(0, 10**15)


@pytest.mark.parametrize(("t", "next", "previous"), [(0, 60000, 0), (10000, 60000, 0), (60000, 120000, 60000)])
def test_next_is_later_and_previous_is_not_after(t, next, previous):
    assert Schedule(60000).next(t) == next
    assert Schedule(60000).previous(t) == previous


def test_between_leaves_the_first_out_and_the_last_in():
    assert Schedule(10).between(0, 30) == range(10, 31, 10)
    assert list(Schedule(10).between(10, 29)) == [20]
    assert list(Schedule(10).between(30, 10)) == []
    assert list(Schedule(1).between(5, 5)) == []


def test_without_an_interval_nothing_is_due():
    never = Schedule(None)
    assert (never.next(5), never.previous(5), list(never.between(0, 10**12))) == (None, None, [])


@pytest.mark.parametrize("every", [0, -1, 1.5, "60", True])
def test_other_intervals_are_refused(every):
    with pytest.raises(InvalidArgument):
        Schedule(every)


@pytest.mark.parametrize("t", [-1, 1.5, None, True])
def test_other_times_are_refused(t):
    for call in (Schedule(5).next, Schedule(None).previous, lambda t: Schedule(5).between(t, 7)):
        with pytest.raises(InvalidArgument):
            call(t)


@given(st.integers(1, 10**6), times, st.integers(0, 10**5))
def test_between_is_what_next_gives_one_after_another(every, after, more):
    schedule = Schedule(every)
    upto = after + more * every // 1000
    found, t = [], schedule.next(after)
    while t <= upto:
        found.append(t)
        t = schedule.next(t)
    assert list(schedule.between(after, upto)) == found
    assert schedule.previous(upto) <= upto < schedule.next(upto) == schedule.previous(upto) + every


def test_schedules_are_values():
    assert Schedule(5) == Schedule(5) != Schedule(6)
    assert repr(Schedule(5)) == "Schedule(every_ms=5)"
