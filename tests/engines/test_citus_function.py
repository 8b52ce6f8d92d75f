"""The function that commits on a cluster does on one server what the statements do: the whole contract, and mixed."""

import random

import pytest

from engines.postgres_helpers import add_function, name_of, quiet, together
from engines.test_postgres_suite import AsyncFactory, Factory
from stateroom.engine import Batch, read_counter
from stateroom.engines.postgres import connect, connect_async, function
from stateroom.errors import Conflict, InvalidArgument, OutcomeUnknown, StoreError
from stateroom.testing import async_engine_suite, engine_suite
from stateroom.testing.harness import Running
from stateroom.testing.postgres import VERSIONS, fresh_schema, runs_on_one_server

pytestmark = runs_on_one_server("the function is made by hand")
LAST = b"\xff" * 8


class FunctionFactory(Factory):
    """Engines on schemas that have the function."""

    def __call__(self):
        engine = super().__call__()
        url = self._schemas[id(engine)][1]
        add_function(url)
        engine.close()
        again = connect(url)
        assert again._dialogues.function
        self._schemas[id(again)] = self._schemas.pop(id(engine))
        return again


class AsyncFunctionFactory(AsyncFactory):
    async def __call__(self):
        engine = await super().__call__()
        url = self._schemas[id(engine)][1]
        add_function(url)
        await engine.close()
        again = await connect_async(url)
        self._schemas[id(again)] = self._schemas.pop(id(engine))
        return again


class TestFunction18(engine_suite(FunctionFactory(VERSIONS[0]))):
    pass


class TestAsyncFunction16(async_engine_suite(AsyncFunctionFactory(VERSIONS[1], parts=3))):
    pass


@pytest.fixture
def both():
    """An engine that uses statements and one that uses the function, each on a schema of its own."""
    with fresh_schema("18") as one, fresh_schema("18") as two:
        connect(two, parts=2).close()
        add_function(two)
        engines = connect(one, parts=2), connect(two)
        for engine in engines:
            quiet(engine)
        assert [engine._dialogues.function for engine in engines] == [False, True]
        yield engines
        for engine in engines:
            engine.close()


@pytest.fixture
def mixed(url, opened):
    """Two engines on one schema, of which the second uses the function."""
    statements = opened(url, parts=1)
    add_function(url)
    calls = opened(url)
    assert calls._dialogues.function
    assert not statements._dialogues.function
    return statements, calls


def some_batch(chance, versions):
    keys = [b"k%d" % number for number in range(6)]
    expect = {key: chance.choice([versions.get(key, 0), 0, 99]) for key in chance.sample(keys, chance.randint(0, 2))}
    write = {key: chance.choice([None, b"", b"v"]) for key in chance.sample(keys, chance.randint(0, 3))}
    add = {key: chance.randint(-3, 3) for key in chance.sample([b"n", b"m"], chance.randint(0, 2))}
    append = [(b"f/", b"%d" % number) for number in range(chance.randint(0, 3))]
    clear = [(b"k2", b"k4")] if chance.random() < 0.1 else []
    return Batch(expect=expect, write=write, add=add, append=append, clear=clear)


def told(engine, batches):
    try:
        outcomes = together(engine, 0, batches)
    except StoreError as error:
        return type(error).__name__
    return [(each.key, each.expected, each.actual) if isinstance(each, Conflict) else each for each in outcomes]


def test_groups_of_batches_have_the_same_outcomes_and_leave_the_same_rows(both):
    chance = random.Random(7)
    versions, conflicts = {}, 0
    for _ in range(150):
        batches = [some_batch(chance, versions) for _ in range(chance.randint(1, 5))]
        one, two = (told(engine, batches) for engine in both)
        assert one == two
        conflicts += sum(isinstance(each, tuple) for each in one)
        rows = [engine.scan(0, b"", LAST, limit=10_000) for engine in both]
        assert rows[0] == rows[1]
        versions = {row.key: row.version for row in rows[0]}
        assert both[0].read(0, [b""]) == both[1].read(0, [b""])
    assert conflicts > 100


@pytest.mark.parametrize(
    "bad",
    [
        Batch(write={b"n": b"longer than a counter"}, add={b"n": 1}),
        Batch(write={b"n": ((1 << 63) - 1).to_bytes(8, "big")}, add={b"n": 1}),
    ],
)
def test_a_counter_that_is_none_refuses_its_batch_alone(both, bad):
    for engine in both:
        assert engine.commit(0, Batch(write={b"a": b"1"})) == 1
        with pytest.raises(InvalidArgument, match="64 bits"):
            engine.commit(0, bad)
        assert engine.commit(0, Batch(write={b"a": b"2"})) == 2
        assert engine.read(0, [b"n"]) == [None]


