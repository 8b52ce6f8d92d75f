"""Leases when clocks are set, and their tokens over deletion, copies and sweeps."""

import itertools
from datetime import timedelta
from zlib import crc32

import pytest

import stateroom
from stateroom import Execution, Instance, Policy
from stateroom.errors import LostLease
from stateroom.families.leases.record import MARKS
from stateroom.testing.faces import ManualClock


class Settable(ManualClock):
    """A clock whose time of day can be set without any time passing."""

    def set(self, seconds):
        self._now += timedelta(seconds=seconds)


@pytest.fixture
def clock():
    return Settable()


@pytest.mark.parametrize("hours", [-1, 1])
def test_time_is_what_passed_where_a_clock_was_set(store, clock, hours):
    lease = store.leases.acquire("a", "me", 60)
    clock.set(hours * 3600)
    clock.advance(30)
    assert store.leases.holder("a").token == lease.token
    with pytest.raises(LostLease):
        store.leases.acquire("a", "you", 60)
    with store.transaction(lease=lease) as tx:
        tx.instances.put(Instance("a", "wf"))
    clock.advance(31)
    assert store.leases.holder("a") is None
    assert store.leases.acquire("a", "you", 60).token == lease.token + 1


def test_nobody_waits_for_longer_than_a_lease_was_given_for(store, database):
    """The dead holder's clock was an hour ahead; who comes later sees the lease for the first time."""
    ahead = Settable()
    ahead.set(3600)
    database.open(clock=ahead).leases.acquire("a", "dead", 60)
    assert store.leases.holder("a").owner == "dead"
    database.clock.advance(59)
    assert store.leases.holder("a").owner == "dead"
    database.clock.advance(1)
    assert store.leases.acquire("a", "me", 60).owner == "me"


def test_orphans_and_claims_go_by_it_too(store, clock):
    store.instances.put(Instance("a", "wf"))
    store.leases.acquire("a", "me", 60)
    clock.set(3600)
    clock.advance(1)
    assert list(store.instances.orphans()) == []
    assert store.instances.claim("you", 60) == ()
    clock.advance(60)
    assert [one.id for one in store.instances.orphans()] == ["a"]


def test_delete_revokes(store):
    for family, record in ((store.instances, Instance("a", "wf")), (store.executions, Execution("a", "job"))):
        make = family.put if isinstance(record, Instance) else family.create
        make(record)
        old = store.leases.acquire("a", "me", 600)
        assert family.delete("a") is True
        assert store.leases.holder("a") is None
        make(record)
        with pytest.raises(LostLease), store.transaction(lease=old) as tx:
            tx.leases.release(old)
        with pytest.raises(LostLease):
            store.leases.renew(old, 10)
        assert store.leases.release(old) is False
        new = store.leases.acquire("a", "you", 600)
        assert new.token > old.token
        with pytest.raises(LostLease):
            store.leases.renew(old, 10)
        family.delete("a")


def test_retention_revokes(store, clock):
    store.instances.put(Instance("a", "wf", status="completed"))
    old = store.leases.acquire("a", "me", 1)
    store.retention.set(Policy("instances", terminal_older_than=timedelta(hours=1)))
    clock.advance(7200)
    while not store.retention.run().complete:
        pass
    assert store.instances.find("a") is None
    assert store.leases.acquire("a", "you", 10).token > old.token


def test_a_lease_and_its_record_go_in_one_transaction(store):
    store.instances.put(Instance("a", "wf"))
    lease = store.leases.acquire("a", "me", 600)
    with store.transaction(lease=lease) as tx:
        tx.instances.delete("a")
        again = tx.leases.acquire("a", "me", 600)
        assert again.token > lease.token
    assert store.leases.holder("a") == again


def rows(database, tag):
    engine = database.raw()
    start = database.namespace.encode() + b"\0" + tag
    return [row for part in range(engine.parts) for row in engine.scan(part, start, start + b"\xff", limit=10_000)]


def test_what_remains_is_a_constant(database, store):
    """Of any number of deleted runs: at most `MARKS` rows of leases in a part, no counters, no heads."""
    for n in range(150):
        id = f"run-{n}"
        store.instances.start(Instance(id, "wf", business_key=id, status="running"))
        store.leases.release(store.leases.acquire(id, "me", 60))
        store.leases.release(store.leases.acquire(f"other-{n}", "me", 60))
        store.instances.delete(id)
    while not store.retention.run().complete:
        pass
    store.retention.run()
    parts = database.raw().parts
    left = [row for row in rows(database, b"LT") if b"retention" not in row.key]
    assert (left, rows(database, b"C"), rows(database, b"Hk")) == ([], [], [])
    assert len(rows(database, b"LM")) <= MARKS * parts
    assert store.check() == []
    assert store.leases.acquire("run-7", "me", 60).token > 1
    assert store.instances.count() == 0


