"""Large values piece by piece, on both faces, in bounded memory."""

import asyncio
import io
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import stateroom
from kit.blob_store import ROOT, Boxes
from stateroom import Context, Instance, codec
from stateroom.core.bridge import Threaded
from stateroom.core.namespace import Scope
from stateroom.core.transaction import transact
from stateroom.engines.memory import MemoryEngine
from stateroom.errors import Closed, Conflict, InvalidArgument
from stateroom.testing.faces import ManualClock
from stateroom.values import streams, wrapper
from stateroom.values.objects import CHUNK_BYTES

DATA = random.Random(5).randbytes(5 * CHUNK_BYTES + 77)
SIZES = [0, 1, 70_000, CHUNK_BYTES, CHUNK_BYTES + 1, len(DATA)]


@pytest.fixture
def boxes():
    return Boxes(MemoryEngine(), ManualClock())


@pytest.mark.parametrize("size", SIZES)
def test_a_file_goes_in_and_comes_out(boxes, size):
    boxes.put_stream("a", io.BytesIO(DATA[:size]))
    with boxes.open("a") as file:
        assert file.read() == DATA[:size]
        assert file.read() == b""
        assert file.seek(size // 3) == size // 3
        assert file.read(1000) == DATA[size // 3 : size][:1000]
        assert file.tell() == min(size, size // 3 + 1000)
    assert boxes.get("a") == DATA[:size]
    assert boxes.problems() == []


def test_lines_can_be_read(boxes):
    boxes.put_stream("a", iter([b"one\ntwo\n" * 50_000, b"three"]))
    lines = list(boxes.open("a"))
    assert len(lines) == 100_001
    assert lines[-1] == b"three"


@pytest.mark.parametrize("source", ["text", b"bytes", 5, None, iter(["text"]), io.StringIO("text")])
def test_other_sources_are_refused(boxes, source):
    with pytest.raises(InvalidArgument):
        boxes.put_stream("a", source)
    assert boxes.rows(b"") == []


def test_what_the_source_raises_comes_through_and_leaves_an_upload_that_ends(boxes):
    def source():
        yield from (DATA for _ in range(5))
        raise OSError("pulled out")

    with pytest.raises(OSError, match="pulled out"):
        boxes.put_stream("a", source())
    assert boxes.get("a") is None
    assert boxes.problems() == []
    boxes.scope.clock.advance(7200)
    boxes.expire()
    assert boxes.rows(b"") == []


def test_a_stream_is_used_once(boxes):
    streamed = boxes.put_stream("a", io.BytesIO(DATA))

    async def body(tx):
        await streamed.keep(tx.at(ROOT), b"", 1)

    with pytest.raises(Conflict, match="used already"):
        transact(boxes.scope, body, tries=1).send(None)
    assert boxes.problems() == []


def test_an_awaited_source_needs_the_other_face(boxes):
    async def items():
        yield DATA

    class File:
        async def read(self, size):
            return b""

    for source in (items(), File()):
        with pytest.raises(InvalidArgument, match="AsyncStore"):
            boxes.put_stream("a", source)


def test_the_same_awaited():
    async def main():
        engine = MemoryEngine()
        scope = Scope(Threaded(engine), engine, "default", codec.default, ManualClock())
        scope.suspends = True

        async def items():
            for at in range(0, len(DATA), 10_000):
                await asyncio.sleep(0)
                yield DATA[at : at + 10_000]

        class File:
            def __init__(self):
                self.file = io.BytesIO(DATA)

            async def read(self, size):
                await asyncio.sleep(0)
                return self.file.read(size)

        for source in (items(), File(), io.BytesIO(DATA), iter([DATA])):
            streamed = await streams.upload_stream(scope, ROOT, source)
            assert streamed.size == len(DATA)
            wrapped = await transact(scope, lambda tx, one=streamed: one.keep(tx.at(ROOT), b"k", 1))
            assert await wrapper.fetch(scope.reader.at(ROOT), b"k", wrapped) == DATA
            async with await streams.open_stream(scope.reader.at(ROOT), b"k", wrapped) as file:
                assert await file.read(10) == DATA[:10]
                assert await file.read() == DATA[10:]
                await file.seek(-5, io.SEEK_END)
                assert b"".join([one async for one in file]) == DATA[-5:]
                await file.seek(0)
                assert b"".join([one async for one in file]) == DATA
            with pytest.raises(Closed):
                await file.read()

    asyncio.run(main())


SCRIPT = """
import random, resource, sys
sys.path[:0] = sys.argv[3:]
from kit.blob_store import Boxes
from stateroom.clock import SystemClock
from stateroom.engines import sqlite

size = int(sys.argv[2])
boxes = Boxes(sqlite.connect(sys.argv[1]), SystemClock())
seed = random.Random(1).randbytes(1 << 20)
blocks = lambda: (seed[:-8] + at.to_bytes(8, "big") for at in range(size >> 20))
boxes.put_stream("warm", iter([seed] * 16))
with boxes.open("warm") as file:
    file.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
boxes.put_stream("a", blocks())
with boxes.open("a") as file:
    for block in blocks():
        assert file.read(1 << 20) == block
    assert file.read() == b""
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
boxes.engine.close()
"""


def peak(tmp_path, size):
    here = Path(__file__).parents[1]
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(SCRIPT),
        f"{tmp_path}/s.db",
        str(size),
        str(here),
        f"{here}/../src",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_200_mb_in_bounded_memory(tmp_path):
    assert peak(tmp_path, 200 << 20) < 60 << 20


@pytest.mark.torture
@pytest.mark.timeout(900)
def test_a_gigabyte_in_bounded_memory(tmp_path):
    assert peak(tmp_path, 1 << 30) < 60 << 20


def test_large_values_are_copied_to_another_database_once_each(tmp_path):
    first, second = f"{tmp_path}/one.db", f"{tmp_path}/two.db"
    with stateroom.open(first) as store:
        for id in ("a", "a", "b/1"):
            store.instances.put(Instance(id, "w", context=Context(initial={"data": DATA})))
        store.feed.emit("note", DATA[:100_000])
        store.instances.delete("b/1")
    stateroom.copy(first, second)
    with stateroom.open(second) as store:
        assert store.check() == []
        assert store.instances.get("a").context.initial["data"] == DATA
        assert Path(second).stat().st_size < 8 * len(DATA)
