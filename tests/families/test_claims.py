"""Claims: work is taken once, with its lease, by the oldest change."""

import asyncio
import threading
from datetime import timedelta

import pytest

from kit.databases import BLOCKING, SUSPENDING
from stateroom import Claim, Event, Execution, Instance
from stateroom.engines.wrap import Conflicting, Recording, Slow
from stateroom.errors import InvalidArgument, LostLease
from stateroom.testing.family_harness import nothing_changes, together


def ids(claims):
    return [claim.record.id for claim in claims]


def test_an_instance_comes_with_its_lease(store, other):
    store.instances.put(Instance("r", "wf"))
    (claim,) = store.instances.claim("me", 10)
    assert isinstance(claim, Claim)
    assert claim.record == store.instances.get("r")
    assert claim.lease == other.leases.holder("r")
    assert (claim.lease.key, claim.lease.owner) == ("r", "me")
    assert store.instances.claim("me", 10) == other.instances.claim("you", 10) == ()
    with store.transaction(lease=claim.lease) as tx:
        tx.instances.update("r", status="completed")
        assert tx.leases.release(claim.lease)
    assert store.instances.claim("you", 10) == ()


def test_an_execution_gets_its_state_and_node_in_the_same_commit(store):
    made = store.executions.create(Execution("r", "job", details={"n": 1}))
    position = store.feed.latest()
    (claim,) = store.executions.claim("node-1", 10)
    assert (claim.record.state, claim.record.node_id, claim.record.revision) == ("running", "node-1", 2)
    assert claim.record.details == made.details
    assert claim.record == store.executions.get("r")
    (change,) = store.feed.read(position).items
    assert (change.record, change.previous) == (claim.record, made)
    assert store.leases.holder("r") == claim.lease
    assert store.executions.claim("node-2", 10) == ()


def test_the_oldest_change_comes_first(store, clock):
    for id in ("r/c", "r/a", "r/b"):
        store.instances.put(Instance(id, "wf"))
        store.executions.create(Execution(id + "x", "job"))
        clock.advance(1)
    store.instances.update("r/c", current_step="again")
    assert ids(store.instances.claim("me", 10, limit=2)) == ["r/a", "r/b"]
    assert ids(store.instances.claim("me", 10, limit=2)) == ["r/c"]
    assert ids(store.executions.claim("me", 10)) == ["r/cx"]
    assert ids(store.executions.claim("me", 10, limit=5)) == ["r/ax", "r/bx"]


def test_equal_times_are_in_the_order_of_commits(store):
    names = [f"r/{n * 7 % 40:02}" for n in range(40)]
    for id in names:
        store.executions.create(Execution(id, "job"))
    assert ids(store.executions.claim("me", 10, limit=3)) == names[:3]
    taken = [id for _ in range(37) for id in ids(store.executions.claim("me", 10))]
    assert taken == names[3:]


def test_filters(store):
    store.instances.put(Instance("r/a", "wf", status="waiting"))
    store.instances.put(Instance("r/b", "other"))
    store.instances.put(Instance("r/c", "wf", status="completed"))
    for n in range(20):
        store.instances.put(Instance(f"r/d{n}", "many"))
    assert store.instances.claim("me", 10, workflow="wf", status_in=["running"]) == ()
    assert ids(store.instances.claim("me", 10, workflow="wf", limit=5)) == ["r/a"]
    assert ids(store.instances.claim("me", 10, status_in=["completed"], limit=5)) == ["r/c"]
    assert ids(store.instances.claim("me", 10, workflow="other")) == ["r/b"]
    store.executions.create(Execution("r/e", "job", state="bid_accepted"))
    store.executions.create(Execution("r/f", "job2"))
    assert store.executions.claim("me", 10, job_id="job") == ()
    claims = store.executions.claim("me", 10, job_id="job", states=["new", "bid_accepted"], to="publishing")
    assert [(claim.record.id, claim.record.state) for claim in claims] == [("r/e", "publishing")]
    assert ids(store.executions.claim("me", 10, job_id="job2")) == ["r/f"]


def test_many_others_are_not_looked_through(store):
    """A job with few executions among many new ones is found through its own index, and the other way round."""
    store.executions.create_many([Execution(f"r/{n:04}", "many") for n in range(1100)])
    store.executions.create(Execution("r/x", "few"))
    assert ids(store.executions.claim("me", 10, job_id="few")) == ["r/x"]
    assert ids(store.executions.claim("me", 10, job_id="many")) == ["r/0000"]


