"""Computing a value once, however many threads and processes ask for it.

Whoever computes holds a claim: a row beside the result, with a time at which it ends unless it is renewed. The others
wait for the result, for the claim to be given up, or for its end: then one of them computes. The claim goes in the
batch that stores the result, so it leaves nothing behind.
"""

import asyncio
import os
import threading
from contextlib import suppress
from contextvars import ContextVar
from inspect import isawaitable, signature
from typing import Any

import msgspec
import ormsgpack

from ... import arguments, keys
from ...clock import to_micros
from ...codec import Codec, seal, unseal
from ...codec.malformed import parsing
from ...core.bridge import run_now
from ...core.namespace import Scope
from ...core.transaction import Transaction, transact
from ...engine import Row
from ...errors import Closed, InvalidArgument, StoreError
from .record import Encoded, Result, check_names, encode, find_live, keep, put, with_value

CLAIM_SECONDS = 10.0
"""How long a claim holds without being renewed; a dead holder's call is computed again after at most this."""

_LOOK_SECONDS = 1.0
"""How long a waiting caller sleeps at most: an injected clock may move without a commit."""


def content_hash(codec: Codec, value: Any) -> str:
    """Hash inputs, the same for equal ones: `Codec.content_hash`."""
    return codec.content_hash(value)


async def memo(scope: Scope, dag: str, function_name: str, inputs: Any, compute: Any) -> Any:
    """See `Results.memo`."""
    function_name = arguments.name(function_name, "function_name")
    if not callable(compute):
        raise InvalidArgument(f"compute is {compute!r}; give a function", what="compute", value=compute)
    claim = Claim(scope, dag, f"{function_name}:{content_hash(scope.codec, inputs)}")
    if claim.key in _computing.get():
        raise InvalidArgument(
            f"{function_name} with these inputs is being computed by the caller itself", what="compute", value=compute
        )
    while True:
        found = await claim.take()
        if found is not None:
            return found.value
        if not claim.held:
            continue
        token = _computing.set(_computing.get() | {claim.key})
        try:
            value = await claim.during(compute, inputs)
            encoded = encode(scope, value)
            return await claim.store(encoded, value, function_name, inputs)
        except BaseException:
            await claim.give_up()
            raise
        finally:
            _computing.reset(token)


_CLAIM = msgspec.msgpack.Decoder(tuple[bytes, int])
_computing: ContextVar[frozenset[bytes]] = ContextVar("stateroom_computing", default=frozenset())


class Claim:
    """The right to compute one result, until it is given up, taken over or not renewed."""

    def __init__(self, scope: Scope, dag: str, id: str) -> None:
        dag, id = check_names(dag, id)
        self.scope, self.dag, self.id = scope, dag, id
        self.root = keys.root(dag)
        self.key = scope.key(keys.RESULT_CLAIM, keys.path(dag, id))
        self.held = False
        self._nonce = os.urandom(16)

    async def take(self) -> Result | None:
        """The result where it is there; else take the claim, or wait for whoever has it."""
        scope = self.scope
        part = scope.part(self.root)
        (head,) = await scope.reader.in_part(part).peek([b""])
        found = await with_value(scope.reader, await find_live(scope.reader, self.dag, self.id))
        if found is not None:
            return found
        left = await transact(scope, self._take)
        if left is None:
            self.held = True
        else:
            await scope.engine.wait(part, 0 if head is None else head.version, min(left, _LOOK_SECONDS))
        return None

    async def _take(self, tx: Transaction) -> float | None:
        """Write the claim; where another holds it, or the result has come, for how many seconds to wait."""
        if await find_live(tx, self.dag, self.id) is not None:
            return 0.0
        owner, until = self._read(await tx.at(self.dag).get(self.key))
        now = to_micros(tx.scope.clock.now())
        if owner != self._nonce and until > now:
            return (until - now) / 1e6
        self._write(tx)
        return None

    def _read(self, row: Row | None) -> tuple[bytes, int]:
        if row is None:
            return b"", 0
        with parsing("a claim", kind="results", key=self.key):
            owner, until = _CLAIM.decode(unseal(self.key, row.value))
        return owner, until

    def _write(self, tx: Transaction) -> None:
        until = to_micros(tx.scope.clock.now()) + round(CLAIM_SECONDS * 1_000_000)
        tx.at(self.dag).put(self.key, seal(self.key, ormsgpack.packb([self._nonce, until])))

    async def renew(self) -> bool:
        """Hold it for longer; False where another has taken it over."""
        return await transact(self.scope, self._renew)

    async def _renew(self, tx: Transaction) -> bool:
        owner, _ = self._read(await tx.at(self.dag).get(self.key))
        if owner != self._nonce:
            return False
        self._write(tx)
        return True

    async def give_up(self) -> None:
        """Let the next caller compute. Where that cannot be said now, the claim ends by itself."""

        async def body(tx: Transaction) -> None:
            await self._remove(tx)

        with suppress(StoreError):  # what the caller's function raised is what the caller must see
            await transact(self.scope, body)

    async def _remove(self, tx: Transaction) -> None:
        owner, _ = self._read(await tx.at(self.dag).get(self.key))
        if owner == self._nonce:
            tx.at(self.dag).delete(self.key)

    async def store(self, encoded: Encoded, value: Any, producer: str, inputs: Any) -> Any:
        """Store what was computed and end the claim; where another was faster, its value."""

        async def body(tx: Transaction) -> bool:
            first = await find_live(tx, self.dag, self.id) is None
            if first:
                result = Result(
                    self.dag, self.id, value, digest=str(encoded.digest), size=len(encoded.data), producer=producer,
                    inputs=inputs,
                )  # fmt: skip
                await put(tx, result, await keep(tx, self.dag, self.id, encoded))
            await self._remove(tx)
            return first

        if await transact(self.scope, body):
            return value
        theirs = await with_value(self.scope.reader, await find_live(self.scope.reader, self.dag, self.id))
        return value if theirs is None else theirs.value

    async def during(self, compute: Any, inputs: Any) -> Any:
        """Run the caller's function, renewing the claim beside it."""
        if self.scope.suspends:
            renewing = asyncio.create_task(self._keep_renewing())
            try:
                value = _call(compute, inputs)
                return await value if isawaitable(value) else value
            finally:
                renewing.cancel()
        ended = threading.Event()
        thread = threading.Thread(target=self._renew_until, args=(ended,), name="stateroom-memo", daemon=True)
        thread.start()
        try:
            value = _call(compute, inputs)
        finally:
            ended.set()
            thread.join()
        if isawaitable(value):
            getattr(value, "close", lambda: None)()
            raise InvalidArgument("compute is a coroutine function; use it with AsyncStore", what="compute")
        return value

    def _renew_until(self, ended: threading.Event) -> None:
        while not ended.wait(CLAIM_SECONDS / 3):
            if not run_now(self._renewed()):
                return

    async def _keep_renewing(self) -> None:
        await asyncio.sleep(CLAIM_SECONDS / 3)
        while await self._renewed():
            await asyncio.sleep(CLAIM_SECONDS / 3)

    async def _renewed(self) -> bool:
        try:
            return await self.renew()
        except Closed:
            return False
        except StoreError:  # busy or out of reach: there is time for another try before the claim ends
            return True


def _call(compute: Any, inputs: Any) -> Any:
    """Run it; a function that must be given something is given the inputs."""
    try:
        signature(compute).bind()
    except TypeError:
        return compute(inputs)
    except ValueError:  # a builtin that does not tell
        return compute()
    return compute()
