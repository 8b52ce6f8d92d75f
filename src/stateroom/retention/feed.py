"""Pruning the feed: a prefix of each part goes, and the floor that stays says so to whoever comes too late."""

from collections.abc import Sequence
from datetime import datetime

from .. import keys
from ..clock import from_micros, to_micros
from ..codec.shown import Shown
from ..core.namespace import Scope
from ..core.transaction import Transaction, transact
from ..engine import Row, stamped
from ..errors import Damaged, InvalidArgument
from ..feed import positions
from ..feed.feed import floor_key, floors, place_in
from ..feed.positions import BEGINNING, Vector
from ..limits import INT64_MAX
from ..records.entry import Entry, decode, feed_prefix
from ..values import wrapper
from ..watch.checkpoints import Checkpoint, all_checkpoints
from .policy import Policy, micros

RUN = 500
"""Entries that go in one batch, at most."""

LARGE = 16
"""Of them so many with a large value: each touches more rows."""


class Pin(Shown, frozen=True):
    """A checkpoint that holds back changes which are old enough to go."""

    name: str
    position: str
    updated_at: datetime
    """When the checkpoint was last set."""
    since: datetime
    """Of when the oldest change is that it holds back."""
    until: datetime | None
    """When that change goes all the same, and the consumer gets `Compacted`; None: never."""


class Limits:
    """Which entries may go now."""

    def __init__(self, policy: Policy, now: int, low: Vector) -> None:
        older, pinned = micros(policy.older_than) or 0, micros(policy.max_pinned)
        self.now = now
        self.old = now - older
        self.expired = None if pinned is None else now - max(pinned, older)
        self.low = low
        """The lowest checkpoint in each part."""

    def free(self, part: int, at: tuple[int, int], age: int) -> bool:
        """Say whether an entry may go."""
        if age > self.old:
            return False
        return at <= self.low[part] or (self.expired is not None and age <= self.expired)


async def vector_of(scope: Scope, checkpoint: Checkpoint) -> Vector:
    """Return where a checkpoint stands: BEGINNING holds everything."""
    if checkpoint.position == BEGINNING:
        return positions.beginning(scope)
    try:
        return await positions.read(scope, checkpoint.position)
    except InvalidArgument:  # of another time of this database: nobody can say what its consumer has seen
        return positions.beginning(scope)


async def limits(scope: Scope, policy: Policy) -> Limits:
    """Which entries may go now."""
    low: Vector = [(INT64_MAX, 0)] * scope.parts
    for checkpoint in await all_checkpoints(scope.reader):
        vector = await vector_of(scope, checkpoint)
        low = [min(pair) for pair in zip(low, vector, strict=True)]
    return Limits(policy, to_micros(scope.clock.now()), low)


async def pins(scope: Scope, policy: Policy) -> list[Pin]:
    """Who holds back what is old enough to go."""
    result: list[Pin] = []
    now = to_micros(scope.clock.now())
    old = Limits(policy, now, []).old
    floor = await floors(scope.reader)
    for checkpoint in await all_checkpoints(scope.reader):
        vector = await vector_of(scope, checkpoint)
        ages = [await _age_after(scope, part, max(vector[part], floor[part]), now) for part in range(scope.parts)]
        waiting = [age for age in ages if age is not None and age <= old]
        if waiting:
            since = from_micros(min(waiting))
            pinned = micros(policy.max_pinned)
            until = None if pinned is None else from_micros(min(waiting) + pinned)
            result.append(Pin(checkpoint.name, checkpoint.position, checkpoint.updated_at, since, until))
    return result


async def _age_after(scope: Scope, part: int, at: tuple[int, int], now: int) -> int | None:
    """Return the time of the first readable entry after a position."""
    aged = await _aged(scope, part, at, now)
    return next((age for _, entry, age in aged if entry is not None), None)


Aged = tuple[Row, Entry | None, int]
"""An entry, None where it cannot be read, and how old it is for certain: not younger than what came after it."""


