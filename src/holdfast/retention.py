"""Retention: what is over goes, in small steps, so that a store does not grow for ever."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec

from . import blobs, keys, retention_feed
from .bridge import run_now
from .clock import new_id, to_micros
from .codec import seal, unseal
from .errors import AlreadyExists, Closed, InvalidArgument, LostLease, StoreError
from .families import result_clear
from .families.dependents import sweep
from .families.lease import Lease, acquire, release, renew
from .operation import Family, M, operation, procedure, reading
from .retention_feed import Pin
from .retention_policy import Policy, check_policy, micros, open_policy, policies, policy_key, write_policy
from .retention_records import BATCH, Going, Path, commit_part
from .transaction import Reader, Scope, Transaction, transact

log = logging.getLogger("holdfast.retention")

LEASE_KEY = keys.POLICY_ROOT + "/\x01run"
LEASE_SECONDS = 60.0

SWEEPERS: list[Callable[[Scope, int], Awaitable[int]]] = []
"""What clears expired values: each removes at most so many and gives how many it removed. Families add theirs."""

_EXAMPLES = 5


class Due(msgspec.Struct, frozen=True):
    """What of one family would go, and why."""

    family: str
    count: int
    why: str
    """What the policy says."""
    examples: tuple[str, ...]
    """A few of them."""


class Plan(msgspec.Struct, frozen=True):
    """What a run with no bounds would do now."""

    items: tuple[Due, ...]
    pins: tuple[Pin, ...]
    """Checkpoints that hold back changes which are old enough to go."""

    @property
    def count(self) -> int:
        """How much would go in all."""
        return sum(item.count for item in self.items)


class Removed(msgspec.Struct, frozen=True):
    """What a run did."""

    families: dict[str, int]
    """How much went of each family that has a policy; "feed" are changes, "expired" what had a time of its own."""
    bytes: int
    """By how much the file shrank, where the engine has one."""
    seconds: float
    complete: bool
    """False: a bound was reached, and the next run goes on."""

    @property
    def count(self) -> int:
        """How much went in all."""
        return sum(self.families.values())


class Retention(Family[M]):
    """``store.retention``: policies, and what applies them."""

    _stopping: threading.Event | None = None
    _runner: "threading.Thread | asyncio.Task[None] | None" = None
    _wake: asyncio.Event | None = None

    @operation
    async def set(self, tx: Transaction, policy: Policy) -> Policy:
        """Keep a policy, in place of the one its family had. Raises `InvalidArgument`."""
        write_policy(tx, check_policy(policy))
        return policy

    @reading
    async def get(self, tx: Reader, family: str) -> Policy | None:
        """The policy of a family, or None."""
        row = await tx.get(keys.POLICY_ROOT, policy_key(tx.scope, keys.name(family, "family").decode()))
        return None if row is None else open_policy(tx.scope, row)

    @reading
    async def list(self, tx: Reader) -> tuple[Policy, ...]:
        """Every policy, by family."""
        return tuple(await policies(tx))

    @operation
    async def delete(self, tx: Transaction, family: str) -> bool:
        """Forget a family's policy; False if there is none. From then on nothing of it goes."""
        key = policy_key(tx.scope, keys.name(family, "family").decode())
        if await tx.get(keys.POLICY_ROOT, key) is None:
            return False
        tx.delete(keys.POLICY_ROOT, key)
        return True

    @procedure
    async def plan(self) -> Plan:
        """What would go now and why, without removing anything; and which checkpoints hold the feed back."""
        scope = self._scope
        items: list[Due] = []
        pins: list[Pin] = []
        for policy in await policies(scope.reader):
            count = 0
            examples: list[str] = []
            if policy.family == "feed":
                allowed = await retention_feed.limits(scope, policy)
                count, examples = await retention_feed.count_due(scope, allowed)
                pins = await retention_feed.pins(scope, policy)
            elif policy.family == "once":
                async for _, found in _old_keys(scope, policy):
                    count += len(found)
                    cut = len(scope.key(keys.ONCE_AT)) + 8
                    examples += ["/".join(map(str, keys.parse(key[cut:], (str, str)))) for key in found[:_EXAMPLES]]
            else:
                async for _, _, paths in _batches(scope, policy):
                    count += len(paths)
                    examples += ["/".join(map(str, path)) for path in paths[:_EXAMPLES]]
            items.append(Due(policy.family, count, policy.why, tuple(examples[:_EXAMPLES])))
        return Plan(tuple(items), tuple(pins))

    @procedure
    async def run(self, max_records: int = 1000, max_seconds: float = 10) -> Removed:
        """Remove what may go: at most `max_records`, for at most about `max_seconds`.

        Each record goes with everything that hangs on it, in small commits, so that no writer waits long; its deletion
        is a change in the feed. Expired results and uploads go in the same run. Raises `LostLease` while another
        process runs it.
        """
        keys.check_number(max_records, "max_records", least=1)
        check_seconds(max_seconds, "max_seconds")
        return await run_once(self._scope, max_records, max_seconds)

    @procedure
    async def start(self, every: float = 600) -> None:
        """Run now and every so many seconds, in a thread of its own (on an `AsyncStore`: a task), until `stop`.

        Another process that does the same is left to it. Raises `AlreadyExists` when it was started.
        """
        check_seconds(every, "every")
        await policies(self._scope.reader)  # on a closed store the caller is told, not a log
        if self._stopping is not None:
            raise AlreadyExists("retention runs already; stop it first", kind="retention")
        stopping = self._stopping = threading.Event()
        if self._scope.suspends:
            self._wake = asyncio.Event()
            work = _forever(self._scope, every, stopping, self._wake)
            self._runner = asyncio.get_running_loop().create_task(work, name="holdfast-retention")
        else:
            self._runner = threading.Thread(
                target=lambda: run_now(_forever(self._scope, every, stopping, None)),
                name="holdfast-retention",
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


def check_seconds(value: Any, what: str) -> None:
    """Raise `InvalidArgument` unless it is a number of seconds above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise InvalidArgument(f"{what} is {value!r}; use a number of seconds above 0", what=what, value=value)


class _Budget:
    """What a run may still do."""

    def __init__(self, scope: Scope, records: int, seconds: float, stopping: threading.Event | None) -> None:
        self._clock = scope.clock
        self._stopping = stopping
        self._started = scope.clock.monotonic()
        self._end = self._started + seconds
        self.left = records

    @property
    def spent(self) -> bool:
        """Whether it must end here."""
        stopped = self._stopping is not None and self._stopping.is_set()
        return stopped or self.left <= 0 or self._clock.monotonic() >= self._end

    @property
    def seconds(self) -> float:
        return self._clock.monotonic() - self._started


class _Place:
    """How far a run came through a family that has no index by time, so that the next one reaches what is behind."""

    def __init__(self, key: bytes, found: tuple[int, bytes]) -> None:
        self._key = key
        self._found = found
        self.part, self.tail = found

    @classmethod
    async def load(cls, scope: Scope, family: str) -> "_Place":
        key = scope.key(keys.RETENTION_PLACE, keys.path(family))
        (row,) = await scope.reader.peek(scope.part(keys.POLICY_ROOT), [key])
        part, tail = (0, b"") if row is None else msgspec.msgpack.decode(unseal(key, row.value), type=tuple[int, bytes])
        return cls(key, (part, tail) if part < scope.parts else (0, b""))

    def clear(self) -> None:
        """Begin at the beginning."""
        self.part, self.tail = 0, b""

    async def save(self, scope: Scope) -> None:
        """Keep it for the next run, where it has changed."""
        if (self.part, self.tail) == self._found:
            return

        async def body(tx: Transaction) -> None:
            packed = msgspec.msgpack.encode((self.part, self.tail))
            tx.put(keys.POLICY_ROOT, self._key, seal(self._key, packed))

        await transact(scope, body)


class _Keeper:
    """Holds the lease of the one that runs it, for as long as it takes."""

    def __init__(self, scope: Scope, lease: Lease) -> None:
        self._scope = scope
        self.lease = lease

    async def keep(self) -> None:
        """Renew the lease where a third of it is over. Raises `LostLease`."""
        left = (self.lease.expires_at - self._scope.clock.now()).total_seconds()
        if left < LEASE_SECONDS * 2 / 3:
            held = self.lease
            self.lease = await transact(self._scope, lambda tx: renew(tx, held, LEASE_SECONDS))


async def run_once(
    scope: Scope, max_records: int, max_seconds: float, stopping: threading.Event | None = None
) -> Removed:
    """One bounded run; see `Retention.run`."""
    owner = f"retention-{new_id()}"
    keeper = _Keeper(scope, await transact(scope, lambda tx: acquire(tx, LEASE_KEY, owner, LEASE_SECONDS)))
    budget = _Budget(scope, max_records, max_seconds, stopping)
    try:
        gone = {}
        for policy in await policies(scope.reader):
            work = {"feed": _prune, "once": _forget_keys}.get(policy.family, _take)
            gone[policy.family] = await work(scope, policy, keeper, budget)
        gone["expired"] = await _sweep(scope, budget)
        complete = not budget.spent
        freed = await _shrink(scope) if any(gone.values()) else 0
        return Removed(gone, freed, budget.seconds, complete)
    finally:
        with suppress(LostLease):
            await transact(scope, lambda tx: release(tx, keeper.lease))


async def _batches(
    scope: Scope, policy: Policy, place: _Place | None = None
) -> AsyncIterator[tuple[Going, int, list[Path]]]:
    """Records that may go, by part, some at a time; an empty batch is a sign of life.

    Begins at `place`, and moves it on when the next batch is asked for.
    """
    going = Going(scope, policy)
    if place is None or not going.scans:
        place = _Place(b"", (0, b""))
    for part in range(place.part, scope.parts):
        paths: list[Path] = []
        async for path in going.paths(part, place.tail if part == place.part else b""):
            paths.append(path)
            if len(paths) == going.batch:
                yield going, part, await going.due(part, paths)
                place.part, place.tail = part, keys.path(*paths[-1])
                paths = []
        if paths:
            yield going, part, await going.due(part, paths)
        place.part, place.tail = part + 1, b""


async def _take(scope: Scope, policy: Policy, keeper: _Keeper, budget: _Budget) -> int:
    place = await _Place.load(scope, policy.family)
    removed = 0
    async for going, part, paths in _batches(scope, policy, place):
        if budget.spent:
            break
        await keeper.keep()
        count = await going.take(part, paths[: budget.left])
        budget.left -= count
        removed += count
        if budget.left <= 0:  # the rest of this batch is for the next run
            break
    else:
        place.clear()  # to the end: the next run begins at the beginning
    await place.save(scope)
    return removed


async def _prune(scope: Scope, policy: Policy, keeper: _Keeper, budget: _Budget) -> int:
    allowed = await retention_feed.limits(scope, policy)
    removed = 0
    for part in range(scope.parts):
        while not budget.spent:
            await keeper.keep()
            count = await retention_feed.prune(scope, part, allowed, budget.left)
            if not count:
                break
            budget.left -= count
            removed += count
    return removed


async def _forget_keys(scope: Scope, policy: Policy, keeper: _Keeper, budget: _Budget) -> int:
    removed = 0
    async for part, found in _old_keys(scope, policy):
        if budget.spent:
            break
        await keeper.keep()
        count = await commit_part(scope, part, _forgetting(scope, found[: budget.left]))
        budget.left -= count
        removed += count
    return removed


async def _old_keys(scope: Scope, policy: Policy) -> AsyncIterator[tuple[int, "list[bytes]"]]:
    """Rows that say when an idempotency key was used, of those that may go."""
    by = to_micros(scope.clock.now()) - (micros(policy.older_than) or 0)
    start = scope.key(keys.ONCE_AT)
    stop = start + keys.number(max(0, by + 1))
    for part in range(scope.parts):
        at = start
        while rows := await scope.reader.scan_part(part, at, stop, limit=BATCH * 4):
            yield part, [row.key for row in rows]
            at = rows[-1].key + b"\0"


def _forgetting(scope: Scope, found: "list[bytes]") -> Callable[[Transaction], Awaitable[int]]:
    cut = len(scope.key(keys.ONCE_AT)) + 8

    async def body(tx: Transaction) -> int:
        for at in found:
            root, key = str(keys.parse(at[cut:], (str,))[0]), scope.key(keys.ONCE, at[cut:])
            row = await tx.get(root, key)
            if row is not None:
                await blobs.drop(tx, root, unseal(key, row.value))
            tx.delete(root, key)
            tx.delete(root, at)
        return len(found)

    return body


async def _sweep(scope: Scope, budget: _Budget) -> int:
    """Clear what removals and ended uploads left behind, and what families say has expired."""
    removed = 0
    for sweeper in (_expire_results, _sweep_rows, _sweep_uploads, *SWEEPERS):
        if budget.spent:
            break
        count = await sweeper(scope, budget.left)
        budget.left -= count
        removed += count
    return removed


async def _expire_results(scope: Scope, most: int) -> int:
    return await result_clear.expire(scope, scope.clock.now(), most)


async def _sweep_rows(scope: Scope, most: int) -> int:
    return await sweep(scope, max_rows=most)


async def _sweep_uploads(scope: Scope, most: int) -> int:
    return await blobs.expire_uploads(scope, scope.clock.now(), most)


async def _shrink(scope: Scope) -> int:
    """Give disk back, where the engine has a file of its own; gives by how many bytes it shrank."""
    shrink = getattr(scope.direct, "compact", None)
    if shrink is None:
        return 0
    return int(await asyncio.to_thread(shrink)) if scope.suspends else int(shrink())


async def _forever(scope: Scope, every: float, stopping: threading.Event, wake: asyncio.Event | None) -> None:
    """Run now and every so many seconds."""
    while not stopping.is_set():
        try:
            done = await run_once(scope, 1000, 10, stopping)
        except LostLease as error:  # another process does it
            log.debug("retention: %s", error)
        except Closed:  # by another door to the same engine: nothing will ever come of it
            return
        except StoreError as error:
            log.warning("retention did not come to its end, and is tried again in %s s: %s", every, error)
        else:
            if not done.complete and done.count:
                continue
        if wake is None:
            stopping.wait(every)
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), every)
