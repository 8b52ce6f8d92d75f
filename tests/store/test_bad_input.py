"""Every public method of every family, found by looking: what it says to bad names, and once its store is closed.

A named error that says what is wrong, and no row of the engine is another.
"""

import asyncio
import base64
import hashlib
import inspect
import os
from datetime import UTC, datetime
from functools import cached_property

import msgspec
import pytest

import stateroom
from stateroom import AsyncStore, DeadLetter, Event, Execution, Instance, Lease, Policy, Timer
from stateroom.core.operation import iteration, joining, operation, procedure, reading
from stateroom.errors import Closed, InvalidArgument, NotFound, Unavailable
from stateroom.store.transactions import Families

DESCRIBED = (operation, reading, procedure, iteration)
FAMILIES = (
    "instances", "executions", "machines", "results", "savepoints", "timers", "leases", "feed", "checkpoints",
    "dead_letters", "retention", "locations",
)  # fmt: skip
AT = datetime(2026, 3, 1, tzinfo=UTC)
BAD_NAMES = ["", "  ", "\t\n", "a\0b", "x" * 257, "é" * 129, "a\ud800", 5, b"a", ["a"]]
NAMES = {
    "id", "machine", "name", "dag", "run", "key", "owner", "business_key", "job_id", "workflow", "workflow_prefix",
    "node_id", "type", "function_name", "watcher", "node",
}  # fmt: skip
"""Parameters that take a name, in whatever method."""

GIVEN = {
    "instance": Instance("a", "w"),
    "instances": [Instance("a", "w")],
    "values": {"a": 1},
    "executions": [Execution("b", "j")],
    "execution": Execution("a", "j"),
    "timer": Timer("a", AT),
    "lease": Lease("a", "me", 1, AT),
    "letter": DeadLetter("a", "w", "p", "b", "instances", ("a",), "create", "KeyError: 1", 4, AT),
    "policy": Policy("instances", keep_latest=5),
    "predicate": lambda record: True,
    "transitions": {"s": {"go": "s"}},
    "source": [b"x"],
    "ids": ["a"],
    "compute": lambda: 1,
    "entities": {"e": 1},
    "timestamp": 1,
    "form": "bytes",
    "address": "127.0.0.1:1",
    "digest": hashlib.sha256(b"x").hexdigest(),
    "n": 1,
    "ttl": 5,
    "at": AT,
    "when": AT,
    "position": stateroom.BEGINNING,
    "state": "new",
    "family": "instances",
    "timeout": 0,
}
"""What a parameter is given; a name gets "a", anything else 1."""


def methods(family):
    """Name and descriptor of each public method."""
    for name in dir(type(family)):
        found = inspect.getattr_static(type(family), name)
        if not name.startswith("_") and isinstance(found, DESCRIBED):
            yield name, found


def every_method(store):
    for name in FAMILIES:
        for method, found in methods(getattr(store, name)):
            # One may be called at any time, as `close` may; the other asks no database.
            if (name, method) not in {("retention", "stop"), ("results", "memo_id")}:
                yield name, method, found


def arguments(name, method, found):
    """Something valid for each parameter that must be given."""
    given = {}
    for parameter in found.public_signature().parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            given["*"] = [Event("m")]
        elif parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            given[parameter.name] = GIVEN.get(parameter.name, "a" if parameter.name in NAMES else 1)
        elif parameter.name == "timeout":
            given["timeout"] = 0
    if (name, method) == ("savepoints", "at"):
        given["timestamp"] = 1
    if (name, method) == ("timers", "set"):
        given["at"] = AT
    return given


def made(family, method, given):
    """What the call gives at once: a value, a coroutine or an iterator."""
    given = dict(given)
    more = given.pop("*", [])
    first = [given.pop("id")] if more else []
    return getattr(family, method)(*first, *more, **given)


def call(family, method, given):
    found = made(family, method, given)
    return next(found, None) if hasattr(found, "__next__") else found


async def call_awaited(family, method, given):
    found = made(family, method, given)
    return await found if inspect.isawaitable(found) else await anext(found, None)


def rows(engine):
    return engine.scan(None, b"\0", b"\xff" * 300, limit=100_000)


@pytest.fixture
def store():
    with stateroom.open("memory:") as store:
        store.instances.start(Instance("a", "w", business_key="a", labels={"l": "1"}))
        store.executions.create(Execution("a", "j", node_id="n"), events=[Event("m")])
        store.machines.save("a", "a", "s", 1)
        store.results.put("a", "a", "x" * 100_000)
        store.savepoints.init("a")
        store.savepoints.save("a", 1, {"e": 1})
        store.leases.acquire("a", "me", 60)
        store.timers.set("a", AT)
        store.checkpoints.set("a", stateroom.BEGINNING)
        yield store


def test_every_family_is_looked_at(store):
    described = {name for name, value in vars(Families).items() if isinstance(value, cached_property)}
    assert described == set(FAMILIES)
    assert sum(1 for _ in every_method(store)) > 70