def test_the_key_that_is_reported_is_the_smallest(both):
    for engine in both:
        engine.commit(0, Batch(write={b"b": b"", b"a": b"", b"c": b""}))
        with pytest.raises(Conflict) as refused:
            engine.commit(0, Batch(expect={b"c": 0, b"a": 7, b"b": 9, b"missing": 0}))
        assert (refused.value.key, refused.value.expected, refused.value.actual) == (b"a", 7, 1)


def test_a_large_batch_goes_by_statements(mixed, monkeypatch):
    _, calls = mixed
    quiet(calls)
    used = []
    original = function.call
    monkeypatch.setattr(function, "call", lambda *args, **kwargs: used.append(1) or original(*args, **kwargs))
    rows = {b"k%d" % number: b"" for number in range(function.MOST_ROWS)}
    calls.commit(0, Batch(write=rows))
    assert len(used) == 1
    calls.commit(0, Batch(write=rows, add={b"n": 1}))
    assert len(used) == 1


def test_statements_and_function_take_turns_on_one_part(mixed):
    def work(engine):
        done = []
        while len(done) < 40:
            row = engine.read(0, [b"shared"])[0]
            batch = Batch(
                expect={b"shared": row.version if row else 0},
                write={b"shared": b""},
                add={b"n": 1},
                append=[(b"f/", b"")],
            )
            try:
                done.append(engine.commit(0, batch))
            except Conflict:
                continue
        return done

    versions = [each.result() for each in [Running(lambda e=engine: work(e)) for engine in mixed * 2]]
    assert sorted(version for each in versions for version in each) == list(range(1, 161))
    engine = mixed[0]
    assert read_counter(engine.read(0, [b"n"])[0].value) == 160
    assert [row.key[2:10] for row in engine.scan(0, b"f/", b"f0", limit=999)] == [
        version.to_bytes(8, "big") for version in range(1, 161)
    ]


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_normal_reaches_the_server_that_writes(url, server, opened, durability):
    """The setting is made where the rows are written, which on a cluster is not where BEGIN was said."""
    opened(url).close()
    add_function(url)
    name = name_of(url)
    server.execute(
        f"""CREATE FUNCTION "{name}".note() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN NEW.value := convert_to(current_setting('synchronous_commit'), 'UTF8'); RETURN NEW; END$$"""
    )
    server.execute(f'CREATE TRIGGER notes BEFORE INSERT ON "{name}".rows FOR EACH ROW EXECUTE FUNCTION "{name}".note()')
    store = opened(url, durability=durability)
    store.commit(0, Batch(write={b"a": b""}))
    assert (store.read(0, [b"a"])[0].value == b"off") is (durability == "normal")
    assert server.execute("SHOW synchronous_commit").fetchone() != ("off",)


def test_an_error_of_the_call_is_certain_and_one_of_commit_is_not(url, server, opened):
    opened(url).close()
    add_function(url)
    store, name = opened(url), name_of(url)
    server.execute(
        f"""CREATE FUNCTION "{name}".refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN RAISE EXCEPTION 'connection not open' USING ERRCODE = '08006'; END$$"""
    )
    server.execute(f'CREATE TRIGGER t BEFORE INSERT ON "{name}".rows EXECUTE FUNCTION "{name}".refuse()')
    with pytest.raises(StoreError) as refused:
        store.commit(0, Batch(write={b"a": b""}))
    assert refused.value.code == "unavailable"
    server.execute(f'DROP TRIGGER t ON "{name}".rows')
    server.execute(
        f'CREATE CONSTRAINT TRIGGER t AFTER INSERT ON "{name}".rows DEFERRABLE INITIALLY DEFERRED'
        f' FOR EACH ROW EXECUTE FUNCTION "{name}".refuse()'
    )
    with pytest.raises(OutcomeUnknown):
        store.commit(0, Batch(write={b"a": b""}))


def test_a_function_of_another_version_is_not_called(url, server, opened):
    opened(url).close()
    add_function(url)
    server.execute(f"""UPDATE "{name_of(url)}".rows SET value = int8send(99) WHERE part = -1 AND key = 'commit'""")
    store = opened(url)
    assert not store._dialogues.function
    assert store.commit(0, Batch(write={b"a": b""})) == 1
