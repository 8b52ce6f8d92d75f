"""Leases and the transactions they fence."""

import pytest

from stateroom import Instance, Lease
from stateroom.errors import Conflict, InvalidArgument, LostLease
from stateroom.testing.family_harness import ids, nothing_changes, together


def test_one_holder_at_a_time(store, other, clock):
    lease = store.leases.acquire("a", "me", 10)
    assert (lease.key, lease.owner, lease.token) == ("a", "me", 1)
    assert (lease.expires_at - clock.now()).total_seconds() == 10
    assert other.leases.holder("a") == lease
    with pytest.raises(LostLease) as caught:
        other.leases.acquire("a", "you", 10)
    assert (caught.value.holder, caught.value.token, caught.value.key) == ("me", 1, "a")
    assert store.leases.holder("b") is None


def test_tokens_rise_for_ever(store, other, clock):
    first = store.leases.acquire("a", "me", 10)
    assert store.leases.release(first) is True
    assert store.leases.release(first) is False
    assert store.leases.holder("a") is None
    second = other.leases.acquire("a", "you", 10)
    clock.advance(10)
    assert store.leases.holder("a") is None
    third = store.leases.acquire("a", "me", 10)
    again = store.leases.acquire("a", "me", 10)
    assert [first.token, second.token, third.token, again.token] == [1, 2, 3, 4]
    for old in (first, second, third):
        with pytest.raises(LostLease) as caught:
            store.leases.renew(old, 10)
        assert caught.value.holder == "me"
        assert store.leases.release(old) is False
    assert store.leases.holder("a") == again


def test_renewal(store, clock):
    lease = store.leases.acquire("a", "me", 10)
    clock.advance(9)
    renewed = store.leases.renew(lease, 10)
    assert renewed.token == lease.token
    clock.advance(9.5)
    assert store.leases.holder("a") == renewed
    clock.advance(0.5)
    assert store.leases.holder("a") is None
    with pytest.raises(LostLease) as caught:
        store.leases.renew(lease, 10)
    assert caught.value.holder is None


def test_a_renewal_does_not_disturb_a_fenced_commit(store, other):
    lease = store.leases.acquire("r", "me", 10)
    with store.transaction(lease=lease) as tx:
        tx.instances.put(Instance("r/a", "w"))
        other.leases.renew(lease, 20)
    assert store.instances.get("r/a").revision == 1


@pytest.mark.parametrize("how", ["released", "released and acquired", "cancelled", "expired", "taken after expiry"])
def test_a_superseded_token_never_lands(store, other, clock, how):
    store.instances.put(Instance("r", "w"))
    store.instances.put(Instance("r/a", "w"))
    lease = store.leases.acquire("r", "me", 10)
    with pytest.raises(LostLease) as caught, store.transaction(lease=lease) as tx:
        tx.instances.get("r")
        tx.instances.cancel("r/a")
        if how == "expired" or how == "taken after expiry":
            clock.advance(10)
        if how.startswith("released"):
            other.leases.release(lease)
        if how in ("released and acquired", "taken after expiry"):
            other.leases.acquire("r", "you", 10)
        if how == "cancelled":
            other.instances.cancel("r")  # another row that was read changes too: it is still the lease that is lost
    assert caught.value.holder == ("you" if how == "released and acquired" else None) or how == "taken after expiry"
    assert store.instances.get("r/a").status == "pending"
    with nothing_changes(store), pytest.raises(LostLease), store.transaction(lease=lease) as tx:
        tx.instances.cancel("r/a")


def test_a_conflict_under_a_good_lease_is_a_conflict(store, other):
    store.instances.put(Instance("r", "w"))
    lease = store.leases.acquire("r", "me", 10)
    with pytest.raises(Conflict), store.transaction(lease=lease) as tx:
        tx.instances.cancel("r")
        other.instances.put(Instance("r", "w2"))
    assert store.leases.holder("r") == lease


