"""Leases that nobody uses any more: their rows go, their tokens stay in the marks."""

from ... import keys
from ...clock import to_micros
from ...core.namespace import Rows, Scope
from ...core.transaction import Transaction, transact
from ...errors import Conflict, Damaged
from .record import decode, forget, remaining, rows

IDLE_SECONDS = 86400
"""A lease that ran out so long ago, and whose key is no record's id, leaves only its mark; a released one at once."""

_RECORDS = (keys.RECORD + b"e", keys.RECORD + b"i")
"""Whose work can be claimed: there a lease that ran out says that a worker died at it."""


async def sweep(scope: Scope, *, max_rows: int = 1_000_000) -> int:
    """Remove what is left of leases that are free and that nobody took again for a day; gives how many there were."""
    prefix = scope.key(keys.LEASE_TOKEN)
    removed = 0
    for part in range(scope.parts):
        place, start = scope.reader.in_part(part), prefix
        while removed < max_rows:
            tokens = await place.scan(start, prefix + keys.END, limit=min(256, max_rows - removed))
            names = [row.key[len(prefix) : -1].decode() for row in tokens]
            idle = await _idle(place, names)
            if idle:
                removed += await _forget_all(scope, part, idle)
            if len(tokens) < 256:
                break
            start = tokens[-1].key + b"\0"
    return removed


async def _idle(place: Rows, names: list[str]) -> list[str]:
    scope = place.scope
    by = to_micros(scope.clock.now()) - IDLE_SECONDS * 1_000_000
    idle, lapsed = [], []
    row_keys = [at for key in names for at in rows(scope, key)]
    answers = await place.peek(row_keys) if row_keys else []
    for key, at in zip(names, range(0, len(row_keys), 2), strict=True):
        try:
            current = decode(row_keys[at], answers[at], row_keys[at + 1], answers[at + 1])
        except Damaged:  # `check` says so
            continue
        if current.owner is None and answers[at] is not None:
            idle.append(key)
        elif current.until < by and remaining(scope, key, current) <= 0:
            lapsed.append(key)
    records = [scope.key(tag, keys.path(key)) for key in lapsed for tag in _RECORDS]
    present = await place.peek(records) if records else []
    idle += [
        key
        for key, at in zip(lapsed, range(0, len(records), 2), strict=True)
        if present[at] is None and present[at + 1] is None
    ]
    return idle


async def _forget_all(scope: Scope, part: int, names: list[str]) -> int:
    async def body(tx: Transaction) -> int:
        for key in names:
            await forget(tx, key)
        return len(names)

    try:
        return await transact(scope, body, part=part, tries=1)
    except Conflict:  # one of them was taken again: the next sweep has the others
        return 0
