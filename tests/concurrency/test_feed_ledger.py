"""No change is skipped or doubled: what writers were told is committed, against what each watcher saw.

Every writer is a process of its own and says after each commit what it committed. The watchers run meanwhile, from the
beginning of the feed to its end.
"""

import os
import subprocess
import sys
import threading
from collections import Counter

import pytest

import stateroom
from stateroom import Instance

WATCHERS = 4
PATIENCE = 240

WRITER = """
import random, sys, stateroom
from stateroom import Instance

store = stateroom.open(sys.argv[1])
mine, count = sys.argv[2], int(sys.argv[3])
dice = random.Random(mine)
sys.stdin.readline()  # all begin together
for number in range(count):
    root = f"r{dice.randrange(12)}"
    with store.transaction() as tx:
        ids = [f"{root}/{mine}-{number}-{piece}" for piece in range(dice.randrange(1, 4))]
        for id in ids:
            if dice.random() < 0.5:
                tx.feed.emit("note", mine, id=id)
            else:
                tx.instances.put(Instance(id, "w"))
    for id in ids:
        print(id)
    sys.stdout.flush()
store.close()
"""


class Seen:
    """What one watcher was given."""

    def __init__(self):
        self.ids = []
        self.positions = []
        self.ended = threading.Event()

    def __call__(self, change):
        if change.family == "end":
            self.ended.set()
        else:
            self.ids.append(change.id)
            self.positions.append(change.position)


def ledger(url, writers, count):
    """Run it, and compare."""
    with stateroom.open(url) as store:
        store.instances.put(Instance("first", "w"))
        found = [Seen() for _ in range(WATCHERS)]
        watchers = [store.watch(f"w{number}", seen, checkpoint_every=50) for number, seen in enumerate(found)]
        for watcher in watchers:
            watcher.start()
        acknowledged = write(url, writers, count)
        assert len(acknowledged) == len(set(acknowledged)) >= writers * count
        for part in range(64):  # one end in every part: then each watcher has come so far everywhere
            store.feed.emit("end", part, id=f"end{part}")
        last = store.feed.latest()
        for seen in found:
            assert seen.ended.wait(PATIENCE)
        settle(store, last, watchers)
        for watcher in watchers:
            watcher.stop()
            assert watcher.stats().error is None
        wanted = Counter([*acknowledged, "first"])
        for seen in found:
            assert Counter(seen.ids) == wanted
            assert len(set(seen.positions)) == len(seen.positions)
            for writer in range(writers):  # in the order in which each writer committed, root by root
                assert in_order(seen.ids, writer) == in_order(acknowledged, writer)
        assert store.check() == []


def write(url, writers, count):
    """Let the writers write, and give what they were told is committed."""
    command = [sys.executable, "-c", WRITER, url]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"env": environment, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([*command, f"p{number}", str(count)], **pipes) for number in range(writers)]
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=PATIENCE)[0].split() for process in running]
    assert [process.returncode for process in running] == [0] * writers
    return [id for output in outputs for id in output]


def settle(store, last, watchers):
    """Wait until every watcher stands where nothing is left."""
    pause = threading.Event()
    for watcher in watchers:
        for _ in range(PATIENCE * 20):
            if not store.feed.read(watcher.stats().position).items:
                break
            pause.wait(0.05)
    assert not store.feed.read(last).items


def in_order(ids, writer):
    """A writer's ids, by root."""
    mine = {}
    for id in ids:
        root, _, rest = id.partition("/")
        if rest.startswith(f"p{writer}-"):
            mine.setdefault(root, []).append(id)
    return mine


def test_eight_writers_on_sqlite(tmp_path):
    ledger(str(tmp_path / "store.db"), 8, 25)


def test_sixteen_writers_on_postgresql():
    pytest.importorskip("psycopg")
    from stateroom.testing.postgres import fresh_schema

    with fresh_schema() as url:
        stateroom.open(url, parts=4).close()
        ledger(url, 16, 8)


@pytest.mark.torture
def test_eight_writers_on_sqlite_for_long(tmp_path):
    ledger(str(tmp_path / "store.db"), 8, 2000)


@pytest.mark.torture
def test_sixteen_writers_on_postgresql_for_long():
    from stateroom.testing.postgres import fresh_schema

    with fresh_schema() as url:
        stateroom.open(url, parts=16).close()
        ledger(url, 16, 500)
