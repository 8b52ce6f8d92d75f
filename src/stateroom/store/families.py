"""Every family on one face: what a store and an open transaction have in common."""

from functools import cached_property
from typing import Any, Generic

from ..core.operation import M
from ..errors import InvalidArgument
from ..families.executions.family import Executions
from ..families.instances.family import Instances
from ..families.leases.family import Leases
from ..families.locations import Locations
from ..families.machines.family import Machines
from ..families.results.family import Results
from ..families.savepoints.family import Savepoints
from ..families.timers.family import Timers
from ..retention.family import Retention
from ..watch.checkpoints import Checkpoints
from ..watch.dead_letters import DeadLetters
from ..watch.watcher import WatchedFeed


class Families(Generic[M]):
    """Every family, on one face."""

    _face: M

    @cached_property
    def instances(self) -> Instances[M]:
        """Workflow instances."""
        return Instances(self._face)

    @cached_property
    def executions(self) -> Executions[M]:
        """Guarded executions with their own events."""
        return Executions(self._face)

    @cached_property
    def machines(self) -> Machines[M]:
        """State-machine snapshots."""
        return Machines(self._face)

    @cached_property
    def results(self) -> Results[M]:
        """Values of DAG functions."""
        return Results(self._face)

    @cached_property
    def locations(self) -> Locations[M]:
        """Which node holds which result, and which nodes there are."""
        return Locations(self._face)

    @cached_property
    def timers(self) -> Timers[M]:
        """Durable timers."""
        return Timers(self._face)

    @cached_property
    def savepoints(self) -> Savepoints[M]:
        """Consistent cuts of runs."""
        return Savepoints(self._face)

    @cached_property
    def leases(self) -> Leases[M]:
        """Ownership with fencing tokens."""
        return Leases(self._face)

    @cached_property
    def feed(self) -> WatchedFeed[M]:
        """Every change, in order."""
        return WatchedFeed(self._face)

    @cached_property
    def checkpoints(self) -> Checkpoints[M]:
        """Consumers' positions in the feed."""
        return Checkpoints(self._face)

    @cached_property
    def dead_letters(self) -> DeadLetters[M]:
        """Changes that watchers gave up on."""
        return DeadLetters(self._face)

    @cached_property
    def retention(self) -> Retention[M]:
        """Return what may go when, and what takes it away."""
        return Retention(self._face)

    def watch(self, *args: Any, **kwargs: Any) -> Any:
        """Refused on a transaction."""
        raise InvalidArgument("watch cannot be used inside a transaction", what="watch")

    @property
    def transaction(self) -> Any:
        """Refused on a transaction: one cannot be nested in another."""
        raise InvalidArgument("a transaction cannot be nested; use the one you are in", what="transaction")
