"""RocksDB engines in folders of their own; a suite is skipped where rocksdict is missing."""

import os
import shutil
import tempfile

import pytest

rocksdict = pytest.importorskip("rocksdict", reason="rocksdict is not installed", exc_type=ImportError)

from stateroom.engines.rocksdb import connect  # noqa: E402
from stateroom.engines.rocksdb.engine import RocksEngine  # noqa: E402


class Folders:
    """Each engine in a folder of its own."""

    def __init__(self, **options):
        self.options = options

    def __call__(self) -> RocksEngine:
        folder = os.path.join(tempfile.mkdtemp(prefix="stateroom-"), "store")
        return connect(f"rocksdb:///{folder}?cache=8&buffer=4", **self.options)

    def reopen(self, engine: RocksEngine) -> RocksEngine:
        return connect(f"rocksdb:///{engine.path}?cache=8&buffer=4", create=False)

    def destroy(self, engine: RocksEngine) -> None:
        shutil.rmtree(os.path.dirname(engine.path))
