"""Rows with right checksums whose content is not what it should be: every operation raises an error of ours, or none."""

import random
from datetime import UTC, datetime, timedelta

import ormsgpack
import pytest

import stateroom
from stateroom import BEGINNING, LATEST, Event, Execution, Instance, Policy
from stateroom.codec import seal, unseal
from stateroom.engine import Batch
from stateroom.errors import Damaged, StoreError

PAST, LATER = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
WHOLE = (
    None, 5, -1, [], [1, 2], ["x", 1 << 63], {"a": 1}, [None] * 9, "x", [[1, 2], 3], [1.5] * 5, [2**63] * 2, [b"a"] * 8,
    [1, "executions", "a", ["a"], 1 << 62, 1 << 40, 1 << 62, b"x", 7],
)  # fmt: skip


def fill(store):
    store.instances.start(Instance("a", "w", business_key="a", labels={"l": "1"}))
    store.instances.put(Instance("a", "w", business_key="a", status="running"))
    store.instances.put(Instance("big", "w", metadata={"x": "y" * 70_000}))
    store.executions.create(Execution("a", "j", node_id="n"), events=[Event("m")])
    store.executions.add_events("a", Event("n", details={"b": 1}))
    store.machines.define("m", {"s": {"go": "t"}, "t": {}}, initial="s")
    store.machines.save("m", "a", "s", 1)
    store.machines.save("m", "a", "t", (2,), event="go")
    store.machines.fail("m", "a", "why")
    store.results.put("d", "a", "x" * 70_000, ttl=1000)
    store.results.put("d", "b", (1, 2))
    store.savepoints.init("r")
    store.savepoints.save("r", 1, {"e": 1})
    store.savepoints.update("r", 2, changed={"f": 2})
    store.leases.acquire("k", "me", 1000)
    store.timers.set("t", PAST, {"p": 1})
    store.checkpoints.set("c", BEGINNING)
    store.checkpoints.set("c2", LATEST)
    store.retention.set(Policy("instances", older_than=timedelta(days=1)))
    store.retention.set(Policy("feed", older_than=timedelta(days=1)))
    store.feed.emit("x", {"a": 1})
    store.locations.register("d", "a", "node")
    store.transact(lambda tx: tx.executions.update("a", message="z").revision, once="a/k")


def calls(store):
    """Reads first, then writes, then what looks at everything."""
    return [
        lambda: store.instances.get("a"),
        lambda: store.instances.get("big", raw=True),
        lambda: store.instances.query(label=("l", "1")),
        lambda: store.instances.query(order="updated"),
        lambda: list(store.instances.scan(workflow_prefix="w")),
        lambda: store.instances.count(),
        lambda: store.instances.active("a"),
        lambda: store.instances.orphans(),
        lambda: store.instances.history("a"),
        lambda: store.instances.as_of("a", LATER),
        lambda: store.executions.get("a"),
        lambda: store.executions.events("a"),
        lambda: store.executions.query(node_id="n"),
        lambda: store.executions.for_job("j"),
        lambda: store.executions.live(),
        lambda: store.machines.load("m", "a"),
        lambda: store.machines.history("m", "a"),
        lambda: store.machines.last_error("m", "a"),
        lambda: store.machines.definition("m"),
        lambda: store.results.get("d", "a"),
        lambda: store.results.get("d", "b"),
        lambda: store.results.ids("d"),
        lambda: store.results.query(),
        lambda: store.results.gather("d", ["a", "b"]),
        lambda: store.savepoints.latest("r").to_dict(),
        lambda: store.savepoints.at("r", 1).get("e"),
        lambda: store.savepoints.list("r"),
        lambda: store.leases.holder("k"),
        lambda: store.timers.due(),
        lambda: store.timers.next(),
        lambda: store.checkpoints.list(),
        lambda: store.locations.of_dag("d"),
        lambda: store.retention.list(),
        lambda: store.retention.plan(),
        lambda: store.feed.read(),
        lambda: store.feed.read(families=["instances"], ops=["update"]),
        lambda: store.stats(),
        lambda: store.check(),
        lambda: store.leases.acquire("k", "other", 5),
        lambda: store.timers.set("t", PAST),
        lambda: store.machines.save("m", "a", "t", 3),
        lambda: store.executions.update("a", message="k"),
        lambda: store.instances.put(Instance("a", "w", business_key="a", status="waiting")),
        lambda: store.instances.cancel("a"),
        lambda: store.instances.delete("a"),
        lambda: store.results.clear("d"),
        lambda: store.savepoints.delete_run("r"),
        lambda: store.timers.cancel("t"),
        lambda: store.retention.run(),
        lambda: store.check(),
    ]


def crafted(payload, rng):
    """Contents that are cut, changed or something else."""
    yield b""
    yield payload[: len(payload) // 2]
    yield payload[:-1]
    yield payload + b"\0"
    yield from map(ormsgpack.packb, WHOLE)
    for _ in range(20):
        changed = bytearray(payload)
        for _ in range(rng.randrange(1, 4)):
            if changed:
                changed[rng.randrange(len(changed))] = rng.choice(
                    [0, 1, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xCF, 0xD3, 0xFF]
                )
        yield bytes(changed)


def rows_of(store):
    return store._engine.scan(None, b"\0", b"\xff" * 10, limit=10_000)


def opened(store, row):
    """What the row is sealed to, and its payload; nothing of a row without a seal."""
    for bound in (row.key, store._scope.key(b"F")):
        try:
            return bound, unseal(bound, row.value)
        except Damaged:
            continue
    return None, row.value


def try_all(at, number, rng):
    """Put one crafted content into one row, and call everything."""
    with stateroom.open("memory:") as store:
        fill(store)
        rows = rows_of(store)
        if at >= len(rows):
            return
        row = rows[at]
        bound, payload = opened(store, row)
        contents = list(crafted(payload, rng))
        content = contents[number % len(contents)]
        store._engine.commit(
            0, Batch({row.key: row.version}, {row.key: content if bound is None else seal(bound, content)})
        )
        for call in calls(store):
            try:
                call()
            except StoreError:
                continue
            except Exception as error:
                error.add_note(f"row {row.key!r} with {content!r:.300}")
                raise


def sealed_rows():
    with stateroom.open("memory:") as store:
        fill(store)
        return [at for at, row in enumerate(rows_of(store)) if opened(store, row)[0] is not None]


@pytest.mark.parametrize("at", sealed_rows())
def test_a_row_with_another_content(at):
    rng = random.Random(at)
    for number in rng.sample(range(40), 4):
        try_all(at, number, rng)


@pytest.mark.torture
def test_every_row_with_every_content():
    for seed in range(20):
        for at in sealed_rows():
            for number in range(40):
                try_all(at, number, random.Random(seed * 1000 + at))