def test_a_dead_workers_claim_runs_out(store, other, clock):
    store.instances.put(Instance("r/a", "wf"))
    store.executions.create(Execution("r/b", "job"))
    (first,) = store.instances.claim("dead", 10)
    (second,) = store.executions.claim("dead", 10)
    clock.advance(9)
    assert other.instances.claim("me", 10) == other.executions.claim("me", 10) == ()
    clock.advance(1)
    (taken,) = other.instances.claim("me", 10)
    assert (taken.record, taken.lease.owner) == (first.record, "me")
    assert taken.lease.token > first.lease.token
    (again,) = other.executions.claim("me", 10)
    assert (again.record.id, again.record.node_id, again.record.revision) == ("r/b", "me", 3)
    for lost in (first.lease, second.lease):
        with pytest.raises(LostLease), store.transaction(lease=lost) as tx:
            tx.leases.renew(lost, 10)


def test_what_was_never_claimed_is_not_taken_for_dead(store, clock):
    store.executions.create(Execution("r", "job"))
    store.executions.update("r", state="running")
    assert store.executions.claim("me", 10) == ()
    lease = store.leases.acquire("r", "by hand", 10)
    store.leases.release(lease)
    clock.advance(100)
    assert store.executions.claim("me", 10) == ()
    assert ids(store.executions.claim("me", 10, states=["new", "running"])) == ["r"]


def test_limits(store):
    store.executions.create_many([Execution(f"r/{n:03}", "job") for n in range(600)])
    claims = store.executions.claim("me", 10, limit=1000)
    assert 1 <= len(claims) <= 1000
    while len(claims) < 600:
        more = store.executions.claim("me", 10, limit=1000)
        assert more
        claims += more
    assert sorted(ids(claims)) == [f"r/{n:03}" for n in range(600)]
    assert store.executions.claim("me", 10) == ()


def test_all_parts_are_tried(store):
    names = [f"root-{n}" for n in range(12)]
    store.instances.put_many([Instance(id, "wf") for id in names])
    taken = [id for _ in names for id in ids(store.instances.claim("me", 10))]
    assert sorted(taken) == sorted(names)


@pytest.mark.parametrize("family", ["instances", "executions"])
def test_never_twice_over_threads(store, other, family):
    count = 60
    if family == "instances":
        store.instances.put_many([Instance(f"r{n % 5}/{n}", "wf") for n in range(count)])
    else:
        store.executions.create_many([Execution(f"r{n % 5}/{n}", "job") for n in range(count)])

    def work(number):
        taken = []
        for _ in range(count):
            claims = getattr((store, other)[number % 2], family).claim(f"w{number}", 600)
            taken += ids(claims)
        return taken

    taken = [id for some in together(4, work, 4) for id in some]
    assert len(taken) == len(set(taken)) == count


@SUSPENDING
def test_never_twice_over_tasks(database):
    async def work(store):
        await store.executions.create_many([Execution(f"r{n % 3}/{n}", "job") for n in range(40)])

        async def worker(number):
            taken = []
            while claims := await store.executions.claim(f"w{number}", 600, limit=2, wait=0.05):
                taken += ids(claims)
            return taken

        return [id for some in await asyncio.gather(*map(worker, range(8))) for id in some]

    taken = database.run(work)
    assert len(taken) == len(set(taken)) == 40


@BLOCKING
def test_another_process_is_faster(database, store):
    """Its commit comes between the look and the claim: the next one is taken instead."""
    for n in range(3):
        store.executions.create(Execution(f"r/{n}", "job"))
    taken = []

    def interfere(number, part, batch):
        if number == 1:
            taken.extend(store.executions.claim("faster", 60))

    beside = database.over(Conflicting(database.raw(), interfere=interfere))
    claims = beside.executions.claim("me", 60)
    assert ids(taken) == ["r/0"]
    assert len(claims) == 1
    assert ids(claims) != ids(taken)


@BLOCKING
@pytest.mark.parametrize("change", ["updated", "deleted", "leased"])
def test_what_changes_meanwhile_is_not_claimed_as_it_was(database, store, change):
    store.executions.create(Execution("r", "job"))

    def interfere(number, part, batch):
        if number == 1 and change == "updated":
            store.executions.update("r", state="cancelled")
        elif number == 1 and change == "deleted":
            store.executions.delete("r")
        elif number == 1:
            store.leases.acquire("r", "other", 60)

    beside = database.over(Conflicting(database.raw(), interfere=interfere))
    assert beside.executions.claim("me", 60) == ()


