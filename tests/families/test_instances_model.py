"""Instances beside dicts, on every engine and both faces."""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from kit.model_machine import Beside, Model, Place, call, outcome
from stateroom import Context, HistoryEntry, Instance
from stateroom.errors import AlreadyExists, InvalidArgument, NotFound, StaleRevision, WrongState
from stateroom.testing.faces import START

LARGE = "large" * 20_000
ACTIVE = {"pending", "running", "waiting"}


def root(id):
    return id.partition("/")[0]


class Instances(Model):
    def put(self, instance, *, expected_revision=None):
        self._check(instance)
        before = self.records.get(instance.id)
        self._revision(before, expected_revision)
        if before is None:
            return self.save("instances", None, instance)
        if before.business_key != instance.business_key:
            raise InvalidArgument
        instance = msgspec.structs.replace(instance, unique=instance.unique or before.unique)
        if instance.status in ACTIVE and before.status not in ACTIVE and expected_revision is None:
            raise WrongState(terminal=True)
        if self._where(instance) != self._where(before):
            self._free(instance)
        return self.save("instances", before, instance)

    def start(self, instance, *, unique="workflow"):
        self._check(instance)
        instance = msgspec.structs.replace(instance, unique=unique)
        if instance.status not in ACTIVE:
            raise WrongState(terminal=True)
        if instance.id in self.records:
            raise AlreadyExists
        self._free(instance)
        return self.save("instances", None, instance)

    def cancel(self, id):
        if id not in self.records:
            raise NotFound
        before = self.records[id]
        if before.status not in ACTIVE:
            raise WrongState(terminal=True)
        return self.save("instances", before, msgspec.structs.replace(before, status="cancelled"))

    def delete(self, id, *, expected_revision=None):
        if id not in self.records:
            return False
        self._revision(self.records[id], expected_revision)
        self.drop("instances", id)
        return True

    def active(self, business_key, **where):
        found = [
            one
            for one in self.records.values()
            if one.status in ACTIVE
            and one.business_key == business_key
            and all(getattr(one, name) == value for name, value in where.items())
        ]
        return max(found, key=lambda one: (self.activations[one.id], one.id), default=None)

    def save(self, family, before, after, events=()):
        """A record, and the commit in which it became active where it is: several may do so in one, then by name."""
        if after.status in ACTIVE and (before is None or self._where(before) != self._where(after)):
            self.activations = {**getattr(self, "activations", {}), after.id: self.commits}
        return super().save(family, before, after, events)

    def _check(self, instance):
        if instance.business_key is not None and root(instance.business_key) != root(instance.id):
            raise InvalidArgument

    def _revision(self, before, expected):
        if expected not in (None, 0 if before is None else before.revision):
            raise AlreadyExists if expected == 0 else StaleRevision

    def _where(self, one):
        return one.status in ACTIVE and (one.workflow, one.workflow_version)

    def _free(self, instance):
        if instance.status not in ACTIVE or None in (instance.unique, instance.business_key):
            return
        same = {"global": (), "workflow": ("workflow",), "version": ("workflow", "workflow_version")}[instance.unique]
        for one in self.records.values():
            if (
                one.id != instance.id
                and one.status in ACTIVE
                and one.business_key == instance.business_key
                and all(getattr(one, name) == getattr(instance, name) for name in same)
            ):
                raise AlreadyExists


ids = st.sampled_from(["a", "a/1", "a/2", "a/3", "ab", "b/é"])
business_keys = st.sampled_from([None, "a", "a", "a", "a/x", "b"])
workflows, versions = st.sampled_from(["w", "w2", "v", "w%"]), st.integers(1, 2)
statuses = st.sampled_from(["pending", "running", "waiting", "completed", "failed", "cancelled"])
uniques = st.sampled_from(["workflow", "version", "global", None])
labels = st.dictionaries(st.sampled_from(["l", "m"]), st.sampled_from(["1", "2"]), max_size=2)
values = st.none() | st.integers() | st.text(max_size=3) | st.builds(lambda: LARGE)
mappings = st.dictionaries(st.text(max_size=2), values, max_size=2)
steps = st.frozensets(st.sampled_from(["s", "t"]))
entries = st.lists(
    st.builds(HistoryEntry, st.just("s"), st.just("done"), st.just(START), st.none() | mappings), max_size=2
).map(tuple)
made = st.builds(
    Instance,
    ids,
    workflows,
    workflow_version=versions,
    status=st.just("running") | statuses,
    current_step=st.sampled_from([None, "s"]),
    context=st.builds(Context, mappings, mappings),
    step_configs=mappings,
    active_steps=steps,
    completed_steps=steps,
    metadata=mappings,
    history=entries,
    business_key=business_keys,
    unique=uniques,
    labels=labels,
)
FILTERS = {
    "id": ids,
    "status": statuses,
    "status_in": st.sets(statuses, max_size=3),
    "workflow": workflows,
    "workflow_prefix": st.sampled_from(["w", "w2", "x"]),
    "workflow_version": versions,
    "business_key": st.sampled_from(["a", "a/x"]),
    "label": st.tuples(st.sampled_from(["l", "m"]), st.sampled_from(["1", "2"])),
}
moments = st.sampled_from([-2, -1, -1e-6, 0, 1e-6, 1])
revisions = st.none() | st.none() | st.integers(0, 3)


