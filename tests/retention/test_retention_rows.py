"""Nothing stops retention: neither types that are unknown here, nor damaged rows, clocks that were wrong, or outages."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from kit.aging import blocking
from kit.away import Away
from kit.databases import SEVERAL, SUSPENDING
from stateroom import Execution, Instance, Policy
from stateroom.codec import Codec
from stateroom.core import outage
from stateroom.core.bridge import run_now
from stateroom.core.transaction import transact
from stateroom.engine import Batch
from stateroom.engines.wrap import Slow
from stateroom.errors import LostLease
from stateroom.families.results import clear
from stateroom.feed import positions
from stateroom.records.counters import swept_key
from stateroom.retention import counters, feed, run
from watch.test_watch import until

SECOND = timedelta(seconds=1)


@dataclass
class Order:
    n: int


def knowing():
    codec = Codec()
    codec.register(Order, name="order")
    return codec


def everything(store, **bounds):
    """Run to the end, and give what the last run but one did not."""
    while not (removed := store.retention.run(**bounds)).complete:
        pass
    return removed


@SEVERAL
def test_what_is_over_goes_whatever_its_type(database, clock):
    with database.open(codec=knowing()) as store:
        store.executions.create(Execution("e", "j", data=Order(1)), events=())
        store.executions.update("e", state="completed", unexpected_states=())
        store.instances.put(Instance("i", "w", status="completed", metadata={"o": Order(2)}))
        store.machines.define("m", {"a": {}}, initial="a", final=("a",))
        store.machines.save("m", "x", "a", Order(3))
        store.results.put("d", "old", Order(4))
        store.results.put("d", "expiring", [Order(5)] * 20_000, ttl=1)
        for number in range(30):
            store.results.put("d", f"later{number}", "x", ttl=2)
        store.savepoints.init("run")
        for timestamp in (1, 2):
            store.savepoints.save("run", timestamp, {"e": Order(timestamp)})
    with database.open(codec=Codec()) as store:
        for family in ("executions", "instances", "machines"):
            store.retention.set(Policy(family, terminal_older_than=SECOND))
        store.retention.set(Policy("results", older_than=SECOND))
        store.retention.set(Policy("savepoints", older_than=SECOND))
        clock.advance(10)
        plan = store.retention.plan()
        assert {item.family: item.count for item in plan.items}["executions"] == 1
        removed = everything(store)
        assert removed.unreadable == 0
        assert store.executions.count("completed") == store.instances.count() == store.machines.count("m") == 0
        assert store.results.ids("d") == store.savepoints.list("run") == ()
        store.retention.set(Policy("feed", older_than=SECOND))
        clock.advance(10)
        everything(store)
        assert store.check() == []


@SEVERAL
def test_a_damaged_record_holds_up_no_other(database, clock):
    store = database.open()
    for number in range(6):
        store.executions.create(Execution(f"r/{number}", "j"))
        store.executions.update(f"r/{number}", state="completed")
        store.results.put("r", f"x{number}", number, ttl=1)
    engine, prefix = database.raw(), database.namespace.encode() + b"\0"
    broken = []
    for tail in (b"Rer/2\0", b"Rrr\0x2\0"):
        (part,) = [part for part in range(engine.parts) if engine.read(part, [prefix + tail])[0] is not None]
        (row,) = engine.read(part, [prefix + tail])
        broken.append((part, row))
        engine.commit(part, Batch(write={row.key: row.value[:-1]}))
    store.retention.set(Policy("executions", terminal_older_than=SECOND))
    clock.advance(10)
    removed = store.retention.run()
    assert removed.complete
    assert removed.unreadable == 1
    assert removed.families["executions"] == 5
    assert store.executions.count("completed") == 1
    assert store.results.ids("r") == ()
    assert sorted(problem.id for problem in store.check() if problem.code == "damaged") == ["r/2", "r/x2"]
    database.codec = None


def test_an_entry_from_the_future_does_not_stop_the_feed(store, clock):
    clock.advance(10 * 365 * 86400)
    store.instances.put(Instance("r/wrong", "w"))
    clock.advance(-10 * 365 * 86400)
    store.retention.set(Policy("feed", older_than=timedelta(days=1), max_pinned=timedelta(days=2)))
    for day in range(10):
        clock.advance(86400)
        store.instances.put(Instance("r/b", "w", metadata={"day": day}))
        store.retention.run()
    assert len(store.feed.read(ids=["r/b"]).items) <= 2
    assert store.feed.read(ids=["r/wrong"]).items == ()
    assert store.retention.plan().count == 0


def test_many_entries_from_the_future_do_not_either(store, clock, monkeypatch):
    monkeypatch.setattr(feed, "RUN", 4)
    clock.advance(10 * 365 * 86400)
    for number in range(11):
        store.feed.emit("note", number, id="r")
    clock.advance(-10 * 365 * 86400)
    store.feed.emit("note", "right", id="r")
    store.checkpoints.set("c", "beginning")
    store.retention.set(Policy("feed", older_than=SECOND))
    clock.advance(10)
    assert [pin.name for pin in store.retention.plan().pins] == ["c"]
    store.checkpoints.delete("c")
    everything(store)
    assert store.feed.read().items == ()


def test_what_nothing_follows_is_as_young_as_it_says(store, clock):
    clock.advance(86400)
    store.feed.emit("note", 1, id="r")
    clock.advance(-86400)
    store.retention.set(Policy("feed", older_than=SECOND))
    clock.advance(10)
    everything(store)
    assert len(store.feed.read().items) == 1


def test_a_position_of_another_time_holds_the_feed_and_stops_nothing(store, clock, monkeypatch):
    store.feed.emit("note", 1, id="r")
    store.checkpoints.set("c", store.feed.latest())
    store.retention.set(Policy("feed", older_than=SECOND, max_pinned=timedelta(seconds=100)))
    clock.advance(10)

    async def foreign(scope, position):
        raise feed.InvalidArgument("of another database", what="position")

    monkeypatch.setattr(positions, "read", foreign)
    everything(store)
    assert [pin.name for pin in store.retention.plan().pins] == ["c"]
    assert len(store.feed.read().items) == 1
    clock.advance(100)
    everything(store)
    assert store.feed.read().items == ()


def test_counters_of_what_is_gone_go_too(database, store):
    for number in range(20):
        store.executions.create(Execution(f"e{number}", f"j{number}"))
        store.machines.save(f"m{number}", "x", "s", 1)
        store.results.put(f"d{number}", "x", 1)
    for number in range(19):
        store.executions.delete(f"e{number}")
        store.machines.purge(f"m{number}", "x")
        store.results.clear(f"d{number}")
    everything(store)
    engine, prefix = database.raw(), database.namespace.encode() + b"\0C"
    left = [row for part in range(engine.parts) for row in engine.scan(part, prefix, prefix + b"\xff", limit=1000)]
    assert len(left) <= 2 + 2 + 2
    assert all(int.from_bytes(row.value, "big") for row in left)
    assert store.executions.count("new") == 1
    assert store.machines.count("m19") == 1
    store.executions.create(Execution("e0", "j0"))
    assert store.executions.count("new") == 2


def test_a_counter_that_counts_again_stays(database, store, monkeypatch):
    store.results.put("r", "x", 1)
    store.results.clear("r")
    other = blocking(database)
    looked = []

    def write(name, part):
        if name == "commit" and not looked:
            looked.append(part)
            other.results.put("r", "y", 2)

    scope, run_in = database.inside(database.over(Slow(database.raw(), write)))
    for part in range(scope.parts):
        run_in(counters.sweep(scope, part))
    assert looked
    assert store.results.ids("r") == ("y",)


def test_a_clear_notices_that_counters_came_and_went(database, store):
    """It expects counters that are not there: one that was there meanwhile must not be missed."""
    other = blocking(database)
    scope, run_in = database.inside(store)
    store.results.put("r", "kept", 1)
    store.results.clear("r")
    everything(other)
    done = []

    async def body(tx):
        rows = tx.at("r")
        await rows.get(swept_key(scope))
        if not done:
            done.append(True)
            other.results.put("r", "x", 1)
            other.results.clear("r")
            everything(other)
        return await clear.clear(tx, "r")

    assert run_in(transact(scope, body)) == 0
    assert store.check() == []


def test_a_run_longer_than_its_lease_keeps_it(database, store, clock, monkeypatch):
    monkeypatch.setattr(run, "_SLICE", 1)
    for number in range(40):
        store.executions.create(Execution(f"r/{number}", "j"))
        store.executions.update(f"r/{number}", state="completed")
    monkeypatch.setattr("stateroom.retention.records.BATCH", 2)
    store.retention.set(Policy("executions", terminal_older_than=SECOND))
    clock.advance(10)
    commits, refused = [], []
    other = blocking(database)

    def pass_time(name, part):
        commits.append(name)
        if name == "commit" and commits.count(name) > 1:  # the first takes the lease
            clock.advance(run.LEASE_SECONDS / 4.5)
            try:
                other.retention.run()
            except LostLease:
                refused.append(name)

    removed = database.over(Slow(database.raw(), pass_time)).retention.run(max_seconds=1e6)
    assert removed.complete
    assert removed.families["executions"] == 40
    assert len(refused) > 10


def test_pruners_that_overlap_leave_one_floor(database, store, clock):
    for number in range(20):
        store.feed.emit("note", number, id="r")
    clock.advance(10)
    other, engine = blocking(database), database.raw()
    allowed = feed.Limits(Policy("feed", older_than=SECOND), 10**18, [(2**62, 0)] * engine.parts)
    overlapped = []

    def prune_too(name, part):
        if name == "commit" and not overlapped:
            overlapped.append(part)
            run_now(feed.prune(other._scope, part, allowed, 15))

    scope, run_in = database.inside(database.over(Slow(engine, prune_too)))
    part = scope.part("r")
    assert run_in(feed.prune(scope, part, allowed, 5)) == 5
    assert overlapped == [part]
    assert store.feed.read(ids=["r"]).items == ()  # 15 by one and, behind them, 5 by the other
    store.feed.emit("note", "new", id="r")
    assert [change.record for change in store.feed.read().items] == ["new"]


@SUSPENDING
def test_a_run_that_is_cancelled_leaves_nobody_waiting(database, clock):
    """After whatever number of turns of the event loop."""

    async def work(store):
        await store.executions.create(Execution("e", "j"))
        for turns in range(12):
            task = asyncio.ensure_future(store.retention.run())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await store.retention.run()  # not LostLease

    database.run(work)


def test_what_runs_beside_the_store_goes_on_after_an_outage(database, store, clock, monkeypatch):
    monkeypatch.setattr(outage, "LEAST_SECONDS", 0.0001)
    monkeypatch.setattr(outage, "MOST_SECONDS", 0.001)
    away = Away(database.raw())
    cleaner = database.over(away)
    store.executions.create(Execution("e", "j"))
    store.executions.update("e", state="completed")
    store.retention.set(Policy("executions", terminal_older_than=SECOND))
    clock.advance(10)
    away.leave("commit")
    cleaner.retention.start(every=1e6)
    until(lambda: away.refused > 25)
    away.come_back()
    until(lambda: store.executions.count("completed") == 0)  # without waiting for the next million seconds
    cleaner.retention.stop()
