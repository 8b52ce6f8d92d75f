"""Values over 64 KiB: shared, counted, verified, whatever fails or races."""

import os

import pytest

from kit.aging import blocking
from kit.blob_store import HOURS, ROOT, Boxes, block, shrink
from stateroom import Context, Instance, keys
from stateroom.codec import Codec
from stateroom.core.bridge import run_now
from stateroom.core.transaction import transact
from stateroom.engine import Batch
from stateroom.engines.memory import MemoryEngine
from stateroom.engines.wrap import Conflicting, Faulty, Recording, Wrapper
from stateroom.errors import Conflict, Damaged, StoreError
from stateroom.limits import INLINE_BYTES, UPLOAD_BYTES
from stateroom.testing.faces import ManualClock
from stateroom.values import objects, wrapper


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def boxes(clock):
    return Boxes(MemoryEngine(), clock)


@pytest.fixture
def small(monkeypatch):
    shrink(monkeypatch)


C = objects.CHUNK_BYTES
SIZES = [0, 1, INLINE_BYTES, INLINE_BYTES + 1, C - 1, C, C + 1, 2 * C, UPLOAD_BYTES, UPLOAD_BYTES + 1, 2 * UPLOAD_BYTES]


@pytest.mark.parametrize("size", SIZES)
def test_any_size_comes_back(boxes, size):
    data = block(size, size)
    boxes.put("a", data)
    assert boxes.get("a") == data
    assert boxes.problems() == []
    assert (boxes.chunks > 0) == (size > INLINE_BYTES)
    boxes.delete("a")
    assert boxes.chunks == 0
    assert boxes.rows(b"B") == []


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [*range(1024, 13 * 1024, 1024), 27 * 1024, 27 * 1024 + 1, 28 * 1024, 100_000])
def test_deep_trees_come_back_whole_and_as_streams(boxes, size):
    data = block(size, size)
    boxes.put("a", data)
    assert boxes.get("a") == data
    boxes.put_stream("b", iter([data[:100], data[100:5000], data[5000:]]))
    assert boxes.wrapped("a") == boxes.wrapped("b")
    with boxes.open("b") as file:
        assert file.read() == data
        file.seek(size // 2)
        assert file.read(10) == data[size // 2 : size // 2 + 10]
        file.seek(-3, os.SEEK_END)
        assert file.read() == data[-3:]
    assert boxes.problems() == []
    boxes.delete("a")
    assert boxes.get("b") == data
    boxes.delete("b")
    assert boxes.rows(b"B") == []


def test_equal_values_and_equal_runs_are_stored_once(boxes):
    data = block(1, 4 * C)
    boxes.put("a", data)
    before = boxes.chunks
    boxes.put("b", data)
    assert boxes.chunks == before
    boxes.put("c", data[: 3 * C] + block(2, C))
    assert boxes.chunks == before + 2  # its last leaf, and its own root
    boxes.delete("a")
    assert boxes.get("b") == data
    boxes.delete("b")
    assert boxes.get("c") == data[: 3 * C] + block(2, C)
    assert boxes.problems() == []


def test_a_value_of_one_repeated_run_counts_each_time(boxes):
    boxes.put("a", bytes(6 * C))
    assert boxes.chunks == 2
    assert boxes.problems() == []
    boxes.delete("a")
    assert boxes.rows(b"B") == []


def test_a_changed_bit_is_damage_and_reported(boxes):
    boxes.put("a", block(1, 2 * C))
    for row in boxes.rows(keys.CHUNK):
        for at in (1, len(row.value) - 1):
            flipped = bytearray(row.value)
            flipped[at] ^= 4
            boxes.engine.commit(0, Batch(write={row.key: bytes(flipped)}))
            with pytest.raises(Damaged):
                boxes.get("a")
            assert "damaged" in {problem.code for problem in boxes.problems()}
        boxes.engine.commit(0, Batch(write={row.key: row.value}))
    assert boxes.get("a") == block(1, 2 * C)


def test_what_is_missing_or_counted_wrong_is_reported(boxes):
    boxes.put("a", block(1, 2 * C))
    leaf = boxes.rows(keys.CHUNK)[0]
    count = boxes.rows(keys.CHUNK_COUNT)[0]
    run_now(transact(boxes.scope, lambda tx: objects.hold(tx.at(ROOT), leaf.key[-33:], 1)))
    assert {one.code for one in boxes.problems()} == {"chunk-count"}
    boxes.engine.commit(0, Batch(write={count.key: count.value}))
    boxes.engine.commit(0, Batch(write={leaf.key: None}))
    assert {one.code for one in boxes.problems()} == {"chunk-missing"}
    boxes.engine.commit(0, Batch(write={leaf.key: leaf.value, boxes.key("a"): None}))
    assert {one.code for one in boxes.problems()} == {"chunk-leaked"}


def test_batches_are_bounded_and_the_last_is_small(clock):
    recording = Recording(MemoryEngine())
    boxes = Boxes(recording, clock)
    boxes.put("a", block(1, 3 * UPLOAD_BYTES))
    *ahead, last = recording.batches
    assert len(ahead) >= 3
    for batch in ahead:
        assert sum(len(value) for value in batch.write.values() if value) <= UPLOAD_BYTES + 64 * 1024
    assert sum(len(value) for value in last.write.values() if value) < 1000
    assert len(last.write) <= 4


def test_a_retried_transaction_reuses_its_upload(clock):
    recording = Recording(MemoryEngine())
    last = []

    def refuse(number, part, batch):
        mine = any(key.startswith(b"default\0T") for key in batch.write)
        last.append(mine)
        return mine and sum(last) <= 3

    boxes = Boxes(Conflicting(recording, refuse=refuse), clock)
    boxes.put("a", block(1, 2 * UPLOAD_BYTES))
    assert sum(last) == 4
    written = sum(len(value or b"") for batch in recording.batches for value in batch.write.values())
    assert written < 2.2 * UPLOAD_BYTES
    assert boxes.rows(keys.UPLOAD) == []
    assert boxes.problems() == []


def test_an_upload_that_nobody_took_ends_and_is_freed(boxes, clock):
    with pytest.raises(RuntimeError):
        boxes.put("a", block(1, 2 * UPLOAD_BYTES), fail=RuntimeError())
    assert boxes.get("a") is None
    assert boxes.problems() == []
    assert boxes.expire() == 0
    clock.advance(HOURS)
    assert {one.code for one in boxes.problems()} == {"upload-expired"}
    assert boxes.expire() == 1
    assert boxes.rows(b"B") == []


def test_an_upload_that_ended_is_not_referred_to(boxes, clock):
    """A transaction that was open for longer than its upload lasted cannot commit, and a new run uploads again."""
    runs = []

    async def body(tx):
        runs.append(1)
        rows = tx.at(ROOT)
        await rows.get(boxes.key("a"))
        rows.put(boxes.key("a"), await wrapper.keep(rows, boxes.key("a"), block(1, 2 * UPLOAD_BYTES), 1))
        if len(runs) == 1:
            clock.advance(HOURS)
            boxes.expire()

    run_now(transact(boxes.scope, body))
    assert len(runs) == 2
    assert boxes.get("a") == block(1, 2 * UPLOAD_BYTES)
    assert boxes.problems() == []


@pytest.mark.usefixtures("small")
def test_a_big_removal_is_freed_bit_by_bit(boxes, monkeypatch):
    monkeypatch.setattr(objects, "FREED_OBJECTS", 5)
    data = block(1, 60_000)
    boxes.put("a", data)
    boxes.put("b", data[:30_720])
    boxes.delete("a")
    assert boxes.rows(keys.UPLOAD)
    assert boxes.problems() == []
    assert boxes.expire(max_rows=2) >= 2
    assert boxes.problems() == []
    boxes.expire()
    assert boxes.rows(keys.UPLOAD) == []
    assert boxes.problems() == []
    assert boxes.get("b") == data[:30_720]
    boxes.delete("b")
    boxes.expire()
    assert boxes.rows(b"B") == []


@pytest.mark.parametrize("size", [2 * C, 2 * UPLOAD_BYTES])
def test_a_chunk_reused_while_its_last_holder_goes_stays(clock, size):
    inner, data = MemoryEngine(), block(1, size)
    other = Boxes(inner, clock)
    other.put("a", data)

    def interfere(number, part, batch):
        if number == 1:
            other.put("b", data)

    Boxes(Conflicting(inner, interfere=interfere), clock).delete("a")
    assert other.get("b") == data
    assert other.problems() == []


@pytest.mark.parametrize("size", [2 * C, 2 * UPLOAD_BYTES])
def test_a_chunk_removed_while_it_is_reused_is_written_again(clock, size):
    inner, data = MemoryEngine(), block(1, size)
    other = Boxes(inner, clock)
    other.put("a", data)

    def interfere(number, part, batch):
        if number == 1:
            other.delete("a")

    Boxes(Conflicting(inner, interfere=interfere), clock).put("b", data)
    assert other.get("b") == data
    assert other.problems() == []


def test_two_writers_of_one_new_value_share_it(clock):
    inner, data = MemoryEngine(), block(1, 2 * UPLOAD_BYTES)
    other = Boxes(inner, clock)

    def interfere(number, part, batch):
        if any(key.startswith(b"default\0T") for key in batch.write) and other.get("b") is None:
            other.put("b", data)

    mine = Boxes(Conflicting(inner, interfere=interfere), clock)
    mine.put("a", data)
    assert mine.get("a") == mine.get("b") == data
    clock.advance(HOURS)
    mine.expire()
    assert mine.problems() == []


class Meanwhile(Wrapper):
    """Calls `turn` once, before the first read that asks for a chunk."""

    turn = None

    def __init__(self, engine, namespace="default"):
        super().__init__(engine)
        self._chunks = namespace.encode() + b"\0BC"

    def read(self, part, keys, /):
        if self.turn is not None and any(key.startswith(self._chunks) for key in keys):
            turn, self.turn = self.turn, None
            turn()
        return self.engine.read(part, keys)


def big(id, seed, size=3 * C):
    return Instance(id, "w", context=Context(initial={"data": block(seed, size)}))


def forget_changes(store):
    """Prune the whole feed."""
    scope = store._scope

    async def body(tx):
        from stateroom.records.entry import decode, feed_prefix

        prefix = feed_prefix(scope)
        rows = tx.at("i")
        for row in await rows.scan(prefix, prefix + keys.END, limit=1000):
            await rows.get(row.key)
            rows.delete(row.key)
            wrapped = decode(scope, row.value).wrapped
            if wrapped is not None:
                await wrapper.drop(rows, wrapped)
        rows.put(scope.key(b"G"), (1 << 40).to_bytes(8, "big") + bytes(2))

    run_now(transact(scope, body))


@pytest.mark.parametrize("after", ["replaced", "deleted", "shrunk"])
def test_a_reader_of_a_value_that_goes_meanwhile_gets_what_is_there_now(database, after):
    engine = Meanwhile(database.raw(), database.namespace)
    reader, writer = database.over(engine), blocking(database)
    writer.instances.put(big("i", 1))

    def turn():
        if after == "deleted":
            writer.instances.delete("i")
        else:
            writer.instances.put(big("i", 2) if after == "replaced" else Instance("i", "w"))
        forget_changes(writer)

    for read in (lambda: reader.instances.find("i"), lambda: next(iter(reader.instances.query()), None)):
        engine.turn = turn
        found = read()
        assert engine.turn is None
        assert found == writer.instances.find("i")
        assert (found is None) == (after == "deleted")
        if after == "deleted":
            writer.instances.put(big("i", 1))
        elif after == "shrunk":
            writer.instances.put(big("i", 3))


def test_in_a_transaction_such_a_read_is_a_conflict(database):
    engine = Meanwhile(database.raw(), database.namespace)
    store, writer = database.over(engine), blocking(database)
    writer.instances.put(big("i", 1))

    def turn():
        writer.instances.put(big("i", 2))
        forget_changes(writer)

    engine.turn = turn
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.instances.get("i")
    engine.turn = turn
    assert store.transact(lambda tx: tx.instances.get("i")) == writer.instances.get("i")


def test_a_stream_whose_value_goes_says_so(clock):
    engine = Meanwhile(MemoryEngine())
    boxes, other = Boxes(engine, clock), Boxes(engine.engine, clock)
    other.put("a", block(1, 4 * C))
    file = boxes.open("a")
    engine.turn = lambda: other.delete("a")
    with pytest.raises(Conflict, match="open it again"):
        file.read()


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("step", ["create", "grow", "shrink", "delete"])
def test_a_failure_at_any_call_leaves_nothing_dangling(clock, monkeypatch, step, lost):
    shrink(monkeypatch)
    old, new = (None if step == "create" else block(1, 9000)), (None if step == "delete" else block(2, 20_000))
    if step == "shrink":
        new = b"little"
    number = 0
    while True:
        number += 1
        engine = MemoryEngine()
        boxes = Boxes(engine, clock)
        if old is not None:
            boxes.put("a", old)
        faulty = Faulty(engine, number, lost=lost)
        failing = Boxes(faulty, clock)
        try:
            failing.delete("a") if new is None else failing.put("a", new)
        except StoreError:
            pass
        else:
            assert faulty.count < number
            break
        again = Boxes(engine, clock)
        assert again.get("a") in (old, new)
        assert again.problems() == []
        clock.advance(HOURS)
        again.expire()
        assert again.problems() == []
        assert again.rows(keys.UPLOAD) == []
        again.delete("a")
        assert again.rows(b"B") == []
    assert number > 3


def test_large_records_in_every_family_and_a_store_reopened(store, reopen):
    store.instances.put(big("i", 1, UPLOAD_BYTES + 5))
    store.instances.put(big("i", 2, 70_000))
    store.instances.put(big("j", 2, 70_000))
    with store.transaction() as tx:
        tx.instances.put(big("i/2", 3, 2 * UPLOAD_BYTES))
        assert tx.instances.get("i/2").context == big("i/2", 3, 2 * UPLOAD_BYTES).context
    store.feed.emit("note", block(4, 100_000))
    again = reopen()
    assert again.instances.get("i").context == big("i", 2, 70_000).context
    told = again.feed.read(families=["instances"], limit=4).items
    assert [one.record.context for one in told if one.id != "j"] == [
        big("i", 1, UPLOAD_BYTES + 5).context,
        big("i", 2, 70_000).context,
        big("i/2", 3, 2 * UPLOAD_BYTES).context,
    ]
    assert [one.record.context for one in told if one.id == "j"] == [big("j", 2, 70_000).context]
    again.instances.delete("i")
    assert again.check() == []


class Turning(Codec):
    """A codec that "encrypts"."""

    def protect(self, bound, data):
        return len(bound).to_bytes(2, "big") + bound + bytes(one ^ 255 for one in data)

    def reveal(self, bound, data):
        end = 2 + len(bound)
        assert data[2:end] == bound
        return bytes(one ^ 255 for one in data[end:])


def test_chunks_are_protected_and_bound_to_their_digest(clock):
    boxes = Boxes(MemoryEngine(), clock, Turning())
    data = b"secret word " * 20_000
    boxes.put("a", data)
    assert boxes.get("a") == data
    assert not any(b"secret" in row.value for row in boxes.rows(b""))
