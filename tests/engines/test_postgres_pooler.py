"""Everything works behind PgBouncer in transaction mode, where each transaction may get another session."""

import atexit
import functools
from contextlib import ExitStack

import psycopg
import pytest

from engines.pooler import PROGRAM, Pooler
from stateroom.engine import Batch
from stateroom.engines.postgres import connect
from stateroom.testing import engine_suite
from stateroom.testing.harness import FOREVER, Running
from stateroom.testing.postgres import fresh_schema, runs_on_one_server, shared

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer here: apt-get install pgbouncer"),
    runs_on_one_server("the pooler stands in front of it"),
]


@functools.cache
def pooler():
    """The port of a PgBouncer with two sessions for everybody, so that they are shared; ends with this process."""
    pooler = Pooler(shared("18").port)
    atexit.register(pooler.close)
    return pooler.port


def through_pooler(url):
    return url.replace(f":{shared('18').port}/", f":{pooler()}/")


class Factory:
    def __init__(self):
        self._schemas = {}

    def __call__(self):
        stack = ExitStack()
        url = through_pooler(stack.enter_context(fresh_schema("18")))
        engine = connect(url)
        self._schemas[id(engine)] = stack, url
        return engine

    def reopen(self, engine):
        return connect(self._schemas[id(engine)][1])

    def destroy(self, engine):
        self._schemas.pop(id(engine))[0].close()


class TestBehindPooler(engine_suite(Factory())):
    examples = 15


@pytest.fixture
def url():
    with fresh_schema("18") as url:
        yield url


def test_many_stores_that_share_two_sessions_do_not_get_in_each_others_way(url):
    with fresh_schema("18") as other:
        engines = [connect(through_pooler(each)) for each in (url, other, url, other)]

        def work(engine):
            for number in range(30):
                engine.commit(number % 3, Batch(add={b"n": 1}, append=[(b"f/", b"")]))
                assert engine.read(number % 3, [b"n"])[0] is not None

        for each in [Running(lambda engine=engine: work(engine)) for engine in engines]:
            each.result()
        for engine in engines[:2]:
            assert sum(engine.read(part, [b""])[0].version for part in range(3)) == 60
        for engine in engines:
            engine.close()


def test_a_direct_listener_hears_what_goes_through_the_pooler(url):
    direct = url.partition("?")[0].replace(":", "%3A").replace("/", "%2F")
    one, two = connect(f"{through_pooler(url)}&listen={direct}"), connect(through_pooler(url))
    waiting = Running(lambda: one.wait(0, 0, FOREVER))
    two.commit(0, Batch())
    waiting.result()
    one.close()
    two.close()


def test_it_really_is_a_transaction_pooler():
    with psycopg.connect(shared("18").url(port=pooler()), autocommit=True) as one:
        pids = {one.execute("SELECT pg_backend_pid()").fetchone()[0]}
        with psycopg.connect(shared("18").url(port=pooler())) as two:
            pids.add(two.execute("SELECT pg_backend_pid()").fetchone()[0])  # holds its session until it ends
            pids.add(one.execute("SELECT pg_backend_pid()").fetchone()[0])
    assert len(pids) == 2
