"""`distribute`, on a server with stand-ins for what Citus offers: what it says, in which transaction, and again."""

import asyncio

import pytest

import stateroom
from stateroom.engine import Batch
from stateroom.engines.postgres import connect, distribute
from stateroom.engines.postgres.citus import LEAKING
from stateroom.errors import NotFound, StoreError
from stateroom.testing.postgres import Server, fresh_schema

STAND_INS = """
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass);
CREATE TABLE pg_catalog.pg_dist_object (classid oid, objid oid, distribution_argument_index int);
CREATE TABLE public.calls (place serial, call text, transaction bigint DEFAULT txid_current(), mode text DEFAULT
 current_setting('citus.multi_shard_modify_mode', true));
CREATE TABLE public.release (text text);
INSERT INTO public.release VALUES ('Citus 13.2.0 on x86_64-pc-linux-gnu');
CREATE FUNCTION pg_catalog.citus_version() RETURNS text LANGUAGE sql AS 'SELECT text FROM public.release';
CREATE FUNCTION pg_catalog.create_distributed_table(name regclass, part text, colocate_with text DEFAULT 'default')
 RETURNS void LANGUAGE plpgsql AS $$BEGIN
 IF EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = name) THEN RAISE 'already distributed'; END IF;
 IF colocate_with = 'fails' THEN RAISE 'fails'; END IF;
 INSERT INTO pg_dist_partition VALUES (name); INSERT INTO public.calls (call) VALUES ('table ' || name); END$$;
CREATE FUNCTION pg_catalog.create_distributed_function(name regprocedure, part text, colocate_with text,
 force_delegation boolean) RETURNS void LANGUAGE plpgsql AS $$BEGIN
 IF part <> 'part_' OR NOT force_delegation THEN RAISE 'no'; END IF;
 INSERT INTO pg_dist_object VALUES ('pg_proc'::regclass, name, 0);
 INSERT INTO public.calls (call) VALUES ('function'); END$$;
CREATE FUNCTION pg_catalog.truncate_local_data_after_distributing_table(name regclass) RETURNS void
 LANGUAGE plpgsql AS $$BEGIN
 IF NOT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = name) THEN RAISE 'not distributed'; END IF;
 INSERT INTO public.calls (call) VALUES ('truncate ' || name); END$$;
CREATE FUNCTION pg_catalog.citus_total_relation_size(name regclass) RETURNS bigint
 LANGUAGE sql AS 'SELECT pg_total_relation_size(name)';
INSERT INTO pg_extension SELECT 4242, 'citus', extowner, extnamespace, extrelocatable, '13', extconfig, extcondition
 FROM pg_extension WHERE extname = 'plpgsql';
"""
EVERYTHING = ["table parts", "table rows", "function", "truncate parts", "truncate rows"]


@pytest.fixture(scope="module")
def cluster():
    server = Server()
    try:
        server.init().start()
        server.execute("ALTER SYSTEM SET allow_system_table_mods = on")
        server.execute("SELECT pg_reload_conf()")
        while server.execute("SHOW allow_system_table_mods") != [("on",)]:
            pass
        server.execute(STAND_INS)
        yield server
    finally:
        server.remove()


@pytest.fixture
def url(cluster, request):
    name = f"s{abs(hash(request.node.name))}"
    yield cluster.url(schema=name)
    cluster.execute("DELETE FROM public.calls")
    cluster.execute("DELETE FROM pg_dist_partition")
    cluster.execute("DELETE FROM pg_dist_object")
    cluster.execute(f"DROP SCHEMA {name} CASCADE")


def calls(cluster):
    rows = cluster.execute("SELECT call, transaction, mode FROM public.calls ORDER BY place")
    return [
        (call.replace(call.split(" ")[-1], call.split(".")[-1]), transaction, mode) for call, transaction, mode in rows
    ]


def names(cluster):
    return [call for call, _, _ in calls(cluster)]


