"""The SQLite engine meets the contract, with one part and with several, and with either durability."""

import os
import shutil
import tempfile

from stateroom.engines.sqlite import SqliteEngine, connect
from stateroom.testing import engine_suite


class Files:
    """Each engine in a folder of its own."""

    def __init__(self, **options):
        self.options = options

    def __call__(self) -> SqliteEngine:
        return connect(os.path.join(tempfile.mkdtemp(prefix="stateroom-"), "test.db"), **self.options)

    def reopen(self, engine: SqliteEngine) -> SqliteEngine:
        return connect(engine.path, create=False)

    def destroy(self, engine: SqliteEngine) -> None:
        shutil.rmtree(os.path.dirname(engine.path))


class TestSqlite(engine_suite(Files())):
    pass


class TestSqliteOfFiveParts(engine_suite(Files(parts=5))):
    examples = 10


class TestSqliteOfNormalDurability(engine_suite(Files(durability="normal"))):
    examples = 10
