"""The process is killed with SIGKILL under load: what was acknowledged is there, and no transaction by halves."""

import random
from pathlib import Path

import pytest

import stateroom
from crash.ledger import Ledger
from crash.load import FAMILIES, name, unit, verify
from stateroom.errors import StoreError

FACES = [("threads", 4), ("tasks", 16)]


def kill(path: Path, count: int, before: int, *, face: str, writers: int, durability: str = "full") -> int:
    """Add to `before` units until so many more are acknowledged, die, and look; how many units there are then."""
    with Ledger(path, face=face, writers=writers, durability=durability) as ledger:
        ledger.more(count)
        ledger.kill()
    with stateroom.open(str(path), create=False) as store:
        found = verify(store, ledger.acknowledged, writers)
    committed = found - before
    assert count <= len(ledger.acknowledged) <= committed <= len(ledger.acknowledged) + writers  # one each in flight
    return found


@pytest.mark.parametrize("durability", ["full", "normal"])
@pytest.mark.parametrize(("face", "writers"), FACES)
def test_a_killed_process_has_kept_what_it_acknowledged(
    tmp_path: Path, face: str, writers: int, durability: str
) -> None:
    before = 0
    for count in (1, 40):
        before = kill(tmp_path / "runs.db", count, before, face=face, writers=writers, durability=durability)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("face", "writers"), FACES)
def test_hundreds_of_kills(tmp_path: Path, face: str, writers: int, seed: int) -> None:
    dice = random.Random(seed)
    for database in range(10):
        before = 0
        for _ in range(5):
            before = kill(tmp_path / f"{database}.db", dice.randrange(1, 60), before, face=face, writers=writers)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_unit_without_one_of_its_rows_is_noticed(tmp_path: Path, family: str) -> None:
    with stateroom.open(str(tmp_path / "runs.db")) as store:
        for number in range(5):
            unit(store, 0, number)
        assert verify(store, [(0, number) for number in range(5)], 1) == 5
        id = name(0, 3)
        gone = {
            "instances": lambda: store.instances.delete(id),
            "executions": lambda: store.executions.delete(f"{id}/run"),
            "machines": lambda: store.machines.purge("load", id),
            "results": lambda: store.results.delete(id, "value"),
            "timers": lambda: store.timers.cancel(id),
        }[family]
        assert gone()
        with pytest.raises((AssertionError, StoreError)):
            verify(store, [], 1)


def test_an_acknowledged_unit_that_is_not_there_is_noticed(tmp_path: Path) -> None:
    with stateroom.open(str(tmp_path / "runs.db")) as store:
        unit(store, 0, 0)
        with pytest.raises(AssertionError, match="acknowledged and lost"):
            verify(store, [(0, 0), (0, 1)], 1)
