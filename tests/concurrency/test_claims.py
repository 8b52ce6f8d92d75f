"""Workers in processes of their own: no work is done twice, and none is lost with a worker that is killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager

import pytest

import stateroom
from stateroom import Execution, Instance
from stateroom.errors import LostLease
from stateroom.testing.harness import PATIENCE

WORKER = """
import sys, threading, stateroom
from stateroom.errors import LostLease

url, name, family, ttl, threads = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5])
store = stateroom.open(url)

def work(number):
    owner = f"{name}.{number}"
    while True:
        for claim in getattr(store, family).claim(owner, ttl, wait=1.0):
            if sys.argv[6] == "hang":
                print("took", claim.record.id, flush=True)
                threading.Event().wait()
            try:
                with store.transaction(lease=claim.lease) as tx:
                    tx.machines.save("done", claim.record.id, owner, {"token": claim.lease.token})
                    if family == "instances":
                        tx.instances.update(claim.record.id, status="completed")
                    else:
                        tx.executions.update(claim.record.id, state="completed")
                    tx.leases.release(claim.lease)
            except LostLease:
                pass

for number in range(threads):
    threading.Thread(target=work, args=(number,), daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def worker(url, name, family, *, ttl=60.0, threads=2, how="work"):
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, url, name, family, str(ttl), str(threads), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def fill(store, family, count):
    """Work under a few roots."""
    if family == "instances":
        store.instances.put_many([Instance(f"r{n % 7}/{n:03}", "wf") for n in range(count)])
    else:
        store.executions.create_many([Execution(f"r{n % 7}/{n:03}", "job") for n in range(count)])


def until_done(store, family, count):
    """Wait until all work is done, woken by each end."""
    end = time.monotonic() + PATIENCE
    position = stateroom.BEGINNING
    done = Counter()
    while sum(done.values()) < count:
        assert time.monotonic() < end, f"{count - len(done)} are left"
        changes = store.feed.read(position, families=["machines"], limit=1000, wait=1.0)
        done.update(change.record.name for change in changes.items)
        position = changes.next
    return done


@pytest.mark.parametrize("family", ["instances", "executions"])
def test_no_work_is_done_twice(shared, family):
    count = 90
    with stateroom.open(shared) as store, ExitStack() as stack:
        for n in range(3):
            stack.enter_context(worker(shared, f"w{n}", family))
        fill(store, family, count)
        done = until_done(store, family, count)
        assert len(done) == count
        assert set(done.values()) == {1}
        assert store.check() == []


@pytest.mark.parametrize("family", ["instances", "executions"])
def test_a_killed_workers_work_is_done_by_another(shared, family):
    with stateroom.open(shared) as store:
        fill(store, family, 4)
        with worker(shared, "killed", family, ttl=1.0, threads=1, how="hang") as victim:
            _, taken = victim.stdout.readline().split()
            lost = store.leases.holder(taken)
            assert lost.owner == "killed.0"
            victim.send_signal(signal.SIGKILL)
            victim.wait()
        with worker(shared, "alive", family):
            assert until_done(store, family, 4) == {f"r{n % 7}/{n:03}": 1 for n in range(4)}
        assert store.machines.load("done", taken).state.startswith("alive")
        with pytest.raises(LostLease), store.transaction(lease=lost) as tx:
            tx.machines.purge("done", taken)