def test_waits_for_work(store, other):
    assert store.instances.claim("me", 10, wait=0.01) == ()
    started = threading.Event()

    def create():
        started.wait(30)
        other.instances.put(Instance("r", "wf"))

    thread = threading.Thread(target=create)
    thread.start()
    started.set()
    assert ids(store.instances.claim("me", 10, wait=60)) == ["r"]
    thread.join()


@BLOCKING
def test_an_idle_worker_asks_next_to_nothing(database, store):
    """It looks when it comes, and once more when its time is over, however long that is."""
    store.instances.put(Instance("held", "wf"))
    store.leases.acquire("held", "me", 3600)
    engine = Recording(database.raw())
    idle = database.over(engine)
    assert idle.instances.claim("me", 10) == ()
    once = len(engine.calls)
    engine.calls.clear()
    assert idle.instances.claim("me", 10, wait=0.3) == ()
    assert len(engine.calls) <= 2 * (once + 4)


@BLOCKING
def test_a_busy_neighbour_does_not_make_it_look_each_time(database, store):
    """Every commit wakes it; after some that brought nothing it takes its time."""
    neighbour = iter(range(10_000))
    engine = Slow(database.raw(), lambda name, part: None)
    looks = []

    def before(name, part):
        if name == "wait":
            looks.append(name)
            store.timers.set(f"t{next(neighbour)}", timedelta(days=1))

    engine.before = before
    assert database.over(engine).executions.claim("me", 10, wait=0.5) == ()
    assert 2 <= len(looks) <= 25


def test_waits_for_a_lease_to_run_out(store):
    store.instances.put(Instance("r", "wf"))
    store.leases.acquire("r", "dead", 60)
    threading.Timer(0.02, lambda: store.leases.release(store.leases.holder("r"))).start()
    assert ids(store.instances.claim("me", 10, wait=60)) == ["r"]


@SUSPENDING
def test_a_cancelled_caller_keeps_nothing(database):
    async def work(store):
        await store.executions.create(Execution("r", "job"))
        await store.instances.put(Instance("i", "wf"))
        for turns in range(12):
            for claim in (store.executions.claim, store.instances.claim):
                task = asyncio.ensure_future(claim("gone", 600))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                (outcome,) = await asyncio.gather(task, return_exceptions=True)
                if not isinstance(outcome, BaseException):
                    for made in outcome:
                        await store.leases.release(made.lease)
                        if made.lease.key == "r":
                            await store.executions.update("r", state="new", node_id=None)
                assert await store.leases.holder("r") is None
                assert await store.leases.holder("i") is None
                record = await store.executions.get("r")
                assert (record.state, record.node_id) == ("new", None)

    database.run(work)


def test_bad_input(store):
    store.executions.create(Execution("r", "job"), events=[Event("made")])
    store.instances.put(Instance("r", "wf"))
    with nothing_changes(store):
        for call in (
            lambda: store.instances.claim("", 10),
            lambda: store.instances.claim("me", 0),
            lambda: store.instances.claim("me", 10, limit=0),
            lambda: store.instances.claim("me", 10, limit=1001),
            lambda: store.instances.claim("me", 10, wait=-1),
            lambda: store.instances.claim("me", 10, status_in=["bogus"]),
            lambda: store.instances.claim("me", 10, workflow=" "),
            lambda: store.executions.claim("me", 10, states=["bogus"]),
            lambda: store.executions.claim("me", 10, states=["completed"]),
            lambda: store.executions.claim("me", 10, to="cancelled"),
            lambda: store.executions.claim("me", 10, job_id=""),
        ):
            with pytest.raises(InvalidArgument):
                call()
        with pytest.raises(InvalidArgument), store.transaction() as tx:
            tx.executions.claim("me", 10)
    assert store.leases.holder("r") is None


@BLOCKING
def test_what_is_running_is_not_looked_through_by_every_idle_worker(database, store, clock):
    """Thousands may be running while workers ask for more: they are read once, and again when the first runs out."""
    store.executions.create_many([Execution(f"r/{n}", "job") for n in range(40)])
    store.executions.claim("busy", 600, limit=40)
    engine = Recording(database.raw())
    idle = database.over(engine)
    assert idle.executions.claim("idle", 10) == ()
    whole = sum(len(call.what) for call in engine.calls if call.name == "read")
    engine.calls.clear()
    assert idle.executions.claim("idle", 10) == ()
    assert sum(len(call.what) for call in engine.calls if call.name == "read") < whole / 2
    clock.advance(600)
    assert len(idle.executions.claim("idle", 10, limit=40)) == 40
