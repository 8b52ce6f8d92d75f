"""Random histories of both families against plain dicts: with another client, and the database opened again."""

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import holdfast
from holdfast import Event, Execution, Instance
from holdfast.errors import AlreadyExists, NotFound, StaleRevision, WrongState
from holdfast.families.executions import STATES, TERMINAL
from holdfast.families.instance_record import ACTIVE, STATUSES
from holdfast.testing.faces import ManualClock
from holdfast.testing.family_harness import changes

IDS = st.sampled_from(["a", "b", "a/1", "a/2"])
SETTINGS = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


class Machine(RuleBasedStateMachine):
    """Two clients of one file; each rule takes one of them."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="holdfast-model-")
        self.clock = ManualClock()
        self.clients = [self.open(), self.open()]
        self.records, self.told = {}, []

    def open(self):
        return holdfast.open(Path(self.folder.name) / "s.db", clock=self.clock, durability="normal")

    def teardown(self):
        assert self.clients[0].check() == []
        seen = [(one.op, one.id) for one in changes(self.clients[0], ops=["create", "update", "delete"])]
        assert seen == self.told
        for client in self.clients:
            client.close()
        self.folder.cleanup()

    @rule(which=st.integers(0, 1))
    def reopen(self, which):
        self.clients[which].close()
        self.clients[which] = self.open()

    @rule(seconds=st.integers(0, 5))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    def keep(self, record):
        """Note what was written, and that the feed must say so."""
        before = self.records.get(record.id)
        assert record.revision == (1 if before is None else before.revision + 1)
        assert record.updated_at == self.clock.now()
        self.told.append(("create" if before is None else "update", record.id))
        self.records[record.id] = record

    def drop(self, id):
        self.told.append(("delete", id))
        del self.records[id]

    def newest(self):
        """Ids, the last changed first."""
        order = {}
        for at, (_, id) in enumerate(self.told):
            order[id] = at
        return sorted(self.records, key=order.__getitem__, reverse=True)


class ExecutionMachine(Machine):
    def __init__(self):
        super().__init__()
        self.events = {}

    @rule(which=st.integers(0, 1), id=IDS, state=st.sampled_from(["new", "bid_accepted"]), job=st.sampled_from("xy"))
    def create(self, which, id, state, job):
        execution = Execution(id, job, state=state)
        if id in self.records:
            with pytest.raises(AlreadyExists):
                self.clients[which].executions.create(execution)
            return
        self.keep(self.clients[which].executions.create(execution, events=[Event("made")]))
        self.events[id] = ["made"]

    @rule(
        which=st.integers(0, 1),
        id=IDS,
        state=st.sampled_from(sorted(STATES)),
        expected=st.sets(st.sampled_from(sorted(STATES)), max_size=9),
        revision=st.none() | st.integers(1, 3),
    )
    def update(self, which, id, state, expected, revision):
        def update():
            return self.clients[which].executions.update(
                id, state=state, expected_states=expected, expected_revision=revision, events=[Event(state)]
            )

        old = self.records.get(id)
        wanted = None
        if old is None:
            wanted = NotFound
        elif expected and old.state not in expected:
            wanted = WrongState
        elif revision not in (None, old.revision):
            wanted = StaleRevision
        elif old.state in TERMINAL:
            wanted = WrongState
        if wanted is not None:
            with pytest.raises(wanted):
                update()
            return
        self.keep(update())
        self.events[id].append(state)

    @rule(which=st.integers(0, 1), id=IDS)
    def add_events(self, which, id):
        if id not in self.records:
            with pytest.raises(NotFound):
                self.clients[which].executions.add_events(id, Event("more"))
            return
        self.clients[which].executions.add_events(id, Event("more"))
        self.events[id].append("more")
        self.told.append(("create", id))

    @rule(which=st.integers(0, 1), id=IDS)
    def delete(self, which, id):
        assert self.clients[which].executions.delete(id) is (id in self.records)
        if id in self.records:
            self.drop(id)
            del self.events[id]

    @rule(which=st.integers(0, 1), id=IDS)
    def another_client_commits_now(self, which, id):
        """Between a read and the commit of this client's transaction."""
        old = self.records.get(id)
        if old is None or old.state in TERMINAL:
            return
        with pytest.raises(holdfast.errors.Conflict), self.clients[which].transaction() as tx:
            tx.executions.update(id, message="mine")
            self.keep(self.clients[1 - which].executions.update(id, message="theirs"))

    @invariant()
    def agree(self):
        for client in self.clients:
            assert {one.id: one for one in client.executions.scan()} == self.records
            for state in ("new", "running", "failed"):
                same = [id for id in self.records if self.records[id].state == state]
                assert client.executions.count(state) == len(same)
                assert [one.id for one in client.executions.query(state=state)] == sorted(same)
            for id, events in self.events.items():
                assert [one.message for one in client.executions.events(id)] == events
            live = {id for id in self.records if self.records[id].state in ("bid_accepted", "running", "publishing")}
            assert {one.id for one in client.executions.live()} == live


