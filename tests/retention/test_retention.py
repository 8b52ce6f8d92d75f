"""What a policy says goes, with all that hangs on it; what it does not say stays."""

from datetime import timedelta

import pytest

from kit.aging import DAY, HOUR, Interfering, Sizes, blocking, ids, instance, keys_left
from stateroom import Event, Execution, Policy
from stateroom.engines.wrap import Recording
from stateroom.errors import AlreadyExists, InvalidArgument, LostLease
from stateroom.retention.run import LEASE_KEY

# --- policies are data ---


def test_policies_are_kept_and_seen_by_every_client(store, other):
    first = Policy("instances", terminal_older_than=DAY, keep_latest=3)
    assert store.retention.set(first) == first
    store.retention.set(Policy("feed", older_than=DAY, max_pinned=7 * DAY))
    assert other.retention.get("instances") == first
    assert other.retention.list() == (Policy("feed", older_than=DAY, max_pinned=7 * DAY), first)
    store.retention.set(Policy("instances", older_than=HOUR))
    assert other.retention.list()[1] == Policy("instances", older_than=HOUR)
    assert store.retention.delete("instances") is True
    assert store.retention.delete("instances") is False
    assert other.retention.get("instances") is None


def test_policies_survive_reopening_and_belong_to_a_namespace(store, database, reopen):
    store.retention.set(Policy("executions", terminal_older_than=DAY))
    assert store.namespace("elsewhere").retention.list() == ()
    assert reopen().retention.get("executions") == Policy("executions", terminal_older_than=DAY)


