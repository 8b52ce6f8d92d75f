"""Going on through an outage: how long a loop pauses between its tries, and how often it says so."""

import logging
import random

from ..clock import Clock
from ..errors import OutcomeUnknown, StoreError

LEAST_SECONDS, MOST_SECONDS = 0.1, 10.0
"""The first pause and the longest. Short beside a lease, so that whoever held one before has a chance to renew it."""

SAY_SECONDS = 60.0
"""How often a loop that is still trying says so."""


def passes(error: StoreError) -> bool:
    """Say whether the same step may succeed later, and may be done again although it may have happened already."""
    return error.retry or isinstance(error, OutcomeUnknown)


class Outage:
    """The tries of one loop while its database is away: pauses that grow, and a line of the log now and then."""

    def __init__(self, log: logging.Logger, loop: str, clock: Clock) -> None:
        self._log = log
        self._loop = loop
        self._clock = clock
        self._tries = 0
        self._began = self._said = 0.0

    def failed(self, error: StoreError) -> float:
        """Count a failed try; gives the seconds to pause before the next one."""
        now = self._clock.monotonic()
        if not self._tries:
            self._began = self._said = now
            self._log.warning("%s goes on trying: %s", self._loop, error)
        elif now - self._said >= SAY_SECONDS:
            self._said = now
            self._log.warning("%s has been trying for %.0f s: %s", self._loop, now - self._began, error)
        self._tries += 1
        longest = min(LEAST_SECONDS * 2.0 ** min(self._tries, 20), MOST_SECONDS)
        return random.uniform(longest / 2, longest)

    def over(self) -> None:
        """Note that a try succeeded."""
        if self._tries:
            self._tries = 0
            self._log.warning("%s goes on after %.1f s", self._loop, self._clock.monotonic() - self._began)
