"""Retention: what is over goes, in small steps, so that a store does not grow for ever."""

import asyncio
import logging
import threading
from contextlib import suppress

from .. import arguments, keys
from ..codec.shown import Shown
from ..core.bridge import run_now
from ..core.namespace import Reader, Scope
from ..core.operation import Family, M, operation, procedure, reading
from ..core.outage import Outage, passes
from ..core.transaction import Transaction
from ..errors import AlreadyExists, Closed, LostLease, StoreError
from . import feed
from .feed import Pin
from .policy import Policy, check_policy, open_policy, policies, policy_key, write_policy
from .records import Going
from .run import Removed, old_keys, run_once

log = logging.getLogger("stateroom.retention")

_EXAMPLES = 5


class Due(Shown, frozen=True):
    """The records of one family that would go, and why."""

    family: str
    count: int
    why: str
    """What the policy says."""
    examples: tuple[str, ...]
    """A few of them."""


class Plan(Shown, frozen=True):
    """The effect of a run with no bounds now."""

    items: tuple[Due, ...]
    pins: tuple[Pin, ...]
    """Checkpoints that hold back changes which are old enough to go."""

    @property
    def count(self) -> int:
        """How much would go in all."""
        return sum(item.count for item in self.items)


class Retention(Family[M]):
    """``store.retention``: policies, and what applies them."""

    _stopping: threading.Event | None = None
    _runner: "threading.Thread | asyncio.Task[None] | None" = None
    _wake: asyncio.Event | None = None

    @operation
    async def set(self, tx: Transaction, policy: Policy) -> Policy:
        """Keep a policy, in place of the one its family had. Raises `InvalidArgument`."""
        checked = check_policy(policy)
        write_policy(tx, checked)
        return checked

    @reading
    async def get(self, tx: Reader, family: str) -> Policy | None:
        """The policy of a family, or None."""
        row = await tx.at(keys.POLICY_ROOT).get(policy_key(tx.scope, arguments.name(family, "family")))
        return None if row is None else open_policy(tx.scope, row)

    @reading
    async def list(self, tx: Reader) -> tuple[Policy, ...]:
        """Every policy, by family."""
        return tuple(await policies(tx))

    @operation
    async def delete(self, tx: Transaction, family: str) -> bool:
        """Forget a family's policy; False if there is none. From then on nothing of it goes."""
        key = policy_key(tx.scope, arguments.name(family, "family"))
        if await tx.at(keys.POLICY_ROOT).get(key) is None:
            return False
        tx.at(keys.POLICY_ROOT).delete(key)
        return True

    @procedure
    async def plan(self) -> Plan:
        """Return what would go now and why, without removing anything; and which checkpoints hold the feed back."""
        scope = self._scope
        items: list[Due] = []
        pins: list[Pin] = []
        for policy in await policies(scope.reader):
            count = 0
            examples: list[str] = []
            if policy.family == "feed":
                allowed = await feed.limits(scope, policy)
                count, examples = await feed.count_due(scope, allowed)
                pins = await feed.pins(scope, policy)
            elif policy.family == "once":
                cut = len(scope.key(keys.ONCE_AT)) + 8
                for part in range(scope.parts):
                    async for batch in old_keys(scope, policy, part):
                        count += len(batch)
                        examples += ["/".join(map(str, keys.parse(key[cut:], (str, str)))) for key in batch[:_EXAMPLES]]
            else:
                eviction = Going(scope, policy)
                for number, lane in enumerate(eviction.lanes):
                    async for _, paths in eviction.batches(number):
                        due = await eviction.due(lane.part, paths)
                        count += len(due)
                        examples += ["/".join(map(str, path)) for path in due[:_EXAMPLES]]
            items.append(Due(policy.family, count, policy.why, tuple(examples[:_EXAMPLES])))
        return Plan(tuple(items), tuple(pins))

    @procedure
    async def run(self, max_records: int = 1000, max_seconds: float = 10) -> Removed:
        """Remove what may go: at most `max_records`, for at most about `max_seconds`.

        Each record goes with everything that hangs on it, in small commits, so that no writer waits long; its deletion
        is a change in the feed. Expired results and uploads go in the same run. Where a bound is reached the next run
        begins with the next policy: none waits for ever for another. Raises `LostLease` while another process runs it.
        """
        max_records = arguments.number(max_records, "max_records", least=1)
        max_seconds = arguments.seconds(max_seconds, "max_seconds", zero=False)
        return await run_once(self._scope, max_records, max_seconds)

    @procedure
    async def start(self, every: float = 600) -> None:
        """Run now and every so many seconds, in a thread of its own (on an `AsyncStore`: a task), until `stop`.

        Another process that does the same is left to it. Raises `AlreadyExists` when it was started.
        """
        every = arguments.seconds(every, "every", zero=False)
        await policies(self._scope.reader)  # on a closed store the caller is told, not a log
        if self._stopping is not None:
            raise AlreadyExists("retention runs already; stop it first", kind="retention")
        stopping = self._stopping = threading.Event()
        if self._scope.suspends:
            self._wake = asyncio.Event()
            work = _forever(self._scope, every, stopping, self._wake)
            self._runner = asyncio.get_running_loop().create_task(work, name="stateroom-retention")
        else:
            self._runner = threading.Thread(
                target=lambda: run_now(_forever(self._scope, every, stopping, None)),
                name="stateroom-retention",
                daemon=True,
            )
            self._runner.start()

    @procedure
    async def stop(self) -> None:
        """Stop what `start` began, after the commit in hand; a second call does nothing."""
        stopping, runner = self._stopping, self._runner
        self._stopping = self._runner = None
        if stopping is not None:
            stopping.set()
        if isinstance(runner, threading.Thread):
            if runner is not threading.current_thread():
                runner.join()
        elif runner is not None:
            if self._wake is not None:
                self._wake.set()
            await runner


async def _forever(scope: Scope, interval: float, stopping: threading.Event, wake: asyncio.Event | None) -> None:
    """Run now and every so many seconds; sooner after an outage, which it goes on through."""
    outage = Outage(log, "retention", scope.clock)
    while not stopping.is_set():
        pause = interval
        try:
            outcome = await run_once(scope, 1000, 10, stopping)
        except LostLease as error:  # another process does it
            log.debug("retention: %s", error)
        except Closed:  # by another door to the same engine: nothing will ever come of it
            return
        except StoreError as error:
            if passes(error):
                pause = min(interval, outage.failed(error))
            else:
                log.warning("retention did not come to its end, and is tried again in %s s: %s", interval, error)
        else:
            outage.over()
            if not outcome.complete and outcome.count:
                continue
        if wake is None:
            stopping.wait(pause)
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), pause)
