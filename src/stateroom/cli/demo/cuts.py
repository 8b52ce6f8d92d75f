"""A savepoint of the run every second: what has been found so far in each package, all as of one moment."""

import asyncio
from datetime import UTC, datetime
from typing import Self

from stateroom import AsyncStore, Lease, Schedule

from .sources import Counts, add

EVERY = Schedule(1000)
TOP = "(top level)"


def package_of(path: str) -> str:
    """The package a file belongs to: an entity of the savepoints."""
    return path.partition("/")[0] if "/" in path else TOP


class Cuts:
    """Counts by package, saved under the lease. Between two savepoints only what changed is written."""

    def __init__(self, store: AsyncStore, run: str, lease: Lease, began: datetime) -> None:
        self.store = store
        self.run = run
        self.lease = lease
        self.began = began
        self.found: dict[str, Counts] = {}
        self.changed: set[str] = set()

    @classmethod
    async def resume(cls, store: AsyncStore, run: str, lease: Lease) -> Self:
        """From the results that are stored: they are as new as the last commit, the newest savepoint is not."""
        began = (await store.instances.get(run)).created_at or datetime.now(UTC)
        cuts = cls(store, run, lease, began)
        async for result in store.results.scan(dag=run):
            cuts.count(result.id, Counts(1, **result.value))
        return cuts

    def count(self, path: str, counts: Counts) -> None:
        """Count a file that is completed."""
        package = package_of(path)
        self.found[package] = add([self.found.get(package, Counts(0, 0, 0)), counts])
        self.changed.add(package)

    async def keep(self) -> None:
        """Save whenever it is due, until cancelled."""
        while True:
            await asyncio.sleep((self.due() - self.elapsed()) / 1000)
            await self.save()

    def elapsed(self) -> int:
        """Milliseconds since the run began."""
        return max(0, round((datetime.now(UTC) - self.began).total_seconds() * 1000))

    def due(self) -> int:
        """When the next savepoint is due."""
        return EVERY.next(self.elapsed()) or 0

    async def save(self) -> None:
        """The counts as they are now, as of the second that is next, or has just come."""
        timestamp = EVERY.next(max(0, self.elapsed() - 100)) or 0
        changed = {package: self.found[package]._asdict() for package in self.changed}
        self.changed = set()
        async with self.store.transaction(lease=self.lease) as tx:
            if await tx.savepoints.list(self.run):
                await tx.savepoints.update(self.run, timestamp, changed=changed)
            else:
                await tx.savepoints.save(self.run, timestamp, changed)
