"""Nodes for tests: on both faces, over a shared store on SQLite or PostgreSQL.

`cluster.node(name)` starts one, with a local store of its own; whatever was started is stopped, and every store checked,
when the test ends. `alone` is a cluster on one engine and face, for what has nothing to do with either.
"""

import os

import pytest

import stateroom
from stateroom.testing.faces import Driven, LoopThread

pytest.importorskip("starlette", reason="nodes need the extra `server`")
pytest.importorskip("uvicorn", reason="nodes need the extra `server`")

from stateroom.node import AsyncNode, Node

SECRET = b"a secret of the tests, 32 bytes.."


class Cluster:
    """Nodes over one shared store."""

    secret = SECRET

    def __init__(self, url, namespace, face, folder):
        self.url = url
        self.namespace = namespace
        self.asynchronous = face == "AsyncNode"
        self.folder = folder
        self._thread = LoopThread() if self.asynchronous else None
        self._stores = []
        self._nodes = []
        self.shared = self.open(url, namespace=namespace)

    def open(self, url, **options):
        """A store on this face."""
        if self.asynchronous:
            store = Driven(self._thread.run(stateroom.open_async(url, **options)), self._thread)
        else:
            store = stateroom.open(url, **options)
        self._stores.append(store)
        return store

    def local(self, name, **options):
        """A store of a node's own."""
        return self.open(str(self.folder / f"{name}.db"), **options)

    def make(self, name, *, shared=None, local=None, **options):
        """A node that is not started."""
        shared, local = shared or self.shared, local or self.local(name)
        options = {"secret": SECRET, **options}
        if not self.asynchronous:
            return Node(shared, local, name, **options)

        async def build():
            return AsyncNode(shared.target, local.target, name, **options)

        return Driven(self._thread.run(build()), self._thread)

    def node(self, name, **options):
        """A node that was started."""
        node = self.make(name, **options)
        node.start()
        self._nodes.append(node)
        return node

    def nodes(self, *names):
        """Several nodes."""
        return [self.node(name) for name in names]

    def close(self):
        for node in reversed(self._nodes):
            node.stop()
        try:
            for store in self._stores:
                assert store.check() == []
        finally:
            for store in self._stores:
                store.close()
            if self._thread is not None:
                self._thread.close()


@pytest.fixture(scope="session")
def postgresql():
    """The url of a schema for shared stores."""
    pytest.importorskip("psycopg")
    from stateroom.testing.postgres import fresh_schema

    with fresh_schema("18") as url:
        stateroom.open(url, parts=3).close()
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_url(request, tmp_path):
    """The url of a shared store."""
    if request.param == "sqlite":
        return str(tmp_path / "shared.db")
    return request.getfixturevalue("postgresql")


@pytest.fixture(params=["Node", "AsyncNode"])
def cluster(request, shared_url, tmp_path):
    made = Cluster(shared_url, f"t{os.urandom(8).hex()}", request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture
def alone(tmp_path):
    made = Cluster(str(tmp_path / "shared.db"), "default", "Node", tmp_path)
    yield made
    made.close()
