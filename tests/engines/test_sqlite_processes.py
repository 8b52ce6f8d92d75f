"""Several processes and threads on one file: order, waking, sudden death and forks."""

import gc
import os
import signal
import threading

import pytest

from engines.sqlite_helpers import run, start
from stateroom.engine import Batch, read_counter
from stateroom.engines.sqlite import connect
from stateroom.errors import Closed
from stateroom.testing.harness import Running


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "test.db")


@pytest.fixture
def engine(path):
    engine = connect(path)
    yield engine
    engine.close()


COMMITS = """
import sys
from stateroom.engine import Batch
from stateroom.engines.sqlite import connect
engine = connect(sys.argv[1])
print("ready", flush=True)
for number in range(int(sys.argv[2])):
    print(engine.commit(0, Batch(add={b"n": 1}, append=[(b"log", sys.argv[3].encode())])), flush=True)
engine.close()
"""


def test_versions_rise_by_one_whoever_commits(path):
    programs = [start(COMMITS, path, 40, name) for name in ("a", "b", "c")]
    engine = connect(path)
    own = [engine.commit(0, Batch(add={b"n": 1}, append=[(b"log", b"own")])) for _ in range(40)]
    theirs = [program.communicate(timeout=60)[0].split()[1:] for program in programs]
    assert all(program.returncode == 0 for program in programs)
    assert all(list(map(int, each)) == sorted(map(int, each)) for each in theirs)
    assert sorted(own + [int(version) for each in theirs for version in each]) == list(range(1, 161))
    assert read_counter(engine.read(0, [b"n"])[0].value) == 160
    log = engine.scan(0, b"log", b"loh", limit=1000)
    assert [row.version for row in log] == list(range(1, 161))
    assert [row.version for row in log if row.value == b"own"] == own
    engine.close()


FOR_EVER = """
import sys
from stateroom.engine import Batch
from stateroom.engines.sqlite import connect
engine = connect(sys.argv[1], durability=sys.argv[2])
number = 0
while True:
    number += 1
    rows = {b"r%d" % (number * 7919 % 500): bytes([number % 251]) * (number * 37 % 9000) for number in range(number, number + 5)}
    print(engine.commit(0, Batch(write=rows, add={b"n": 1}, append=[(b"log", b"")])), flush=True)
"""


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_what_was_acknowledged_before_a_sudden_death_is_there(path, durability):
    for round_number, acknowledged in enumerate((150, 1, 400)):
        program = start(FOR_EVER, path, durability)
        seen = 0
        for _ in range(acknowledged):
            seen = int(program.stdout.readline())
        program.send_signal(signal.SIGKILL)
        for line in program.stdout:
            seen = int(line) if line.endswith("\n") else seen
        program.stdout.close()
        program.wait()
        engine = connect(path, create=False)
        version = engine.read(0, [b""])[0].version
        assert seen <= version <= seen + 1, f"round {round_number}"
        assert read_counter(engine.read(0, [b"n"])[0].value) == version
        assert len(engine.scan(0, b"log", b"loh", limit=10_000)) == version
        assert engine.verify() == []
        engine.close()


def test_a_commit_of_this_process_wakes_who_waits_without_polling(engine, monkeypatch):
    monkeypatch.setattr("stateroom.engines.waiting.POLL_SECONDS", 600.0)
    waiting = [Running(lambda part=part: engine.wait(part, 0, 600.0)) for part in (0, None, 0)]
    while engine._waiters._waiting < 3:
        threading.Event().wait(0.001)
    engine.commit(0, Batch(write={b"a": b"1"}))
    for each in waiting:
        each.result()


def test_a_commit_of_another_process_wakes_all_who_wait(engine, path):
    waiting = [Running(lambda part=part: engine.wait(part, 4, 600.0)) for part in (0, None, 0)]
    program = start(COMMITS, path, 5, "other")
    for each in waiting:
        each.result()
    assert engine.read(0, [b""])[0].version == 5
    program.communicate(timeout=60)


def test_the_poll_is_handed_on_when_the_one_who_polls_leaves(engine, path):
    first = Running(lambda: engine.wait(0, 0, 0.05))
    while not engine._waiters._polled:
        threading.Event().wait(0.001)
    second = Running(lambda: engine.wait(0, 0, 600.0))
    first.result()
    other = connect(path)
    other.commit(0, Batch(write={b"a": b"1"}))
    second.result()
    other.close()


