"""The right to compute one result: a row beside it, with a time at which it ends unless it is renewed.

A claim is renewed by a thread of its own, not by the caller's event loop: a function that computes for a minute
without an ``await`` holds up its loop, and must not lose its claim for it.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import msgspec
import ormsgpack

from ... import keys
from ...clock import to_micros
from ...codec import seal, unseal
from ...codec.malformed import parsing
from ...core.bridge import run_now
from ...core.namespace import Scope
from ...core.transaction import Transaction, transact
from ...engine import Row
from ...errors import Closed, StoreError
from .record import check_names, find_live

R = TypeVar("R")

CLAIM_SECONDS = 10.0
"""How long a claim holds without being renewed; a dead holder's call is computed again after at most this."""

_CLAIM = msgspec.msgpack.Decoder(tuple[bytes, int])
"""Whose it is, and until when, in microseconds since 1970."""


class Claim:
    """The right to compute one result, until it is given up, taken over, cleared or not renewed."""

    def __init__(self, scope: Scope, dag: str, id: str) -> None:
        dag, id = check_names(dag, id)
        self.scope, self.dag, self.id = scope, dag, id
        self.root = keys.root(dag)
        self.key = scope.key(keys.RESULT_CLAIM, keys.path(dag, id))
        self._nonce = os.urandom(16)
        self._taking: asyncio.Future[float | None] | None = None

    async def take_to_the_end(self, useless: int) -> float | None:
        """As `take`, which goes on where the caller is cancelled meanwhile: see `withdraw`."""
        if not self.scope.suspends:
            return await self.take(useless)
        self._taking = _task(self.take(useless))
        return await asyncio.shield(self._taking)

    async def withdraw(self) -> None:
        """Give it up, held or not, also where a caller that was taking it was cancelled or interrupted."""
        if self.scope.suspends:
            await asyncio.shield(_task(self._withdraw()))  # goes on where the caller is cancelled once more
        else:
            await self.give_up()

    async def _withdraw(self) -> None:
        if self._taking is not None:
            await asyncio.gather(self._taking, return_exceptions=True)
        await self.give_up()

    async def take(self, useless: int = 0) -> float | None:
        """Take the claim. Gives None once it is held, else for how many seconds to wait: another holds it, or the
        result has come. `useless`: the version of a row that is no result for this caller.
        """

        async def body(tx: Transaction) -> float | None:
            stored = await find_live(tx, self.dag, self.id, raw=True)
            if stored is not None and stored.row.version != useless:
                return 0.0
            owner, until = self._read(await tx.at(self.dag).get(self.key))
            now = to_micros(tx.scope.clock.now())
            if owner != self._nonce and until > now:
                return (until - now) / 1e6
            self._write(tx)
            return None

        return await transact(self.scope, body)

    async def renew(self) -> bool:
        """Hold it for another `CLAIM_SECONDS`; False where somebody else has taken it, or it was cleared."""

        async def body(tx: Transaction) -> bool:
            if not await self.check(tx):
                return False
            self._write(tx)
            return True

        return await transact(self.scope, body)

    async def give_up(self) -> None:
        """Let another compute. Where that cannot be said now, the claim ends by itself."""

        async def body(tx: Transaction) -> None:
            rows = tx.at(self.dag)
            owner, _ = self._read(await rows.get(self.key))
            # Written where it is absent too: a commit of `take` that its caller did not wait for may still be under
            # way, and this one, which expects that there is nothing, then conflicts with it and looks again.
            if owner in (b"", self._nonce):
                rows.delete(self.key)

        with suppress(StoreError):  # what the caller's function raised is what the caller must see
            await transact(self.scope, body)

    async def check(self, tx: Transaction) -> bool:
        """Say whether it is still held, at this transaction's commit too."""
        owner, _ = self._read(await tx.at(self.dag).get(self.key))
        return owner == self._nonce

    def remove(self, tx: Transaction) -> None:
        """Remove it, in the commit that stores the result."""
        tx.at(self.dag).delete(self.key)

    def _write(self, tx: Transaction) -> None:
        until = to_micros(tx.scope.clock.now()) + round(CLAIM_SECONDS * 1e6)
        tx.at(self.dag).put(self.key, seal(self.key, ormsgpack.packb([self._nonce, until])))

    def _read(self, row: Row | None) -> tuple[bytes, int]:
        """Who holds it and until when; nobody: empty and 0."""
        if row is None:
            return b"", 0
        with parsing("a claim", kind="results", key=self.key):
            owner, until = _CLAIM.decode(unseal(self.key, row.value))
        return owner, until


def _task(work: Coroutine[Any, Any, R]) -> "asyncio.Future[R]":
    task = asyncio.ensure_future(work)
    _going_on.add(task)
    task.add_done_callback(_going_on.discard)
    return task


_going_on: set["asyncio.Future[Any]"] = set()
"""Tasks that somebody must hold: the event loop itself holds them weakly."""


class Renewals:
    """Renews claims while their functions run: one thread, which lives as long as there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._due: dict[Claim, float] = {}
        self._running = False

    def add(self, claim: Claim) -> None:
        """Renew a claim from now on."""
        with self._lock:
            self._due[claim] = time.monotonic() + CLAIM_SECONDS / 3
            start, self._running = not self._running, True
        if start:
            threading.Thread(target=self._run, name="stateroom-memo", daemon=True).start()

    def remove(self, claim: Claim) -> None:
        """Renew a claim no more."""
        with self._lock:
            self._due.pop(claim, None)
        self._changed.set()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._due:
                    self._running = False
                    return
                claim, at = min(self._due.items(), key=_when)
            remaining = at - time.monotonic()
            if remaining > 0:
                self._changed.wait(remaining)
                self._changed.clear()
                continue
            renewal = _renewed(claim)
            with self._lock:
                if claim in self._due and renewal:
                    self._due[claim] = time.monotonic() + CLAIM_SECONDS / 3
                else:
                    self._due.pop(claim, None)


def _when(item: tuple[Claim, float]) -> float:
    return item[1]


def _renewed(claim: Claim) -> bool:
    """Renew a claim from this thread; False where there is nothing to renew any more."""
    run: Callable[[Any], Any] = asyncio.run if claim.scope.suspends else run_now
    try:
        return bool(run(claim.renew()))
    except Closed:
        return False
    except StoreError:  # busy or out of reach: there is time for another try before the claim ends
        return True
    except RuntimeError:  # the interpreter is shutting down
        return False


_renewals: "WeakKeyDictionary[Scope, Renewals]" = WeakKeyDictionary()
_making = threading.Lock()


def renewals(scope: Scope) -> Renewals:
    """Who renews the claims of a namespace: not held up by another database that does not answer."""
    with _making:
        return _renewals.setdefault(scope, Renewals())


def _forget() -> None:
    global _making
    _making = threading.Lock()
    _renewals.clear()  # their threads and functions are in the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
