"""The power goes, or the disk is full, under load: nothing acknowledged is lost, and nothing is there by halves."""

import os
import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import stateroom
from crash.disk import Disk, missing
from crash.ledger import Ledger
from crash.load import name, unit, verify
from stateroom.errors import StoreError, Unavailable

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

PAGES = 60
"""A checkpoint each so many pages of the log, so that cuts fall into checkpoints, too."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with Disk(tmp_path) as mounted:
        yield mounted


def test_the_disk_forgets_what_was_not_flushed(disk: Disk, tmp_path: Path) -> None:
    cuts = count()

    def after_a_cut(seed: int | None = None) -> dict[str, bytes]:
        image = disk.cut(tmp_path / f"cut-{next(cuts)}", seed)
        return {file.name: file.read_bytes() for file in image.iterdir()}

    handle = os.open(disk.path / "a", os.O_RDWR | os.O_CREAT)
    root = os.open(disk.path, os.O_RDONLY)
    try:
        os.write(handle, b"o" * 2048)
        os.fsync(handle)
        assert after_a_cut() == {}, "its name is not there before its folder is flushed"
        os.fsync(root)
        assert after_a_cut() == {"a": b"o" * 2048}
        os.pwrite(handle, b"n" * 2048, 0)
        assert (disk.path / "a").read_bytes() == b"n" * 2048
        assert after_a_cut() == {"a": b"o" * 2048}
        torn = {after_a_cut(seed)["a"] for seed in range(20)}
        for content in torn:
            assert {content[at : at + 512] for at in range(0, 2048, 512)} <= {b"o" * 512, b"n" * 512}
        assert len(torn) > 4
    finally:
        os.close(handle)
    try:
        os.unlink(disk.path / "a")
        assert after_a_cut() == {"a": b"o" * 2048}
        os.fsync(root)
        assert after_a_cut() == {}
    finally:
        os.close(root)


def cut_under_load(disk: Disk, tmp_path: Path, cuts: int, *, seed: int, face: str = "threads", writers: int = 4) -> int:
    """Cut the power so many times in two lives of one database; how many cuts kept only what was flushed."""
    dice = random.Random(seed)
    place = disk.folder("first")
    bare = 0
    acknowledged: set[tuple[int, int]] = set()
    for life in ("second", "third"):
        with Ledger(place / "runs.db", face=face, writers=writers, pages=PAGES) as ledger:
            for number in range(cuts // 2):
                ledger.more(dice.randrange(1, 9))
                kept = dice.choice([None, dice.randrange(1 << 30)])
                bare += kept is None
                known = acknowledged | ledger.acknowledged
                image = disk.cut(tmp_path / f"{life}-{number}", kept) / place.name
                with ledger.halted(), stateroom.open(str(image / "runs.db"), create=False) as store:
                    verify(store, known, writers)
            acknowledged = known
            image = disk.cut(tmp_path / f"{life}-end", dice.randrange(1 << 30)) / place.name
        place = disk.folder(life, content=image)  # the power is back: the next life starts from what the cut has left
    return bare


@pytest.mark.parametrize(("face", "writers"), [("threads", 4), ("tasks", 16)])
def test_after_a_power_cut_everything_acknowledged_is_there(
    disk: Disk, tmp_path: Path, face: str, writers: int
) -> None:
    assert cut_under_load(disk, tmp_path, 4, seed=writers, face=face, writers=writers) > 0


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("face", "writers"), [("threads", 4), ("tasks", 16)])
def test_many_power_cuts(disk: Disk, tmp_path: Path, face: str, writers: int, seed: int) -> None:
    cut_under_load(disk, tmp_path, 20, seed=seed, face=face, writers=writers)


def normal(disk: Disk, tmp_path: Path, cuts: int, seed: int) -> int:
    """Cut the power with durability normal; how many acknowledged units were gone, over all cuts."""
    dice = random.Random(seed)
    gone = 0
    with Ledger(disk.path / "runs.db", durability="normal", pages=PAGES) as ledger:
        for number in range(cuts):
            ledger.more(dice.randrange(1, 9))
            known = set(ledger.acknowledged)
            image = disk.cut(tmp_path / f"cut-{number}", dice.choice([None, dice.randrange(1 << 30)]))
            with ledger.halted(), stateroom.open(str(image / "runs.db"), create=False) as store:
                verify(store, [], ledger.writers)
                gone += sum(store.instances.find(name(*pair)) is None for pair in known)
    return gone


def test_with_normal_durability_a_power_cut_leaves_a_whole_prefix(disk: Disk, tmp_path: Path) -> None:
    assert normal(disk, tmp_path, 4, seed=1) > 0, "nothing was lost: then this shows nothing"


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(20))
def test_many_power_cuts_with_normal_durability(disk: Disk, tmp_path: Path, seed: int) -> None:
    normal(disk, tmp_path, 20, seed)


def fill(store: stateroom.Store, first: int) -> int:
    """Units until there is no room; how many there are then."""
    for number in count(first):
        try:
            unit(store, 0, number)
        except Unavailable:
            return number
    raise AssertionError


@pytest.mark.parametrize("room", [60_000, 333_000])
def test_a_full_disk_refuses_and_then_goes_on(disk: Disk, room: int) -> None:
    with stateroom.open(str(disk.path / "runs.db")) as store:
        unit(store, 0, 0)
        done = 1
        for _ in range(3):
            disk.capacity(disk.used() + room)
            done = fill(store, done)
            assert verify(store, [(0, number) for number in range(done)], 1) == done
            with pytest.raises(Unavailable):
                fill_one_large(store)
            disk.capacity(0)
            unit(store, 0, done)
            done += 1
        assert verify(store, [(0, number) for number in range(done)], 1) == done
    with stateroom.open(str(disk.path / "runs.db"), create=False) as store:
        assert verify(store, [(0, number) for number in range(done)], 1) == done


def fill_one_large(store: stateroom.Store) -> None:
    store.results.put("large", "value", bytes(1 << 20))


def test_a_database_that_finds_no_room_at_all_is_not_half_made(disk: Disk) -> None:
    disk.capacity(5000)
    with pytest.raises(StoreError, match="disk"):
        stateroom.open(str(disk.path / "runs.db"))
    disk.capacity(0)
    with stateroom.open(str(disk.path / "runs.db")) as store:
        unit(store, 0, 0)
        assert verify(store, [(0, 0)], 1) == 1
