"""Leftovers of deletions, removed in small batches: ranges to be emptied, leases nobody uses, counters at 0."""

from .. import keys
from ..core.namespace import Scope
from ..core.transaction import Transaction, transact
from ..engine import read_counter
from ..errors import Conflict
from ..records import dependents
from .leases import sweeping as leases

_BATCH = 256

_COUNTERS = (keys.COUNTER, keys.HEADS + b"k")
"""Whose rows say nothing when they are 0: how many there are of something, and how many are active under a key."""


async def sweep(scope: Scope, *, max_rows: int = 1_000_000) -> int:
    """Empty what deletions left, at most `max_rows` rows; gives those removed with the records that had them.

    Leases and counters come last, and are not counted: they are nobody's data.
    """
    removed = await dependents.sweep(scope, max_rows=max_rows)
    if not removed:
        await leases.sweep(scope, max_rows=max_rows)
        await _drop_zeros(scope)
    return removed


async def _drop_zeros(scope: Scope) -> None:
    """Remove counters that are 0: an absent one says the same."""
    for part in range(scope.parts):
        rows = scope.reader.in_part(part)
        for tag in _COUNTERS:
            start, stop = scope.key(tag), scope.key(tag, keys.END)
            while True:
                counters = await rows.scan(start, stop, limit=_BATCH)
                zeros = [row.key for row in counters if read_counter(row.value) == 0]
                if zeros:
                    await _drop(scope, part, zeros)
                if len(counters) < _BATCH:
                    break
                start = counters[-1].key + b"\0"


async def _drop(scope: Scope, part: int, counters: list[bytes]) -> None:
    async def body(tx: Transaction) -> None:
        rows = tx.rows
        for key, row in zip(counters, await rows.get_many(counters), strict=True):
            if row is not None and read_counter(row.value) == 0:
                rows.delete(key)

    try:
        await transact(scope, body, part=part, tries=1)
    except Conflict:  # one of them was added to meanwhile: the next sweep takes the others
        return
