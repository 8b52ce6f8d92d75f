"""Leases across processes: whoever was paused past its time to live cannot write under its token any more."""

import os
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest

import stateroom
from stateroom import Execution, Instance
from stateroom.errors import LostLease
from stateroom.testing.faces import ManualClock

HOLDER = """
import sys, stateroom
from datetime import UTC, datetime
from stateroom.clock import SystemClock
from stateroom.errors import LostLease

store = stateroom.open(sys.argv[1])
lease = store.leases.acquire("run", "first", float(sys.argv[2]))
print("holds", lease.token, flush=True)
for line in sys.stdin:
    try:
        if line == "renew\\n":
            lease = store.leases.renew(lease, float(sys.argv[2]))
        elif line == "release\\n":
            print("released", store.leases.release(lease), flush=True)
            continue
        else:
            with store.transaction(lease=lease) as tx:
                tx.instances.put(stateroom.Instance("run", "w", metadata={"by": "first", "line": line.strip()}))
                if line == "pause\\n":
                    # Between its writes and its commit: this is where a paused process is most dangerous.
                    print("writing", flush=True)
                    sys.stdin.readline()
        print("done", flush=True)
    except LostLease as error:
        print("lost", error.holder, error.token, flush=True)
"""


@contextmanager
def holder(shared, ttl):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, shared, str(ttl)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def say(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()


def heard(process):
    return process.stdout.readline().split()


def stop(process):
    """Pause a process, and come back once it stands."""
    process.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def after(seconds):
    """A clock ahead of the machine's: for it, a lease that the machine's clock has just given has expired."""
    clock = stateroom.clock.SystemClock()

    class Ahead:
        def now(self):
            return clock.now() + timedelta(seconds=seconds)

        monotonic = staticmethod(clock.monotonic)

    return Ahead()


def test_a_paused_holder_cannot_write_once_another_took_over(shared):
    with holder(shared, 60) as first, stateroom.open(shared, clock=after(61)) as store:
        assert heard(first) == ["holds", "1"]
        say(first, "write")
        assert heard(first) == ["done"]
        stop(first)
        second = store.leases.acquire("run", "second", 60)  # its time is over by this clock
        assert second.token == 2
        with store.transaction(lease=second) as tx:
            tx.instances.put(Instance("run", "w", metadata={"by": "second"}))
        first.send_signal(signal.SIGCONT)
        say(first, "write")
        assert heard(first) == ["lost", "second", "2"]
        assert store.instances.get("run").metadata == {"by": "second"}


def test_a_holder_paused_between_its_writes_and_its_commit_writes_nothing(shared):
    with holder(shared, 60) as first, stateroom.open(shared, clock=after(61)) as store:
        heard(first)
        say(first, "pause")
        assert heard(first) == ["writing"]
        stop(first)
        second = store.leases.acquire("run", "second", 60)
        with store.transaction(lease=second) as tx:
            tx.instances.put(Instance("run", "w", metadata={"by": "second"}))
        first.send_signal(signal.SIGCONT)
        say(first, "go on")
        assert heard(first)[0] == "lost"
        assert store.instances.get("run").metadata == {"by": "second"}
        assert store.instances.get("run").revision == 1


def test_a_holder_paused_past_its_time_cannot_write_even_if_nobody_took_over(shared):
    """Its own clock says that the time is over; nobody else has written anything."""
    with holder(shared, 0.2) as first, stateroom.open(shared) as store:
        heard(first)
        stop(first)
        ended = store.leases.holder("run")
        while ended is not None and store.leases.holder("run") is not None:
            store._engine.wait(None, 1 << 40, 0.05)  # no commit comes: this is the pause itself
        first.send_signal(signal.SIGCONT)
        say(first, "write")
        assert heard(first)[0] == "lost"
        assert store.instances.find("run") is None
        say(first, "renew")
        assert heard(first)[0] == "lost"


def test_a_cancelled_run_is_no_longer_written(shared):
    with holder(shared, 60) as first, stateroom.open(shared) as store:
        heard(first)
        say(first, "write")
        assert heard(first) == ["done"]
        store.instances.cancel("run")
        say(first, "write")
        assert heard(first)[0] == "lost"
        assert store.instances.get("run").status == "cancelled"
        say(first, "release")
        assert heard(first) == ["released", "False"]


def test_a_dead_holders_lease_is_taken_over_with_a_higher_token(shared):
    with holder(shared, 60) as first, stateroom.open(shared) as store:
        assert heard(first) == ["holds", "1"]
        with pytest.raises(LostLease) as caught:
            store.leases.acquire("run", "second", 60)
        assert (caught.value.holder, caught.value.token) == ("first", 1)
        first.kill()
        first.wait()
        with stateroom.open(shared, clock=after(61)) as later:
            assert later.leases.acquire("run", "second", 60).token == 2


def test_tokens_rise_for_ever_and_one_holds_at_a_time(shared):
    """Four clients fight for one lease: each acquire that succeeds has a token of its own, higher than all before."""
    clock = ManualClock()
    stores = [stateroom.open(shared, clock=clock) for _ in range(4)]
    tokens, refused = [], Counter()

    def fight(number):
        store = stores[number]
        for _ in range(15):
            try:
                lease = store.leases.acquire("run", f"owner-{number}", 5)
            except LostLease:
                refused[number] += 1
                continue
            tokens.append(lease.token)
            with store.transaction(lease=lease) as tx:
                tx.executions.create(Execution(f"run/{lease.token}", "job"))
            store.leases.release(lease)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fight, range(4)))
    assert sorted(tokens) == list(range(1, len(tokens) + 1))
    assert len(tokens) + sum(refused.values()) == 60
    assert {one.id for one in stores[0].executions.scan()} == {f"run/{token}" for token in tokens}
    assert stores[0].check() == []
    for store in stores:
        store.close()


def test_renewing_holds_it_and_expiry_is_judged_by_the_stores_clock(shared):
    clock = ManualClock()
    with stateroom.open(shared, clock=clock) as store, stateroom.open(shared, clock=clock) as other:
        lease = store.leases.acquire("run", "a", 10)
        for _ in range(5):
            clock.advance(9)
            lease = store.leases.renew(lease, 10)
            assert lease.token == 1
            with pytest.raises(LostLease):
                other.leases.acquire("run", "b", 10)
        clock.advance(10)
        assert other.leases.holder("run") is None
        with pytest.raises(LostLease):
            store.leases.renew(lease, 10)
        with pytest.raises(LostLease), store.transaction(lease=lease) as tx:
            tx.instances.put(Instance("run", "w"))
        assert other.leases.acquire("run", "b", 10).token == 2
        assert store.leases.release(lease) is False
        assert store.instances.find("run") is None


def test_a_renewal_does_not_disturb_a_fenced_commit(shared):
    with stateroom.open(shared) as store, stateroom.open(shared) as renewing:
        lease = store.leases.acquire("run", "a", 60)
        with store.transaction(lease=lease) as tx:
            tx.instances.put(Instance("run", "w"))
            renewing.leases.renew(lease, 60)
        assert store.instances.get("run").revision == 1