def test_tables_and_function_are_made_in_one_transaction_and_the_copies_removed_after_it(cluster, url):
    store = connect(url, parts=4)
    store.commit(0, Batch(write={b"a": b"1"}))
    distribute(url)
    assert names(cluster) == EVERYTHING
    transactions = [transaction for _, transaction, _ in calls(cluster)]
    assert len(set(transactions[:3])) == 1
    assert len({transactions[0], *transactions[3:]}) == 2
    assert {mode for _, _, mode in calls(cluster)[:3]} == {"sequential"}
    again = connect(url)
    assert again._dialogues.function
    assert again.commit(0, Batch(expect={b"a": 1}, write={b"a": b"2"})) == 2
    assert store.commit(0, Batch(write={b"a": b"3"})) == 3, "who was open before goes on by statements"
    assert again.size() > 0
    store.close()
    again.close()


def test_it_may_be_repeated(cluster, url):
    connect(url, parts=2).close()
    distribute(url)
    distribute(url)
    assert names(cluster) == [*EVERYTHING, "truncate parts", "truncate rows"]


@pytest.mark.parametrize("done", ["parts", "rows"])
def test_what_an_interrupted_one_left_half_done_is_finished(cluster, url, done):
    connect(url, parts=2).close()
    name = url.partition("schema=")[2]
    cluster.execute(f"INSERT INTO pg_dist_partition VALUES ('{name}.{done}')")
    distribute(url)
    assert names(cluster) == [each for each in EVERYTHING if each != f"table {done}"]


def test_one_that_fails_leaves_nothing_half_done(cluster, url):
    store = connect(url, parts=2)
    name = url.partition("schema=")[2]
    cluster.execute("ALTER FUNCTION create_distributed_function RENAME TO gone")
    try:
        with pytest.raises(StoreError):
            distribute(url)
    finally:
        cluster.execute("ALTER FUNCTION gone RENAME TO create_distributed_function")
    assert names(cluster) == []
    assert cluster.execute("SELECT FROM pg_dist_partition") == []
    assert cluster.execute(f"SELECT FROM {name}.rows WHERE key = 'commit'") == []
    assert store.commit(0, Batch()) == 1
    store.close()


@pytest.mark.parametrize("release", [(13, 2, 0), (13, 2, 1), (13, 2, 2), (13, 2, 3), (14, 0, 0)])
def test_releases_that_keep_every_plan_get_custom_ones(cluster, url, release):
    cluster.execute(f"UPDATE public.release SET text = 'Citus {'.'.join(map(str, release))} on x86_64'")
    connect(url, parts=2).close()
    distribute(url)
    name = url.partition("schema=")[2]
    settings = f"SELECT proconfig FROM pg_proc WHERE proname = 'commit' AND pronamespace = '{name}'::regnamespace"
    leaking = release in LEAKING
    assert cluster.execute(settings) == [(["plan_cache_mode=force_custom_plan"],) if leaking else (None,)]
    cluster.execute("UPDATE public.release SET text = 'Citus 13.2.0 on x86_64'")
    distribute(url)  # as after an upgrade
    assert cluster.execute(settings) == [(None,)]


def test_every_store_that_a_test_makes_is_distributed_where_a_cluster_is_named(cluster, monkeypatch):
    monkeypatch.setenv("STATEROOM_TEST_CITUS", cluster.url())
    with fresh_schema("16") as fresh:
        stateroom.open(fresh, parts=3).close()
        asyncio.run(_open_and_close(fresh))
    assert names(cluster) == EVERYTHING
    cluster.execute("DELETE FROM public.calls")
    cluster.execute("DELETE FROM pg_dist_partition")
    cluster.execute("DELETE FROM pg_dist_object")


async def _open_and_close(url):
    store = await stateroom.open_async(url)
    await store.close()


def test_without_a_store_there_is_nothing_to_distribute(cluster):
    with pytest.raises(NotFound):
        distribute(cluster.url(schema="none"))
