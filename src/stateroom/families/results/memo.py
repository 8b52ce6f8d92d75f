"""Computing a value once, however many threads and processes ask for it.

Whoever computes holds a claim: a row beside the result, with a time at which it ends unless it is renewed. The others
wait for the result, for the claim to be given up, or for its end: then one of them computes. The claim goes in the
batch that stores the result, so it leaves nothing behind.
"""

from collections.abc import Collection, Mapping
from contextvars import ContextVar
from inspect import isawaitable, signature
from typing import Any

import msgspec

from ... import arguments
from ...codec import Codec
from ...core.namespace import Scope
from ...core.transaction import Transaction, transact
from ...core.turns import apart, is_large
from ...errors import InvalidArgument, Timeout, Undecodable
from ...limits import INLINE_BYTES
from .claims import Claim, renewals
from .record import (
    Encoded,
    Result,
    encode_apart,
    encode_part,
    expiry,
    find_live,
    keep,
    keep_data,
    put,
    with_value,
)

_LOOK_SECONDS = 1.0
"""How long a waiting caller sleeps at most: an injected clock may move without a commit."""

_computing: ContextVar[frozenset[tuple[int, bytes]]] = ContextVar("stateroom_computing", default=frozenset())
"""Claims that this task or thread is computing under, each with the database it is in."""


def content_hash(codec: Codec, value: Any) -> str:
    """Hash inputs, the same for equal ones: `Codec.content_hash`."""
    return codec.content_hash(value)


class Inputs(msgspec.Struct, frozen=True):
    """The inputs of one call as they were before it."""

    function_name: str
    data: bytes
    """Encoded, without what is ignored."""
    digest: str

    @property
    def id(self) -> str:
        """The id of the result."""
        return f"{self.function_name}:{self.digest}"


async def read_inputs(scope: Scope, function_name: str, inputs: Any, ignore: Collection[str]) -> Inputs:
    """Encode and hash inputs, without the arguments to ignore. Raises `InvalidArgument`."""
    function_name = arguments.name(function_name, "function_name")
    names = frozenset(arguments.names(ignore, "ignore"))
    chosen = inputs
    if names:
        if not isinstance(inputs, Mapping):
            raise InvalidArgument(
                f"ignore names arguments, and inputs is a {type(inputs).__name__}; give inputs as a mapping",
                what="ignore",
                value=ignore,
            )
        unknown = sorted(names - inputs.keys())
        if unknown:
            raise InvalidArgument(f"ignore names {unknown[0]!r}, which is in no input", what="ignore", value=ignore)
        chosen = {name: value for name, value in inputs.items() if name not in names}

    def read() -> tuple[bytes, str]:
        # Encoded first: that says where inputs nest too deep or contain themselves.
        return encode_part(scope, chosen, "inputs"), content_hash(scope.codec, chosen)

    return Inputs(function_name, *await apart(scope, is_large(chosen), read))


async def memo(
    scope: Scope,
    dag: str,
    function_name: str,
    inputs: Any,
    compute: Any,
    *,
    ttl: Any = None,
    timeout: Any = None,
    ignore: Collection[str] = (),
) -> Any:
    """See `Results.memo`."""
    if not callable(compute):
        raise InvalidArgument(f"compute is {compute!r}; give a function", what="compute", value=compute)
    expiry(scope, ttl)  # a ttl that is none is refused before anything is computed
    seconds = None if timeout is None else arguments.seconds(timeout, "timeout")
    before = await read_inputs(scope, function_name, inputs, ignore)
    call = _Call(scope, dag, before, ttl)
    if call.mark in _computing.get():
        raise InvalidArgument(
            f"{function_name} with these inputs is being computed by the caller itself", what="compute", value=compute
        )
    return await call.value(compute, inputs, seconds)


