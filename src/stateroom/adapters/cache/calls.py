"""Remembered calls: a function's value is computed by one caller, and everybody else waits for it."""

import asyncio
import contextlib
import functools
import inspect
import threading
import uuid
from collections.abc import Callable, Collection
from typing import Any

from stateroom.errors import LostLease, Timeout

from ..faces import Face
from .entries import Entries, id_of

TTL = 30.0
"""Seconds that a computation is claimed for, renewed at a third; where its process died, another computes then."""
_WAIT = 1.0


def call_key(
    base: str, args: tuple[Any, ...], kwargs: dict[str, Any], typed: bool, ignore: Collection[int | str]
) -> tuple[Any, ...]:
    """The key of a call: the function's name and its arguments, as diskcache makes it."""
    positional = tuple(argument for number, argument in enumerate(args) if number not in ignore)
    named = sorted((name, value) for name, value in kwargs.items() if name not in ignore)
    key = (base, *positional, None, *(part for pair in named for part in pair))
    if typed:
        key += tuple(type(value).__name__ for value in (*positional, *(value for _, value in named)))
    return key


def name_of(function: Any) -> str:
    """A function's whole name."""
    return f"{function.__module__}.{function.__qualname__}"


class Calls:
    """Decorates functions; `run` and `arun` run an operation on the cache's face."""

    def __init__(self, entries: Entries, run: Any, arun: Any, note: Callable[[bool], None]) -> None:
        self._entries = entries
        self._run = run
        self._arun = arun
        self._note = note

    def decorate(
        self, function: Any, name: str | None, typed: bool, expire: Any, tag: Any, ignore: Collection[int | str]
    ) -> Any:
        """A function, plain or coroutine, whose values are remembered."""
        base = name_of(function) if name is None else name

        def key_of(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
            return call_key(base, args, kwargs, typed, ignore)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                return await self._acall(key_of(*args, **kwargs), lambda: function(*args, **kwargs), expire, tag)

            awaited.__cache_key__ = key_of  # type: ignore[attr-defined]
            return awaited

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            return self._call(key_of(*args, **kwargs), lambda: function(*args, **kwargs), expire, tag)

        plain.__cache_key__ = key_of  # type: ignore[attr-defined]
        return plain

    def _call(self, key: Any, compute: Callable[[], Any], expire: Any, tag: Any) -> Any:
        entry = self._run(lambda face: self._entries.find(face, key))
        self._note(entry is not None)
        while entry is None:
            claim = self._run(lambda face: self._claim(face, key))
            if not isinstance(claim, Claim):
                entry = claim
                continue
            return self._compute(claim, key, compute, expire, tag)
        return entry.value

    def _compute(self, claim: "Claim", key: Any, compute: Callable[[], Any], expire: Any, tag: Any) -> Any:
        with _Renewing(lambda: self._run(claim.renew)):
            try:
                value = compute()
                self._run(lambda face: self._entries.set(face, key, value, expire, tag))
            finally:
                self._run(claim.release)
        self._run(self._entries.settle)
        return value

    async def _acall(self, key: Any, compute: Callable[[], Any], expire: Any, tag: Any) -> Any:
        entry = await self._arun(lambda face: self._entries.find(face, key))
        self._note(entry is not None)
        while entry is None:
            claim = await self._arun(lambda face: self._claim(face, key))
            if not isinstance(claim, Claim):
                entry = claim
                continue
            return await self._acompute(claim, key, compute, expire, tag)
        return entry.value

    async def _acompute(self, claim: "Claim", key: Any, compute: Callable[[], Any], expire: Any, tag: Any) -> Any:
        renewing = asyncio.ensure_future(self._renew(claim))
        try:
            value = await compute()
            await self._arun(lambda face: self._entries.set(face, key, value, expire, tag))
        finally:
            renewing.cancel()
            await self._arun(claim.release)
        await self._arun(self._entries.settle)
        return value

    async def _renew(self, claim: "Claim") -> None:
        while True:
            await asyncio.sleep(TTL / 3)
            await self._arun(claim.renew)

    async def _claim(self, face: Face, key: Any) -> Any:
        """A claim to compute; or the result, where it has come; or None after some waiting."""
        id = id_of(key)
        lease_key = f"{self._entries.root}/call/{id}"
        try:
            lease = await face.done(face.store.leases.acquire(lease_key, f"call-{uuid.uuid4().hex}", TTL))
        except LostLease:
            try:
                await face.done(face.store.results.wait(self._entries.dag, id, timeout=_WAIT))
            except Timeout:
                return None
            return await self._entries.find(face, key)
        entry = await self._entries.find(face, key)  # who claimed before may have stored it meanwhile
        if entry is None:
            return Claim(lease)
        await face.done(face.store.leases.release(lease))
        return entry


class Claim:
    """The right to compute a value, for a while."""

    def __init__(self, lease: Any) -> None:
        self._lease = lease

    async def renew(self, face: Face) -> None:
        """Claim it for as long again."""
        self._lease = await face.done(face.store.leases.renew(self._lease, TTL))

    async def release(self, face: Face) -> None:
        """Let others compute."""
        with contextlib.suppress(LostLease):  # it took longer than the claim, and another computes already
            await face.done(face.store.leases.release(self._lease))


class _Renewing:
    """Renews a claim at a third of its time, in a thread that is only started when it takes that long."""

    def __init__(self, renew: Callable[[], None]) -> None:
        self._renew = renew
        self._timer: threading.Timer | None = None
        self._stopped = False

    def __enter__(self) -> None:
        self._start()

    def __exit__(self, *error: object) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _start(self) -> None:
        self._timer = threading.Timer(TTL / 3, self._again)
        self._timer.daemon = True
        self._timer.start()

    def _again(self) -> None:
        if not self._stopped:
            try:
                self._renew()
            except LostLease:
                return
            self._start()
