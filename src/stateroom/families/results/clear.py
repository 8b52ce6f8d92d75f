"""Removing many results: all of a DAG at once, and those whose time has come."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from ... import keys
from ...clock import to_micros
from ...core.namespace import Scope
from ...core.transaction import Transaction, TransactionRows, transact
from ...core.turns import give_way
from ...errors import Damaged
from ...records.counters import swept_key
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
    moves, so nothing is removed that was not looked at. Of many large values the chunks are freed later. Whoever is
    computing a value of the DAG loses the claim on it: what began before is not kept after.
    """
    scope, rows = tx.scope, tx.at(dag)
    name = keys.path(dag)
    counters = [RESULTS.counter(scope, b"d" + name), writes_key(scope, dag), swept_key(scope)]
    await rows.get_many(counters)
    await _clear_claims(rows, name)
    start = stop = RESULTS.prefix(scope) + name
    stop += keys.END
    refs: Counter[bytes] = Counter()
    total = counted = expiring = 0
    at = start
    while True:
        page = await rows.scan(at, stop, limit=_RUN)
        for row in page:
            path = keys.parse(row.key[len(RESULTS.prefix(scope)) :], RESULTS.shape)
            stored: Stored[Result] = await open_row(tx, RESULTS, path, row.key, row, raw=True)
            wrappers = (stored.wrapped, *RESULTS.held(stored.record))
            refs.update(ref for ref in map(wrapper.reference, wrappers) if ref is not None)
            if stored.record.expires_at is not None and expiring < _EXPIRY_ROWS:
                rows.delete(expiry_key(scope, stored.record))
                expiring += 1
            total += 1
            counted += live(scope, stored.record)
        if len(page) < _RUN:
            break
        await give_way(scope)
        at = page[-1].key + b"\0"
    if not total:
        return 0
    for prefix in (start, *[RESULTS.index_prefix(scope, index, name) for index in (BY_DAG, BY_EXPIRY)]):
        rows.clear(prefix, prefix + keys.END)
    rows.add(RESULTS.counter(scope, b"a"), -total)
    for counter in counters:  # nothing is left of a DAG that was cleared, so these go instead of falling to zero
        rows.delete(counter)
        rows.add(counter, -rows.added(counter))
    if refs.total() <= _FREED:
        await objects.release(rows, refs)
    else:
        objects.leave(rows, refs)
    now = to_micros(scope.clock.now())
    entry = Entry("delete", RESULTS.name, dag, (dag,), NO_POINTER, now, None, None)
    rows.append(feed_prefix(scope), encode(scope, entry))
    return counted


async def _clear_claims(rows: TransactionRows, name: bytes) -> None:
    claims = rows.scope.key(keys.RESULT_CLAIM, name)
    if await rows.scan(claims, claims + keys.END, limit=1):
        rows.clear(claims, claims + keys.END)


async def expire(scope: Scope, now: datetime, limit: int = 1000, *, parts: Iterable[int] | None = None) -> int:
    """Remove results that had expired at `now`, the longest expired of each part first; gives how many.

    At most `limit`, of all parts or of some. What cannot be opened (it is damaged, or its key is not in the ring)
    stays, and holds up no other.
    """
    removed = 0
    for part in range(scope.parts) if parts is None else parts:
        start = scope.key(keys.RESULT_EXPIRY)
        stop = start + keys.number(to_micros(now, "now") + 1)
        while removed < limit:
            page = await scope.reader.in_part(part).scan(start, stop, limit=min(_EXPIRED, limit - removed))
            if not page:
                break
            removed += await _expire(scope, [row.key for row in page], now)
            start = page[-1].key + b"\0"
    return removed


async def _expire(scope: Scope, expiry_rows: list[bytes], now: datetime) -> int:
    """Remove the results that some expiry rows of one part name, unless they were given more time since."""
    cut = len(scope.key(keys.RESULT_EXPIRY)) + 8

    async def body(tx: Transaction) -> int:
        removed = 0
        for key in expiry_rows:
            dag, id = map(str, keys.parse(key[cut:], RESULTS.shape))
            try:
                stored = await load(tx, RESULTS, (dag, id), raw=True)
            except Damaged:  # `check` reports it
                continue
            if stored is not None and stored.record.expires_at is not None and stored.record.expires_at <= now:
                await drop(tx, stored)
                removed += 1
            tx.at(dag).delete(key)
        return removed

    return await transact(scope, body, any_root=True)
