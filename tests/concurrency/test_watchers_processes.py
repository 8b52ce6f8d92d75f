"""One watcher of a name is active at a time, over all processes; when its process dies, another goes on."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import stateroom
from stateroom import Execution

CHILD = """
import sys, threading
import stateroom
from stateroom.watch import loop as watch_loop

watch_loop.LEASE_SECONDS = 1.0
store = stateroom.open(sys.argv[1])
watcher = store.watch("w", lambda change: print(change.id, flush=True))
watcher.start()
print("started", flush=True)
threading.Event().wait()
"""
PATIENCE = 30.0


def start(url: str) -> "subprocess.Popen[bytes]":
    source = str(Path(stateroom.__file__).parents[1])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, url], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": source}
    )
    assert lines(child, 1) == ["started"]
    return child


def lines(child: "subprocess.Popen[bytes]", wanted: int) -> list[str]:
    """So many lines that a child prints."""
    pipe: IO[bytes] | None = child.stdout
    assert pipe is not None
    text = ""
    end = time.monotonic() + PATIENCE
    while text.count("\n") < wanted:
        ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"only {text!r} of {wanted} lines"
        text += os.read(pipe.fileno(), 1 << 16).decode()
    return text.split()


def test_the_second_process_takes_over_where_the_first_was_killed(shared: str) -> None:
    with stateroom.open(shared) as store:
        first = start(shared)
        try:
            store.executions.create(Execution("r/0", "job"))
            assert lines(first, 1) == ["r/0"]  # it holds the lease now
            second = start(shared)
            try:
                for number in range(1, 6):
                    store.executions.create(Execution(f"r/{number}", "job"))
                assert lines(first, 5) == [f"r/{number}" for number in range(1, 6)]
                assert not select.select([second.stdout], [], [], 0)[0]
                first.send_signal(signal.SIGKILL)
                first.wait()
                for number in range(6, 9):
                    store.executions.create(Execution(f"r/{number}", "job"))
                seen = lines(second, 3)
                if "r/8" not in seen:
                    seen += lines(second, 1)
                # At least once: the last change may come again where its checkpoint was not written.
                assert seen[-3:] == ["r/6", "r/7", "r/8"]
                assert set(seen) <= {"r/5", "r/6", "r/7", "r/8"}
            finally:
                second.kill()
                second.wait()
                assert second.stdout is not None
                second.stdout.close()
        finally:
            first.kill()
            first.wait()
            assert first.stdout is not None
            first.stdout.close()
        assert store.check() == []