async def _aged(scope: Scope, part: int, after: tuple[int, int], now: int) -> list[Aged]:
    """The next entries of a part, at most `RUN`.

    Commits are in order whatever the clocks said: one that is stamped in the future, by a clock that was wrong, came
    before all that follow it.
    """
    rows = await _entries(scope, part, after)
    opened = _opened(scope, rows)
    last = next((entry.at for _, entry in reversed(opened) if entry is not None), None)
    least = INT64_MAX
    if last is not None and last > now and len(rows) == RUN:
        least = await _least_after(scope, part, place_in(rows[-1].key), now)
    aged: list[Aged] = []
    for row, entry in reversed(opened):
        if entry is not None:
            least = min(least, entry.at)
        aged.append((row, entry, least))
    return aged[::-1]


async def _least_after(scope: Scope, part: int, after: tuple[int, int], now: int) -> int:
    """The lowest stamp of what comes next, up to the first that is not in the future."""
    least = INT64_MAX
    while rows := await _entries(scope, part, after):
        least = min([least, *(entry.at for _, entry in _opened(scope, rows) if entry is not None)])
        if least <= now or len(rows) < RUN:
            break
        after = place_in(rows[-1].key)
    return least


async def _entries(scope: Scope, part: int, after: tuple[int, int]) -> list[Row]:
    prefix = feed_prefix(scope)
    return await scope.reader.in_part(part).scan(stamped(prefix, *after) + b"\0", prefix + keys.END, limit=RUN)


def _opened(scope: Scope, rows: Sequence[Row]) -> list[tuple[Row, Entry | None]]:
    result: list[tuple[Row, Entry | None]] = []
    for row in rows:
        try:
            result.append((row, decode(scope, row.value)))
        except Damaged:  # goes with its neighbours: nobody can say how old it is
            result.append((row, None))
    return result


async def due(scope: Scope, part: int, allowed: Limits, after: tuple[int, int]) -> list[tuple[Row, Entry | None]]:
    """The next entries of a part that may go, at most `RUN`."""
    result: list[tuple[Row, Entry | None]] = []
    readable = large = 0
    aged = await _aged(scope, part, after, allowed.now)
    for row, entry, age in aged:
        if entry is not None:
            if not allowed.free(part, place_in(row.key), age):
                return result[:readable]
            large += any(form is not None and form[:1] != wrapper.INLINE for form in (entry.wrapped, entry.events))
            if large > LARGE:
                return result[:readable]
        elif place_in(row.key) > allowed.low[part] and allowed.expired is None:
            return result[:readable]
        result.append((row, entry))
        readable = len(result) if entry is not None else readable
    # What cannot be read goes with what comes after it, and a whole run of it alone.
    return result if not readable and len(aged) == RUN else result[:readable]


async def prune(scope: Scope, part: int, allowed: Limits, most: int) -> int:
    """Remove one run of entries and raise the floor in the same batch; gives how many went."""
    key = floor_key(scope)

    async def body(tx: Transaction) -> int:
        rows = tx.rows
        floor = await rows.get(key)  # another pruner raises it
        entries = await due(scope, part, allowed, (0, 0) if floor is None else place_in(floor.value))
        entries = entries[:most]
        if entries:
            rows.clear(entries[0][0].key, entries[-1][0].key + b"\0")
            rows.put(key, entries[-1][0].key[-10:])
        for _, entry in entries:
            if entry is not None:
                for wrapped in filter(None, (entry.wrapped, entry.events)):
                    await wrapper.drop(tx.at(entry.id), wrapped)
        return len(entries)

    return await transact(scope, body, part=part)


async def count_due(scope: Scope, allowed: Limits) -> tuple[int, list[str]]:
    """How many entries may go, and what a few of them are about."""
    total = 0
    examples: list[str] = []
    for part, floor in enumerate(await floors(scope.reader)):
        at = floor
        while entries := await due(scope, part, allowed, at):
            total += len(entries)
            named = (f"{entry.op} {entry.family} {entry.id}" for _, entry in entries if entry is not None)
            examples += [text for text, _ in zip(named, range(5 - len(examples)), strict=False)]
            at = place_in(entries[-1][0].key)
    return total, examples
