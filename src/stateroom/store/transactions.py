"""Transactions as users see them: families on one open transaction, leases that fence it, keys that do it once."""

import itertools
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

from .. import arguments, keys
from ..clock import to_micros
from ..codec import seal, unseal
from ..core.bridge import run_now
from ..core.contention import Attempts
from ..core.namespace import Rows, Scope
from ..core.operation import Blocking, M, Suspending
from ..core.transaction import Transaction
from ..engine import Row
from ..errors import Conflict, InvalidArgument
from ..families.leases import Lease, check_time, fence, look, lost
from ..values import wrapper
from .families import Families

R = TypeVar("R")


class AlreadyDone(BaseException):
    """Unwinds a function whose idempotency key was used before; no handler of errors is meant to see it."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class Once:
    """An idempotency key: the return value is kept in the root of what the function changed."""

    def __init__(self, tx: Transaction, key: str) -> None:
        self._tx = tx
        self._key = key
        self._checked = False
        tx.rows.on_first_read = self._check

    async def look(self) -> None:
        """Look where the key itself says, before the function is called: mostly that is the root of what it changes."""
        rows = self._tx.scope.reader.at(self._key)
        (row,) = await rows.peek([self._row(rows.root)])
        await self._unwind(rows, row)

    async def _check(self, rows: Rows) -> None:
        self._checked = True
        await self._unwind(rows, await rows.get(self._row(rows.root)))

    async def _unwind(self, rows: Rows, row: Row | None) -> None:
        if row is not None:
            value = await wrapper.fetch(rows, row.key, unseal(row.key, row.value))
            raise AlreadyDone(self._tx.scope.codec.decode(value))

    def _row(self, root: str) -> bytes:
        """The key's row; the root is in it, so that a copy to another number of parts finds its way."""
        return self._tx.scope.key(keys.ONCE, keys.path(root, self._key))

    async def keep(self, value: Any) -> None:
        """Store the return value in the same commit."""
        rows = self._tx.rows if self._tx.rows.entered else self._tx.at(self._key)
        if not self._checked:
            rows.on_first_read = None
            await self._check(rows)
        key = self._row(rows.root)
        data = self._tx.scope.codec.encode(value)
        rows.put(key, seal(key, await wrapper.keep(rows, key, data, 1)))
        at = keys.number(to_micros(self._tx.scope.clock.now()))
        rows.put(self._tx.scope.key(keys.ONCE_AT, at + keys.path(rows.root, self._key)), b"")


async def commit(tx: Transaction, lease: Lease | None) -> None:
    """Commit a user's transaction. Raises `Conflict`, or `LostLease` where its lease was taken, given up or revoked."""
    if lease is not None:
        await check_time(tx, lease)
    try:
        await tx.commit()
    except Conflict as error:
        if lease is not None:  # whatever else changed too: its token decides what the caller is told
            current = await look(tx.scope, lease.key)
            if current.token != lease.token or current.owner is None:
                raise lost(lease.key, current) from error
        raise


class OpenTransaction(Families[M]):
    """The store's families on one transaction: what ``with store.transaction() as tx`` gives."""

    def __init__(self, face: M, tx: Transaction, lease: Lease | None) -> None:
        self._face = face
        self._tx = tx
        self._lease = lease


class BlockingTransaction:
    """``with store.transaction() as tx``."""

    def __init__(self, scope: Scope, lease: Lease | None, any_root: bool) -> None:
        self._tx = Transaction(scope, any_root=check_any_root(scope, any_root))
        self._lease = lease

    def __enter__(self) -> OpenTransaction[Blocking]:
        if self._lease is not None:
            run_now(fence(self._tx, self._lease))
        return OpenTransaction(Blocking(self._tx.scope, self._tx), self._tx, self._lease)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._tx.close()
            return
        run_now(commit(self._tx, self._lease))


class SuspendingTransaction:
    """``async with store.transaction() as tx``; may be entered and left in different tasks."""

    def __init__(self, scope: Scope, lease: Lease | None, any_root: bool) -> None:
        self._tx = Transaction(scope, any_root=check_any_root(scope, any_root))
        self._lease = lease

    async def __aenter__(self) -> OpenTransaction[Suspending]:
        if self._lease is not None:
            await fence(self._tx, self._lease)
        return OpenTransaction(Suspending(self._tx.scope, self._tx), self._tx, self._lease)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._tx.close()
            return
        await commit(self._tx, self._lease)


def check_any_root(scope: Scope, any_root: bool) -> bool:
    """`any_root` where it can be kept; else `InvalidArgument`."""
    if any_root and scope.parts > 1:
        raise InvalidArgument(
            f"any_root needs an embedded store; this one has {scope.parts} parts, and a transaction is in one",
            what="any_root",
            value=any_root,
        )
    return any_root


def check_function(function: Any) -> None:
    """Raise `InvalidArgument` for what cannot be called."""
    if not callable(function):
        raise InvalidArgument(
            f"{function!r} cannot be called; give a function of a transaction", what="function", value=function
        )


async def transact(scope: Scope, function: Callable[[Transaction], Awaitable[R]], tries: int, once: str | None) -> R:
    """Run a function in a transaction, again after each `Conflict`; `once`: at most once for that key."""
    tries = arguments.number(tries, "tries", least=1)
    once = arguments.optional_name(once, "once")
    attempts = Attempts(scope, math.inf)
    try:
        for attempt in itertools.count(1):
            tx = Transaction(scope)
            receipt = None if once is None else Once(tx, once)
            try:
                if receipt is not None:
                    await receipt.look()
                result = await function(tx)
                if receipt is not None:
                    await receipt.keep(result)
                await tx.commit()
                return result
            except AlreadyDone as earlier:
                value: R = earlier.value
                return value
            except Conflict as error:
                if attempt >= tries:
                    raise
                await attempts.pause(tx.rows.root, error)
            finally:
                tx.close()
    finally:
        attempts.end()
    raise AssertionError("unreachable")
