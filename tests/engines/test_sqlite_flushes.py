"""Flushes as the kernel sees them: how many a group takes, and what a failed one does."""

import shutil
import subprocess

import pytest

from engines.sqlite_helpers import PATIENCE, environment, python
from stateroom.engine import Row
from stateroom.engines.sqlite import connect

STRACE = shutil.which("strace")


def traced(output, code, path, *options):
    """What `code` prints and how often SQLite flushed a file. Skips where processes may not be traced."""
    command = [STRACE, "-f", "-qq", "-o", output, "-e", "trace=fdatasync", *options, *python(code, path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE)
    if "ptrace" in done.stderr.lower() or "not permitted" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[0])
    assert not done.stderr
    calls = [line.split(None, 1)[1] for line in output.read_text().splitlines()]
    return done.stdout.split(), sum(call.startswith("fdatasync(") for call in calls)


pytestmark = pytest.mark.skipif(STRACE is None, reason="needs strace")

GROUPS = """
import os, sys, threading
import apsw
from stateroom.engine import Batch
from stateroom.engines.sqlite import connect
engine = connect(sys.argv[1], durability="{durability}")
engine.commit(0, Batch(write={{b"warm": b"up"}}))
other = apsw.Connection(sys.argv[1])
for _ in range({groups}):
    given, done = [], threading.Event()
    other.execute("BEGIN IMMEDIATE")
    for number in range(64):
        engine.submit(0, Batch(add={{b"n": 1}}), lambda outcome: (given.append(outcome), len(given) == 64 and done.set()))
    other.execute("ROLLBACK")
    assert done.wait(60)
print(given[-1], flush=True)
os._exit(0)
"""


def test_64_batches_take_one_flush(tmp_path):
    counts = []
    for groups in (1, 4):
        code = GROUPS.format(groups=groups, durability="full")
        printed, flushes = traced(tmp_path / "trace", code, tmp_path / f"{groups}.db")
        assert printed == [str(1 + 64 * groups)]
        counts.append(flushes)
    assert counts[1] - counts[0] == 3


def test_with_normal_durability_a_commit_takes_none(tmp_path):
    counts = [
        traced(tmp_path / "trace", GROUPS.format(groups=groups, durability="normal"), tmp_path / f"{groups}.db")[1]
        for groups in (1, 4)
    ]
    assert counts[0] == counts[1]


FAILING = """
import os, sys
from stateroom.engine import Batch
from stateroom.engines.sqlite import connect
from stateroom.errors import StoreError
engine = connect(sys.argv[1])
for number in range(3):
    try:
        print(engine.commit(0, Batch(write={b"a": b"%d" % number})), flush=True)
    except StoreError as error:
        print(type(error).__name__, flush=True)
os._exit(0)
"""


def test_a_flush_that_fails_leaves_the_outcome_unknown_and_closes_the_engine(tmp_path):
    printed, flushes = traced(tmp_path / "trace", FAILING, tmp_path / "sound.db")
    assert printed == ["1", "2", "3"]
    second = f"inject=fdatasync:error=EIO:when={flushes - 1}"
    printed, _ = traced(tmp_path / "trace", FAILING, tmp_path / "failing.db", "-e", second)
    assert printed == ["1", "OutcomeUnknown", "Closed"]
    engine = connect(str(tmp_path / "failing.db"))
    assert engine.read(0, [b"a"])[0] in (Row(b"a", b"0", 1), Row(b"a", b"1", 2))
    assert engine.verify() == []
    engine.close()