class _Call:
    """One caller's way to a value: found, waited for, or computed."""

    def __init__(self, scope: Scope, dag: str, inputs: Inputs, ttl: Any) -> None:
        self._scope, self._inputs, self._ttl = scope, inputs, ttl
        self.claim = Claim(scope, dag, inputs.id)
        self.mark = id(scope.engine), self.claim.key
        self._useless = 0
        """The version of a result that cannot be rebuilt here: it is computed again."""

    async def value(self, compute: Any, inputs: Any, seconds: float | None) -> Any:
        """The value. Raises `Timeout` after waiting so long for whoever computes it."""
        scope, claim = self._scope, self.claim
        deadline = None if seconds is None else scope.clock.monotonic() + seconds
        part = scope.part(claim.root)
        while True:
            (head,) = await scope.reader.in_part(part).peek([b""])
            result = await self._find()
            if result is not None:
                return result.value
            try:
                remaining = await claim.take_to_the_end(self._useless)
                if remaining is None:
                    return await self._compute(compute, inputs)
            except BaseException:
                # Also where taking the claim was interrupted: its commit may have happened.
                await claim.withdraw()
                raise
            patience = _LOOK_SECONDS
            if deadline is not None:
                patience = min(patience, deadline - scope.clock.monotonic())
                if patience <= 0:
                    raise Timeout(f"{claim.id} of DAG {claim.dag!r} was not computed by its holder within {seconds} s")
            await scope.engine.wait(part, 0 if head is None else head.version, min(remaining, patience))

    async def _find(self) -> Result | None:
        """The result where it is there, and can be rebuilt here."""
        claim = self.claim
        reader = self._scope.reader
        try:
            return await with_value(reader, await find_live(reader, claim.dag, claim.id), inputs=False)
        except Undecodable:
            stored = await find_live(reader, claim.dag, claim.id, raw=True)
            self._useless = 0 if stored is None else stored.row.version
            return None

    async def _compute(self, compute: Any, inputs: Any) -> Any:
        scope, claim = self._scope, self.claim
        token = _computing.set(_computing.get() | {self.mark})
        renewing = renewals(scope)
        renewing.add(claim)
        try:
            value = call(compute, inputs)
            if isawaitable(value):
                if not scope.suspends:
                    getattr(value, "close", lambda: None)()
                    raise InvalidArgument("compute is a coroutine function; use it with AsyncStore", what="compute")
                value = await value
            encoded = await encode_apart(scope, value)
            return await self._store(encoded)
        finally:
            renewing.remove(claim)
            _computing.reset(token)

    async def _store(self, encoded: Encoded) -> Any:
        """Store what was computed and end the claim; gives the value as everybody reads it.

        Where the claim is lost nothing is stored: another was faster and its value counts, or the DAG was cleared
        meanwhile, and what began before is not kept after.
        """
        scope, claim = self._scope, self.claim
        value = await apart(scope, len(encoded.data) > INLINE_BYTES, encoded.value, scope)

        async def body(tx: Transaction) -> bool:
            if not await claim.check(tx):
                return False
            result = Result(
                claim.dag, claim.id, value, digest=str(encoded.digest), size=len(encoded.data),
                producer=self._inputs.function_name, inputs=self._given(), expires_at=expiry(scope, self._ttl),
            )  # fmt: skip
            value_apart = await keep(tx, claim.dag, claim.id, encoded)
            inputs_apart = await keep_data(tx, claim.dag, claim.id, self._inputs.data)
            await put(tx, result, value_apart, inputs_apart)
            claim.remove(tx)
            return True

        stored = await transact(scope, body)
        stored_result = None if stored else await self._find()
        return value if stored_result is None else stored_result.value

    def _given(self) -> Any:
        """The inputs as they were before the call, which may have changed them; None where they are kept apart."""
        data = self._inputs.data
        return None if len(data) > INLINE_BYTES else self._scope.codec.decode(data, raw=True)


def call(compute: Any, inputs: Any) -> Any:
    """Call a function with the inputs, unless it takes no argument at all."""
    try:
        parameters = signature(compute)
    except ValueError:  # a class or function in C that does not tell
        return _call_blindly(compute, inputs)
    try:
        parameters.bind(inputs)
    except TypeError:
        return compute()
    return compute(inputs)


def _call_blindly(compute: Any, inputs: Any) -> Any:
    try:
        return compute(inputs)
    except TypeError as error:
        trace = error.__traceback__
        if trace is not None and trace.tb_next is None and "argument" in str(error):
            return compute()  # it refused to be called so, and did nothing
        raise
