"""Encryption at rest hides what users stored, and keys can be changed while the store is in use."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from kit.databases import SEVERAL
from stateroom import Context, Event, Execution, Instance, Store, codec, keys
from stateroom.codec.crypto import KeyRing
from stateroom.engine import Batch
from stateroom.engines.wrap import Conflicting
from stateroom.errors import Damaged, Undecodable

pytestmark = SEVERAL

SECRET = "the-secret-nobody-else-may-read"
OLD, NEW, NAMING = b"1" * 32, b"2" * 32, b"n" * 32


def ring(current: str, **keys: bytes) -> KeyRing:
    return KeyRing(keys, current=current, naming=NAMING)


def fill(store: Any) -> None:
    """A secret in every place that holds what a user gave."""
    secret = {"value": SECRET}
    store.executions.create(Execution("e", "job", data=secret), events=[Event(SECRET, details=secret)])
    store.executions.update("e", message=SECRET, events=[Event(SECRET)])
    store.executions.add_events("e", Event(SECRET))
    store.executions.create(Execution("big", "job", data=[SECRET] * 20_000))
    store.executions.create(Execution("gone", "job", data=secret))
    store.executions.delete("gone")
    store.instances.put(Instance("i", "wf", context=Context(secret)))
    store.machines.save("m", "n", "idle", secret)
    store.machines.save("m", "n", "busy", secret)
    store.machines.fail("m", "n", ValueError(SECRET), info=secret)
    store.timers.set("t", datetime(2030, 1, 1, tzinfo=UTC), secret)
    store.feed.emit("note", secret)
    store.transact(lambda tx: secret, once="once/1")
    if hasattr(store, "results"):
        store.results.put("d", "r", secret)
        store.results.put("d", "large", SECRET * 10_000)
    if hasattr(store, "savepoints"):
        store.savepoints.init("run")
        store.savepoints.save("run", 1, {f"entity-{number}": secret for number in range(10)})


def everything(store: Any) -> list[Any]:
    """All of it as a reader sees it."""
    seen: list[Any] = [
        list(store.executions.scan()),
        store.executions.events("e"),
        store.instances.get("i"),
        store.machines.load("m", "n"),
        store.machines.history("m", "n").items,
        store.machines.last_error("m", "n"),
        store.timers.due(datetime(2031, 1, 1, tzinfo=UTC)),
        [
            (change.op, change.family, change.record, change.previous, change.events)
            for change in store.feed.read().items
        ],
        store.executions.history("e").items,
    ]
    if hasattr(store, "results"):
        seen += [store.results.get("d", "r"), store.results.get("d", "large")]
    if hasattr(store, "savepoints"):
        seen.append(dict(store.savepoints.latest("run").entities()))
    return seen


@pytest.fixture
def rows(alone: Any) -> Callable[[], list[Any]]:
    """All rows of the namespace."""

    def rows() -> list[Any]:
        engine, prefix = alone.raw(), alone.namespace.encode() + b"\0"
        found = []
        for part in range(engine.parts):
            start = prefix
            while page := engine.scan(part, start, prefix + b"\xff", limit=1000):
                found += page
                start = page[-1].key + b"\0"
        return found

    return rows


@pytest.fixture
def reopen(database: Any, alone: Any) -> Callable[..., Any]:
    database.codec = None
    return lambda key_ring: alone.open(codec=codec.default.with_key_ring(key_ring))


def test_no_row_shows_what_a_user_stored(reopen: Callable[..., Any], rows: Callable[[], Any]) -> None:
    store = reopen(ring("old", old=OLD))
    fill(store)
    assert [row.key for row in rows() if SECRET.encode() in row.value] == []
    assert store.check() == []


def test_rekey_leaves_everything_as_it_was_and_nothing_under_the_old_key(
    reopen: Callable[..., Any],
) -> None:
    first = reopen(ring("old", old=OLD))
    fill(first)
    before = everything(first)
    both = reopen(ring("new", old=OLD, new=NEW))
    done = both.rekey()
    assert done.rows > 10
    assert done.unreadable == 0
    assert both.check() == []
    assert both.rekey().rows == 0
    alone = reopen(ring("new", new=NEW))
    assert everything(alone) == before
    assert alone.check() == []


def test_rekey_encrypts_what_was_written_in_clear(reopen: Callable[..., Any], rows: Callable[[], Any]) -> None:
    plain = reopen(None)
    fill(plain)
    before = everything(plain)
    keyed = reopen(ring("new", new=NEW))
    keyed.rekey()
    assert [row.key for row in rows() if SECRET.encode() in row.value] == []
    assert everything(keyed) == before
    assert keyed.check() == []


def test_a_missing_key_says_so_and_changes_nothing(reopen: Callable[..., Any], rows: Callable[[], Any]) -> None:
    store = reopen(ring("old", old=OLD))
    fill(store)
    other = reopen(ring("new", new=NEW))
    with pytest.raises(Undecodable, match="'old'"):
        other.instances.get("i")
    before = {row.key: row.value for row in rows()}
    assert other.rekey().unreadable > 0
    assert {row.key: row.value for row in rows()} == before
    assert store.instances.get("i").context.initial == {"value": SECRET}


def test_a_row_moved_to_another_id_does_not_open(reopen: Callable[..., Any], alone: Any) -> None:
    store, engine, prefix = reopen(ring("old", old=OLD)), alone.raw(), alone.namespace.encode() + b"\0"
    store.instances.put(Instance("r/a", "wf"))
    store.instances.put(Instance("r/b", "wf"))
    part = keys.part_of(prefix, "r", engine.parts)
    (row,) = engine.read(part, [prefix + b"Rir/a\0"])
    assert row is not None
    engine.commit(part, Batch(write={prefix + b"Rir/b\0": row.value}))
    with pytest.raises(Damaged):
        store.instances.get("r/b")


def test_rekey_goes_on_while_others_write(reopen: Callable[..., Any], alone: Any) -> None:
    fill(reopen(ring("old", old=OLD)))
    old, new = (codec.default.with_key_ring(one) for one in (ring("old", old=OLD), ring("new", old=OLD, new=NEW)))
    store = Store(
        alone.raw(), "", namespace=alone.namespace, codec=old, clock=alone.clock, owner=False
    )  # fmt: skip
    disturbed: list[bool] = []

    def interfere(number: int, part: int, batch: Any) -> None:
        if not disturbed:
            disturbed.append(True)
            store.executions.update("e", message="meanwhile")

    both = alone.over(Conflicting(alone.raw(), interfere=interfere), codec=new)
    both.rekey()
    assert disturbed
    assert both.executions.get("e").message == "meanwhile"
    both.rekey()
    alone = reopen(ring("new", new=NEW))
    assert alone.executions.get("e").message == "meanwhile"
    assert alone.check() == []


def test_a_value_larger_than_a_batch_is_encrypted_again(reopen: Callable[..., Any]) -> None:
    large = [bytes([number]) * 700_000 for number in range(20)]
    with reopen(ring("old", old=OLD)) as store:
        store.executions.create(Execution("large", "job", data=large))
    with reopen(ring("new", old=OLD, new=NEW)) as store:
        assert store.rekey().rows > 40
        assert store.rekey().rows == 0
    with reopen(ring("new", new=NEW)) as store:
        assert store.executions.get("large").data == large
        assert store.check() == []


def test_what_cannot_be_read_is_counted_once(reopen: Callable[..., Any]) -> None:
    with reopen(ring("lost", lost=b"3" * 32)) as store:
        store.executions.create(Execution("a", "job"))
    with reopen(ring("new", new=NEW)) as store:
        store.executions.create(Execution("b", "job"))
        # Its row and its entry in the feed.
        assert (store.rekey().rows, store.rekey().unreadable) == (0, 2)