def test_a_transaction_may_give_up_its_own_lease(store):
    for end in ("release", "cancel"):
        store.instances.put(Instance("r", "w", status="running"), expected_revision=None if end == "release" else 2)
        lease = store.leases.acquire("r", "me", 10)
        with store.transaction(lease=lease) as tx:
            if end == "cancel":
                tx.instances.cancel("r")
            else:
                tx.instances.put(Instance("r", "w", status="completed"))
                tx.leases.release(lease)
        assert store.leases.holder("r") is None
        assert store.instances.get("r").status == ("cancelled" if end == "cancel" else "completed")


def test_the_lease_fixes_the_root(store):
    lease = store.leases.acquire("r/worker", "me", 10)
    with nothing_changes(store), pytest.raises(InvalidArgument) as caught, store.transaction(lease=lease) as tx:
        tx.instances.put(Instance("s", "w"))
    assert "'r'" in str(caught.value)
    assert "'s'" in str(caught.value)


def test_cancel_revokes(store, other):
    store.instances.put(Instance("a", "w", status="running"))
    lease = other.leases.acquire("a", "me", 10)
    store.instances.cancel("a")
    assert store.leases.holder("a") is None
    with pytest.raises(LostLease):
        other.leases.renew(lease, 10)
    assert other.leases.acquire("a", "you", 10).token == lease.token + 1


def test_orphans(store, clock):
    for n, status in enumerate(("pending", "running", "waiting", "completed", "running")):
        store.instances.put(Instance(f"a{n}", "w", status=status))
    assert ids(store.instances.orphans()) == ["a0", "a1", "a2", "a4"]
    store.leases.acquire("a1", "me", 10)
    store.leases.acquire("a2", "me", 20)
    gone = store.leases.acquire("a4", "me", 20)
    assert ids(store.instances.orphans()) == ["a0"]
    store.leases.release(gone)
    clock.advance(10)
    assert ids(store.instances.orphans()) == ["a0", "a1", "a4"]
    assert ids(store.instances.orphans(limit=2)) == ["a0", "a1"]
    for limit in (0, 1001):
        with pytest.raises(InvalidArgument):
            store.instances.orphans(limit=limit)


def test_one_of_many_gets_it(store):
    def acquire(number):
        try:
            return store.leases.acquire("a", f"w{number}", 60).owner
        except LostLease as error:
            return f"lost to {error.holder}"

    outcomes = together(8, acquire, 8)
    (winner,) = [one for one in outcomes if not one.startswith("lost")]
    assert set(outcomes) == {winner, f"lost to {winner}"}


def test_in_a_transaction(store):
    with store.transaction() as tx:
        lease = tx.leases.acquire("r", "me", 10)
        assert tx.leases.holder("r") == lease
        assert store.leases.holder("r") is None
        tx.leases.renew(lease, 20)
    assert store.leases.holder("r").token == lease.token


def test_bad_input(store, clock):
    lease = store.leases.acquire("a", "me", 10)
    for call in (
        lambda: store.leases.acquire("", "me", 10),
        lambda: store.leases.acquire("a", "", 10),
        lambda: store.leases.acquire("a\0", "me", 10),
        lambda: store.leases.acquire("a", "me", 0),
        lambda: store.leases.acquire("a", "me", -1),
        lambda: store.leases.acquire("a", "me", float("nan")),
        lambda: store.leases.acquire("a", "me", float("inf")),
        lambda: store.leases.acquire("a", "me", "10"),
        lambda: store.leases.acquire("a", "me", True),
        lambda: store.leases.renew("a", 10),
        lambda: store.leases.renew(lease, 0),
        lambda: store.leases.release(("a", 1)),
        lambda: store.leases.holder(5),
        lambda: store.transaction(lease="a").__enter__(),
        lambda: store.leases.renew(Lease("", "me", 1, clock.now()), 5),
    ):
        with pytest.raises(InvalidArgument):
            call()
    assert store.leases.holder("a") == lease