def test_every_method_shows_its_public_face(store):
    over = AsyncStore.over(store)
    for name, method, found in every_method(store):
        plain, awaited = getattr(getattr(store, name), method), getattr(getattr(over, name), method)
        assert inspect.signature(plain) == inspect.signature(awaited), (name, method)
        assert not {"self", "tx"} & inspect.signature(plain).parameters.keys(), (name, method)
        assert inspect.iscoroutinefunction(awaited) == (not isinstance(found, iteration)), (name, method)
        assert not inspect.iscoroutinefunction(plain), (name, method)
        assert plain.__name__ == awaited.__name__ == method
        assert plain.__doc__, f"{name}.{method} has no docstring"
        assert plain.__doc__ == awaited.__doc__
    for kind in (type(store), AsyncStore):
        for name, value in inspect.getmembers(kind, inspect.isfunction):
            assert name.startswith("_") or value.__doc__, f"{kind.__name__}.{name} has no docstring"


def test_names_that_are_none(store):
    before = rows(store._engine)
    refused = 0
    for name, method, found in every_method(store):
        for parameter in found.public_signature().parameters.keys() & NAMES:
            for bad in BAD_NAMES:
                given = {**arguments(name, method, found), parameter: bad}
                with pytest.raises(InvalidArgument) as caught:
                    call(getattr(store, name), method, given)
                    pytest.fail(f"{name}.{method}({parameter}={bad!r}) was accepted")
                assert parameter.removesuffix("_prefix") in caught.value.message, (name, method)
                assert caught.value.what
                refused += 1
    assert refused > 500
    assert rows(store._engine) == before


@pytest.mark.parametrize("bad", BAD_NAMES, ids=ascii)
def test_records_with_names_that_are_none(store, bad):
    before = rows(store._engine)
    for record in (
        Execution(bad, "j"), Execution("b", bad), Execution("b", "j", node_id=bad), Instance(bad, "w"),
        Instance("b", bad), Instance("b", "w", business_key=bad), Instance("b", "w", current_step=bad),
        Instance("b", "w", active_steps=frozenset([bad] if not isinstance(bad, list) else [5])),
        Instance("b", "w", labels={"l": bad}), Instance("b", "w", unique=bad),
        Instance("b", "w", status=bad), Execution("b", "j", state=bad), Execution("b", "j", desired_state=bad),
    ):  # fmt: skip
        calls = [store.executions.create] if isinstance(record, Execution) else [store.instances.put]
        if isinstance(record, Instance) and record.unique is None:
            calls.append(store.instances.start)
        for write in calls:
            with pytest.raises(InvalidArgument) as caught:
                write(record)
            assert caught.value.what
    assert rows(store._engine) == before


def test_filters_that_are_none(store):
    before = rows(store._engine)
    for name, method, found in every_method(store):
        if method not in ("query", "scan"):
            continue
        with pytest.raises(TypeError) as caught:
            call(getattr(store, name), method, {"statsu": "running"})
        assert "statsu" in str(caught.value)
        parameters = found.public_signature().parameters
        assert all(one.kind is one.KEYWORD_ONLY for one in parameters.values() if one.name != "prefix")
        for what, bad in (
            ("status", "resting"), ("status_in", ["resting"]), ("status_in", "running"), ("order", "size"),
            ("limit", 0), ("limit", 1001), ("limit", "5"), ("limit", True), ("cursor", "nonsense"), ("cursor", 5),
            ("updated_after", datetime(2026, 3, 1)), ("updated_before", "now"), ("label", "l"),
            ("workflow_version", 0), ("state_in", "new"),
        ):  # fmt: skip
            if what in parameters:
                with pytest.raises(InvalidArgument):
                    call(getattr(store, name), method, {what: bad})
    for state in ("resting", "", 5, None):
        with pytest.raises(InvalidArgument):
            store.executions.count(state)
    assert rows(store._engine) == before


STORE_METHODS = (
    ("namespace", "n"), ("transaction",), ("transact", lambda tx: None), ("watch", "w", print), ("check",), ("stats",),
    ("backup", "nowhere.db"), ("compact",), ("rekey",), ("ping",), ("namespaces",),
    ("delete_namespace", "n"), ("__enter__",),
)  # fmt: skip
"""Those of the store itself, with what they must be given."""


def says_what_to_do(caught, what):
    assert "open it again" in caught.value.message, what


def test_a_closed_store(store):
    store.close()
    for name, method, found in every_method(store):
        with pytest.raises(Closed) as caught:
            call(getattr(store, name), method, arguments(name, method, found))
            pytest.fail(f"{name}.{method} works on a closed store")
        says_what_to_do(caught, (name, method))
    for method, *given in STORE_METHODS:
        with pytest.raises(Closed) as caught:
            getattr(store, method)(*given)
            pytest.fail(f"{method} works on a closed store")
        says_what_to_do(caught, method)
    store.close()


