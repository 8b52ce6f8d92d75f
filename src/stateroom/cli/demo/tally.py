"""A run as the feed tells it: who completed what, how often, and what was restarted."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import stateroom

from .names import COMPLETED, RECOVERY, STARTED
from .sources import Counts, add


class Started(NamedTuple):
    """The message of a worker that holds the lease."""

    pid: int
    token: int
    taken_over: int


@dataclass
class Tally:
    """Built from changes alone: the numbers at the end come from what was stored, never from what was intended."""

    run: str
    completions: Counter[str] = field(default_factory=Counter)
    """Execution to how often its state became completed, or an event said that it had; 1 each where all is well."""
    counts: dict[str, Counts] = field(default_factory=dict)
    restarted: list[str] = field(default_factory=list)
    """Executions that a later worker took over, once for each time."""
    commits: int = 0
    workers: list[Started] = field(default_factory=list)
    _seconds: float = 0.0
    _since: datetime | None = None
    _last: datetime | None = None

    def take(self, changes: Iterable[stateroom.Change]) -> list[Started]:
        """Count some changes; gives the workers that started."""
        before = len(self.workers)
        for change in changes:
            if change.op == "emit" and change.family == STARTED and change.id == self.run:
                self._worker(change)
            elif change.op == "update" and getattr(change.record, "job_id", None) == self.run:
                self._update(change)
        return self.workers[before:]

    def _worker(self, change: stateroom.Change) -> None:
        self.workers.append(Started(**change.record))
        self._close()
        self._since = self._last = change.at

    def _update(self, change: stateroom.Change) -> None:
        execution, previous = change.record, change.previous
        assert isinstance(execution, stateroom.Execution)
        assert previous is None or isinstance(previous, stateroom.Execution)
        self.commits += 1
        self._last = change.at
        completions = sum(event.message == COMPLETED for event in change.events)
        became = execution.state == "completed" and (previous is None or previous.state != "completed")
        self.restarted += [execution.id for event in change.events if event.topic == RECOVERY]
        if completions or became:
            self.completions[execution.id] += max(completions, int(became))
            self.counts[execution.id] = Counts(1, execution.result["lines"], execution.result["definitions"])

    def _close(self) -> None:
        if self._since is not None and self._last is not None:
            self._seconds += (self._last - self._since).total_seconds()

    @property
    def done(self) -> int:
        """Executions that are completed."""
        return len(self.completions)

    @property
    def twice(self) -> int:
        """Executions that were completed more than once."""
        return sum(times > 1 for times in self.completions.values())

    @property
    def totals(self) -> Counts:
        """Files, lines and definitions of the completed ones."""
        return add(self.counts.values())

    def rate(self) -> float:
        """Commits a second, while a worker was at work."""
        current = (self._last - self._since).total_seconds() if self._since and self._last else 0.0
        seconds = self._seconds + current
        return self.commits / seconds if seconds else 0.0
