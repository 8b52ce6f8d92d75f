"""The published cases of the families, on every engine and face."""

import importlib.util
import os
import shutil
import uuid
from tempfile import mkdtemp

import pytest

import stateroom
from stateroom.clock import SystemClock
from stateroom.testing import family_suite
from stateroom.testing.faces import drive

needs_rocksdict = pytest.mark.skipif(
    importlib.util.find_spec("rocksdict") is None and not os.environ.get("CI"), reason="rocksdict is not installed"
)


class Embedded:
    """Opens stores in this process, in memory or in a fresh folder."""

    def __init__(self, *, asynchronous=False, file=False, scheme=""):
        self._asynchronous, self._file, self._scheme = asynchronous, file, scheme
        self._folders = {}

    def __call__(self):
        folder = mkdtemp(prefix="stateroom-suite-") if self._file else None
        url = f"{self._scheme}{folder}/store.db" if folder else "memory:"
        store = drive(lambda: stateroom.open_async(url)) if self._asynchronous else stateroom.open(url)
        self._folders[id(store)] = folder
        return store

    def destroy(self, store):
        folder = self._folders.pop(id(store))
        if folder is not None:
            shutil.rmtree(folder)


class Server:
    """Stores on one schema, each in a namespace of its own."""

    def __init__(self, *, asynchronous=False):
        self._asynchronous = asynchronous
        self.servers = None

    def __call__(self):
        options = {"namespace": uuid.uuid4().hex, "clock": SystemClock()}
        return self.servers.store(0, self._asynchronous, options)


class TestMemory(family_suite(Embedded())):
    pass


class TestMemoryAsync(family_suite(Embedded(asynchronous=True))):
    pass


class TestSqlite(family_suite(Embedded(file=True))):
    pass


class TestSqliteAsync(family_suite(Embedded(file=True, asynchronous=True))):
    pass


@needs_rocksdict
class TestRocksdb(family_suite(Embedded(file=True, scheme="rocksdb:///"))):
    pass


@needs_rocksdict
class TestRocksdbAsync(family_suite(Embedded(file=True, scheme="rocksdb:///", asynchronous=True))):
    pass


class OnServer:
    @pytest.fixture(autouse=True)
    def _connected(self, servers):
        self.factory.servers = servers


class TestPostgresql(OnServer, family_suite(Server())):
    pass


class TestPostgresqlAsync(OnServer, family_suite(Server(asynchronous=True))):
    pass


class OnOlder:
    @pytest.fixture(autouse=True)
    def _connected(self, older):
        self.factory.servers = older


class TestPostgresql16(OnOlder, family_suite(Server())):
    pass


class TestPostgresql16Async(OnOlder, family_suite(Server(asynchronous=True))):
    pass
