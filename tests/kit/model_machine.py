"""A store beside a model of dicts: the same calls to both must give the same, or refuse alike.

A model is a class with the methods of its family, over dicts. Now and then another client commits just before a call
does, several calls share a transaction that may be given up, the clock moves (back, too), and the database is reopened.
"""

import copy
import itertools
from typing import Any, NamedTuple

import msgspec
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from stateroom import Store, codec, keys
from stateroom.engines.memory import MemoryEngine
from stateroom.engines.wrap import Conflicting
from stateroom.errors import StoreError


class Call(NamedTuple):
    """A method of the family under test with its arguments; `root` is what its transaction would be in."""

    root: str
    name: str
    args: tuple[Any, ...]
    options: dict[str, Any] = {}


def call(name, *args, **options):
    """A call whose first argument is an id, or a record with one."""
    return Call(keys.root(getattr(args[0], "id", args[0])), name, args, options)


def outcome(family, call):
    """What a call gives, or how it is refused."""
    try:
        return getattr(family, call.name)(*call.args, **call.options)
    except StoreError as error:
        return type(error), error.fields.get("terminal")


def bounded(examples, steps):
    """Settings for so many examples of so many steps, however slow the machine is."""
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )


class Place:
    """Where all examples of a test live, each in a namespace of its own. In memory there are three parts."""

    def __init__(self, database):
        self.database = database
        self.clock = database.clock
        self._options = {"durability": "normal"} if database.engine == "sqlite" else {}
        self.raw = MemoryEngine(parts=3) if database.engine == "memory" else database.raw(**self._options)
        self.parts = self.raw.parts
        self._numbers = itertools.count()

    def namespace(self):
        return f"{self.database.namespace}-{next(self._numbers)}"

    def open(self, namespace):
        if self.database.engine == "memory":
            return self.database.over(self.raw, namespace=namespace)
        return self.database.open(namespace=namespace, **self._options)

    def over(self, engine, namespace):
        """A client through a wrapper of the engine."""
        return self.database.over(engine, namespace=namespace)

    def beside(self, namespace, interfere):
        """A client to whose first commit `interfere(store)` comes first."""
        options = {"namespace": namespace, "codec": codec.default, "clock": self.clock}
        other = Store(self.raw, "memory:", owner=False, **options)

        def first(number, part, batch):
            if number == 1:
                interfere(other)

        return self.over(Conflicting(self.raw, interfere=first), namespace)

    def run(self, machine, memory, sqlite, server, steps=20):
        """So many examples on each engine; the asynchronous face of an embedded engine has a quarter.

        On a server they are the same in every run, and others on each version and face; ``make torture`` tries more.
        """
        examples = {"memory": memory, "sqlite": sqlite}.get(self.database.engine, server)
        if self.database.embedded and self.database.asynchronous:
            examples = max(4, examples // 4)
        make = lambda: machine(self)  # noqa: E731 - its seed is an attribute, which a method cannot have
        if not self.database.embedded:
            make = seed(f"{machine.__name__} {self.database.name}")(make)
        run_state_machine_as_test(make, settings=bounded(examples, steps))

    def run_for_long(self, machine):
        run_state_machine_as_test(lambda: machine(self), settings=bounded(500, 50))


class Model:
    """What every family's model has: records by id, the commit that wrote each, all changes in order."""

    def __init__(self, clock):
        self.clock = clock
        self.records, self.stamps, self.past, self.changes, self.commits = {}, {}, {}, [], 0

    def copy(self):
        twin = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict):
                setattr(twin, name, {key: list(one) if isinstance(one, list) else one for key, one in value.items()})
            elif isinstance(value, list):
                setattr(twin, name, list(value))
        return twin

    def save(self, family, before, after, events=()):
        """A record with what the store fills in, and its change."""
        now = self.clock.now()
        saved = _filled(before, after, now)
        self.records[saved.id] = saved
        self.stamps[saved.id] = self.commits
        self.past.setdefault(saved.id, []).append(saved)
        self.changes.append((family, "update" if before else "create", (saved.id,), tuple(events)))
        return saved

    def drop(self, family, id):
        del self.records[id], self.stamps[id], self.past[id]
        self.changes.append((family, "delete", (id,), ()))

    def by_id(self, matches):
        return sorted((one for one in self.records.values() if matches(one)), key=lambda one: one.id.encode())

    def newest(self, matches):
        """Newest change first; what changed in the same microsecond by commit, then by id."""
        found = [one for one in self.records.values() if matches(one)]
        return sorted(found, key=lambda one: (one.updated_at, self.stamps[one.id], one.id.encode()), reverse=True)


