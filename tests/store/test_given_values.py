"""What a caller gives, in every family: texts of other classes are kept plain, times that are none are refused."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, StrEnum

import msgspec
import numpy
import pytest

import stateroom
from stateroom import BEGINNING, Context, Event, Execution, HistoryEntry, Instance, Policy
from stateroom.errors import InvalidArgument, StoreError, Timeout

from .test_bad_input import NAMES, arguments, call, every_method


def word(text):
    """A member of a StrEnum."""
    return StrEnum("Word", {"X": text}).X


def mixed(text):
    """A member of an Enum over str, whose str() is not its text."""
    return Enum("Mixed", {"X": text}, type=str).X


KINDS = {"StrEnum": word, "str and Enum": mixed, "numpy.str_": numpy.str_}


def texts(value):
    """Every text in a record, through what is inside it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from texts(getattr(value, field))
    elif isinstance(value, dict):
        for pair in value.items():
            yield from texts(list(pair))
    elif isinstance(value, list | tuple | frozenset):
        for item in value:
            yield from texts(item)


def plain(*records):
    return {type(text) for record in records for text in texts(record)} == {str}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_records_are_kept_with_plain_texts(store, reopen, kind):
    a, running, queued = kind("a"), kind("running"), kind("new")
    instance = Instance(
        a, a, status=running, current_step=a, active_steps=frozenset([a]), completed_steps=[a], business_key=a,
        labels={a: a}, unique=kind("workflow"),
    )  # fmt: skip
    written = [
        store.instances.put(instance),
        store.executions.create(Execution(a, a, state=queued, node_id=a, message=a), events=[Event(a, a)]),
        store.executions.update(a, state=running, expected_states={queued}, message=a, node_id=a),
        store.machines.save(a, a, a, 1, event=a),
        store.machines.fail(a, a, "why", event=a),
        store.results.put(a, a, 1),
        store.leases.acquire(a, a, 5),
        store.timers.set(a, datetime(2026, 1, 1, tzinfo=UTC)),
        store.checkpoints.set(a, BEGINNING),
        store.machines.define(a, {a: {a: a}}, initial=a, final=[kind("z")]),
    ]
    store.savepoints.init(a)
    store.savepoints.save(a, 1, {a: 1})
    store.savepoints.update(a, 2, changed={a: 2}, removed=[kind("z")])
    assert plain(*written)
    store = reopen()
    assert plain(
        store.instances.get("a"), store.executions.get(a), store.executions.events("a"), store.machines.load(a, "a"),
        store.results.find("a", a), store.leases.holder(a), store.timers.due(datetime(2027, 1, 1, tzinfo=UTC)),
        store.checkpoints.list(), store.machines.definition(a), store.results.ids(a), store.machines.last_error(a, a),
    )  # fmt: skip
    assert store.savepoints.latest("a").to_dict() == {"a": 2}
    assert [record.id for record in store.instances.query(status=running, label=(a, a), workflow_prefix=a)] == ["a"]
    assert [record.id for record in store.executions.query(state_in=[running], node_id=a, job_id=a)] == ["a"]
    assert store.feed.read(families=[kind("instances")], ops=[kind("create")], ids=[a]).items


def test_every_method_takes_a_name_of_another_class():
    tried = 0
    with stateroom.open("memory:") as example:
        described = [(name, method, found) for name, method, found in every_method(example)]
    for name, method, found in described:
        for parameter in sorted(found.public_signature().parameters.keys() & NAMES):
            answers = []
            for text in ("a", numpy.str_("a")):
                with stateroom.open("memory:") as store:
                    store.executions.create(Execution("a", "a"))  # something to follow
                    given = {**arguments(name, method, found), parameter: text}
                    try:
                        answers.append(type(call(getattr(store, name), method, given)))
                    except StoreError as error:
                        answers.append(type(error))
            assert answers[0] == answers[1], (name, method, parameter)
            tried += 1
    assert tried > 60


def test_a_process_without_numpy_reads_what_numpy_named(tmp_path):
    path = str(tmp_path / "a.db")
    with stateroom.open(path) as store:
        store.executions.create(Execution(numpy.array(["run-1"])[0], numpy.str_("job")))
    code = (
        "import sys; sys.modules['numpy'] = None; import stateroom;"
        "print([e.id for e in stateroom.open(sys.argv[1]).executions.query()])"
    )
    shown = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert shown.stdout == "['run-1']\n"