def test_only_one_of_many_waiters_polls(engine):
    polls = []
    foreign = engine._waiters._foreign

    def counted():
        polls.append(threading.get_ident())
        return foreign()

    engine._waiters._foreign = counted
    waiting = [Running(lambda: engine.wait(0, 0, 600.0)) for _ in range(5)]
    while len(polls) < 15:
        threading.Event().wait(0.001)
    engine.commit(0, Batch(write={b"a": b"1"}))
    for each in waiting:
        each.result()
    counts = sorted(polls.count(thread) for thread in set(polls))
    assert counts[:4] == [1, 1, 1, 1] or sum(counts[:4]) <= 8, "the others looked once, and once more when woken"


def test_close_wakes_who_waits(engine):
    waiting = Running(lambda: engine.wait(0, 0, 600.0))
    while not engine._waiters._waiting:
        threading.Event().wait(0.001)
    engine.close()
    with pytest.raises(Closed):
        waiting.result()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_the_connection_of_an_ended_thread_is_closed(engine, path):
    def handles():
        names = []
        for number in os.listdir("/proc/self/fd"):
            try:
                names.append(os.readlink(f"/proc/self/fd/{number}"))
            except FileNotFoundError:
                continue
        return sum(name.startswith(path) for name in names)

    def use():
        thread = threading.Thread(target=engine.read, args=(0, [b"a"]))
        thread.start()
        thread.join()

    use()
    before = handles()
    for _ in range(20):
        use()
    gc.collect()
    assert handles() <= before + 2
    assert len(engine._connections._open) <= 2


FORK = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from stateroom.engine import Batch
from stateroom.engines.sqlite import connect
from stateroom.errors import Closed

def child(run):
    pid = os.fork()
    if pid == 0:
        try:
            run()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

"""


def test_parent_and_child_go_on_with_connections_of_their_own(path):
    program = """
engine = connect(sys.argv[1])
done = threading.Event()
engine.submit(0, Batch(write={b"parent": b"1"}), lambda outcome: done.set())
done.wait(60)
threading.Thread(target=lambda: engine.wait(0, 999, 3600.0), daemon=True).start()

def run():
    assert engine.read(0, [b"parent"])[0].version == 1
    assert engine.commit(0, Batch(write={b"child": b"1"})) == 2
    outcome, done = [], threading.Event()
    engine.submit(0, Batch(write={b"child": b"2"}), lambda given: (outcome.append(given), done.set()))
    assert done.wait(60) and outcome == [3], outcome
    engine.wait(0, 2, 3600.0)
    engine.close()
    try:
        engine.read(0, [b"parent"])
    except Closed:
        return
    raise AssertionError("not closed")

child(run)
print(engine.commit(0, Batch(write={b"parent": b"2"})), engine.read(0, [b"child"])[0].version, *engine.verify())
engine.close()
"""
    assert run(FORK + program, path) == ["4", "3"]


def test_what_a_child_commits_after_its_parent_has_closed_is_kept(path):
    program = """
engine = connect(sys.argv[1])
engine.commit(0, Batch(write={b"a": b"1"}))
engine.read(0, [b"a"])
here, there = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(there)
    engine.read(0, [b"a"])
    print("open", flush=True)
    os.read(here, 1)
    print(engine.commit(0, Batch(write={b"a": b"2"})), flush=True)
    os.kill(os.getpid(), 9)
engine.read(0, [b"a"])
engine.close()
other = connect(sys.argv[1])
other.commit(0, Batch(write={b"b": b"1"}))
other.close()
os.close(there)
os.waitpid(pid, 0)
other = connect(sys.argv[1])
print(*(row.version for row in other.read(0, [b"", b"a", b"b"])), *other.verify())
"""
    assert sorted(run(FORK + program, path)) == sorted(["open", "3", "3", "3", "2"])


def test_a_fork_in_the_middle_of_everything_harms_nobody(path):
    program = """
engine = connect(sys.argv[1])
ended, counts = threading.Event(), [0, 0]

def commits(number):
    while not ended.is_set():
        engine.commit(0, Batch(add={b"n": 1}, write={b"x%d" % number: bytes(5000)}))
        counts[number] += 1

def reads():
    while not ended.is_set():
        engine.read(0, [b"n"])
        engine.read(0, [b"n", b"x0"])
        engine.scan(0, b"", b"z", limit=10)

threads = [threading.Thread(target=commits, args=(n,)) for n in (0, 1)] + [threading.Thread(target=reads)]
for thread in threads:
    thread.start()
for _ in range(20):
    child(lambda: (engine.read(0, [b"n"]), engine.commit(0, Batch(add={b"children": 1}))))
ended.set()
for thread in threads:
    thread.join()
rows = engine.read(0, [b"n", b"children", b""])
assert int.from_bytes(rows[0].value, "big") == sum(counts), (rows, counts)
assert int.from_bytes(rows[1].value, "big") == 20
assert rows[2].version == sum(counts) + 20
print(*engine.verify(), "sound")
engine.close()
"""
    assert run(FORK + program, path) == ["sound"]
