"""Leases that are waited for, held while somebody works, and listed."""

import asyncio
import logging
import threading
import time

import pytest

from kit.databases import SUSPENDING
from stateroom import Instance
from stateroom.errors import InvalidArgument, LostLease
from stateroom.testing.harness import PATIENCE

TTL = 0.4
"""Seconds of real time, for leases that renew themselves."""


def soon(holds):
    """Look until something holds; what is renewed by a thread has no other sign."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        threading.Event().wait(0.005)


def test_waits_for_a_release(store, other):
    lease = store.leases.acquire("a", "me", 600)
    with pytest.raises(LostLease) as caught:
        other.leases.acquire("a", "you", 10, wait=0.01)
    assert caught.value.holder == "me"
    threading.Timer(0.02, lambda: store.leases.release(lease)).start()
    assert other.leases.acquire("a", "you", 10, wait=60).token == lease.token + 1


def test_waits_for_the_end_of_a_dead_holders_lease(database):
    """In real time: the store's own clock."""
    if database.engine == "memory":
        pytest.skip("the clock of a store in memory stands still in these tests")
    from stateroom.clock import SystemClock

    store = database.open(clock=SystemClock())
    store.leases.acquire("a", "dead", 0.05)
    assert store.leases.acquire("a", "me", 10, wait=60).owner == "me"


def test_a_transaction_does_not_wait(store):
    store.leases.acquire("a", "me", 600)
    with pytest.raises(InvalidArgument), store.transaction() as tx:
        tx.leases.acquire("a", "you", 10, wait=1)
    with pytest.raises(InvalidArgument), store.transaction() as tx:
        tx.leases.hold("a", "you", 10)


def test_hold_renews_and_releases(store, other):
    with store.leases.hold("a", "me", TTL) as held:
        first = held.lease
        assert other.leases.holder("a") == first
        assert not held.lost
        held.check()
        with store.transaction(lease=held.lease) as tx:
            tx.instances.put(Instance("a", "wf"))
    assert other.leases.holder("a") is None
    assert store.instances.get("a").workflow == "wf"


def test_hold_goes_on_for_longer_than_its_ttl(database):
    from stateroom.clock import SystemClock

    store = database.open(clock=SystemClock())
    with store.leases.hold("a", "me", TTL) as held:
        first = held.lease
        soon(lambda: (held.lease.expires_at - first.expires_at).total_seconds() > TTL)
        assert held.lease.token == first.token
        held.check()
        with pytest.raises(LostLease):
            store.leases.acquire("a", "you", TTL)
    assert store.leases.holder("a") is None


def test_hold_says_when_it_is_lost(store, other, caplog):
    store.instances.put(Instance("a", "wf"))
    with caplog.at_level(logging.WARNING, "stateroom"), store.leases.hold("a", "me", TTL) as held:
        other.instances.cancel("a")
        soon(lambda: held.lost)
        with pytest.raises(LostLease) as caught:
            held.check()
        taken = other.leases.acquire("a", "you", 600)
    assert (caught.value.key, caught.value.token) == ("a", held.lease.token)
    assert store.leases.holder("a") == taken, "what another has is not released"


def test_hold_is_lost_when_nobody_could_renew_it(store, clock):
    """By elapsed time, whatever the time of day says."""
    with store.leases.hold("a", "me", 60) as held:
        assert not held.lost
        clock.advance(60)
        assert held.lost
        with pytest.raises(LostLease):
            held.check()


def test_an_error_inside_comes_through_and_releases(store):
    with pytest.raises(ZeroDivisionError), store.leases.hold("a", "me", 60):
        raise ZeroDivisionError
    assert store.leases.holder("a") is None


def test_hold_waits_and_refuses(store, other):
    with store.leases.hold("a", "me", 60):
        with pytest.raises(LostLease), other.leases.hold("a", "you", 60, wait=0.01):
            pass
    with other.leases.hold("a", "you", 60, wait=60) as held:
        assert held.lease.owner == "you"
        with pytest.raises(InvalidArgument):
            held.__enter__()
    assert store.leases.holder("a") is None


@SUSPENDING
def test_a_cancelled_holder_releases(database):
    async def work(store):
        entered = asyncio.Event()

        async def hold():
            async with store.leases.hold("a", "me", 600):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(hold())
        await entered.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await store.leases.holder("a") is None

    database.run(work)


@SUSPENDING
def test_a_cancelled_acquire_leaves_no_lease(database):
    async def work(store):
        for turns in range(12):
            task = asyncio.ensure_future(store.leases.acquire("a", "gone", 600))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if not isinstance(outcome, BaseException):
                await store.leases.release(outcome)
            assert await store.leases.holder("a") is None

    database.run(work)


def test_query(store, clock):
    leases = {key: store.leases.acquire(key, "me", 60) for key in ("b", "a/2", "a/1", "c", "a")}
    short = store.leases.acquire("a/short", "me", 5)
    store.leases.release(leases.pop("c"))
    assert list(store.leases.query()) == [leases["a"], leases["a/1"], leases["a/2"], short, leases["b"]]
    clock.advance(5)
    assert list(store.leases.query("a/")) == [leases["a/1"], leases["a/2"]]
    page = store.leases.query(limit=3)
    assert [lease.key for lease in page] == ["a", "a/1", "a/2"]
    last = store.leases.query(limit=3, cursor=page.cursor)
    assert ([lease.key for lease in last], last.cursor) == (["b"], None)
    assert list(store.leases.scan()) == [*page, *last]
    for call in (
        lambda: store.leases.query("a/", limit=3, cursor=page.cursor),
        lambda: store.leases.query(limit=0),
        lambda: store.leases.query("\0"),
        lambda: store.leases.query(5),
    ):
        with pytest.raises(InvalidArgument):
            call()
