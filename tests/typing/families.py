"""What type checkers must see of the other families; `test_typing.py` runs them over this file, as over `spine.py`."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any, assert_type

from stateroom import (
    AsyncStore,
    AsyncWatcher,
    Changes,
    Checkpoint,
    DeadLetter,
    Failure,
    Page,
    Policy,
    Result,
    Snapshot,
    Store,
    Timer,
    Watcher,
)

AT = datetime(2026, 3, 1, tzinfo=UTC)


def blocking(store: Store) -> None:
    assert_type(store.machines.save("m", "n", "idle", {"a": 1}, event="go"), Snapshot)
    assert_type(store.machines.find("m", "n"), Snapshot | None)
    assert_type(store.machines.fail("m", "n", ValueError("x")), Failure)
    assert_type(store.machines.last_error("m", "n"), Failure | None)
    assert_type(store.machines.history("m", "n", limit=5), Page[Snapshot])
    assert_type(store.machines.scan(machine="m"), Iterator[Snapshot])
    assert_type(store.results.put("d", "x", 1, ttl=5), Result)
    assert_type(store.results.find("d", "x"), Result | None)
    assert_type(store.results.ids("d"), tuple[str, ...])
    assert_type(store.results.gather("d", ["x"]), dict[str, Any])
    assert_type(store.savepoints.init("r", start=0), bool)
    assert_type(store.savepoints.list("r"), tuple[int, ...])
    assert_type(store.savepoints.latest("r").entities(), Iterator[tuple[str, Any]])
    assert_type(store.savepoints.latest("r").to_dict(), dict[str, Any])
    assert_type(store.timers.set("t", AT), Timer)
    assert_type(store.timers.due(limit=5), tuple[Timer, ...])
    assert_type(store.timers.next(), datetime | None)
    assert_type(store.checkpoints.list(), tuple[Checkpoint, ...])
    assert_type(store.dead_letters.list(), tuple[DeadLetter, ...])
    assert_type(store.retention.set(Policy("feed")), Policy)
    assert_type(store.watch("w", print), Watcher)
    assert_type(store.watchers(), tuple[Watcher, ...])
    with store.transaction() as tx:
        assert_type(tx.machines.load("m", "n"), Snapshot)
        assert_type(tx.results.scan(), Iterator[Result])


async def awaited(store: AsyncStore) -> None:
    assert_type(await store.machines.save("m", "n", "idle", None), Snapshot)
    assert_type(store.machines.scan(), AsyncIterator[Snapshot])
    assert_type(await store.results.find("d", "x"), Result | None)
    assert_type(store.results.scan(dag="d"), AsyncIterator[Result])
    assert_type((await store.savepoints.latest("r")).entities(), AsyncIterator[tuple[str, Any]])
    assert_type(await (await store.savepoints.latest("r")).to_dict(), dict[str, Any])
    assert_type(await store.timers.due(), tuple[Timer, ...])
    assert_type(await store.checkpoints.find("c"), str | None)
    assert_type(await store.feed.read(), Changes)
    assert_type(store.watch("w", print), AsyncWatcher)
    async with store.transaction() as tx:
        assert_type(await tx.machines.load("m", "n"), Snapshot)
        assert_type(tx.results.scan(), AsyncIterator[Result])


def refused(store: Store) -> None:
    store.machines.save("m", "n", 5, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    store.machines.history("m", "n", 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    store.results.query("d")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    store.timers.set("t", 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    store.savepoints.save("r", 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
