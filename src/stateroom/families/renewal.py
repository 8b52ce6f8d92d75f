"""Keeping a lease: when it is due for renewal, by elapsed time and by the clock it was written with."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from ..core.namespace import Scope
from ..core.transaction import transact
from ..errors import StoreError
from .leases import Lease, acquire, release, renew


class Renewal:
    """A lease that its holder keeps. Whoever loses it is told by `LostLease`, and writes nothing more under it."""

    def __init__(self, scope: Scope, lease: Lease, ttl: float) -> None:
        self._scope = scope
        self._ttl = ttl
        self.lease = lease
        self._at = scope.clock.monotonic()

    @classmethod
    async def acquire(cls, scope: Scope, key: str, owner: str, ttl: float) -> "Renewal":
        """Take a lease for `ttl` seconds. Raises `LostLease` while another owner holds it."""
        taking = transact(scope, lambda tx: acquire(tx, key, owner, ttl))
        return cls(scope, await _kept_or_given_back(scope, taking) if scope.suspends else await taking, ttl)

    @property
    def due(self) -> bool:
        """Say whether a third of its time is over. A clock that was set back must not hide that."""
        clock = self._scope.clock
        left = (self.lease.expires_at - clock.now()).total_seconds()
        return left < self._ttl * 2 / 3 or clock.monotonic() - self._at > self._ttl / 3

    async def keep(self) -> None:
        """Renew it where that is due. Raises `LostLease`."""
        if self.due:
            began, old = self._scope.clock.monotonic(), self.lease
            self.lease = await transact(self._scope, lambda tx: renew(tx, old, self._ttl))
            self._at = began

    async def release(self) -> bool:
        """Give it up; False where it was superseded."""
        return await transact(self._scope, lambda tx: release(tx, self.lease))


async def _kept_or_given_back(scope: Scope, taking: Coroutine[Any, Any, Lease]) -> Lease:
    """The lease; a caller that is cancelled meanwhile gives it back, as the commit that takes it goes on."""
    task = asyncio.ensure_future(taking)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        giving = asyncio.ensure_future(_give_back(scope, task))
        while not giving.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(giving)
        raise


async def _give_back(scope: Scope, task: "asyncio.Future[Lease]") -> None:
    with suppress(StoreError):
        lease = await task
        await transact(scope, lambda tx: release(tx, lease))
