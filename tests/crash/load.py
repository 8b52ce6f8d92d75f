"""A load whose writers say what was acknowledged, and the comparison of a database with what they said.

Unit `n` of writer `w` is one transaction over five families. ``python load.py URL DURABILITY FACE WRITERS PAGES`` commits
units until it is killed; after each it prints ``w n``. The log is copied into the file each PAGES pages.
"""

import asyncio
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import stateroom
from stateroom import AsyncStore, Event, Execution, Instance, Store
from stateroom.engines.sqlite import checkpoint

LARGE = 100_000
"""Bytes of every eighth result: kept in chunks, beside its row."""

WHEN = datetime(2030, 1, 1, tzinfo=UTC)
FAMILIES = ("instances", "executions", "machines", "results", "timers")
PAGE = 1000


def name(writer: int, number: int) -> str:
    return f"w{writer}-{number:06d}"


def payload(number: int) -> bytes:
    return bytes([number % 251]) * (LARGE if number % 8 == 3 else number * 37 % 3000)


def calls(tx: Any, writer: int, number: int) -> Iterable[Any]:
    """The changes of one unit, each made when it is asked for: five families, and a record changed twice."""
    id = name(writer, number)
    yield tx.executions.create(Execution(f"{id}/run", f"job-{writer}"), events=[Event("made")])
    yield tx.instances.put(Instance(id, "load", status="running", business_key=id, metadata={"number": number}))
    yield tx.machines.save("load", id, "on", {"number": number})
    yield tx.results.put(id, "value", payload(number))
    yield tx.timers.set(id, WHEN + timedelta(seconds=number), {"number": number})
    yield tx.executions.update(f"{id}/run", state="completed", events=[Event("done")])


def unit(store: Store, writer: int, number: int) -> None:
    def body(tx: Any) -> None:
        for _ in calls(tx, writer, number):
            pass

    store.transact(body)  # not transaction(): writers share the chunks of equal results, so they may conflict


async def async_unit(store: AsyncStore, writer: int, number: int) -> None:
    async def body(tx: Any) -> None:
        for call in calls(tx, writer, number):
            await call

    await store.transact(body)


def following(store: Store, writer: int) -> int:
    """The number of the writer's next unit."""
    number = 0
    while store.instances.find(name(writer, number)) is not None:
        number += 1
    return number


def acknowledge(writer: int, number: int) -> None:
    print(f"{writer} {number}\n", end="", flush=True)


def run_threads(url: str, durability: str, writers: int) -> None:
    store = stateroom.open(url, durability=durability)

    def write(writer: int) -> None:
        number = following(store, writer)
        while True:
            unit(store, writer, number)
            acknowledge(writer, number)
            number += 1

    threads = [threading.Thread(target=write, args=(writer,), daemon=True) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def run_tasks(url: str, durability: str, writers: int) -> None:
    with stateroom.open(url, durability=durability) as blocking:
        first = [following(blocking, writer) for writer in range(writers)]

    async def write(writer: int) -> None:
        number = first[writer]
        while True:
            await async_unit(store, writer, number)
            acknowledge(writer, number)
            number += 1

    store = await stateroom.open_async(url, durability=durability)
    await asyncio.gather(*(write(writer) for writer in range(writers)))


def ids(store: Store) -> dict[str, set[str]]:
    """The ids of the units that each family knows of."""
    timers = store.timers.due(WHEN + timedelta(days=1000), limit=PAGE)
    assert len(timers) < PAGE, "more timers than one page shows"
    return {
        "instances": {instance.id for instance in store.instances.scan(workflow="load")},
        "executions": {found.id.partition("/")[0] for found in store.executions.scan(state="completed")},
        "machines": {snapshot.name for snapshot in store.machines.scan(machine="load")},
        "timers": {timer.id for timer in timers},
    }


def feed(store: Store) -> dict[str, list[str]]:
    """What the feed says of each unit: family and operation, in order."""
    found: dict[str, list[str]] = {}
    after = stateroom.BEGINNING
    while True:
        changes = store.feed.read(after, limit=PAGE)
        for change in changes.items:
            unit = change.id.partition("/")[0]
            found.setdefault(unit, []).append(f"{change.family} {change.op}")
        if not changes.items:
            return found
        after = changes.next


CHANGES = ["executions create", "executions update", "instances create", "machines create", "results create"]
"""Of one unit, in the feed, where timers are not."""


def verify(store: Store, acknowledged: Iterable[tuple[int, int]], writers: int) -> int:
    """How many units are there. Fails when one that was acknowledged is not, or one is there by halves."""
    known = ids(store)
    whole = known["instances"]
    for family, found in known.items():
        assert found == whole, f"{family} differs from instances: {sorted(found ^ whole)}"
    lost = {name(*pair) for pair in acknowledged} - whole
    assert not lost, f"acknowledged and lost: {sorted(lost)}"
    told = feed(store)
    assert set(told) == whole
    for id, changes in told.items():
        assert sorted(changes) == CHANGES, f"{id}: {changes}"
    for writer in range(writers):
        count = following(store, writer)
        assert {name(writer, number) for number in range(count)} <= whole
        for number in range(count):
            id = name(writer, number)
            assert store.results.get(id, "value") == payload(number)
            assert store.instances.get(id).metadata == {"number": number}
            assert [event.message for event in store.executions.events(f"{id}/run")] == ["made", "done"]
        assert store.results.find(name(writer, count), "value") is None
    assert len(whole) == sum(following(store, writer) for writer in range(writers)), "a gap in somebody's units"
    assert store.check() == []
    return len(whole)


def main(url: str, durability: str, face: str, writers: str, pages: str) -> None:
    checkpoint.STEP_PAGES, checkpoint.LOG_PAGES = int(pages), 4 * int(pages)
    if face == "threads":
        run_threads(url, durability, int(writers))
    else:
        asyncio.run(run_tasks(url, durability, int(writers)))


if __name__ == "__main__":
    main(*sys.argv[1:])
