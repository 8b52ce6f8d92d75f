"""Counters at 0: rows that say nothing, left where everything that they counted is gone."""

from .. import keys
from ..core.namespace import Scope
from ..core.transaction import Transaction, transact
from ..engine import Row, read_counter
from ..errors import Conflict
from ..records.counters import swept_key

_RUN = 500


async def sweep(scope: Scope, part: int) -> int:
    """Remove the counters of a part that are at 0; gives how many."""
    removed = 0
    start, stop = scope.key(keys.COUNTER), scope.key(keys.COUNTER, keys.END)
    while rows := await scope.reader.in_part(part).scan(start, stop, limit=_RUN):
        removed += await _remove(scope, part, [row for row in rows if not read_counter(row.value)])
        start = rows[-1].key + b"\0"
    return removed


async def _remove(scope: Scope, part: int, rows: list[Row]) -> int:
    if not rows:
        return 0

    async def body(tx: Transaction) -> int:
        for row in rows:
            tx.rows.expect(row.key, row)
            tx.rows.delete(row.key)
        tx.rows.put(swept_key(scope), b"")
        return len(rows)

    try:
        return await transact(scope, body, part=part, tries=1)
    except Conflict:  # one of them counts something again: the others go one by one
        if len(rows) == 1:
            return 0
        half = len(rows) // 2
        return await _remove(scope, part, rows[:half]) + await _remove(scope, part, rows[half:])