def test_a_sweep_leaves_what_is_in_use(database, store, clock):
    """A worker that died at a record leaves a lease that says so, for as long as the record is there."""
    store.executions.create(Execution("r/a", "job"))
    store.executions.claim("dead", 10)
    kept = store.leases.acquire("held", "me", 10 * 86400)
    store.leases.acquire("dead", "me", 10)
    clock.advance(3 * 86400)
    store.retention.run()
    assert store.leases.holder("held") == kept
    assert sorted(row.key.split(b"LT")[1] for row in rows(database, b"LT") if b"retention" not in row.key) == [
        b"held\0",
        b"r/a\0",
    ]
    (claim,) = store.executions.claim("me", 10)
    assert claim.record.id == "r/a"


def test_tokens_rise_over_a_copy(tmp_path):
    for number, start in enumerate((stateroom.restore, stateroom.copy)):
        live, back = (str(tmp_path / f"{name}{number}.db") for name in ("live", "back"))
        with stateroom.open(live) as store:
            known = store.leases.acquire("known", "old", 600)
            store.backup(live + ".backup")
            old = store.leases.acquire("job", "old", 600)
            for _ in range(5):
                known = store.leases.acquire("known", "old", 600)
        start(live + ".backup", back)
        with stateroom.open(back) as store:
            new = store.leases.acquire("job", "new", 600)
            assert new.token > old.token
            assert store.leases.acquire("known", "old", 600).token > known.token
            for lost in (old, known):
                with pytest.raises(LostLease), store.transaction(lease=lost) as tx:
                    tx.instances.put(Instance(lost.key, "by the old holder"))
            assert store.leases.release(old) is False
            assert store.leases.holder("job") == new
            assert store.check() == []


def test_tokens_rise_over_a_copy_in_a_namespace_that_came_after_it(tmp_path):
    for number, start in enumerate((stateroom.restore, stateroom.copy)):
        live, back = (str(tmp_path / f"{name}{number}.db") for name in ("live", "back"))
        with stateroom.open(live) as store:
            store.backup(live + ".backup")  # of nothing at all
            old = store.leases.acquire("job", "old", 600)
        start(live + ".backup", back)
        with stateroom.open(back) as store:
            assert store.leases.acquire("job", "new", 600).token > old.token
            with pytest.raises(LostLease), store.transaction(lease=old) as tx:
                tx.instances.put(Instance("job", "by the old holder"))


def test_tokens_rise_over_the_deletion_of_a_namespace(store):
    last = store.leases.acquire("job", "a", 600)
    for _ in range(3):
        store.leases.release(last)
        store.delete_namespace(store.instances._scope.namespace)
        new = store.leases.acquire("job", "b", 600)
        assert new.token > last.token
        with pytest.raises(LostLease), store.transaction(lease=last) as tx:
            tx.instances.put(Instance("job", "by the old holder"))
        assert store.check() == []
        last = new


def test_tokens_rise_for_ever_whatever_happens(store, clock):
    last = 0
    for number, step in zip(
        range(40), itertools.cycle(("release", "delete", "expire", "sweep", "again")), strict=False
    ):
        store.instances.put(Instance("a", "wf", metadata={"n": number}))
        lease = store.leases.acquire("a", "me", 10)
        assert lease.token > last
        last = lease.token
        if step == "release":
            store.leases.release(lease)
        elif step == "delete":
            store.instances.delete("a")
        elif step == "expire":
            clock.set(-5000)
            clock.advance(11)
        elif step == "sweep":
            store.leases.release(lease)
            store.instances.delete("a")
            store.retention.run()


def test_a_lease_with_a_low_token_does_not_lower_what_remains_of_another(store):
    mark = crc32(b"r/long") % MARKS
    short = next(id for id in (f"r/{number}" for number in range(10_000)) if crc32(id.encode()) % MARKS == mark)
    for id, times in (("r/long", 5), (short, 1)):
        store.instances.put(Instance(id, "w"))
        for _ in range(times):
            last = store.leases.acquire(id, "me", 60)
            store.leases.release(last)
        if id == "r/long":
            high = last.token
            store.leases.acquire(short, "me", 60)  # before the other is gone: its token is low
    store.instances.delete("r/long")
    store.instances.delete(short)
    assert store.leases.acquire("r/long", "me", 60).token > high