def matches(one, filters):
    """What each filter asks for; all must hold."""
    asked = {
        "status_in": lambda value: one.status in value,
        "workflow_prefix": one.workflow.startswith,
        "label": lambda value: one.labels.get(value[0]) == value[1],
        "updated_after": lambda value: one.updated_at > value,
        "updated_before": lambda value: one.updated_at < value,
    }
    return all(asked[name](value) if name in asked else getattr(one, name) == value for name, value in filters.items())


class InstancesAsDicts(Beside):
    family, model = "instances", Instances
    calls = st.one_of(
        st.builds(lambda one, unique: call("start", one, unique=unique), made, st.just("workflow") | uniques),
        st.builds(lambda one, revision: call("put", one, expected_revision=revision), made, revisions),
        st.builds(lambda key: call("cancel", key), ids),
        st.builds(
            lambda key, revision: call("delete", key, expected_revision=revision), ids, st.none() | st.integers(1, 3)
        ),
    )

    @rule(data=st.data(), status=statuses, workflow=workflows)
    def an_instance_moves_on(self, data, status, workflow):
        """As runners do: from what is there, with its revision."""
        if self.expected.records:
            old = data.draw(st.sampled_from(sorted(self.expected.records.values(), key=lambda one: one.id)))
            drawn = call(
                "put",
                msgspec.structs.replace(old, status=status, workflow=workflow),
                expected_revision=old.revision,
            )
            self.compare(outcome(self.store.instances, drawn), drawn)

    @rule(id=ids, key=st.sampled_from(["a", "a/x", "b"]), workflow=workflows, status=statuses)
    def look(self, id, key, workflow, status):
        instances, expected = self.store.instances, self.expected
        self.look_at(instances, id)
        for where in ({}, {"workflow": workflow}, {"workflow": workflow, "workflow_version": 1}):
            assert instances.active(key, **where) == expected.active(key, **where)
        assert instances.count() == len(expected.records)
        for filters in ({"workflow": workflow}, {"status": status}, {"workflow": workflow, "status": status}):
            assert instances.count(**filters) == len(expected.by_id(lambda one, filters=filters: matches(one, filters)))
        assert list(instances.orphans()) == expected.by_id(lambda one: one.status in ACTIVE)

    @rule(
        filters=st.just({}) | st.fixed_dictionaries({}, optional=FILTERS),
        many=st.booleans(),
        times=st.sampled_from([(), ("updated_after",), ("updated_before",), ("updated_after", "updated_before")]),
        limit=st.integers(1, 3),
        after=moments,
        before=moments,
    )
    def pages(self, filters, many, times, limit, after, before):
        if not many:  # one filter at a time meets more
            filters = dict(list(filters.items())[:1])
        seconds, expected = {"updated_after": after, "updated_before": before}, self.expected
        last = max((one.updated_at for one in expected.records.values()), default=START)
        filters = {**filters, **{name: last + timedelta(seconds=seconds[name]) for name in times}}
        assert self.paged(limit, **filters) == expected.by_id(lambda one: matches(one, filters))
        self.same_order(
            self.paged(limit, **filters, order="updated"), expected.newest(lambda one: matches(one, filters))
        )


@pytest.mark.older
def test_instances_are_as_dicts(database):
    Place(database).run(InstancesAsDicts, 25, 12, 10)


@pytest.mark.older
@pytest.mark.torture
def test_instances_are_as_dicts_for_long(database):
    Place(database).run_for_long(InstancesAsDicts)
