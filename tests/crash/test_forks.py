"""Forks of a process whose threads are committing: neither side loses, repeats or hangs, and each goes on with the store."""

import os

import pytest

import stateroom
from engines.sqlite_helpers import start

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

PROGRAM = """
import asyncio, os, sys, threading, warnings
import stateroom
from stateroom import Execution
warnings.simplefilter("ignore", DeprecationWarning)
path, forks = sys.argv[1], int(sys.argv[2])
store = stateroom.open(path, durability="normal")
later = asyncio.run(stateroom.open_async(path, durability="normal"))
stop, counts = [], [0] * 4

def work(n):
    while not stop:
        store.executions.create(Execution(f"t{n}/{counts[n]}", "thread"))
        counts[n] += 1

async def use(name):
    await asyncio.gather(*(later.executions.create(Execution(f"{name}/{n}", "loop")) for n in range(5)))

threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
asyncio.run(use("parent"))
children = []
for number in range(forks):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for n in range(5):
                store.executions.create(Execution(f"c{number}/{n}", "child"))
            asyncio.run(use(f"l{number}"))
            assert store.executions.get(f"c{number}/4").job_id == "child"
            if number % 2:
                store.close()
            status = 0
        finally:
            os._exit(status)
    children.append(child)
    store.executions.create(Execution(f"p{number}", "parent"))
ended = [os.waitpid(child, 0)[1] for child in children]
stop.append(1)
for thread in threads: thread.join()
store.close()
asyncio.run(later.close())
print(sum(map(bool, ended)), *counts)
"""


def fork_under_load(path, forks):
    with start(PROGRAM, path, forks) as program:
        try:
            printed, _ = program.communicate(timeout=600)
        finally:
            program.kill()
    assert program.returncode == 0
    failed, *counts = map(int, printed.split())
    assert failed == 0
    with stateroom.open(path) as store:
        expected = {"thread": sum(counts), "child": 5 * forks, "loop": 5 * forks + 5, "parent": forks}
        for job, count in expected.items():
            assert sum(1 for _ in store.executions.scan(job_id=job)) == count, job
        assert store.check() == []


def test_forks_of_a_process_that_is_committing(tmp_path):
    fork_under_load(str(tmp_path / "a.db"), 4)


@pytest.mark.torture
@pytest.mark.timeout(1200)
def test_many_forks(tmp_path):
    for number in range(10):
        fork_under_load(str(tmp_path / f"{number}.db"), 20)