def _filled(before, after, now):
    return msgspec.structs.replace(
        after,
        revision=1 if before is None else before.revision + 1,
        created_at=now if before is None else before.created_at,
        updated_at=now if before is None else max(now, before.updated_at),
    )


class InPlace(RuleBasedStateMachine):
    """A store in a namespace of its own, which may be reopened and must hold together at the end."""

    def __init__(self, place):
        super().__init__()
        self.place, self.clock = place, place.clock
        self.namespace = place.namespace()
        self.store = place.open(self.namespace)

    def beside(self, theirs):
        """A client to whose first commit `theirs(store)` comes first."""
        return self.place.beside(self.namespace, theirs)

    @rule()
    def reopen(self):
        self.store.close()
        self.store = self.place.open(self.namespace)

    def teardown(self):
        assert self.store.check() == []
        self.store.close()


class Beside(InPlace):
    """A family beside its model. A subclass says which (`family`, `model`) and what may be called (`calls`)."""

    family: str
    model: type[Model]
    calls: st.SearchStrategy[Call]

    def __init__(self, place):
        super().__init__(place)
        self.expected = type(self).model(place.clock)

    def of(self, store):
        return getattr(store, self.family)

    def compare(self, given, call):
        self.expected.commits += 1
        assert given == outcome(self.expected, call)

    @rule(data=st.data())
    def one_call(self, data):
        drawn = data.draw(self.calls)
        self.compare(outcome(self.of(self.store), drawn), drawn)

    @rule(data=st.data())
    def another_client_commits_now(self, data):
        ours, theirs = data.draw(self.calls), data.draw(self.calls)
        happened = []
        store = self.beside(lambda other: happened.append(outcome(self.of(other), theirs)))
        given = outcome(self.of(store), ours)
        for one in happened:
            self.compare(one, theirs)
        self.compare(given, ours)

    @rule(data=st.data(), keep=st.booleans())
    def a_transaction(self, data, keep):
        first = data.draw(self.calls)
        others = data.draw(st.lists(self.calls.filter(lambda one: one.root == first.root), max_size=2))
        before = self.expected.copy()
        self.expected.commits += 1
        try:
            with self.store.transaction() as tx:
                for one in (first, *others):
                    assert outcome(self.of(tx), one) == outcome(self.expected, one)
                    self.look_at(self.of(tx), first.args[0])
                if not keep:
                    raise GivenUpError
        except GivenUpError:
            self.expected = before

    @rule(seconds=st.sampled_from([-1, 1e-6, 1, 2]))
    def the_clock_moves(self, seconds):
        self.place.clock.advance(seconds)

    def look_at(self, family, id):
        """What the family says of one id is what the model has."""
        id = getattr(id, "id", id)
        assert family.find(id) == self.expected.records.get(id)
        if id in self.expected.records:
            assert list(family.history(id)) == self.expected.past[id][::-1]

    def same_order(self, found, expected):
        """As the model's; with several parts the order within a microsecond is that of each part alone."""
        found = list(found)
        if self.place.parts > 1:
            assert [one.updated_at for one in found] == [one.updated_at for one in expected]
            found.sort(key=lambda one: one.id)
            expected = sorted(expected, key=lambda one: one.id)
        assert found == expected

    def paged(self, limit, **filters):
        """All of a query, through its cursors; and its twin `scan` gives the same."""
        found, cursor = [], None
        while True:
            page = self.of(self.store).query(limit=limit, cursor=cursor, **filters)
            found += page.items
            cursor = page.cursor
            if cursor is None:
                assert found == list(self.of(self.store).scan(**filters))
                return found
            assert len(page) == limit

    @rule()
    def the_feed(self):
        found = [
            (change.family, change.op, change.key, tuple(event.message for event in change.events))
            for change in self.store.feed.read(limit=1000).items
        ]
        if self.place.parts > 1:
            assert sorted(found) == sorted(self.expected.changes)
        else:
            assert found == self.expected.changes


class GivenUpError(Exception):
    """Ends a transaction without its being committed."""
