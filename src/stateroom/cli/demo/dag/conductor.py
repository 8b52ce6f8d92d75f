"""The run: plans the DAG, starts the workers, kills one of them in the middle, and compares with a plain run."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import stateroom
from stateroom import Execution

from ....errors import Unavailable
from .plan import Function, alone, functions

SHARDS = 12
PATIENCE_SECONDS = 600.0
_LOOK_SECONDS = 0.1


class View(Protocol):
    """Who shows the run."""

    def say(self, text: str) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """The result of a run beside that of a plain one."""

    dag: str
    value: Any
    expected: Any
    made: dict[str, int]
    """Functions by the node that computed them."""
    fetched: int
    """Values that travelled."""
    put_back: int
    """Functions that were begun again."""
    killed: str | None


class Conductor:
    """One run over an open shared store."""

    def __init__(self, store: stateroom.Store, url: str, namespace: str, view: View, *, folder: Path) -> None:
        self.store = store
        self.url = url
        self.namespace = namespace
        self.view = view
        self.folder = folder
        self.dag = f"words-{int(time.time() * 1000)}"
        self.secret = folder / "secret"
        self.secret.write_bytes(os.urandom(32).hex().encode())
        self.workers: dict[str, subprocess.Popen[str]] = {}

    def conduct(self, nodes: int, files: int | None, *, kill: bool = True, pace: float = 0.0) -> Outcome:
        """Run it all."""
        planned = functions(files, SHARDS)
        self.view.say(f"run {self.dag}: {len(planned)} functions over {nodes} nodes")
        for function in planned:
            details = {"name": function.name, "inputs": list(function.inputs), "arguments": list(function.arguments)}
            self.store.executions.create(Execution(f"{self.dag}/{function.id}", self.dag, details=details))
        names = [f"node-{number + 1}" for number in range(nodes)]
        try:
            for name in names:
                self._start(name, pace)
            killed = self._kill(names[-1], planned, pace) if kill and nodes > 1 else None
            self._finish(planned, pace)
            value = self._fetch(planned[-1])
        finally:
            for process in self.workers.values():
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()
        return self._outcome(planned, value, killed)

    def _start(self, name: str, pace: float) -> None:
        command = [sys.executable, "-m", "stateroom.cli.demo.dag.worker", "--url", self.url, "--dag", self.dag]
        command += ["--namespace", self.namespace, "--name", f"{self.dag}-{name}", "--pace", str(pace)]
        command += ["--local", str(self.folder / f"{name}.db"), "--secret", str(self.secret)]
        self.workers[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _done(self) -> Iterator[Execution]:
        return self.store.executions.scan(job_id=self.dag, state="completed")

    def _kill(self, name: str, planned: list[Function], pace: float) -> str | None:
        """Kill a node as soon as it has made something and a third is done, and start it again on its file."""
        deadline, completed = time.monotonic() + PATIENCE_SECONDS, list[Execution]()
        while time.monotonic() < deadline:
            completed = list(self._done())
            if len(completed) == len(planned):
                return None
            own_results = [execution for execution in completed if execution.result["node"] == f"{self.dag}-{name}"]
            if len(completed) * 3 >= len(planned) and own_results:
                break
            time.sleep(_LOOK_SECONDS)
        process = self.workers[name]
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        self.view.say(f"killed {name} (process {process.pid}) with {len(completed)} of {len(planned)} functions done")
        self._start(name, pace)
        return name

    def _finish(self, planned: list[Function], pace: float) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while sum(1 for _ in self._done()) < len(planned):
            for name, process in list(self.workers.items()):
                if process.poll() not in (None, 0):
                    self._start(name, pace)
            if time.monotonic() > deadline:
                raise Unavailable(f"run {self.dag} is not done after {PATIENCE_SECONDS:g} s")
            time.sleep(_LOOK_SECONDS)

    def _fetch(self, last: Function) -> Any:
        """The last value, from the node that made it."""
        from ....node import Node

        name = f"{self.dag}-conductor"
        with stateroom.open("memory:") as local, Node(self.store, local, name, secret=f"file:{self.secret}") as node:
            return node.wait(self.dag, last.id, timeout=60)

    def _outcome(self, planned: list[Function], value: Any, killed: str | None) -> Outcome:
        completed = list(self._done())
        counts = Counter(execution.result["node"].removeprefix(f"{self.dag}-") for execution in completed)
        events = [event for execution in completed for event in self.store.executions.events(execution.id)]
        put_back = sum(event.topic == "put back" for event in events)
        fetched = sum(execution.result["fetched"] for execution in completed)
        return Outcome(self.dag, value, alone(planned), dict(sorted(counts.items())), fetched, put_back, killed)


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder for the nodes' own stores."""
    with tempfile.TemporaryDirectory(prefix="stateroom-demo-") as folder:
        yield Path(folder)
