"""One flipped bit anywhere in a database file: every read gives the right value or an error, and `check` finds it."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import stateroom
from stateroom import Event, Execution, Instance
from stateroom.clock import Clock
from stateroom.errors import StoreError

STEPS = 500
"""Bits that the default run flips; `make torture` flips all of them."""


class Still:
    """A clock that stands, so that the file is the same on each run."""

    def now(self) -> datetime:
        return datetime(2024, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


CLOCK: Clock = Still()
READS: dict[str, Callable[[stateroom.Store], Any]] = {
    "instance": lambda store: store.instances.get("order-17"),
    "other instance": lambda store: store.instances.get("order-18"),
    "absent": lambda store: store.instances.find("order-19"),
    "instances": lambda store: store.instances.query(workflow="order").items,
    "newest": lambda store: store.instances.query(order="updated").items,
    "count": lambda store: store.instances.count(workflow="order"),
    "execution": lambda store: store.executions.get("job-1/a"),
    "events": lambda store: store.executions.events("job-1/a"),
    "executions": lambda store: store.executions.for_job("job-1"),
    "live": lambda store: store.executions.live(),
    "lease": lambda store: store.leases.holder("order-17"),
    "timers": lambda store: store.timers.due(datetime(2030, 1, 1, tzinfo=UTC)),
    "machine": lambda store: store.machines.load("door", "front"),
    "feed": lambda store: [(change.op, change.key, change.record) for change in store.feed.read().items],
    "history": lambda store: store.instances.history("order-17").items,
}


def fill(path: str) -> None:
    with stateroom.open(path, clock=CLOCK) as store:
        started = store.instances.start(
            Instance("order-17", "order", business_key="order-17", metadata={"tags": ("a", {1, 2}), "rate": 1.5})
        )
        store.instances.put(msgspec.structs.replace(started, status="running"))
        store.instances.put(Instance("order-18", "order", labels={"team": "b"}))
        store.executions.create(Execution("job-1/a", "job-1", details={"x": 1}), events=[Event("made")])
        store.executions.update("job-1/a", state="bid_accepted", events=[Event("bid", details={"by": "n1"})])
        store.leases.acquire("order-17", "worker-1", 60)
        store.timers.set("order-17", datetime(2025, 1, 1, tzinfo=UTC), {"wake": True})
        store.machines.save("door", "front", "open", {"by": ["a", 5]})


@pytest.fixture
def database(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    path = tmp_path / "runs.db"
    fill(str(path))
    assert sorted(os.listdir(tmp_path))[0] == "runs.db"
    with stateroom.open(str(path), clock=CLOCK) as store:
        assert store.check() == []
        right = {name: read(store) for name, read in READS.items()}
    assert len(right["instances"]) == 2
    assert len(right["feed"]) >= 6
    return path, right


def flipped(path: Path, bits: Iterator[int]) -> Iterator[int]:
    """The file with one bit flipped at a time; put right again after each."""
    whole = path.read_bytes()
    for bit in bits:
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        for beside in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.remove(f"{path}{beside}")
        yield bit
    path.write_bytes(whole)


def verdict(path: Path, right: dict[str, Any]) -> tuple[list[str], bool]:
    """Which reads gave something wrong, and whether opening or checking found the damage."""
    wrong = []
    checked = False
    try:
        store = stateroom.open(str(path), clock=CLOCK, create=False)
    except StoreError:
        return [], True
    with store:
        for name, read in READS.items():
            with suppress(StoreError):
                if read(store) != right[name]:
                    wrong.append(name)
        try:
            checked = bool(store.check())
        except StoreError:
            checked = True
    return wrong, checked


def flip(database: tuple[Path, dict[str, Any]], bits: Iterator[int]) -> None:
    path, right = database
    for bit in flipped(path, bits):
        wrong, found = verdict(path, right)
        assert not wrong, f"bit {bit % 8} of byte {bit // 8}: {wrong} came back wrong"
        assert found, f"bit {bit % 8} of byte {bit // 8}: check finds nothing"


def test_a_flipped_bit_is_never_read_as_a_value(database: tuple[Path, dict[str, Any]]) -> None:
    size = database[0].stat().st_size * 8
    # The header of the file bit by bit from 16 on, the rest in steps that are prime to everything.
    step = next(step for step in range(size // STEPS, size) if size % step and step % 2 and step % 3)
    flip(database, iter([*range(16 * 8, 100 * 8, 7), *range(5, size, step)]))


@pytest.mark.torture
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("share", range(8))
def test_no_flipped_bit_at_all_is_read_as_a_value(database: tuple[Path, dict[str, Any]], share: int) -> None:
    flip(database, iter(range(share, database[0].stat().st_size * 8, 8)))


def test_a_value_that_was_changed_is_noticed_by_this_test(database: tuple[Path, dict[str, Any]]) -> None:
    path, right = database
    wrong, found = verdict(path, right)
    assert (wrong, found) == ([], False)
    with stateroom.open(str(path), clock=CLOCK) as store:
        store.instances.put(Instance("order-18", "order", labels={"team": "c"}))
    assert "other instance" in verdict(path, right)[0]
