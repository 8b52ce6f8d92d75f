"""The worker process: holds the run's lease and indexes files until none is left. It may die at any instruction."""

import argparse
import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

import stateroom
from stateroom import AsyncStore, Event, Execution, Lease

from ...errors import LostLease
from .cuts import Cuts
from .names import COMPLETED, LEASE_SECONDS, LIVE, LOST_LEASE, MACHINE, RECOVERY, RENEW_SECONDS, STARTED, STEP
from .sources import Counts, add, library, measure


class Worker:
    """One worker's attempt at a run, `hands` files at a time: their commits share flushes."""

    def __init__(self, store: AsyncStore, run: str, lease: Lease, *, hands: int = 16, pace: float = 0.0) -> None:
        self.store = store
        self.run = run
        self.lease = lease
        self.hands = hands
        self.pace = pace
        self.name = f"worker-{os.getpid()}"
        # Reading is left to threads, so that the loop is free to commit, and to renew the lease.
        self.readers = ThreadPoolExecutor(2)
        self.cuts: Cuts

    async def work(self) -> None:
        """Take over what a dead worker left, then everything new, then close the run."""
        if (await self.store.machines.load(MACHINE, self.run)).state == "completed":
            await self.store.feed.emit(STARTED, self.facts(0), id=self.run)  # the one before died when all was done
            return
        started = await self.recover()
        started.extend([execution async for execution in self.store.executions.scan(job_id=self.run, state="new")])
        self.cuts = await Cuts.resume(self.store, self.run, self.lease)
        keeping = asyncio.create_task(self.cuts.keep())
        async with asyncio.TaskGroup() as group:
            for _ in range(self.hands):
                group.create_task(self.hand(started))
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await self.cuts.save()
        await self.finish()

    async def hand(self, waiting: deque[Execution]) -> None:
        """One of the hands: a file after the other."""
        while waiting:
            await self.index(waiting.popleft())
            await asyncio.sleep(self.pace)

    async def recover(self) -> deque[Execution]:
        """Restart what was under way when the worker before died. What it completed is not live, so is not redone."""
        restarted: deque[Execution] = deque()
        first = (await self.store.machines.load(MACHINE, self.run)).state == "created"
        await self.move(*(("indexing", "start") if first else ("recovering", "take over")))
        unfinished = [item async for item in self.store.executions.scan(job_id=self.run, state_in=LIVE)]
        for execution in unfinished:
            event = Event("attempt restarted", topic=RECOVERY, details={"by": self.name, "was": execution.state})
            restarted.append(
                await self.update(
                    execution, state="bid_accepted", node_id=self.name, message="restarted", events=[event]
                )
            )
        if not first:
            await self.move("indexing", "resume")
        await self.store.feed.emit(STARTED, self.facts(len(unfinished)), id=self.run)
        return restarted

    async def move(self, state: str, event: str) -> None:
        """The next state of the run's machine, under the lease."""
        async with self.store.transaction(lease=self.lease) as tx:
            await tx.machines.save(
                MACHINE, self.run, state, {"worker": self.name, "token": self.lease.token}, event=event
            )

    def facts(self, taken_over: int) -> dict[str, Any]:
        """Return what the feed says of this worker."""
        return {"pid": os.getpid(), "token": self.lease.token, "taken_over": taken_over}

    async def index(self, execution: Execution) -> None:
        """One file: accepted, running, completed; each a commit of its own, guarded by the revision before."""
        if execution.state == "new":
            event = Event("accepted", topic="bid", details={"by": self.name})
            execution = await self.update(execution, state="bid_accepted", node_id=self.name, events=[event])
        execution = await self.update(execution, state="running", events=[Event("running", topic="index")])
        path = library() / str(execution.details["path"])
        measured = await asyncio.get_running_loop().run_in_executor(self.readers, measure, path)
        counts = {"lines": measured.lines, "definitions": measured.definitions}
        await self.complete(execution, counts)

    async def complete(self, execution: Execution, counts: dict[str, int]) -> None:
        """The outcome of a file, and everything that says so, in one transaction under the lease."""
        message = f"{counts['lines']} lines, {counts['definitions']} definitions"
        event = Event(COMPLETED, topic="index", details=counts)
        async with self.store.transaction(lease=self.lease) as tx:
            await tx.executions.update(
                execution.id,
                expected_revision=execution.revision,
                state="completed",
                message=message,
                result=counts,
                events=[event],
            )
            await tx.results.put(self.run, str(execution.details["path"]), counts, producer=self.name)
        self.cuts.count(str(execution.details["path"]), Counts(1, **counts))

    async def update(self, execution: Execution, **changes: Any) -> Execution:
        """Change an execution if nobody else has since, and only while the lease is ours."""
        async with self.store.transaction(lease=self.lease) as tx:
            return await tx.executions.update(execution.id, expected_revision=execution.revision, **changes)

    async def finish(self) -> None:
        """The run is completed, with the totals of what was stored."""
        stored = [execution async for execution in self.store.executions.scan(job_id=self.run, state="completed")]
        totals = add(Counts(1, execution.result["lines"], execution.result["definitions"]) for execution in stored)
        async with self.store.transaction(lease=self.lease) as tx:
            await tx.machines.save(MACHINE, self.run, "completed", totals._asdict(), event="finish")
            run = await tx.instances.get(self.run)
            await tx.instances.put(
                msgspec.structs.replace(
                    run,
                    status="completed",
                    current_step=None,
                    active_steps=frozenset(),
                    completed_steps=frozenset({STEP}),
                    context=run.context.with_step(STEP, totals._asdict()),
                ),
                expected_revision=run.revision,
            )


async def acquire(store: AsyncStore, run: str, owner: str) -> Lease:
    """The run's lease, as soon as the holder before has let go of it or has been silent for too long."""
    while True:
        try:
            return await store.leases.acquire(run, owner, LEASE_SECONDS)
        except LostLease as error:
            seconds = (error.expires_at - datetime.now(UTC)).total_seconds() if error.expires_at else 0.0
            await asyncio.sleep(min(max(seconds, 0.02), LEASE_SECONDS))


@asynccontextmanager
async def held(store: AsyncStore, run: str) -> AsyncIterator[Lease]:
    """The run's lease, renewed while the block runs and released at its end."""
    lease = await acquire(store, run, f"worker-{os.getpid()}")

    async def renew() -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            await store.leases.renew(lease, LEASE_SECONDS)

    renewing = asyncio.create_task(renew())
    try:
        yield lease
    finally:
        renewing.cancel()
        with suppress(asyncio.CancelledError):
            await renewing
        await store.leases.release(lease)


async def run_worker(run: str, namespace: str, pace: float) -> None:
    """Open the database of $STATEROOM_URL and work on the run until it is completed."""
    async with await stateroom.open_async(namespace=namespace, create=False) as store, held(store, run) as lease:
        await Worker(store, run, lease, pace=pace).work()


def main() -> int:
    """The process: the url comes by the environment, since everybody can read a command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("namespace")
    parser.add_argument("--pace", type=float, default=0.0)
    options = parser.parse_args()
    code = 0
    try:
        asyncio.run(run_worker(options.run, options.namespace, options.pace))
    except* LostLease as lost:
        print(*lost.exceptions, sep="\n", file=sys.stderr)
        code = LOST_LEASE
    return code


if __name__ == "__main__":
    sys.exit(main())
