"""One bounded run of retention: every policy gets its turn, and in it every part, however much the others have to do.

A run that reaches a bound ends where it is, and the next one begins behind it: with the next policy, in that policy
with the next lane (a part, and in it the rows of one status), and in a lane behind the last record it looked at.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial

import msgspec

from .. import keys
from ..clock import new_id, to_micros
from ..codec import seal, unseal
from ..codec.shown import Shown
from ..core.namespace import Scope
from ..core.transaction import Transaction, chunks, transact
from ..engine import Compacting
from ..errors import StoreError
from ..families.renewal import Renewal
from ..families.results import clear
from ..families.sweeping import sweep
from ..values import wrapper
from . import counters, feed
from .policy import Policy, micros, policies
from .records import BATCH, Going

LEASE_KEY = keys.POLICY_ROOT + "/\x01run"
LEASE_SECONDS = 60.0

_SLICE = 500
"""What has expired and is removed before a run looks at its bounds again."""


class Removed(Shown, frozen=True):
    """The account of a run."""

    families: dict[str, int]
    """How much went of each family that has a policy; "feed" are changes, "expired" what had a time of its own."""
    bytes: int
    """By how much the file shrank, where the engine has one."""
    seconds: float
    complete: bool
    """False: a bound was reached, and the next run goes on."""
    unreadable: int = 0
    """Records that were met and could not be read, and so stay; `check` lists them."""

    @property
    def count(self) -> int:
        """How much went in all."""
        return sum(self.families.values())


class _Place:
    """The place where the last run ended, and so where the next one begins."""

    def __init__(self, key: bytes, first: int, tails: dict[int, bytes]) -> None:
        self._key = key
        self._found = first, dict(tails)
        self.first = first
        self.tails = tails
        """Of lanes that were not gone through to the end: behind what."""

    @classmethod
    async def load(cls, scope: Scope, name: str) -> "_Place":
        key = scope.key(keys.RETENTION_PLACE, keys.path(name))
        (row,) = await scope.reader.at(keys.POLICY_ROOT).peek([key])
        if row is None:
            return cls(key, 0, {})
        return cls(key, *msgspec.msgpack.decode(unseal(key, row.value), type=tuple[int, dict[int, bytes]]))

    def order(self, count: int) -> list[int]:
        """The numbers below `count`, beginning with the one whose turn it is."""
        return [(self.first + step) % count for step in range(count)]

    async def save(self, scope: Scope) -> None:
        """Keep it for the next run, where it has changed."""
        if (self.first, self.tails) == self._found:
            return

        async def body(tx: Transaction) -> None:
            tx.at(keys.POLICY_ROOT).put(self._key, seal(self._key, msgspec.msgpack.encode((self.first, self.tails))))

        await transact(scope, body)


class _Run:
    """A run of retention: its bounds, its account, and its lease."""

    def __init__(
        self, scope: Scope, renewal: Renewal, records: int, seconds: float, stopping: threading.Event | None
    ) -> None:
        self.scope = scope
        self._renewal = renewal
        self.unreadable = 0
        self.left = records
        self.gone: dict[str, int] = {}
        self._stopping = stopping
        self._started = scope.clock.monotonic()
        self._end = self._started + seconds

    @property
    def spent(self) -> bool:
        """Say whether it must end here."""
        stopped = self._stopping is not None and self._stopping.is_set()
        return stopped or self.left <= 0 or self.scope.clock.monotonic() >= self._end

    @property
    def seconds(self) -> float:
        return self.scope.clock.monotonic() - self._started

    def removed(self, family: str, count: int) -> None:
        """Count what went."""
        self.left -= count
        self.gone[family] += count

    async def keep(self) -> None:
        """Renew the lease where a third of it is over. Raises `LostLease`."""
        await self._renewal.keep()


async def run_once(
    scope: Scope, max_records: int, max_seconds: float, stopping: threading.Event | None = None
) -> Removed:
    """One bounded run; see `Retention.run`."""
    renewal = await Renewal.acquire(scope, LEASE_KEY, f"retention-{new_id()}", LEASE_SECONDS)
    run = _Run(scope, renewal, max_records, max_seconds, stopping)
    try:
        await _everything(run)
        complete = not run.spent
        freed = await _shrink(scope) if any(run.gone.values()) else 0
        return Removed(run.gone, freed, run.seconds, complete, run.unreadable)
    finally:
        with suppress(StoreError):  # it runs out by itself
            await renewal.release()


async def _everything(run: _Run) -> None:
    """Give all that may have to do something its turn, until a bound is reached."""
    works: list[Callable[[_Run], Awaitable[None]]] = []
    for policy in await policies(run.scope.reader):
        work = {"feed": _prune, "once": _forget_keys}.get(policy.family, _take)
        works.append(partial(work, policy=policy))
        run.gone[policy.family] = 0
    run.gone["expired"] = 0
    works += [_expire_results, _sweep_rows, _sweep_uploads, _sweep_counters]
    turn = await _Place.load(run.scope, "\x01turn")
    try:
        for number in turn.order(len(works)):
            if run.spent:
                break
            turn.first = number + 1  # also where this one fails: it must not keep the others from theirs
            await works[number](run)
    except StoreError:
        with suppress(StoreError):
            await turn.save(run.scope)
        raise
    if run.spent:
        await turn.save(run.scope)


async def _take(run: _Run, policy: Policy) -> None:
    """Records that a policy lets go."""
    eviction = Going(run.scope, policy)
    place = await _Place.load(run.scope, policy.family)
    for number in place.order(len(eviction.lanes)):
        place.first = number
        if not await _take_lane(run, eviction, place, number):
            break
    else:
        place.first = 0
    run.unreadable += eviction.unreadable
    await place.save(run.scope)


async def _take_lane(run: _Run, eviction: Going, place: _Place, number: int) -> bool:
    """Delete those of one lane; False where a bound was reached before its end."""
    part = eviction.lanes[number].part
    async for tail, paths in eviction.batches(number, place.tails.get(number, b"")):
        if run.spent:
            return False
        place.first = number + 1
        due = await eviction.due(part, paths)
        for batch in chunks(due, eviction.batch):
            await run.keep()
            run.removed(eviction.kind.name, await eviction.take(part, batch[: run.left]))
            if run.spent:  # the rest of these is for the next run
                return False
        place.tails[number] = tail
    place.tails.pop(number, None)
    return True


async def _each_part(run: _Run, family: str, step: Callable[[int], Awaitable[int]]) -> None:
    """Do something in each part until it removes nothing more there, beginning with the part whose turn it is."""
    place = await _Place.load(run.scope, family)
    for part in place.order(run.scope.parts):
        place.first = part
        while not run.spent:
            place.first = part + 1
            await run.keep()
            count = await step(part)
            if not count:
                break
            run.removed(family, count)
        if run.spent:
            break
    else:
        place.first = 0
    await place.save(run.scope)


async def _prune(run: _Run, policy: Policy) -> None:
    """Changes of the feed."""
    allowed = await feed.limits(run.scope, policy)
    await _each_part(run, "feed", lambda part: feed.prune(run.scope, part, allowed, run.left))


async def _forget_keys(run: _Run, policy: Policy) -> None:
    """Idempotency keys."""

    async def step(part: int) -> int:
        async for row_keys in old_keys(run.scope, policy, part):
            return await transact(run.scope, _forgetting(run.scope, row_keys[: run.left]), part=part)
        return 0

    await _each_part(run, "once", step)


async def old_keys(scope: Scope, policy: Policy, part: int) -> AsyncIterator[list[bytes]]:
    """Rows of a part that say when an idempotency key was used, of those that may go, some at a time."""
    by = to_micros(scope.clock.now()) - (micros(policy.older_than) or 0)
    start = scope.key(keys.ONCE_AT)
    stop = start + keys.number(max(0, by + 1))
    while rows := await scope.reader.in_part(part).scan(start, stop, limit=BATCH * 4):
        yield [row.key for row in rows]
        start = rows[-1].key + b"\0"


def _forgetting(scope: Scope, row_keys: list[bytes]) -> Callable[[Transaction], Awaitable[int]]:
    cut = len(scope.key(keys.ONCE_AT)) + 8

    async def body(tx: Transaction) -> int:
        for at in row_keys:
            rows, key = tx.at(str(keys.parse(at[cut:], (str,))[0])), scope.key(keys.ONCE, at[cut:])
            row = await rows.get(key)
            if row is not None:
                await wrapper.drop(rows, unseal(key, row.value))
            rows.delete(key)
            rows.delete(at)
        return len(row_keys)

    return body


async def _expire_results(run: _Run) -> None:
    """Results that had a time of their own."""
    scope = run.scope
    await _each_part(
        run,
        "expired",
        lambda part: clear.expire(scope, scope.clock.now(), min(run.left, _SLICE), parts=(part,)),
    )


async def _sweep_rows(run: _Run) -> None:
    """Return what removals of much left behind."""
    await _slices(run, lambda most: sweep(run.scope, max_rows=most))


async def _sweep_uploads(run: _Run) -> None:
    """Return what ended uploads and removals of large values left behind."""
    await _slices(run, lambda most: wrapper.expire_uploads(run.scope, run.scope.clock.now(), most))


async def _sweep_counters(run: _Run) -> None:
    """Counters of what is all gone: without them a count is 0 as well."""
    for part in range(run.scope.parts):
        if run.spent:
            return
        await run.keep()
        await counters.sweep(run.scope, part)


async def _slices(run: _Run, sweeper: Callable[[int], Awaitable[int]]) -> None:
    while not run.spent:
        await run.keep()
        count = await sweeper(min(run.left, _SLICE))
        if not count:
            return
        run.removed("expired", count)


async def _shrink(scope: Scope) -> int:
    """Give disk back, where the engine has a file of its own; gives by how many bytes it shrank."""
    engine = scope.direct
    if not isinstance(engine, Compacting):
        return 0
    return await asyncio.to_thread(engine.compact) if scope.suspends else engine.compact()
