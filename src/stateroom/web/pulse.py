"""What the store did in the last hour, as samples in memory."""

import asyncio
import contextlib
import time
from collections import deque
from itertools import pairwise
from typing import Any, NamedTuple

from .. import AsyncStore
from ..errors import Closed, StoreError

EVERY_SECONDS = 15.0
HOUR_SECONDS = 3600.0


class Sample(NamedTuple):
    """Commits so far, and records that are active, at a moment."""

    at: float
    commits: int
    active: int


def active_of(stats: Any) -> int:
    """How many instances and executions have not come to an end."""
    ended = {"completed", "failed", "cancelled", "bid_rejected", "ask_for_bid_rejected"}
    families = (stats.instances, stats.executions)
    return sum(count for states in families for state, count in states.items() if state not in ended)


class Pulse:
    """Takes a sample now and then, as long as the event loop that asked for it runs."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._samples: deque[Sample] = deque(maxlen=int(HOUR_SECONDS / EVERY_SECONDS))
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Take samples from now on; does nothing where that is done already."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._task = loop.create_task(self._run())

    def take(self, stats: Any) -> None:
        """Note a sample."""
        self._samples.append(Sample(time.monotonic(), stats.commits, active_of(stats)))

    def rates(self) -> list[float]:
        """Commits a second between samples, oldest first."""
        samples = list(self._samples)
        pairs = pairwise(samples)
        return [(b.commits - a.commits) / (b.at - a.at) for a, b in pairs if b.at > a.at and b.commits >= a.commits]

    def active(self) -> list[float]:
        """Active records at each sample, oldest first."""
        return [float(sample.active) for sample in self._samples]

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                try:
                    self.take(await self._store.stats())
                except Closed:
                    return
            await asyncio.sleep(EVERY_SECONDS)
