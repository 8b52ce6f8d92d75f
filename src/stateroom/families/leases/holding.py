"""Leases that renew themselves while somebody is inside a ``with``."""

import asyncio
import logging
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ...core.bridge import run_now
from ...core.namespace import Scope
from ...core.transaction import Transaction, transact
from ...errors import InvalidArgument, LostLease, StoreError
from .record import Lease, release, renew

if TYPE_CHECKING:
    from .family import Leases

_log = logging.getLogger("stateroom")


class _Holding:
    """The part that both faces share: how long the lease lasts by elapsed time, and whether it is lost."""

    def __init__(self, leases: "Leases[Any]", key: str, owner: str, ttl: float, wait: float) -> None:
        self._leases = leases
        self._scope: Scope = leases._scope
        self._key = key
        self._owner = owner
        self._ttl = ttl
        self._wait = wait
        self._lease: Lease | None = None
        self._lost = False
        self._ends = 0.0

    @property
    def lease(self) -> Lease:
        """The lease as it was last renewed. Raises `InvalidArgument` before it was taken."""
        if self._lease is None:
            raise InvalidArgument("nothing is held yet: enter this with `with` (`async with`)", what="hold")
        return self._lease

    @property
    def lost(self) -> bool:
        """Say whether the lease is not ours any more: taken, revoked, or not renewed in time."""
        return self._lost or self._scope.clock.monotonic() >= self._ends

    def check(self) -> None:
        """Raise `LostLease` where it is lost."""
        if self.lost:
            lease = self.lease
            raise LostLease(
                f"lease {lease.key!r} of {lease.owner!r} is lost: it could not be renewed in time, or another has it",
                key=lease.key,
                holder=None,
                token=lease.token,
                expires_at=lease.expires_at,
            )

    def _begin(self) -> None:
        if self._lease is not None:
            raise InvalidArgument("this was entered before; call `hold` again", what="hold")

    def _taken(self, lease: Lease) -> None:
        clock = self._scope.clock
        seconds = (lease.expires_at - clock.now()).total_seconds()
        # From here on by elapsed time: it never lasts longer here than in the store, whatever the clock is set to.
        self._lease, self._ends = lease, clock.monotonic() + min(seconds, self._ttl)

    def _pause(self, failed: bool) -> float:
        return self._ttl / 12 if failed else self._ttl / 3

    async def _renew(self) -> bool:
        """Renew it once. Raises `LostLease`; False: the store could not be reached, try again."""
        try:
            renewed = await transact(self._scope, self._renewal)
        except LostLease:
            self._lost = True
            raise
        except StoreError as error:
            if self.lost:
                self._lost = True
                raise LostLease(f"lease {self._key!r} ran out: {error}", key=self._key, holder=None) from error
            _log.warning("lease %r of %r could not be renewed, trying again: %s", self._key, self._owner, error)
            return False
        self._taken(renewed)
        return True

    async def _renewal(self, tx: Transaction) -> Lease:
        return await renew(tx, self.lease, self._ttl)

    async def _release(self) -> None:
        """Give it up; what cannot be reached expires by itself."""
        lease = self.lease

        async def body(tx: Transaction) -> bool:
            return await release(tx, lease)

        try:
            await transact(self._scope, body)
        except StoreError as error:
            _log.warning("lease %r could not be released and ends at %s: %s", self._key, lease.expires_at, error)


class Holding(_Holding):
    """``with store.leases.hold(...) as held``: a thread renews the lease."""

    def __enter__(self) -> "Holding":
        self._begin()
        self._taken(self._leases.acquire(self._key, self._owner, self._ttl, wait=self._wait))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stateroom-hold", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            run_now(self._release())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        run_now(self._release())

    def _run(self) -> None:
        failed = False
        try:
            while not self._stop.wait(self._pause(failed)):
                failed = not run_now(self._renew())
        except LostLease as error:
            _log.warning("%s", error)


class AsyncHolding(_Holding):
    """``async with store.leases.hold(...) as held``: a task renews the lease."""

    async def __aenter__(self) -> "AsyncHolding":
        self._begin()
        self._taken(await self._leases.acquire(self._key, self._owner, self._ttl, wait=self._wait))
        self._task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._release()

    async def _run(self) -> None:
        failed = False
        try:
            while True:
                await asyncio.sleep(self._pause(failed))
                failed = not await self._renew()
        except LostLease as error:
            _log.warning("%s", error)