def test_what_runs_beside_a_store_ends_when_its_engine_is_closed(store):
    other = store.namespace("n")
    other.retention.start(every=0.001)
    runner = other.retention._runner
    store.close()
    runner.join(60)
    assert not runner.is_alive()
    other.retention.stop()


def test_a_closed_asynchronous_store(store):
    async def main():
        over = AsyncStore.over(store)
        await over.close()
        for name, method, found in every_method(over):
            with pytest.raises(Closed) as caught:
                await call_awaited(getattr(over, name), method, arguments(name, method, found))
                pytest.fail(f"{name}.{method} works on a closed store")
            says_what_to_do(caught, (name, method))
        for method, *given in STORE_METHODS:
            with pytest.raises(Closed) as caught:
                await getattr(over, method.replace("enter", "aenter"))(*given)
                pytest.fail(f"{method} works on a closed store")
            says_what_to_do(caught, method)
        await over.close()

    asyncio.run(main())
    assert store.instances.count() == 1


def test_an_ended_transaction(store):
    with store.transaction() as tx:
        tx.executions.update("a", message="m")
    with pytest.raises(ZeroDivisionError), store.transaction() as given_up:
        raise ZeroDivisionError
    before = rows(store._engine)
    for ended in (tx, given_up):
        for name, method, found in every_method(ended):
            alone = isinstance(found, procedure) and not isinstance(found, joining)
            with pytest.raises(InvalidArgument if alone else Closed):
                call(getattr(ended, name), method, arguments(name, method, found))
                pytest.fail(f"{name}.{method} works in a transaction that has ended")
    assert rows(store._engine) == before


def forged(cursor, place):
    """A cursor of the same query, that says another place."""
    query, _ = msgspec.msgpack.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    return base64.urlsafe_b64encode(msgspec.msgpack.encode([query, place])).decode().rstrip("=")


def test_a_cursor_that_was_changed_is_refused(database):
    store = database.open()
    for number in range(4):
        store.executions.create(Execution(f"e{number}", "j"))
        store.instances.put(Instance("r/i", "w"))
        store.instances.put(Instance(f"r/{number}", "w"))
        store.machines.save("m", "n", "s", number)
    pages = {
        "by name": lambda cursor: store.executions.query(job_id="j", limit=2, cursor=cursor),
        "by time": lambda cursor: store.instances.query(order="updated", limit=2, cursor=cursor),
        "by entry": lambda cursor: store.instances.history("r/i", limit=2, cursor=cursor),
        "by number": lambda cursor: store.machines.history("m", "n", limit=2, cursor=cursor),
    }
    places = [None, -1, "e1", [], [1], [-1, 0], [1, -1], [1, 2, 3], [1, 2, b"x", 4], {"a": 1}, True, 1.5]
    for order, page in pages.items():
        cursor = page(None).cursor
        assert page(cursor).items, order
        for place in places:
            with pytest.raises(InvalidArgument) as refused:
                page(forged(cursor, place))
            assert refused.value.what == "cursor", (order, place)


@pytest.mark.parametrize("what", ["families", "ops", "ids"])
@pytest.mark.parametrize("given", [5, 0, "create", b"x", object(), [{}]])
def test_what_is_no_collection_cannot_be_a_filter(what, given):
    with stateroom.open("memory:") as store, pytest.raises(InvalidArgument):
        store.feed.read(**{what: given})


def test_a_filter_may_come_from_an_iterator():
    with stateroom.open("memory:") as store:
        store.executions.create(Execution("e", "j"))
        assert len(store.feed.read(ops=iter(["create"]), families=iter(["executions"]), ids=iter(["e"])).items) == 1


BAD_PATHS = [0, None, {}, b"x", "", "a\0b", "\ud800", "x" * 300, "missing/a.db", "file/a.db"]


@pytest.mark.parametrize("path", BAD_PATHS, ids=[ascii(path)[:12] for path in BAD_PATHS])
@pytest.mark.parametrize("url", ["memory:", "own.db"])
def test_a_path_that_names_no_file(path, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a file, not a folder")
    with stateroom.open(url) as store:
        before = sorted(os.listdir(tmp_path))
        with pytest.raises((InvalidArgument, Unavailable)):
            store.backup(path)
        assert sorted(os.listdir(tmp_path)) == before
    with pytest.raises((InvalidArgument, NotFound)):
        stateroom.restore(path, "memory:")


@pytest.mark.parametrize("what", [None, 3, "f", []])
def test_a_transaction_needs_a_function(what):
    with stateroom.open("memory:") as store, pytest.raises(InvalidArgument):
        store.transact(what)

    async def over():
        async with await stateroom.open_async("memory:") as store:
            with pytest.raises(InvalidArgument):
                await store.transact(what)

    asyncio.run(over())


@pytest.mark.parametrize("family", [None, 5, [], {}, "things"])
def test_a_policy_needs_a_family(family):
    with stateroom.open("memory:") as store, pytest.raises(InvalidArgument):
        store.retention.set(Policy(family, keep_latest=1))
