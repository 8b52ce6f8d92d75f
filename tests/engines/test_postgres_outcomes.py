"""Once COMMIT was sent, whatever is not the server's own clean refusal is an unknown outcome, and nobody of a shared
transaction is sent again: through a pooler that makes up answers, on a cluster that loses a node, with a standby that
is gone."""

import os
from contextlib import contextmanager

import psycopg
import pytest

from engines.pooler import PROGRAM, Pooler
from engines.postgres_helpers import name_of, quiet, together
from engines.proxy import CLIENT, SERVER, Proxy
from engines.test_postgres_cuts import attempt, batch, points, truth
from stateroom.engine import Batch, read_counter
from stateroom.engines.postgres import connect
from stateroom.engines.postgres.queue import _Lead
from stateroom.errors import OutcomeUnknown, StoreError, Unavailable
from stateroom.testing.harness import Running
from stateroom.testing.postgres import Server, fresh_schema, runs_on_one_server, shared

pytestmark = runs_on_one_server("these make triggers, and stop or cut the one server")
pooled = pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer here: apt-get install pgbouncer")


@contextmanager
def cut_before_the_pooler():
    """(url through a proxy and a pooler, the proxy, the url past both)."""
    with fresh_schema("18") as url:
        pooler = Pooler(shared("18").port)
        proxy = Proxy(("127.0.0.1", pooler.port))
        yield url.replace(f":{shared('18').port}/", f":{proxy.port}/"), proxy, url
        proxy.close()
        pooler.close()


@contextmanager
def cut_behind_the_pooler():
    """(url through a pooler that reaches the server through a proxy, the proxy, the url past both)."""
    with fresh_schema("18") as url:
        proxy = Proxy(("127.0.0.1", shared("18").port))
        pooler = Pooler(proxy.port)
        yield url.replace(f":{shared('18').port}/", f":{pooler.port}/"), proxy, url
        pooler.close()
        proxy.close()


def until_it_works(engine, number):
    """Commit on a session that the pooler has made anew."""
    while True:
        try:
            return engine.commit(0, batch(number))
        except (Unavailable, OutcomeUnknown):
            if engine.read(0, [b"r/%04d" % number])[0] is not None:
                return None


@pooled
@pytest.mark.parametrize("where", [cut_before_the_pooler, cut_behind_the_pooler])
def test_a_cut_on_either_side_of_a_pooler_is_never_told_as_nothing_changed(where):
    with where() as (url, proxy, past):
        engine, direct = connect(url), connect(past)
        quiet(engine)
        for number in range(3):  # the pooler's sessions are there, and it is known that they are no one's own
            engine.commit(0, batch(number))
        proxy.record()
        engine.commit(0, batch(3))
        sides = {CLIENT: points(proxy, CLIENT), SERVER: points(proxy, SERVER)}
        outcomes, number = set(), 4
        for side, cuts in sides.items():
            for after in cuts:
                proxy.arm(side, after)
                told = attempt(lambda: engine.commit(0, batch(number)))  # noqa: B023
                outcomes.add(truth(told, past, direct, number))
                assert proxy.cut_happened.wait(20)
                until_it_works(engine, number + 1)
                number += 2
        engine.close()
        direct.close()
    assert outcomes >= {"done", "unknown, done"}


@pooled
def test_behind_a_pooler_nobody_of_a_shared_transaction_is_applied_twice():
    with cut_behind_the_pooler() as (url, proxy, past):
        engine, direct = connect(f"{url}&connections=12"), connect(past)
        quiet(engine)
        for number in range(3):
            engine.commit(0, batch(number))
        together(engine, 0, [Batch(add={b"x": 1})] * 7)
        proxy.record()
        together(engine, 0, [Batch(add={b"x": 1})] * 7)
        before = read_counter(direct.read(0, [b"x"])[0].value)
        queue = engine._driver.queue
        holder = queue._join(0, Batch(), _Lead(None))  # as a commit under way, behind which seven meet
        commits = [Running(lambda: attempt(lambda: engine.commit(0, Batch(add={b"x": 1})))) for _ in range(7)]
        while len(queue._lines[0].waiting) < 7:
            pass
        proxy.arm(SERVER, 1)  # the answer never comes
        queue._pass_on(0, holder)
        told = [commit.result() for commit in commits]
        assert [type(each) for each in told] == [OutcomeUnknown] * 7
        assert read_counter(direct.read(0, [b"x"])[0].value) in (before, before + 7)
        engine.close()
        direct.close()


def at_commit(server, url, text):
    """Have something happen while COMMIT is carried out, once a row was written."""
    name = name_of(url)
    server.execute(
        f"""CREATE OR REPLACE FUNCTION "{name}".happen() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN {text}; RETURN NULL; END$$"""
    )
    server.execute(
        f'CREATE CONSTRAINT TRIGGER happens AFTER INSERT ON "{name}".rows DEFERRABLE INITIALLY DEFERRED'
        f' FOR EACH ROW EXECUTE FUNCTION "{name}".happen()'
    )


NODE_LOST = "RAISE EXCEPTION 'could not commit transaction for shard 102 on at least one node' USING ERRCODE = '{}'"