@pytest.mark.parametrize(
    "policy",
    [
        Policy("no such family", older_than=DAY),
        Policy("instances"),
        Policy("instances", older_than=timedelta(seconds=-1)),
        Policy("instances", older_than="3600"),
        Policy("instances", older_than=timedelta.max),
        Policy("feed", older_than=DAY, max_pinned=1e12),
        Policy("instances", keep_latest=0),
        Policy("instances", keep_latest=True),
        Policy("instances", max_pinned=DAY, older_than=DAY),
        Policy("feed", max_pinned=DAY),
        Policy("feed", older_than=DAY, keep_latest=3),
        Policy("feed", terminal_older_than=DAY),
        Policy("results", terminal_older_than=DAY),
        Policy("savepoints", terminal_older_than=DAY, keep_latest=3),
        Policy("once", keep_latest=3),
        Policy("once", terminal_older_than=DAY),
        "instances",
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(store, policy):
    with pytest.raises(InvalidArgument):
        store.retention.set(policy)
    assert store.retention.list() == ()


def test_bounds_that_make_no_sense_are_refused(store):
    for bounds in ({"max_records": 0}, {"max_records": 1.5}, {"max_seconds": 0}, {"max_seconds": "1"}):
        with pytest.raises(InvalidArgument):
            store.retention.run(**bounds)
    with pytest.raises(InvalidArgument):
        store.retention.start(every=0)
    with pytest.raises(InvalidArgument), store.transaction() as tx:
        tx.retention.run()


def test_without_a_policy_nothing_goes(store, clock):
    store.instances.put(instance("a"))
    clock.advance(1e8)
    assert store.retention.plan().items == ()
    assert store.retention.run().count == 0
    assert store.instances.find("a") is not None


# --- by age ---


def test_terminal_records_go_when_they_are_old_enough_and_others_stay(store, clock):
    store.retention.set(Policy("instances", terminal_older_than=HOUR))
    for status in ("completed", "failed", "cancelled", "pending", "running", "waiting"):
        store.instances.put(instance(f"{status}/x", status))
    clock.advance(3599)
    store.instances.put(instance("young"))
    assert store.retention.run().count == 0
    clock.advance(1)
    (item,) = store.retention.plan().items
    assert (item.family, item.count, item.why) == ("instances", 3, "terminal_older_than 1:00:00")
    assert set(item.examples) == {"completed/x", "failed/x", "cancelled/x"}
    assert store.instances.count() == 7
    done = store.retention.run()
    assert (done.families["instances"], done.complete) == (3, True)
    assert ids(store.instances.scan()) == ["pending/x", "running/x", "waiting/x", "young"]
    assert store.retention.plan().items[0].count == 0


def test_time_counts_from_becoming_terminal_however_often_it_is_rewritten(store, clock):
    store.retention.set(Policy("instances", terminal_older_than=HOUR))
    store.instances.put(instance("a", "running"))
    clock.advance(7200)
    store.instances.put(instance("a"))
    for _ in range(3):
        clock.advance(1000)
        store.instances.put(instance("a", metadata={"note": 1}))
    assert store.retention.run().count == 0
    clock.advance(600)
    assert store.retention.plan().items[0].count == 1
    assert store.retention.run().count == 1
    assert store.instances.find("a") is None


def test_a_record_that_became_active_again_counts_anew(store, clock, database):
    store.retention.set(Policy("instances", terminal_older_than=HOUR))
    store.instances.put(instance("a"))
    clock.advance(1000)
    store.instances.put(instance("a", metadata={"rewritten": True}))
    assert keys_left(database, b"YE", b"YS")
    clock.advance(1000)
    store.instances.put(instance("a", "running"), expected_revision=2)
    assert not keys_left(database, b"YE", b"YS")
    clock.advance(7200)
    assert store.retention.run().count == 0
    store.instances.put(instance("a"))
    clock.advance(3599)
    assert store.retention.run().count == 0
    clock.advance(1)
    assert store.retention.run().count == 1


def test_records_by_age_whatever_their_state(store, clock):
    store.retention.set(Policy("instances", older_than=HOUR))
    store.retention.set(Policy("executions", older_than=HOUR))
    store.instances.start(instance("k/1", "running", business_key="k"))
    store.executions.create(Execution("e", "j"))
    clock.advance(1800)
    store.instances.put(instance("late", "running"))
    clock.advance(1800)
    done = store.retention.run()
    assert (done.families["instances"], done.families["executions"]) == (1, 1)
    assert ids(store.instances.scan()) == ["late"]
    assert store.instances.active("k") is None
    store.instances.start(instance("k/2", "running", business_key="k"))  # nothing is left that forbids it


def test_both_ages_must_be_reached(store, clock):
    store.retention.set(Policy("instances", terminal_older_than=2 * HOUR, older_than=HOUR))
    store.instances.put(instance("a"))
    store.instances.put(instance("b", "running"))
    clock.advance(3600)
    assert store.retention.run().count == 0
    clock.advance(3600)
    store.instances.put(instance("a", metadata={"touched": True}))
    assert store.retention.run().count == 0
    clock.advance(3600)
    assert store.retention.run().families["instances"] == 1
    assert ids(store.instances.scan()) == ["b"]


def test_machines_go_when_they_are_final_or_old(store, clock):
    store.machines.define("m", {"on": {"stop": "off"}}, initial="on", final=("off",))
    store.machines.save("m", "a", "on", {})
    store.machines.save("m", "a", "off", {}, event="stop")
    store.machines.fail("m", "a", "why")
    store.machines.save("m", "b", "on", {})
    store.machines.save("undefined", "c", "off", {})
    store.retention.set(Policy("machines", terminal_older_than=HOUR))
    clock.advance(3600)
    assert store.retention.plan().items[0].examples == ("m/a",)
    assert store.retention.run().families["machines"] == 1
    assert store.machines.find("m", "a") is None
    assert store.machines.last_error("m", "a") is None
    assert len(store.machines.history("m", "a")) == 0
    store.retention.set(Policy("machines", older_than=HOUR))
    assert store.retention.run().families["machines"] == 2


# --- by number ---


def test_the_newest_of_each_group_are_kept(store, clock):
    store.retention.set(Policy("instances", keep_latest=2))
    for number in range(5):
        clock.advance(1)
        store.instances.put(instance(f"a{number}", workflow="a"))
        store.instances.put(instance(f"b{number}", "running" if number else "failed", workflow="b"))
    assert store.retention.plan().items[0].count == 3
    assert store.retention.run().families["instances"] == 3
    assert ids(store.instances.scan(workflow="a")) == ["a3", "a4"]
    assert len(list(store.instances.scan(workflow="b"))) == 5


def test_the_newest_are_kept_even_when_they_are_old(store, clock):
    store.retention.set(Policy("executions", terminal_older_than=HOUR, keep_latest=1))
    for number in range(4):
        store.executions.create(Execution(f"e{number}", "j"))
        store.executions.update(f"e{number}", state="completed")
        clock.advance(60)
    clock.advance(3600)
    assert store.retention.run().families["executions"] == 3
    assert ids(store.executions.for_job("j")) == ["e3"]
    assert store.retention.run().count == 0


def test_results_go_by_age_and_expired_ones_in_any_run(store, clock):
    store.results.put("d", "old", 1)
    store.results.put("d", "brief", 2, ttl=60)
    clock.advance(3600)
    store.results.put("d", "young", b"x" * 200_000)
    assert store.retention.run().families == {"expired": 1}
    store.retention.set(Policy("results", older_than=HOUR))
    assert store.retention.run().families["results"] == 1
    assert store.results.ids("d") == ("young",)


def test_the_newest_savepoints_of_each_run_are_kept(store, clock):
    for run in ("a", "b"):
        store.savepoints.init(run)
        for timestamp in (10, 20, 30):
            store.savepoints.save(run, timestamp, {"x": timestamp, "y": "same"})
            clock.advance(1)
    store.retention.set(Policy("savepoints", keep_latest=2))
    assert store.retention.plan().items[0].count == 2
    assert store.retention.run().families["savepoints"] == 2
    assert store.savepoints.list("a") == store.savepoints.list("b") == (20, 30)
    assert store.savepoints.latest("a").to_dict() == {"x": 30, "y": "same"}
    assert store.retention.run().families["savepoints"] == 0


def test_the_newest_machines_in_a_final_state_are_kept(store, clock):
    for machine in ("m", "mm"):
        store.machines.define(machine, {"on": {"stop": "off"}}, initial="on", final=("off",))
    for name in "abcde":
        clock.advance(1)
        store.machines.save("m", name, "on", 1)
        if name != "c":
            store.machines.save("m", name, "off", 1, event="stop")
        store.machines.save("mm", name, "on", 1)
        store.machines.save("undefined", name, "off", 1)
    clock.advance(1)
    store.machines.save("m", "b", "off", 2)  # changed late, though it came to its end early
    store.machines.save("m", "c", "on", 2)  # changed last, and has not come to its end
    store.retention.set(Policy("machines", keep_latest=2))
    assert store.retention.plan().items[0].count == 2
    assert store.retention.run().families["machines"] == 2
    assert [one.name for one in store.machines.scan(machine="m")] == ["b", "c", "e"]
    assert len(list(store.machines.scan())) == 13
    assert store.retention.run().families["machines"] == 0
    store.retention.set(Policy("machines", older_than=timedelta(0), keep_latest=2))  # whatever their state
    assert store.retention.run().families["machines"] == 7
    assert [one.name for one in store.machines.scan(machine="mm")] == ["d", "e"]


def test_the_newest_results_of_each_dag_are_kept(store, clock):
    for dag in ("d", "dd", "e"):
        for id in "abc" if dag == "e" else "fedcba":
            clock.advance(1)
            store.results.put(dag, id, b"x" * 100_000 if id == "c" else id)
    store.results.put("d", "f", "again")
    store.retention.set(Policy("results", keep_latest=3))
    assert store.retention.plan().items[0].count == 6
    assert store.retention.run().families["results"] == 6
    assert (store.results.ids("d"), store.results.ids("dd")) == (("a", "b", "f"), ("a", "b", "c"))
    assert store.results.ids("e") == ("a", "b", "c")
    store.retention.set(Policy("results", older_than=HOUR, keep_latest=1))
    assert store.retention.run().families["results"] == 0
    clock.advance(3600)
    assert store.retention.run().families["results"] == 6
    assert store.results.ids("e") == ("c",)


def test_a_group_that_no_index_gives_is_read_once_in_a_run(store, clock, database):
    for number in range(150):
        clock.advance(1)
        store.results.put("d", f"{number:03d}", number)
    store.retention.set(Policy("results", keep_latest=5))
    engine = Recording(database.raw())
    assert database.over(engine).retention.run().families["results"] == 145
    assert engine.rows < 150 * 12


# --- what goes with a record ---


def test_everything_that_hangs_on_a_record_goes_and_the_feed_says_so(store, clock, database):
    store.retention.set(Policy("executions", terminal_older_than=HOUR))
    store.executions.create(Execution("e", "j", node_id="n"), events=[Event("first")])
    store.executions.add_events("e", *(Event(f"{number}") for number in range(20)))
    store.executions.update("e", state="failed", events=[Event("last")])
    at = store.feed.latest()
    clock.advance(3600)
    assert store.retention.run().families["executions"] == 1
    assert keys_left(database, b"Re", b"Xe", b"Ee", b"He") == []
    assert store.executions.count("failed") == 0
    (change,) = store.feed.read(at).items
    assert (change.op, change.id, change.record, change.previous.state) == ("delete", "e", None, "failed")


def test_a_record_with_very_much_hanging_on_it_is_swept_in_the_same_run(store, clock, database):
    store.retention.set(Policy("executions", terminal_older_than=HOUR))
    store.executions.create(Execution("e", "j"))
    for _ in range(3):
        store.executions.add_events("e", *(Event("x") for _ in range(500)))
    store.executions.update("e", state="cancelled")
    clock.advance(3600)
    done = store.retention.run(max_records=10_000)
    assert (done.families["executions"], done.families["expired"]) == (1, 1500)
    assert keys_left(database, b"Ee", b"S") == []


def test_a_leased_record_is_left_to_its_holder(store, clock):
    store.retention.set(Policy("instances", terminal_older_than=HOUR))
    store.instances.put(instance("a"))
    clock.advance(3600)
    lease = store.leases.acquire("a", "cleaner", 60)
    assert store.retention.plan().items[0].count == 0
    assert store.retention.run().count == 0
    store.leases.release(lease)
    assert store.retention.run().count == 1


def test_a_record_that_changes_under_the_run_stays(store, clock, database):
    """It was due when it was looked at, and is active again when it is to go."""
    store.retention.set(Policy("instances", terminal_older_than=HOUR))
    store.instances.put(instance("a"))
    clock.advance(3600)
    somebody = blocking(database)
    engine = Interfering(database.raw(), lambda: somebody.instances.put(instance("a", "running"), expected_revision=1))
    runner = database.over(engine)
    engine.armed = True
    assert runner.retention.run().families["instances"] == 0
    assert engine.done
    assert store.instances.get("a").status == "running"


# --- bounds, and who runs it ---


def test_a_run_is_bounded_in_records_and_the_next_goes_on(store, clock):
    store.retention.set(Policy("instances", terminal_older_than=HOUR))
    for number in range(130):
        store.instances.put(instance(f"i{number}"))
    clock.advance(3600)
    first = store.retention.run(max_records=60)
    assert (first.count, first.complete) == (60, False)
    assert store.instances.count() == 70
    assert store.retention.run(max_records=1000).count == 70
    assert store.instances.count() == 0


def test_a_run_is_bounded_in_seconds(store, clock, database):
    store.retention.set(Policy("instances", terminal_older_than=HOUR))
    for number in range(130):
        store.instances.put(instance(f"i{number}"))
    clock.advance(3600)
    engine = Interfering(database.raw(), lambda: clock.advance(11))
    runner = database.over(engine)
    engine.armed = True
    done = runner.retention.run(max_seconds=10)
    assert not done.complete
    assert 0 < done.count < 130
    assert done.seconds >= 11


def test_commits_of_a_run_are_small(store, clock, database):
    store.retention.set(Policy("instances", terminal_older_than=HOUR))
    store.retention.set(Policy("feed", older_than=HOUR))
    store.retention.set(Policy("once", older_than=HOUR))
    for number in range(260):
        store.instances.put(instance(f"i{number}"))
    for number in range(10):
        store.transact(lambda tx: None, once=f"k{number}")
    clock.advance(3600)
    engine = Sizes(database.raw())
    assert database.over(engine).retention.run(max_records=10_000).count > 500
    assert max(engine.sizes) <= 1500


def test_one_runs_at_a_time(store, other, clock):
    lease = other.leases.acquire(LEASE_KEY, "another process", 60)
    with pytest.raises(LostLease) as error:
        store.retention.run()
    assert error.value.holder == "another process"
    other.leases.release(lease)
    store.retention.run()
    assert store.leases.holder(LEASE_KEY) is None


def test_the_lease_of_a_dead_runner_ends(store, clock):
    store.leases.acquire(LEASE_KEY, "dead", 60)
    clock.advance(61)
    store.retention.run()


def test_it_runs_in_the_background_until_it_is_stopped(store, clock):
    store.retention.set(Policy("instances", terminal_older_than=HOUR))
    store.instances.put(instance("a"))
    at = store.feed.latest()
    clock.advance(3600)
    store.retention.start(every=600)
    with pytest.raises(AlreadyExists):
        store.retention.start()
    (change,) = store.feed.read(at, wait=30).items
    assert (change.op, change.id) == ("delete", "a")
    store.retention.stop()
    store.retention.stop()
    store.retention.start(every=600)  # closing the store ends it, too


# --- idempotency keys ---


def test_idempotency_keys_age_out(store, clock, database):
    def work(tx):
        tx.feed.emit("worked", {}, id="r")
        return "done"

    store.transact(work, once="r/key")
    store.retention.set(Policy("once", older_than=HOUR))
    clock.advance(3599)
    store.transact(work, once="r/later")
    assert store.retention.run().count == 0
    clock.advance(1)
    (item,) = store.retention.plan().items
    assert (item.count, item.examples) == (1, ("r/r/key",))
    assert store.retention.run().families["once"] == 1
    assert len(keys_left(database, b"O", b"YO")) == 2
    assert len(store.feed.read().items) == 2
    assert store.transact(work, once="r/later") == "done"
    assert len(store.feed.read().items) == 2
    assert store.transact(work, once="r/key") == "done"
    assert len(store.feed.read().items) == 3
