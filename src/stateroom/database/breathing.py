"""Giving an event loop its turn within work that is long and never waits."""

import asyncio

from ..core.namespace import Scope


async def breathe(scope: Scope) -> None:
    """Let other tasks of the event loop run; on a blocking store nothing happens."""
    if scope.suspends:
        await asyncio.sleep(0)
