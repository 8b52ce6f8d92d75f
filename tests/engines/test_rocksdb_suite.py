"""The RocksDB engine meets the contract, with one part and with several, and with either durability."""

from engines.rocksdb_helpers import Folders
from stateroom.testing import engine_suite


class TestRocksdb(engine_suite(Folders())):
    examples = 10


class TestRocksdbOfFiveParts(engine_suite(Folders(parts=5))):
    examples = 5


class TestRocksdbOfNormalDurability(engine_suite(Folders(durability="normal"))):
    examples = 5
