"""Savepoints of a million entities of 100 bytes, beside encoding alone, decoding alone, and raw chunks in apsw."""

import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import apsw

import stateroom
from stateroom.codec import default

COUNT = int(os.environ.get("STATEROOM_BENCH_ENTITIES", "1000000"))
CHUNK = 600


def entities():
    """Ids and states of about 100 bytes each, one by one."""
    return ((f"entity-{at:010d}", {"n": at, "text": "x" * 72}) for at in range(COUNT))


def timed(work):
    """Seconds of a call, and what it gave."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def raw(folder, chunks):
    """Seconds to write and to read chunks as rows of a SQLite file, 4 MiB a transaction."""
    file = apsw.Connection(str(folder / "raw.db"))
    file.execute(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE rows(k INTEGER PRIMARY KEY, v BLOB)"
    ).fetchall()

    def write():
        for at in range(0, len(chunks), 64):
            with file:
                file.executemany("INSERT INTO rows(v) VALUES(?)", ((one,) for one in chunks[at : at + 64]))

    def read():
        return sum(len(value) for (value,) in file.execute("SELECT v FROM rows ORDER BY k"))

    return timed(write)[0], timed(read)[0]


def peak():
    """Megabytes of memory this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)


def main():
    draw = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = stateroom.open(folder / "store.db")
        store.savepoints.init("run")
        before = peak()
        streamed, saved = timed(lambda: store.savepoints.save("run", 0, entities()))
        grown = peak() - before
        store.savepoints.delete_run("run")
        store.savepoints.init("run")
        states = dict(entities())
        encoding, chunks = timed(lambda: encode(states))
        write, read = raw(folder, chunks)
        decoding, _ = timed(lambda: [default.decode(one) for one in chunks])
        save, saved = timed(lambda: store.savepoints.save("run", 0, states))
        load, found = timed(saved.to_dict)
        assert found == states
        del found
        updates = []
        for step in range(1, 11):
            changed = {id: {"n": -step, "text": "y" * 72} for id in draw.sample(sorted(states), COUNT // 100)}
            states.update(changed)
            seconds, latest = timed(
                lambda step=step, changed=changed: store.savepoints.update("run", step, changed=changed)
            )
            updates.append(seconds)
        load_ten, found = timed(latest.to_dict)
        assert found == states
        del found  # what is alive slows the collector down, and so every load after it
        load_flat, _ = timed(saved.to_dict)
        one, _ = timed(lambda: latest.get(max(states)))
        store.close()
    print(f"{COUNT:,} entities, {saved.bytes / 1e6:.0f} MB stored, {len(chunks):,} raw chunks")
    print(
        f"encoding alone {encoding:.2f} s, decoding alone {decoding:.2f} s, raw write {write:.2f} s, raw read {read:.2f} s"
    )
    print(f"save            {save:.2f} s, {save / (encoding + write):.2f} of encoding and raw writes")
    print(f"save, streamed  {streamed:.2f} s, from an iterator; memory grew by {grown:.0f} MB")
    print(f"load            {load:.2f} s, {load / (decoding + read):.2f} of decoding and raw reads")
    middle = sorted(updates)[len(updates) // 2]
    print(f"1 % update      {middle:.3f} s (median of 10), {middle / save:.3f} of a save")
    print(f"load after ten  {load_ten:.2f} s, {load_ten / load_flat:.2f} of a flat one beside it")
    print(f"one entity      {one * 1e3:.2f} ms")


def encode(states):
    """All states in chunks of the same number of entities."""
    items = list(states.items())
    return [default.encode(items[at : at + CHUNK]) for at in range(0, len(items), CHUNK)]


if __name__ == "__main__":
    main()
