"""The fixtures of every family's tests.

`store`: an open store, once for each engine and face. `clock` moves only by `clock.advance(seconds)`. `other`: a second
client of the same database. `reopen()` closes the store and opens the database anew. `database` is what they come from,
for tests that need more (`database.engine` is its kind, `database.asynchronous` its face, `database.embedded` whether it
has one part); everything in it is checked when the test ends.

A test runs on memory, SQLite and PostgreSQL, on both faces; marked ``older`` on the oldest PostgreSQL as well, marked
``embedded`` (with the reason) on memory and SQLite alone. On a server there are three parts: what must be in order
shares a root.
"""

import asyncio
import hashlib
import os

import pytest

import stateroom
from stateroom import AsyncStore, Store, codec, keys
from stateroom.core.bridge import Threaded, run_now
from stateroom.engine import Batch
from stateroom.engines import memory, sqlite
from stateroom.testing.faces import Driven, LoopThread, ManualClock

EMBEDDED = ("memory", "memory-async", "sqlite", "sqlite-async")
SERVERS = ("postgresql", "postgresql-async")
OLDER = ("postgresql-16",)
SUSPENDING = pytest.mark.parametrize("database", ["memory-async", "sqlite-async", "postgresql-async"], indirect=True)
"""Marks a test of the asynchronous face alone."""


