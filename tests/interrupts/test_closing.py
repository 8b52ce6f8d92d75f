"""A signal's handler that closes the store, wherever the signal finds the program."""

import os
import signal
import threading

import pytest

from engines.sqlite_helpers import Outcomes, run
from kit.lines import At, in_thread
from stateroom.engine import Batch, read_counter
from stateroom.engines import memory, sqlite
from stateroom.errors import Closed


@pytest.fixture(params=["memory", "sqlite"])
def connect(request, tmp_path):
    """Opens the same database at each call; memory: a new one."""
    path = str(tmp_path / "a.db")
    return lambda: memory.connect("memory:") if request.param == "memory" else sqlite.connect(path)


def test_a_handler_may_close_at_any_line_of_a_commit(connect):
    kept, number, at = 0, 1, None
    while at is None or at.where is not None:
        engine = connect()
        engine.commit(0, Batch(add={b"n": 1}))
        at = At(number, engine.close)
        try:
            at.run(lambda engine=engine: engine.commit(0, Batch(add={b"n": 1})))
            committed = 1
        except Closed:
            committed = 0
        if at.where is not None:
            with pytest.raises(Closed):
                in_thread(lambda engine=engine: engine.commit(0, Batch()))
        in_thread(engine.close)
        if isinstance(engine, sqlite.SqliteEngine):
            again = connect()
            kept += 1 + committed
            assert read_counter(again.read(0, [b"n"])[0].value) == kept, at.where
            assert again.verify() == []
            again.close()
        number += 1
    assert number > 20


def test_a_handler_that_closes_tells_the_others_of_a_group_the_truth(tmp_path, monkeypatch):
    path, kept, number, at = str(tmp_path / "a.db"), 0, 1, None
    while at is None or at.where is not None:
        engine, outcomes = sqlite.connect(path), Outcomes(2)
        at = At(number, engine.close)
        with monkeypatch.context() as patch:
            patch.setattr(engine._writer, "_wake", lambda: None)
            for each in range(2):
                engine.submit(0, Batch(add={b"n": 1}), outcomes(each))
            try:
                at.run(lambda engine=engine: engine.commit(0, Batch(add={b"n": 1})))
                kept += 1
            except Closed:
                pass
        in_thread(engine.close)
        given = outcomes.all()
        kept += sum(isinstance(each, int) for each in given)
        assert all(isinstance(each, int | Closed) for each in given)
        again = sqlite.connect(path)
        row = again.read(0, [b"n"])[0]
        assert read_counter(row and row.value) == kept, at.where
        again.close()
        number += 1
    assert number > 50


def test_a_handler_that_closes_finds_other_threads_in_their_commits(tmp_path):
    engine = sqlite.connect(str(tmp_path / "a.db"))
    acknowledged, refused = [], []

    def work():
        try:
            while True:
                acknowledged.append(engine.commit(0, Batch(add={b"n": 1})))
        except Closed as error:
            refused.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    at = At(40, engine.close)
    with pytest.raises(Closed):
        at.run(lambda: [engine.commit(0, Batch(add={b"n": 1})) for _ in range(1000)])
    for thread in threads:
        thread.join(30)
    assert len(refused) == 3
    again = sqlite.connect(str(tmp_path / "a.db"))
    assert read_counter(again.read(0, [b"n"])[0].value) >= len(acknowledged)
    again.close()


SIGTERM = """
import os, signal, sys, threading, stateroom
from stateroom import Execution
store = stateroom.open(sys.argv[1], durability="normal")
acknowledged = 0
def end(*_):
    if sys.argv[2] == "write":
        store.executions.create(Execution("last", "job"))
    store.close()
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
threading.Timer(float(sys.argv[3]), os.kill, (os.getpid(), signal.SIGTERM)).start()
try:
    while True:
        store.executions.create(Execution(f"e{acknowledged}", "job"))
        acknowledged += 1
finally:
    print(acknowledged, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no signals here")
@pytest.mark.parametrize("doing", ["close", "write"])
def test_sigterm_closes_a_store_that_is_writing(tmp_path, doing):
    import stateroom
    from engines.sqlite_helpers import start

    for number in range(3):
        path = str(tmp_path / f"{doing}{number}.db")
        with start(SIGTERM, path, doing, 0.05 + number * 0.013) as program:
            try:
                printed, _ = program.communicate(timeout=60)
            finally:
                program.kill()
        assert program.returncode == 3
        with stateroom.open(path) as store:
            assert store.check() == []
            count = store.executions.count("new")
            written = doing == "write"
            assert count - written in (int(printed), int(printed) + 1)
            assert (store.executions.find("last") is not None) == written
        assert not os.path.exists(path + "-wal")


RANDOM_CTRL_C = """
import os, signal, sys, threading, time, stateroom
from stateroom import Execution
class Limit(Exception): pass
kinds = [KeyboardInterrupt, Limit]
def fire(*_): raise kinds[len(told) % 2]
store = stateroom.open(sys.argv[1], durability="normal")
told, foreign, counts, stop = [], [], [0] * 3, []
def other(n):
    while not stop:
        try: store.executions.create(Execution(f"{n}/{counts[n]}", "job"))
        except BaseException as error: foreign.append(repr(error)); return
        counts[n] += 1
threads = [threading.Thread(target=other, args=(n,)) for n in range(3)]
for thread in threads: thread.start()
signal.signal(signal.SIGALRM, fire)
n = 0
while n < int(sys.argv[2]):
    n += 1
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005 + n % 7 * 0.0004)
        while True: store.executions.create(Execution(f"m/{time.time_ns()}", "job"))
    except (KeyboardInterrupt, Limit): told.append(n)
stop.append(1)
for thread in threads: thread.join(30)
assert not any(thread.is_alive() for thread in threads)
store.close()
with stateroom.open(sys.argv[1]) as store:
    there = [sum(1 for _ in store.executions.scan(job_id="job")) , store.check()]
print(len(foreign), len(told), *counts, len(there[1]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no signals here")
def test_what_a_real_signal_raises_reaches_nobody_else(tmp_path):
    foreign, told, *counts, problems = map(int, run(RANDOM_CTRL_C, tmp_path / "a.db", 150))
    assert (foreign, told, problems) == (0, 150, 0)
    assert all(counts)
