"""Executions beside dicts, on every engine and both faces."""

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from kit.model_machine import Beside, Model, Place, call
from stateroom import Event, Execution
from stateroom.errors import AlreadyExists, NotFound, StaleRevision, WrongState

LARGE = "large" * 20_000
LIVE = {"bid_accepted", "running", "publishing"}
TERMINAL = {"ask_for_bid_rejected", "bid_rejected", "completed", "failed", "cancelled"}
DEFAULTS = {name: getattr(Execution("-", "-"), name) for name in ("state", "desired_state", "message", "details")}


class Executions(Model):
    def __init__(self, clock):
        super().__init__(clock)
        self.reports = {}

    def create(self, execution, *, events=()):
        if execution.id in self.records:
            raise AlreadyExists
        if execution.state not in ("new", "bid_accepted"):
            raise WrongState(terminal=False)
        self.reports[execution.id] = []
        return self._write(None, execution, events)

    def update(
        self, id, *, expected_states=(), unexpected_states=(), expected_revision=None, events=(), **changes
    ):  # fmt: skip
        before = self._there(id)
        if expected_states and before.state not in expected_states:
            raise WrongState(terminal=False)
        if expected_revision not in (None, before.revision):
            raise StaleRevision
        if before.state in unexpected_states:
            raise WrongState(terminal=False)
        if before.state in TERMINAL:
            raise WrongState(terminal=True)
        changes = {name: DEFAULTS.get(name) if value is None else value for name, value in changes.items()}
        return self._write(before, msgspec.structs.replace(before, **changes), events)

    def delete(self, id):
        if id not in self.records:
            return False
        self.drop("executions", id)
        del self.reports[id]
        return True

    def add_events(self, id, *events):
        self._there(id)
        for event in self._report(id, events):
            self.changes.append(("execution_events", "create", (id, event.seq), ()))

    def _there(self, id):
        if id not in self.records:
            raise NotFound
        return self.records[id]

    def _write(self, before, after, events):
        saved = self.save("executions", before, after, [event.message for event in events])
        self._report(saved.id, events)
        return saved

    def _report(self, id, events):
        reports = self.reports[id]
        added = [
            msgspec.structs.replace(event, seq=seq, at=event.at or self.clock.now())
            for seq, event in enumerate(events, len(reports) + 1)
        ]
        reports += added
        return added


ids = st.sampled_from(["a", "a/1", "a/2", "ab", "b/é", "b/é/x", "ß%"])
jobs, nodes = st.sampled_from(["j", "j/1", "k"]), st.sampled_from([None, "n", "n/1", "m"])
states = st.sampled_from(["new", "bid_accepted", "running", "publishing", "completed", "failed"])
some_states = st.sets(states, max_size=3)
values = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.booleans(), max_size=2)
details = st.dictionaries(st.text(max_size=2), values, max_size=2)
events = st.lists(st.builds(Event, st.text(max_size=4), topic=st.sampled_from(["", "t"]), details=details), max_size=2)
CHANGES = {
    "desired_state": st.none() | st.sampled_from(["pending", "running", "stopped"]),
    "message": st.none() | st.text(max_size=4),
    "node_id": nodes,
    "partition_index": st.integers(0, 3),
    "details": st.none() | details,
    "data": values | st.builds(lambda: LARGE),
    "result": values,
}
CONDITIONS = {
    "expected_states": some_states,
    "unexpected_states": some_states,
    "expected_revision": st.none() | st.integers(1, 3),
    "events": events,
}
created = st.builds(
    Execution,
    ids,
    jobs,
    state=states | st.sampled_from(["new", "bid_accepted"]),
    node_id=nodes,
    details=details,
    data=values,
)


class ExecutionsAsDicts(Beside):
    family, model = "executions", Executions
    calls = st.one_of(
        st.builds(lambda one, events: call("create", one, events=events), created, events),
        st.builds(
            lambda key, options: call("update", key, **options),
            ids,
            st.fixed_dictionaries({"state": states}, optional={**CHANGES, **CONDITIONS}),
        ),
        st.builds(
            lambda key, options: call("update", key, **options),
            ids,
            st.fixed_dictionaries({}, optional={"state": states, **CHANGES}),
        ),
        st.builds(lambda key: call("delete", key), ids),
        st.builds(lambda key, events: call("add_events", key, *events), ids, events),
    )

    def look_at(self, family, id):
        super().look_at(family, id)
        id = getattr(id, "id", id)
        if id in self.expected.records:
            assert list(family.events(id)) == self.expected.reports[id]

    @rule(id=ids, job=jobs, limit=st.none() | st.integers(1, 3))
    def look(self, id, job, limit):
        self.look_at(self.store.executions, id)
        executions, expected = self.store.executions, self.expected
        for found, matches in (
            (executions.live(limit=limit), lambda one: one.state in LIVE),
            (executions.for_job(job, limit=limit), lambda one: one.job_id == job),
        ):
            wanted = expected.newest(matches)
            if limit is None or self.place.parts == 1:
                self.same_order(found, wanted[:limit])
            else:
                assert {one.id for one in found} <= {one.id for one in wanted}
                assert len(found) == min(limit, len(wanted))
        for state in ("new", "running", "completed"):
            assert executions.count(state) == len(expected.by_id(lambda one, state=state: one.state == state))

    @rule(
        filters=st.fixed_dictionaries(
            {}, optional={"job_id": jobs, "state": states, "state_in": some_states, "node_id": st.just("n")}
        ),
        limit=st.integers(1, 3),
        late=st.booleans(),
    )
    def pages(self, filters, limit, late):
        now = self.place.clock.now()
        if late:
            filters = {**filters, "updated_before": now}

        def matches(one):
            return (
                one.job_id == filters.get("job_id", one.job_id)
                and one.state == filters.get("state", one.state)
                and one.state in filters.get("state_in", (one.state,))
                and one.node_id == filters.get("node_id", one.node_id)
                and (not late or one.updated_at < now)
            )

        assert self.paged(limit, **filters) == self.expected.by_id(matches)


@pytest.mark.older
def test_executions_are_as_dicts(database):
    Place(database).run(ExecutionsAsDicts, 25, 12, 10)


@pytest.mark.older
@pytest.mark.torture
def test_executions_are_as_dicts_for_long(database):
    Place(database).run_for_long(ExecutionsAsDicts)