@pytest.mark.parametrize("code", ["XX000", "08006", "08P01", "57P01", "58030", "40003", "99999"])
def test_an_error_of_commit_itself_that_is_no_clean_refusal_leaves_the_outcome_unknown(url, server, opened, code):
    """A cluster reports a node that it lost while committing so, whether that node has committed or not."""
    store = opened(url)
    quiet(store)
    at_commit(server, url, NODE_LOST.format(code))
    with pytest.raises(OutcomeUnknown):
        store.commit(0, Batch(write={b"a": b""}))
    together_calls = []
    original = store._driver.queue._together

    async def counted(part, batches):
        together_calls.append(len(batches))
        return await original(part, batches)

    store._driver.queue._together = counted
    holder = store._driver.queue._join(0, Batch(), _Lead(None))
    commits = [Running(lambda n=n: attempt(lambda: store.commit(0, Batch(write={b"k%d" % n: b""})))) for n in range(4)]
    while len(store._driver.queue._lines[0].waiting) < 4:
        pass
    store._driver.queue._pass_on(0, holder)
    assert [type(commit.result()) for commit in commits] == [OutcomeUnknown] * 4
    assert together_calls == [4]


@pytest.mark.parametrize("code", ["23514", "40001", "P0001", "53100"])
def test_a_clean_refusal_by_commit_is_told_as_one(url, server, opened, code):
    store = opened(url)
    at_commit(server, url, f"RAISE EXCEPTION 'no' USING ERRCODE = '{code}'")
    with pytest.raises(StoreError) as refused:
        store.commit(0, Batch(write={b"a": b""}))
    assert not isinstance(refused.value, OutcomeUnknown)
    assert store.read(0, [b"a", b""]) == [None, (b"", b"", 0)]


@pytest.mark.parametrize("level", ["WARNING", "NOTICE"])
def test_what_the_server_says_while_it_commits_leaves_the_outcome_unknown(url, server, opened, level):
    store = opened(url)
    at_commit(server, url, f"RAISE {level} 'the change may not have been replicated'")
    with pytest.raises(OutcomeUnknown, match="may not have been replicated"):
        store.commit(0, Batch(write={b"a": b""}))
    assert store.read(0, [b"a"])[0] is not None
    told = attempt(lambda: together(store, 0, [Batch(write={b"b": b""}), Batch(write={b"c": b""})]))
    assert isinstance(told, OutcomeUnknown)
    assert store.read(0, [b"b"])[0] is not None


def test_what_the_server_says_of_another_statement_is_no_doubt(url, server, opened):
    store = opened(url)
    name = name_of(url)
    server.execute(
        f"""CREATE FUNCTION "{name}".say() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN RAISE NOTICE 'written'; RAISE WARNING 'so it is'; RETURN NEW; END$$"""
    )
    server.execute(f'CREATE TRIGGER says BEFORE INSERT ON "{name}".rows EXECUTE FUNCTION "{name}".say()')
    server.execute(f'CREATE TRIGGER warns BEFORE UPDATE ON "{name}".parts EXECUTE FUNCTION "{name}".say()')
    assert store.commit(0, Batch(write={b"a": b""})) == 1


def test_a_session_that_ends_before_commit_has_changed_nothing(url, server, opened):
    """The server's own words, in the place of the statement that it did not carry out."""
    mark = f"ends-{os.getpid()}"
    store = opened(f"{url}&application_name={mark}")
    quiet(store)
    with psycopg.connect(url.partition("?")[0]) as other:
        other.execute(f'UPDATE "{name_of(url)}".parts SET writer = 1 WHERE part = 0')
        commit = Running(lambda: attempt(lambda: store.commit(0, Batch(write={b"a": b""}))))
        waiting = "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
        while not server.execute(waiting, [mark]).fetchall():
            pass
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", [mark])
        told = commit.result()
        other.rollback()
    assert isinstance(told, Unavailable)
    assert store.read(0, [b"a"]) == [None]


@pytest.fixture(scope="module")
def primary():
    """A server with a synchronous standby that has gone."""
    primary = Server()
    try:
        primary.init().start()
        standby = primary.standby()
        primary.make_synchronous()
        store = connect(primary.url(), parts=1)
        store.commit(0, Batch())
        standby.remove()
        yield primary, store
        store.close()
    finally:
        primary.remove()


@pytest.mark.parametrize("function", ["pg_cancel_backend", "pg_terminate_backend"])
def test_a_wait_for_a_standby_that_was_called_off_leaves_the_outcome_unknown(primary, function):
    server, store = primary
    key = function.encode()
    commit = Running(lambda: attempt(lambda: store.commit(0, Batch(write={key: b""}))))
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    while not server.execute(waiting):
        pass
    server.execute(f"SELECT {function}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    assert isinstance(commit.result(), OutcomeUnknown)
    assert store.read(0, [key])[0] is not None


def test_a_primary_that_is_killed_while_commits_wait_behind_a_pooler(primary):
    if PROGRAM is None:
        pytest.skip("no pgbouncer here: apt-get install pgbouncer")
    server, store = primary
    pooler = Pooler(server.port, sessions=4)
    through = connect(server.url(port=pooler.port))
    quiet(through)
    before = read_counter((store.read(0, [b"n"])[0] or (b"", b""))[1])
    commits = [Running(lambda: attempt(lambda: through.commit(0, Batch(add={b"n": 1})))) for _ in range(3)]
    while not server.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"):
        pass
    server.kill9()
    server.settings["synchronous_standby_names"] = ""
    server.start()
    told = [commit.result() for commit in commits]
    assert {type(each) for each in told} <= {int, OutcomeUnknown, Unavailable}, told
    unknown = sum(isinstance(each, OutcomeUnknown) for each in told)
    assert unknown >= 1
    certain = sum(isinstance(each, int) for each in told)
    there = read_counter(store.read(0, [b"n"])[0].value) - before
    assert certain + 1 <= there <= certain + unknown, "the one that waited for the standby is there"
    through.close()
    pooler.close()
