"""One worker with its node: takes functions whose inputs are somewhere, fetches those, and keeps what comes out."""

import argparse
import contextlib
import random
import time
from collections.abc import Mapping
from typing import Any

import stateroom
from stateroom import Event, Execution

from ....errors import AlreadyExists, StoreError, Unavailable, WrongState
from .plan import compute

TTL = 1.5
"""Seconds without heartbeat after which a node is dead: short, for this is a demo."""

_WAIT_SECONDS = 0.2
_START_SECONDS = 30.0


class Worker:
    """Works on one DAG until all of it is done."""

    def __init__(self, shared: stateroom.Store, node: Any, dag: str, pace: float) -> None:
        self.shared = shared
        self.node = node
        self.dag = dag
        self.pace = pace
        self.later: dict[str, float] = {}
        """When a function is tried again whose inputs could not be fetched."""

    def work(self) -> None:
        """Take back what an earlier process of this name had begun, then one function after the other."""
        for execution in self.shared.executions.scan(job_id=self.dag, state="running", node_id=self.node.name):
            self._put_back(execution, "restarted")
        position = self.shared.feed.latest()
        while True:
            waiting = list(self.shared.executions.scan(job_id=self.dag, state="new"))
            if not waiting and not any(self.shared.executions.scan(job_id=self.dag, state="running")):
                return
            if not self._one(waiting):
                position = self.shared.feed.read(position, families=["executions"], wait=_WAIT_SECONDS).next

    def _one(self, waiting: list[Execution]) -> bool:
        """Do one function that is ready: one whose inputs are here, if there is one."""
        locations: Mapping[str, tuple[str, ...]] = self.node.locations(self.dag)
        node_name, now = self.node.name, time.monotonic()
        alive = {node.name for node in self.node.nodes() if node.alive}
        ready = [
            candidate
            for candidate in waiting
            if now > self.later.get(candidate.id, 0.0)
            and all(alive.intersection(locations.get(id, ())) for id in candidate.details["inputs"])
        ]
        random.shuffle(ready)
        ready.sort(key=lambda candidate: -sum(node_name in locations[id] for id in candidate.details["inputs"]))
        for execution in ready:
            with contextlib.suppress(WrongState):  # another worker took it
                claimed = self.shared.executions.update(
                    execution.id, state="running", node_id=node_name, expected_states={"new"}
                )
                return self._run(claimed)
        return False

    def _run(self, execution: Execution) -> bool:
        before = self.node.transfers
        inputs = []
        for id in execution.details["inputs"]:
            try:
                inputs.append(self.node.get_or_fetch(self.dag, id, timeout=10))
            except Unavailable as error:  # its node is away: others may be ready
                self.later[execution.id] = time.monotonic() + TTL
                self._put_back(execution, str(error))
                return False
        time.sleep(self.pace)
        value = compute(execution.details["name"], *execution.details["arguments"], *inputs)
        id = execution.id.partition("/")[2]
        self.node.results.put(self.dag, id, value, producer=self.node.name, inputs=execution.details["inputs"])
        result = {"node": self.node.name, "fetched": self.node.transfers - before}
        with contextlib.suppress(WrongState):
            self.shared.executions.update(execution.id, state="completed", result=result, expected_states={"running"})
        return True

    def _put_back(self, execution: Execution, why: str) -> None:
        with contextlib.suppress(WrongState):
            self.shared.executions.update(
                execution.id, state="new", expected_states={"running"}, events=[Event(why, topic="put back")]
            )


def run(url: str, namespace: str, dag: str, name: str, local: str, secret: str, pace: float) -> None:
    """Start a node and work; a name that a killed process had is waited for."""
    from ....node import Node

    with stateroom.open(url, namespace=namespace) as shared, stateroom.open(local, durability="normal") as local_store:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            node = Node(shared, local_store, name, secret=f"file:{secret}", ttl=TTL)
            try:
                node.start()
                break
            except AlreadyExists:
                if time.monotonic() > deadline:
                    raise
                time.sleep(TTL / 5)
        try:
            Worker(shared, node, dag, pace).work()
            print("done", flush=True)
            input()  # what it holds may still be asked for
        except (EOFError, KeyboardInterrupt):
            pass
        finally:
            with contextlib.suppress(StoreError):
                node.stop()


def main() -> None:
    """The program of a worker's process."""
    parser = argparse.ArgumentParser()
    for word in ("url", "namespace", "dag", "name", "local", "secret"):
        parser.add_argument(f"--{word}", required=True)
    parser.add_argument("--pace", type=float, default=0.0)
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
