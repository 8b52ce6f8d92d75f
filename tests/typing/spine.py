"""What type checkers must see of the spine; `test_typing.py` runs them over this file, and it is never executed."""

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import stateroom
from stateroom import AsyncStore, Changes, Context, Event, Execution, Instance, Lease, Page, Problem, Store


def blocking(store: Store) -> None:
    assert_type(stateroom.open("runs.db"), Store)
    assert_type(store.instances.start(Instance("a", "w", context=Context({"n": 1})), unique="global"), Instance)
    assert_type(store.instances.put(Instance("a", "w"), expected_revision=1), Instance)
    assert_type(store.instances.find("a"), Instance | None)
    assert_type(store.instances.query(status="running", limit=5), Page[Instance])
    assert_type(store.instances.scan(), Iterator[Instance])
    assert_type(store.instances.count(workflow="w"), int)
    assert_type(store.instances.wait("a", lambda one: one.active, timeout=1), Instance)
    assert_type(store.executions.create(Execution("a", "j"), events=[Event("e")]), Execution)
    assert_type(store.executions.update("a", expected_states={"new"}, state="running"), Execution)
    assert_type(store.executions.live(limit=5), tuple[Execution, ...])
    assert_type(store.executions.events("a"), tuple[Event, ...])
    assert_type(store.executions.delete("a"), bool)
    assert_type(store.leases.acquire("a", "me", 5), Lease)
    assert_type(store.feed.read(limit=5), Changes)
    assert_type(store.feed.latest(), str)
    assert_type(store.check(), list[Problem])
    assert_type(store.namespace("other"), Store)
    assert_type(store.transact(lambda tx: tx.executions.count("new")), int)
    with store.transaction(any_root=True) as tx:
        assert_type(tx.instances.get("a"), Instance)
        assert_type(tx.executions.for_job("j"), tuple[Execution, ...])
        assert_type(tx.instances.scan(), Iterator[Instance])


async def awaited(store: AsyncStore) -> None:
    assert_type(await stateroom.open_async("runs.db"), AsyncStore)
    assert_type(await store.instances.start(Instance("a", "w")), Instance)
    assert_type(await store.instances.find("a"), Instance | None)
    assert_type(await store.instances.query(status="running"), Page[Instance])
    assert_type(store.instances.scan(), AsyncIterator[Instance])
    assert_type(await store.executions.update("a", state="running"), Execution)
    assert_type(await store.executions.events("a"), tuple[Event, ...])
    assert_type(await store.leases.holder("a"), Lease | None)
    assert_type(await store.feed.read(), Changes)
    assert_type(store.namespace("other"), AsyncStore)
    async with store.transaction() as tx:
        assert_type(await tx.instances.get("a"), Instance)
        assert_type(tx.executions.scan(), AsyncIterator[Execution])


def refused(store: Store, other: AsyncStore) -> None:
    store.instances.get(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    store.instances.query(statsu="running")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    store.executions.create(Instance("a", "w"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    store.instances.nothing()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    made: Instance = other.instances.get("a")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del made