class InstanceMachine(Machine):
    @rule(
        which=st.integers(0, 1),
        id=IDS,
        status=st.sampled_from(sorted(STATUSES)),
        workflow=st.sampled_from(["v", "w"]),
        revision=st.none() | st.integers(0, 3),
        key=st.booleans(),
    )
    def put(self, which, id, status, workflow, revision, key):
        old = self.records.get(id)
        business_key = ("a" if key else None) if old is None else old.business_key
        if id == "b" and old is None:
            business_key = None
        instance = Instance(id, workflow, status=status, business_key=business_key, labels={"of": workflow})
        wanted = self.refused(instance, old, revision)
        if wanted is not None:
            with pytest.raises(wanted):
                self.clients[which].instances.put(instance, expected_revision=revision)
            return
        self.keep(self.clients[which].instances.put(instance, expected_revision=revision))

    def refused(self, instance, old, revision):
        actual = 0 if old is None else old.revision
        if revision is not None and revision != actual:
            return AlreadyExists if revision == 0 else StaleRevision
        if old is None or instance.status not in ACTIVE:
            return None
        if not old.active and revision is None:
            return WrongState
        moved = not old.active or instance.workflow != old.workflow
        return AlreadyExists if moved and self.taken(old.unique, instance) else None

    def taken(self, unique, instance):
        """Whether another active one stands in the way."""
        if unique is None or instance.business_key is None:
            return False
        return any(
            other.active
            and other.id != instance.id
            and other.business_key == instance.business_key
            and (unique == "global" or other.workflow == instance.workflow)
            for other in self.records.values()
        )

    @rule(
        which=st.integers(0, 1),
        id=st.sampled_from(["a", "a/1", "a/2"]),
        workflow=st.sampled_from(["v", "w"]),
        unique=st.sampled_from(["workflow", "version", "global", None]),
    )
    def start(self, which, id, workflow, unique):
        instance = Instance(id, workflow, business_key="a", labels={"of": workflow})
        if id in self.records or self.taken(unique, instance):
            with pytest.raises(AlreadyExists):
                self.clients[which].instances.start(instance, unique=unique)
            return
        self.keep(self.clients[which].instances.start(instance, unique=unique))

    @rule(which=st.integers(0, 1), id=IDS)
    def cancel(self, which, id):
        old = self.records.get(id)
        if old is None or not old.active:
            with pytest.raises(NotFound if old is None else WrongState):
                self.clients[which].instances.cancel(id)
            return
        self.keep(self.clients[which].instances.cancel(id))

    @rule(which=st.integers(0, 1), id=IDS)
    def delete(self, which, id):
        assert self.clients[which].instances.delete(id) is (id in self.records)
        if id in self.records:
            self.drop(id)

    @rule(which=st.integers(0, 1), id=IDS)
    def another_client_commits_now(self, which, id):
        old = self.records.get(id)
        if old is None or not old.active:
            return
        with pytest.raises(holdfast.errors.Conflict), self.clients[which].transaction() as tx:
            tx.instances.put(msgspec.structs.replace(old, status="completed"))
            self.keep(self.clients[1 - which].instances.cancel(id))

    @invariant()
    def agree(self):
        for client in self.clients:
            assert {one.id: one for one in client.instances.scan()} == self.records
            assert client.instances.count() == len(self.records)
            assert [one.id for one in client.instances.query(order="updated")] == self.newest()
            for workflow in ("v", "w"):
                same = sorted(id for id in self.records if self.records[id].workflow == workflow)
                assert [one.id for one in client.instances.query(workflow=workflow)] == same
                assert [one.id for one in client.instances.query(label=("of", workflow))] == same
                assert client.instances.count(workflow=workflow) == len(same)
            active = {id for id, one in self.records.items() if one.active and one.business_key == "a"}
            found = client.instances.active("a")
            assert (found.id if found else None) in (active or {None})
            assert {one.id for one in client.instances.orphans()} == {i for i, r in self.records.items() if r.active}


@pytest.mark.parametrize("machine", [ExecutionMachine, InstanceMachine])
def test_against_dicts(machine):
    run_state_machine_as_test(machine, settings=SETTINGS)