def pytest_generate_tests(metafunc):
    chosen = any("database" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "database" in metafunc.fixturenames and not chosen:
        embedded, older = (metafunc.definition.get_closest_marker(name) for name in ("embedded", "older"))
        assert embedded is None or embedded.args, f"{metafunc.definition.nodeid}: say why it is embedded"
        names = EMBEDDED + (() if embedded else SERVERS) + (OLDER if older else ())
        metafunc.parametrize("database", names, indirect=True)


def namespace_of(node):
    """A namespace that no other test has, and that is the same in every run: what falls into which part is, too.

    A value of ``STATEROOM_TEST_SALT`` gives others.
    """
    salt = os.environ.get("STATEROOM_TEST_SALT", "")
    return "t" + hashlib.blake2b(f"{salt}{node.nodeid}".encode(), digest_size=16).hexdigest()


BLOCKING = pytest.mark.parametrize("database", ["memory", "postgresql"], indirect=True)
"""Marks a test that wraps engines, which it can do with the blocking ones; above a wrapper a file is as memory is."""
SEVERAL = pytest.mark.parametrize("database", ["sqlite", "postgresql", "postgresql-async"], indirect=True)
"""Marks a test that is about what stands in a database, whose engines in memory add nothing."""


class Database:
    """A database of one test, on one face: gives stores on it, and closes what is left open."""

    def __init__(self, name, clock, where, namespace="default", servers=None):
        self._servers = servers
        self.name = name
        self.engine, _, face = name.partition("-")
        self.asynchronous = face == "async"
        self.embedded = servers is None
        self.clock = clock
        self.url = where
        self.namespace = namespace
        self.codec = codec.default
        """What everything is checked with at the end; None where the test looks for itself, with the keys it has."""
        self._thread = None if not self.asynchronous else servers.thread if servers else LoopThread()
        self._opened = []
        self._memory = memory.connect("memory:") if self.engine == "memory" else None

    def open(self, **options):
        """Another client."""
        options = {"namespace": self.namespace, "clock": self.clock, **options}
        store = self._open_memory(options) if self._memory is not None else self._open_url(options)
        self._opened.append(store)
        return store

    def over(self, engine, **options):
        """A store over an engine of the test's own (a wrapper), on this face."""
        store = self._store(engine, {"namespace": self.namespace, "clock": self.clock, **options})
        self._opened.append(store)
        return store

    def raw(self, **options):
        """The blocking engine underneath a new client: to wrap it, or to look at rows."""
        if self._memory is not None:
            return self._memory
        if self._servers is not None:
            return self._servers.kept(0, False)._engine
        store = stateroom.open(self.url, namespace=self.namespace, clock=self.clock, **options)
        self._opened.append(store)
        return store._engine

    def run(self, work):
        """What ``await work(store)`` gives, on the event loop, for an open `AsyncStore`."""
        return self._thread.run(asyncio.wait_for(work(self.open().target), 60))

    def inside(self, store):
        """A store's scope, and what runs coroutines in it."""
        if self.asynchronous:
            return store.target._scope, self._thread.run
        return store._scope, run_now

    def _open_memory(self, options):
        return self._store(self._memory, options)

    def _store(self, engine, options):
        options = {"codec": codec.default, **options}
        if not self.asynchronous:
            return Store(engine, "memory:", owner=False, **options)
        return Driven(AsyncStore(Threaded(engine), engine, "memory:", owner=False, **options), self._thread)

    def _open_url(self, options):
        if self._servers is not None and not options.keys() - {"namespace", "clock", "codec"}:
            return self._servers.store(len(self._opened) % 2, self.asynchronous, options)
        if not self.asynchronous:
            return stateroom.open(self.url, **options)
        return Driven(self._thread.run(stateroom.open_async(self.url, **options)), self._thread)

    def close(self):
        for store in reversed(self._opened):
            store.close()
        if self._memory is not None:
            self._memory.close()
        if self._thread is not None and self._servers is None:
            self._thread.close()


class Servers:
    """Open connections to one schema, kept for all tests: each has a namespace of its own, and opening is slow."""

    def __init__(self, url):
        self.url = url
        self.thread = LoopThread()
        self._stores = {}

    def kept(self, number, asynchronous):
        """One of the stores whose connections all tests share."""
        kept = self._stores.get((number, asynchronous))
        if kept is None:
            kept = self.thread.run(stateroom.open_async(self.url)) if asynchronous else stateroom.open(self.url)
            self._stores[number, asynchronous] = kept
        return kept

    def store(self, number, asynchronous, options):
        """A store over a kept engine; `number` keeps the clients of one test apart."""
        options = {"codec": codec.default, "owner": False, **options}
        kept = self.kept(number, asynchronous)
        if asynchronous:
            return Driven(AsyncStore(kept._scope.engine, None, kept.url, **options), self.thread)
        return Store(kept._engine, kept.url, **options)

    def close(self):
        for (_, asynchronous), store in self._stores.items():
            if asynchronous:
                self.thread.run(store.close())
            else:
                store.close()
        self.thread.close()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture(scope="session")
def servers():
    yield from _servers("18")


@pytest.fixture(scope="session")
def older():
    """The oldest PostgreSQL that is tried."""
    if {"STATEROOM_TEST_POSTGRES", "STATEROOM_TEST_CITUS"} & os.environ.keys():
        pytest.skip("the environment names one server")
    yield from _servers("16")


def _servers(version):
    pytest.importorskip("psycopg")
    from stateroom.testing.postgres import fresh_schema

    with fresh_schema(version) as url:
        stateroom.open(url, parts=3).close()  # several, and few enough that looking at all of them is quick
        servers = Servers(url)
        yield servers
        servers.close()


@pytest.fixture
def database(request, clock, tmp_path):
    name = request.param
    if name.startswith("postgresql"):
        servers = request.getfixturevalue("older" if name in OLDER else "servers")
        database = Database(name, clock, servers.url, namespace_of(request.node), servers)
    else:
        where = str(tmp_path / "store.db") if name.startswith("sqlite") else "memory:"
        database = Database(name, clock, where)
    try:
        yield database
        if database.codec is not None:
            checked(database, tmp_path)
    finally:
        database.close()


def checked(database, folder):
    """Check everything; where something is wrong, keep the database and say where."""
    store = database.open(codec=database.codec)
    problems = store.check()
    if not problems:
        return
    kept = database.url
    if database.engine != "sqlite":  # whose file stays where it is
        kept = str(folder / "kept.db")
        engine, raw = sqlite.connect(kept), database.raw()
        prefix = keys.namespace(database.namespace)
        for part in range(raw.parts):
            for row in raw.scan(part, prefix, prefix + keys.END, limit=1_000_000):
                engine.commit(0, Batch(write={row.key: row.value}))
        engine.close()
    raise AssertionError(f"check found {problems}; the rows are kept in {kept}")


@pytest.fixture
def alone(database):
    """`database`, on a server in a schema that no other test uses: for what goes through all namespaces."""
    if database.embedded:
        yield database
        return
    for servers in _servers("18"):
        alone = Database(database.name, database.clock, servers.url, database.namespace, servers)
        yield alone
        alone.close()


@pytest.fixture
def store(database):
    return database.open()


@pytest.fixture
def other(database, store):
    return database.open()


@pytest.fixture
def reopen(database, store):
    def again(**options):
        store.close()
        return database.open(**options)

    return again
