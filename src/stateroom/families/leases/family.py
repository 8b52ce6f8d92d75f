"""The operations on leases."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, overload

from ... import arguments, keys
from ...core.namespace import Reader
from ...core.operation import Blocking, Family, M, Suspending, iteration, joining, operation, reading
from ...core.transaction import Transaction
from ...errors import Damaged, InvalidArgument, LostLease
from ...records.pages import BY_NAME, Page, check_limit, fingerprint, left_out, read_cursor, write_cursor
from ..waiting import Look, undone_if_cancelled, until
from .holding import AsyncHolding, Holding
from .record import Lease, acquire, check, decode, live, look, release, remaining, renew, rows, until_key


class Leases(Family[M]):
    """``store.leases``: ownership with fencing tokens, across processes."""

    @joining
    async def acquire(self, key: str, owner: str, ttl: float | timedelta, *, wait: float | timedelta = 0.0) -> Lease:
        """Take a free or expired lease for a time (seconds, or a timedelta), with a token higher than any before.

        The owner that holds it already gets a new token too. `wait`: for so long until it is free, woken by its
        release. Raises `LostLease` with `holder` when another holds it (still).
        """
        key = arguments.name(key, "key")
        owner = arguments.name(owner, "owner")
        length = timedelta(microseconds=arguments.microseconds(ttl, "ttl"))
        seconds = arguments.seconds(wait, "wait")
        if self._face.tx is not None:
            if seconds:
                raise InvalidArgument("acquire cannot wait inside a transaction; leave `wait` out", what="wait")
            return await acquire(self._face.tx, key, owner, length)
        refused: LostLease | None = None

        async def take() -> Look:
            nonlocal refused
            try:
                return Look(await self._transact(lambda tx: acquire(tx, key, owner, length)))
            except LostLease as error:
                refused = error
                remaining_micros = remaining(self._scope, key, await look(self._scope, key))
                return Look(None, remaining_micros / 1_000_000)

        work = until(self._scope, key, take, seconds)
        lease: Lease | None = await undone_if_cancelled(self._scope, work, self._give_back)
        if lease is not None:
            return lease
        assert refused is not None
        raise refused

    async def _give_back(self, lease: Lease | None) -> None:
        if lease is not None:
            await self._transact(lambda tx: release(tx, lease))

    @operation
    async def renew(self, tx: Transaction, lease: Lease, ttl: float | timedelta) -> Lease:
        """Hold it for so long from now (seconds, or a timedelta).

        Raises `LostLease` when it was superseded or has expired.
        """
        return await renew(tx, lease, ttl)

    @operation
    async def release(self, tx: Transaction, lease: Lease) -> bool:
        """Give it up; False when it was superseded already. The token survives, so that the next one is higher."""
        check(lease)
        return await release(tx, lease)

    @reading
    async def holder(self, tx: Reader, key: str) -> Lease | None:
        """Who holds a lease now; None when nobody does."""
        key = arguments.name(key, "key")
        token_at, until_at = rows(tx.scope, key)
        token, ends = await tx.at(key).peek([token_at, until_at])
        return live(tx.scope, key, decode(token_at, token, until_at, ends))

    @reading
    async def query(self, tx: Reader, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> Page[Lease]:
        """The leases that are held now, of the keys that begin with `prefix`, in the order of keys."""
        check_limit(limit)
        prefix = arguments.prefix(prefix, "prefix")
        mark = fingerprint(tx.scope.prefix, "leases", prefix)
        after = None if cursor is None else read_cursor(cursor, mark, BY_NAME)
        leases: list[Lease] = []
        async for lease in _held_leases(tx, prefix, after):
            if len(leases) == limit:
                return Page(tuple(leases), write_cursor(mark, leases[-1].key.encode()))
            leases.append(lease)
        return Page(tuple(leases))

    @iteration
    async def scan(self, tx: Reader, prefix: str = "") -> AsyncIterator[Lease]:
        """All leases that `query` would page through."""
        async for lease in _held_leases(tx, arguments.prefix(prefix, "prefix"), None):
            yield lease

    @overload
    def hold(
        self: "Leases[Blocking]", key: str, owner: str, ttl: float | timedelta, *, wait: float | timedelta = 0.0
    ) -> "Holding": ...
    @overload
    def hold(
        self: "Leases[Suspending]", key: str, owner: str, ttl: float | timedelta, *, wait: float | timedelta = 0.0
    ) -> "AsyncHolding": ...
    def hold(self, key: str, owner: str, ttl: float | timedelta, *, wait: float | timedelta = 0.0) -> Any:
        """A context manager that holds a lease: it renews itself at a third of `ttl`, and is released at exit.

        Entering takes the lease as `acquire` does and gives an object with `.lease`, `.lost` and `.check()`, which
        raises `LostLease` once the lease is not ours any more. Raises `InvalidArgument`, in a transaction too.
        """
        if self._face.tx is not None:
            raise InvalidArgument("hold cannot be used inside a transaction", what="hold")
        key, owner = arguments.name(key, "key"), arguments.name(owner, "owner")
        seconds = arguments.microseconds(ttl, "ttl") / 1_000_000
        made = AsyncHolding if self._scope.suspends else Holding
        return made(self, key, owner, seconds, arguments.seconds(wait, "wait"))


async def _held_leases(tx: Reader, prefix: str, after: bytes | None) -> AsyncIterator[Lease]:
    """Leases that are held now, by key; `after`: beginning after that one."""
    scope = tx.scope
    start = scope.key(keys.LEASE_TOKEN)
    cut, stop = len(start), start + prefix.encode() + keys.END
    low = start + (prefix.encode() if after is None else after + b"\0\0")
    while True:
        tokens = await tx.scan(low, stop, limit=256)
        names = [row.key[cut:-1].decode() for row in tokens]
        parts: dict[int, list[bytes]] = {}
        for key in names:
            parts.setdefault(scope.part(keys.root(key)), []).append(until_key(scope, key))
        answers = await tx.read_many(list(parts.items()))
        ends = {row.key: row for rows_here in answers for row in rows_here if row is not None}
        for key, token in zip(names, tokens, strict=True):
            until_at = until_key(scope, key)
            try:
                lease = live(scope, key, decode(token.key, token, until_at, ends.get(until_at)))
            except Damaged as error:
                left_out(scope, "leases", key, error)
                continue
            if lease is not None:
                yield lease
        if len(tokens) < 256:
            return
        low = tokens[-1].key + b"\0"
