"""Whoever met a conflict waits in the line of its root, and nobody tries for ever."""

import asyncio

import pytest

from stateroom import Store, open
from stateroom.core import contention
from stateroom.core.bridge import run_now
from stateroom.core.contention import Attempts, Lines
from stateroom.errors import Conflict, Unavailable
from stateroom.limits import TRIES


@pytest.fixture
def scope(alone):
    return alone._scope


@pytest.fixture
def alone():
    with open("memory:") as store:
        assert isinstance(store, Store)
        yield store


REFUSED = Conflict("somebody was faster")


def test_the_first_goes_at_once_and_the_others_in_their_order():
    lines = Lines()
    first, second, third = (lines.join("r") for _ in range(3))
    assert [turn.event.is_set() for turn in (first, second, third)] == [True, False, False]
    lines.leave("r", first)
    assert [turn.event.is_set() for turn in (second, third)] == [True, False]
    lines.leave("r", third)  # whoever gives up in the middle keeps nobody
    lines.leave("r", second)
    assert lines.join("r").event.is_set()


def test_roots_have_lines_of_their_own_and_empty_ones_are_not_kept():
    lines = Lines()
    turns = [lines.join(root) for root in "ab"]
    assert all(turn.event.is_set() for turn in turns)
    for root, turn in zip("ab", turns, strict=True):
        lines.leave(root, turn)
    assert not lines._lines


def test_a_task_that_waits_is_woken_when_its_turn_comes():
    lines = Lines()
    first, second = lines.join("r"), lines.join("r")

    async def wait():
        waiting = asyncio.ensure_future(second.wait_async(60))
        await asyncio.sleep(0)
        assert not waiting.done()
        lines.leave("r", first)
        await waiting
        return second.event.is_set()

    assert asyncio.run(wait())


def test_whoever_was_refused_has_a_place_until_it_ends(scope):
    attempts = Attempts(scope)
    run_now(attempts.pause("r", REFUSED))
    assert not scope.lines.join("r").event.is_set()
    scope.lines._reset()
    other = Attempts(scope)
    run_now(other.pause("r", REFUSED))
    behind = scope.lines.join("r")
    other.end()
    assert behind.event.is_set()


def test_what_is_done_inside_does_not_queue_behind_itself(scope, monkeypatch):
    monkeypatch.setattr(contention, "backoff", lambda attempt: 0.0)
    outer, inner = Attempts(scope), Attempts(scope)
    run_now(outer.pause("r", REFUSED))
    run_now(inner.pause("r", REFUSED))
    inner.end()
    outer.end()
    assert scope.lines.join("r").event.is_set()


def test_after_its_time_it_is_unavailable_and_says_how_often_it_tried(scope, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(contention.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(contention, "backoff", lambda attempt: 0.0)
    attempts = Attempts(scope, 30.0)
    for _ in range(TRIES + 5):  # as long as the time is not over no number of attempts is too many
        run_now(attempts.pause("r", REFUSED))
    now[0] = 30.0
    with pytest.raises(Unavailable, match=f"{TRIES + 6} attempts in 30 s") as caught:
        run_now(attempts.pause("r", REFUSED))
    assert caught.value.__cause__ is REFUSED
    attempts.end()
