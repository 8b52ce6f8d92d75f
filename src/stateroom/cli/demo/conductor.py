"""The conductor: starts the run, watches the feed, kills the worker and starts it again, and checks what came out."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Protocol

import stateroom
from stateroom import Event, Execution, Instance

from ...errors import Unavailable, WrongState
from . import sources
from .cuts import EVERY
from .names import LOST_LEASE, MACHINE, STARTED, STEP, TRANSITIONS, WORKFLOW, execution_id, run_id
from .sources import Counts, add
from .tally import Started, Tally

CREATED_TOGETHER = 100
RESTARTS = 10
LOOK_SECONDS = 0.1


class View(Protocol):
    """Who shows the run."""

    def begin(self, run: str, files: int) -> None: ...
    def progress(self, count: int) -> None: ...
    def say(self, text: str) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """The result of a run beside what it should have been."""

    run: str
    tally: Tally
    kills: int
    savepoints: int
    expected: Counts
    differences: tuple[str, ...]


class Conductor:
    """One run of the demo on an open store."""

    def __init__(
        self, store: stateroom.Store, url: str, namespace: str, view: View, *, kills: int, seed: int | None, pace: float
    ) -> None:
        self.store = store
        self.url = url
        self.namespace = namespace
        self.view = view
        self.kills = kills
        self.random = random.Random(seed)
        self.pace = pace
        self.killed = 0
        self.starts = 0

    def conduct(self, limit: int | None) -> Outcome:
        """Everything, from the first file to the last comparison."""
        paths = sources.sources(limit)
        plain = self.spawn("sources", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with plain, contextlib.ExitStack() as stack:
            stack.callback(plain.kill)
            _send(plain, paths)
            position = self.store.feed.latest()
            run = self.start(paths)
            self.view.begin(run, len(paths))
            stack.callback(self.abandon, run)
            tally = self.follow(run, position, len(paths))
            assert plain.stdout is not None
            expected = Counts(*json.load(plain.stdout))
        return self.outcome(run, paths, tally, expected)

    def start(self, paths: list[str]) -> str:
        """The instance, and an execution for each file, some at a time."""
        run = run_id()
        self.store.machines.define(MACHINE, TRANSITIONS, initial="created", final=["completed"])
        with self.store.transaction() as tx:
            tx.instances.start(
                Instance(run, WORKFLOW, status="running", current_step=STEP, active_steps=frozenset({STEP}))
            )
            tx.machines.save(MACHINE, run, "created", {"files": len(paths)})
            tx.savepoints.init(run, schedule=EVERY)
        for first in range(0, len(paths), CREATED_TOGETHER):
            with self.store.transaction() as tx:
                for path in paths[first : first + CREATED_TOGETHER]:
                    execution = Execution(execution_id(run, path), run, desired_state="running", details={"path": path})
                    tx.executions.create(execution, events=[Event("created", topic="index")])
        return run

    def follow(self, run: str, position: str, files: int) -> Tally:
        """Watch the feed until the worker is done, killing and restarting it on the way."""
        tally = Tally(run)
        moments = sorted(self.random.sample(range(files // 20, max(files * 3 // 4, self.kills + 1)), self.kills))
        worker = self.worker(run)
        try:
            while True:
                ended = worker.poll()
                changes = self.store.feed.read(
                    position, families=("executions", STARTED), limit=1000, wait=LOOK_SECONDS
                )
                position = changes.next
                for started in tally.take(changes.items):
                    self.view.say(_takeover(started))
                self.view.progress(tally.done)
                if moments and tally.done >= moments[0] and ended is None:
                    moments.pop(0)
                    self.kill(worker, tally.done, files)
                    worker = self.worker(run)
                elif ended == 0 and not changes.items:
                    return tally
                elif ended:
                    worker = self.again(worker, run)
        finally:
            worker.kill()
            _finish(worker)

    def kill(self, worker: "subprocess.Popen[bytes]", count: int, files: int) -> None:
        """SIGKILL: no handler runs, nothing is flushed, nobody says goodbye."""
        os.kill(worker.pid, signal.SIGKILL)
        _finish(worker)
        if worker.returncode == -signal.SIGKILL:
            self.killed += 1
            self.view.say(f"killed worker {worker.pid} (SIGKILL) after {count} of {files} files")

    def again(self, worker: "subprocess.Popen[bytes]", run: str) -> "subprocess.Popen[bytes]":
        """A new worker for one that gave up its lease; any other end is an error, with what it said."""
        words = _finish(worker)
        if worker.returncode != LOST_LEASE or self.starts > RESTARTS:
            raise Unavailable(f"the worker ended with code {worker.returncode}: {words[-2000:]}")
        self.view.say(f"worker {worker.pid} lost its lease")
        return self.worker(run)

    def worker(self, run: str) -> "subprocess.Popen[bytes]":
        """Start a worker process."""
        self.starts += 1
        return self.spawn("worker", run, self.namespace, "--pace", str(self.pace), stderr=subprocess.PIPE)

    def spawn(self, module: str, *arguments: str, **streams: int) -> "subprocess.Popen[bytes]":
        """A Python process of this package; it finds the database in its environment.

        In a session of its own, so that Ctrl-C is heard by the conductor alone, which then ends the others.
        """
        command = [sys.executable, "-m", f"{__package__}.{module}", *arguments]
        environment = {**os.environ, "STATEROOM_URL": self.url}
        return subprocess.Popen(command, env=environment, start_new_session=True, **streams)  # type: ignore[call-overload,no-any-return]

    def outcome(self, run: str, paths: list[str], tally: Tally, expected: Counts) -> Outcome:
        """Compare what was stored with the plain count of the same files."""
        step = self.store.instances.get(run).context.steps.get(STEP, {})
        stored = Counts(*(int(step.get(name, 0)) for name in Counts._fields))
        results = add(Counts(1, **value) for value in self.store.results.gather(run, paths).values())
        cut = add(Counts(**state) for state in self.store.savepoints.latest(run).to_dict().values())
        sides = {"feed": tally.totals, "results": results, "last savepoint": cut, "run": stored}
        differences = [
            f"{name}: {actual} in the {side}, {number} counted"
            for side, counts in sides.items()
            for name, actual, number in zip(Counts._fields, counts, expected, strict=True)
            if actual != number
        ]
        lost = {execution_id(run, path) for path in paths} - set(tally.completions)
        differences += [f"never completed: {id}" for id in sorted(lost)]
        differences += [f"completed {times} times: {id}" for id, times in tally.completions.items() if times > 1]
        if (state := self.store.machines.load(MACHINE, run).state) != "completed":
            differences.append(f"the machine of the run is {state}")
        savepoints = len(self.store.savepoints.list(run))
        return Outcome(run, tally, self.killed, savepoints, expected, tuple(differences))

    def abandon(self, run: str) -> None:
        """Cancel a run that was interrupted, so that it does not look as if it still went on; else do nothing."""
        with contextlib.suppress(WrongState):
            self.store.instances.cancel(run)


def _takeover(started: Started) -> str:
    if started.token == 1:
        return f"worker {started.pid} holds the lease"
    return f"worker {started.pid} took over the lease (token {started.token}), {started.taken_over} attempts restarted"


def _send(process: "subprocess.Popen[bytes]", document: object) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(document).encode())
    process.stdin.close()


def _finish(process: "subprocess.Popen[bytes]") -> str:
    """Wait for a process that is about to end, and give what it wrote to stderr."""
    words = process.stderr.read().decode(errors="replace") if process.stderr and not process.stderr.closed else ""
    process.wait()
    if process.stderr:
        process.stderr.close()
    return words.strip()
