"""A process on RocksDB is killed with SIGKILL under load: what was acknowledged is there, and no transaction by halves."""

import random

import pytest

import stateroom
from crash.ledger import Ledger
from crash.load import verify
from crash.test_kill import FACES

pytest.importorskip("rocksdict", reason="rocksdict is not installed", exc_type=ImportError)


def kill(url: str, count: int, before: int, *, face: str, writers: int, durability: str) -> int:
    with Ledger(url, face=face, writers=writers, durability=durability) as ledger:
        ledger.more(count)
        ledger.kill()
    with stateroom.open(url, create=False) as store:
        committed = verify(store, ledger.acknowledged, writers) - before
    assert count <= len(ledger.acknowledged) <= committed <= len(ledger.acknowledged) + writers  # one each in flight
    return before + committed


@pytest.mark.parametrize("durability", ["full", "normal"])
@pytest.mark.parametrize(("face", "writers"), FACES)
def test_a_killed_process_has_kept_what_it_acknowledged(tmp_path, face, writers, durability):
    before = 0
    for count in (1, 40):
        url = f"rocksdb:///{tmp_path}/runs?buffer=1"
        before = kill(url, count, before, face=face, writers=writers, durability=durability)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("face", "writers"), FACES)
def test_hundreds_of_kills(tmp_path, face, writers, seed):
    dice = random.Random(seed)
    for database in range(10):
        before = 0
        for _ in range(5):
            url = f"rocksdb:///{tmp_path}/{database}?buffer=1"
            before = kill(url, dice.randrange(1, 60), before, face=face, writers=writers, durability="full")
