"""Removing many results: all of a DAG at once, and those whose time has come."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from ... import keys
from ...clock import to_micros
from ...core.namespace import Scope
from ...core.transaction import Transaction, transact
from ...records.entry import NO_POINTER, Entry, encode, feed_prefix
from ...records.kind import Stored
from ...records.reading import load, open_row
from ...values import objects, wrapper
from .record import BY_DAG, BY_EXPIRY, RESULTS, Result, drop, expiry_key, live, writes_key

_RUN = 256
_EXPIRY_ROWS = 5000
"""Expiry rows removed with a DAG; what is left of more is removed when its time comes."""

_FREED = 100
"""Large values that are freed in the batch that removes a DAG; those of more are freed later."""

_EXPIRED = 100
"""Expired results removed in one batch."""


async def clear(tx: Transaction, dag: str) -> int:
    """Remove every result of one DAG, with one deletion in the feed; gives how many had not expired.

    The ranges are emptied whatever their size, in one batch; two counters are expected, which every write in the DAG
    moves, so nothing is removed that was not looked at. Of many large values the chunks are freed later.
    """
    scope, dag_rows = tx.scope, tx.at(dag)
    name = keys.path(dag)
    await dag_rows.get(RESULTS.counter(scope, b"d" + name))
    await dag_rows.get(writes_key(scope, dag))
    start = stop = RESULTS.prefix(scope) + name
    stop += keys.END
    refs: Counter[bytes] = Counter()
    total = counted = expiring = 0
    at = start
    while True:
        rows = await dag_rows.scan(at, stop, limit=_RUN)
        for row in rows:
            path = keys.parse(row.key[len(RESULTS.prefix(scope)) :], RESULTS.shape)
            stored: Stored[Result] = await open_row(tx, RESULTS, path, row.key, row, raw=True)
            held = [wrapper.reference(one) for one in (stored.wrapped, *RESULTS.held(stored.record))]
            refs.update(ref for ref in held if ref is not None)
            if stored.record.expires_at is not None and expiring < _EXPIRY_ROWS:
                dag_rows.delete(expiry_key(scope, stored.record))
                expiring += 1
            total += 1
            counted += live(scope, stored.record)
        if len(rows) < _RUN:
            break
        at = rows[-1].key + b"\0"
    if not total:
        return 0
    for prefix in (start, *[RESULTS.index_prefix(scope, index, name) for index in (BY_DAG, BY_EXPIRY)]):
        dag_rows.clear(prefix, prefix + keys.END)
    for counter in (b"a", b"d" + name):
        dag_rows.add(RESULTS.counter(scope, counter), -total)
    if refs.total() <= _FREED:
        await objects.release(dag_rows, refs)
    else:
        objects.leave(dag_rows, refs)
    now = to_micros(scope.clock.now())
    entry = Entry("delete", RESULTS.name, dag, (dag,), NO_POINTER, now, None, None)
    dag_rows.append(feed_prefix(scope), encode(scope, entry))
    return counted


async def expire(scope: Scope, now: datetime, limit: int = 1000, *, parts: Iterable[int] | None = None) -> int:
    """Remove results that had expired at `now`, the longest expired of each part first; gives how many.

    At most `limit`, of all parts or of some.
    """
    start = scope.key(keys.RESULT_EXPIRY)
    stop = start + keys.number(to_micros(now, "now") + 1)
    removed = 0
    for part in range(scope.parts) if parts is None else parts:
        while removed < limit:
            rows = await scope.reader.in_part(part).scan(start, stop, limit=min(_EXPIRED, limit - removed))
            if not rows:
                break
            removed += await _expire(scope, [row.key for row in rows], now)
    return removed


async def _expire(scope: Scope, rows: list[bytes], now: datetime) -> int:
    """Remove the results that some expiry rows of one part name, unless they were given more time since."""
    cut = len(scope.key(keys.RESULT_EXPIRY)) + 8

    async def body(tx: Transaction) -> int:
        removed = 0
        for key in rows:
            dag, id = map(str, keys.parse(key[cut:], RESULTS.shape))
            stored = await load(tx, RESULTS, (dag, id))
            if stored is not None and stored.record.expires_at is not None and stored.record.expires_at <= now:
                await drop(tx, stored)
                removed += 1
            tx.at(dag).delete(key)
        return removed

    return await transact(scope, body, any_root=True)
