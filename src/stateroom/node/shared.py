"""The shared store as a node sees it: perhaps away for a while, and then nobody waits for it twice."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import stateroom

from ..errors import Conflict, OutcomeUnknown, Unavailable

R = TypeVar("R")

SECONDS = 10.0
"""How long a node waits for one answer of the shared store."""

PAUSE_SECONDS = 5.0
"""How long it is taken for away after it gave none."""

AWAY = (Unavailable, OutcomeUnknown, Conflict)
"""What is raised where the shared store could not be asked; what was to be registered is made up for later."""


class Shared:
    """Asks the shared store, within a limit of time."""

    def __init__(self, store: "stateroom.AsyncStore") -> None:
        self.store = store
        self._away_until = 0.0

    async def ask(self, call: Callable[["stateroom.AsyncStore"], Awaitable[R]], *, patient: bool = False) -> R:
        """Return what the store answers. Raises `Unavailable` where it does not; `patient`: also just after it did
        not.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until and not patient:
            raise Unavailable("the shared store could not be reached a moment ago")
        try:
            async with asyncio.timeout(SECONDS):
                answer = await call(self.store)
        except AWAY:
            self._away_until = loop.time() + PAUSE_SECONDS
            raise
        except TimeoutError as error:
            self._away_until = loop.time() + PAUSE_SECONDS
            raise Unavailable(f"the shared store gave no answer within {SECONDS:g} s") from error
        self._away_until = 0.0
        return answer
