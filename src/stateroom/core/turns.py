"""Give way to the other tasks of an event loop: between steps of long work, and for one long step in a thread."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .namespace import Scope

R = TypeVar("R")

LONG_BYTES = 1 << 20
"""Bytes from which on a single step (encode, decode, hash) leaves the loop: some milliseconds of it."""

_LOOKED_AT = 4096
"""Objects that `is_large` looks at before it calls a value large."""


async def give_way(scope: Scope) -> None:
    """Let other tasks run; nothing on the blocking face."""
    if scope.suspends:
        await asyncio.sleep(0)


async def apart(scope: Scope, long: bool, call: Callable[..., R], *arguments: Any) -> R:
    """Make a call that only computes: in another thread where it is `long` and there is an event loop to hold up."""
    if long and scope.suspends:
        return await asyncio.to_thread(call, *arguments)
    return call(*arguments)


def is_large(value: Any) -> bool:
    """Say whether encoding a value may take long: it has over `LONG_BYTES`, or thousands of objects."""
    size, count = 0, 0
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        count += 1
        if isinstance(item, str | bytes | bytearray | memoryview):
            size += len(item)
        elif isinstance(item, dict | list | tuple | set | frozenset):
            if len(item) > _LOOKED_AT:
                return True
            waiting += _parts(item)
        else:
            size += getattr(item, "nbytes", 0) if isinstance(getattr(item, "nbytes", 0), int) else 0
            waiting += getattr(item, "__dict__", {}).values()
        if size > LONG_BYTES or count > _LOOKED_AT:
            return True
    return False


def _parts(container: Any) -> Iterable[Any]:
    return [*container.keys(), *container.values()] if isinstance(container, dict) else container