WEST = datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))
EAST = datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))


@pytest.mark.parametrize("when", [WEST, EAST], ids=["after 9999", "before 1"])
def test_a_time_outside_the_calendar_is_refused_at_the_door(store, when):
    store.executions.create(Execution("e", "job"))
    store.instances.put(Instance("i", "w"))
    entry = HistoryEntry("s", "done", when)
    calls = [
        lambda: store.executions.add_events("e", Event("x", at=when)),
        lambda: store.executions.create(Execution("other", "job"), events=[Event("x", at=when)]),
        lambda: store.executions.update("e", events=[Event("x", at=when)], message="m"),
        lambda: store.executions.query(updated_before=when),
        lambda: next(iter(store.executions.scan(updated_before=when)), None),
        lambda: store.executions.as_of("e", when),
        lambda: store.instances.put(Instance("other", "w", history=(entry,))),
        lambda: store.instances.query(updated_after=when),
        lambda: store.instances.query(updated_before=when),
        lambda: store.instances.as_of("i", when),
        lambda: store.timers.set("t", when),
        lambda: store.timers.due(when),
    ]
    before = store.feed.read().items
    for each in calls:
        with pytest.raises(InvalidArgument, match="years 1 to 9999"):
            each()
    assert store.feed.read().items == before
    assert store.executions.events("e") == ()
    assert store.timers.next() is None
    assert store.executions.get("e").revision == 1


@pytest.mark.parametrize("length", [timedelta.max, timedelta.min, timedelta(0), 1e300, -1, float("nan"), True, "5"])
def test_a_duration_that_is_none_is_refused(store, length):
    lease = store.leases.acquire("k", "me", timedelta(seconds=60))
    calls = [
        lambda: store.leases.acquire("other", "me", length),
        lambda: store.leases.renew(lease, length),
        lambda: store.results.put("d", "x", 1, ttl=length),
        lambda: store.retention.run(max_seconds=length),
    ]
    if length != timedelta(0):
        calls += [
            lambda: store.retention.set(Policy("instances", older_than=length)),
            lambda: store.retention.set(Policy("feed", older_than=timedelta(1), max_pinned=length)),
            lambda: store.instances.wait("i", bool, timeout=length),
            lambda: store.results.wait("d", "x", timeout=length),
            lambda: store.feed.read(wait=length),
        ]
    for each in calls:
        with pytest.raises(InvalidArgument):
            each()
    assert store.leases.holder("other") is None
    assert store.leases.holder("k") == lease
    assert store.retention.list() == ()
    assert not store.results.has("d", "x")


def test_durations_are_seconds_or_timedeltas(store, clock):
    lease = store.leases.acquire("k", "me", timedelta(minutes=1))
    assert lease.expires_at - clock.now() == timedelta(minutes=1)
    assert store.leases.renew(lease, timedelta(minutes=2)).expires_at - clock.now() == timedelta(minutes=2)
    ends = [store.results.put("d", "x", 1, ttl=ttl).expires_at for ttl in (90, timedelta(seconds=90))]
    assert ends[0] == ends[1] == clock.now() + timedelta(seconds=90)
    hour = Policy("instances", older_than=timedelta(hours=1))
    assert store.retention.set(Policy("instances", older_than=3600)) == hour
    assert store.retention.list() == (hour,)
    with pytest.raises(Timeout):
        store.instances.wait("i", bool, timeout=timedelta(0))


def test_a_lease_that_would_end_after_the_last_day_is_refused(database, clock):
    clock.advance((datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - clock.now()).total_seconds())
    store = database.open()
    with pytest.raises(InvalidArgument, match="ttl"):
        store.leases.acquire("k", "me", 5)
    with pytest.raises(InvalidArgument, match="ttl"):
        store.results.put("d", "x", 1, ttl=5)
    assert store.leases.holder("k") is None


def test_a_context_keeps_its_mappings(store):
    context = Context({"a": 1}, {"s": 2})
    assert store.instances.put(Instance("i", "w", context=context)).context == context
