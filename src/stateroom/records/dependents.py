"""Rows that hang on a record: keyed by its id and the nonce of its creation, so a recreated id inherits nothing."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import ormsgpack

from .. import keys
from ..codec import seal, unseal
from ..codec.malformed import parsing
from ..core.namespace import Reader, Rows, Scope
from ..core.transaction import Readable, Transaction, TransactionRows, Writable, transact
from ..engine import Row, read_counter, write_counter
from ..errors import Conflict, Damaged
from ..limits import SWEEP_ROWS
from ..values import wrapper
from .audit import Problem, rows_of
from .kind import Kind, Stored
from .layout import nonce_of

_LARGE_AT_ONCE = 16
"""Values in chunks that are given up in one batch: each touches rows for all of its chunks."""


def prefix(scope: Scope, tag: bytes, kind: Kind[Any], stored: Stored[Any]) -> bytes:
    """Return where the dependents of a record are."""
    return scope.prefix + tag + kind.letter + keys.path(*kind.path(stored.record)) + stored.nonce


async def append(tx: Writable, kind: Kind[Any], stored: Stored[Any], values: Sequence[bytes], first: int) -> None:
    """Store dependents numbered from `first`; `length` must have given the number before it."""
    rows = tx.at(kind.owner(kind.path(stored.record)))
    start = prefix(tx.scope, keys.EVENTS, kind, stored)
    for number, value in enumerate(values, first):
        key = start + keys.number(number)
        rows.put(key, seal(key, await wrapper.keep(rows, key, value, 1)))
    if values:
        rows.put(prefix(tx.scope, keys.HEADS, kind, stored), write_counter(first + len(values) - 1))


async def length(tx: Readable, kind: Kind[Any], stored: Stored[Any]) -> int:
    """How many dependents a record has; remembered in a transaction, so that two writers never take one number."""
    row = await tx.at(kind.owner(kind.path(stored.record))).get(prefix(tx.scope, keys.HEADS, kind, stored))
    return read_counter(row.value if row is not None else None)


async def read(
    tx: Readable, kind: Kind[Any], stored: Stored[Any], *, after: int = 0, last: int | None = None
) -> list[tuple[int, bytes | Damaged]] | None:
    """Dependents numbered above `after`, of them the `last` so many, by number; the error in place of a damaged one.

    None where the record was removed while they were read. Raises `Conflict` in a transaction where that was noticed.
    """
    rows = tx.at(kind.owner(kind.path(stored.record)))
    prefixed = prefix(tx.scope, keys.EVENTS, kind, stored)
    start, stop = prefixed + keys.number(after + 1), prefixed + keys.END * 9
    values: list[tuple[int, bytes | Damaged]] = []
    at_once = False
    while last is None or len(values) < last:
        size = SWEEP_ROWS if last is None else min(SWEEP_ROWS, last - len(values))
        events = await rows.scan(start, stop, limit=size, reverse=last is not None)
        for row in events:
            value = await _read(rows, row)
            if value is None:
                return None
            values.append((int.from_bytes(row.key[-8:], "big"), value))
        # One scan that has an event has seen all, as only a removal takes any away, in order.
        at_once = bool(events) and len(values) == len(events) and len(events) < SWEEP_ROWS and not after
        if len(events) < size:
            break
        start, stop = (start, events[-1].key) if last is not None else (events[-1].key + b"\0", stop)
    values.sort(key=lambda pair: pair[0])
    at_once = at_once and values[0][0] == 1
    if at_once or isinstance(rows, TransactionRows):  # whose commit looks at the record
        return values
    (now,) = await rows.peek([stored.row.key])
    return values if now is not None and nonce_of(now) == stored.nonce else None


async def _read(rows: Rows, row: Row) -> bytes | Damaged | None:
    try:
        return await wrapper.current(rows, row, lambda data: _value(rows, data))
    except Damaged as error:
        return error


async def _value(rows: Rows, row: Row) -> bytes:
    return await wrapper.fetch(rows, row.key, unseal(row.key, row.value))


async def drop(tx: Writable, kind: Kind[Any], stored: Stored[Any]) -> None:
    """Remove a record's dependents with it: at once when they are few, else by a sweep row."""
    rows = tx.at(kind.owner(kind.path(stored.record)))
    count = await length(tx, kind, stored)
    if not count:
        return
    rows.delete(prefix(tx.scope, keys.HEADS, kind, stored))
    start = prefix(tx.scope, keys.EVENTS, kind, stored)
    stop = start + keys.END * 9
    events = await rows.scan(start, stop, limit=SWEEP_ROWS) if count <= SWEEP_ROWS else []
    if len(events) < count or len(affordable(events)) < count:
        leave_sweep(rows, start, stop, holding=True)
        return
    for row in events:
        if _is_large(row):
            rows.expect(row.key, row)
            await wrapper.drop(rows, unseal(row.key, row.value))
    rows.clear(start, stop)


def _is_large(row: Row) -> bool:
    """Say whether a sealed wrapper refers to objects; a damaged one does not say to which."""
    try:
        return unseal(row.key, row.value)[:1] != wrapper.INLINE
    except Damaged:
        return False


async def audit(reader: Reader, part: int, kind: Kind[Any], records: Iterable[Stored[Any]]) -> list[Problem]:
    """Say whether all dependents of a kind hang on a record, numbered from 1 without a gap, up to what its head
    says.
    """
    scope = reader.scope
    rows, heads = scope.key(keys.EVENTS, kind.letter), scope.key(keys.HEADS, kind.letter)
    expected: dict[bytes, int] = {}
    for stored in records:
        expected[keys.path(*kind.path(stored.record)) + stored.nonce] = 0
    swept = [note.key[len(scope.key(keys.SWEEP)) :] for note in await rows_of(reader, part, scope.key(keys.SWEEP))]
    problems: list[Problem] = []
    for row in await rows_of(reader, part, rows):
        owner, number = row.key[len(rows) : -8], int.from_bytes(row.key[-8:], "big")
        if owner in expected:
            expected[owner] += 1
            if number != expected[owner]:
                problems.append(Problem("dependent-missing", f"{row.key!r} follows {expected[owner] - 1}", kind.name))
                expected[owner] = number
        elif row.key[:-8] not in swept:
            problems.append(Problem("dependent-stale", f"{row.key!r} has no record", kind.name, part=part))
    counts = {row.key[len(heads) :]: read_counter(row.value) for row in await rows_of(reader, part, heads)}
    for owner in counts.keys() | expected.keys():
        if counts.get(owner, 0) != expected.get(owner, 0):
            message = f"the head of {owner!r} says {counts.get(owner, 0)}, not {expected.get(owner, 0)}"
            problems.append(Problem("dependent-head", message, kind.name, part=part))
    return problems


def leave_sweep(rows: TransactionRows, start: bytes, stop: bytes, *, holding: bool = False) -> None:
    """Leave a note of a range that nothing refers to any more, for `sweep` to empty in small batches.

    `holding`: each row is the sealed wrapper of a value, which is given up with it.
    """
    key = rows.scope.key(keys.SWEEP, start)
    rows.put(key, seal(key, ormsgpack.packb([rows.root, start, stop, holding])))


def affordable(rows: Sequence[Row]) -> list[Row]:
    """The first of some rows that are sealed wrappers: as many as one batch can give up, few of them being large."""
    result: list[Row] = []
    large = 0
    for row in rows:
        large += _is_large(row)
        if large > _LARGE_AT_ONCE:
            break
        result.append(row)
    return result


async def sweep(scope: Scope, *, max_rows: int = 1_000_000) -> int:
    """Empty the ranges that deletions left behind, in batches of at most 1,000 rows; gives the rows removed."""
    removed = 0
    while removed < max_rows:
        notes = await scope.reader.scan(scope.key(keys.SWEEP), scope.key(keys.SWEEP, keys.END), limit=16)
        if not notes:
            return removed
        for note in notes:
            removed += await _sweep_one(scope, note.key, note.value, max_rows - removed)
            if removed >= max_rows:
                return removed
    return removed


_NOTE = msgspec.msgpack.Decoder(tuple[str, bytes, bytes, bool])


async def _sweep_one(scope: Scope, note: bytes, value: bytes, max_rows: int) -> int:
    with parsing("a note of what is to be removed", key=note):
        root, start, stop, holding = _NOTE.decode(unseal(note, value))
    removed = 0
    while removed < max_rows:
        rows = await scope.reader.at(root).scan(start, stop, limit=min(SWEEP_ROWS, max_rows - removed))
        if holding:
            rows = affordable(rows)

        async def batch(transaction: Transaction, owned: Sequence[Row] = tuple(rows)) -> None:
            tx = transaction.at(root)
            for row in owned:
                if holding:
                    tx.expect(row.key, row)  # another sweeper may have given it up already
                    if _is_large(row):
                        await wrapper.drop(tx, unseal(row.key, row.value))
                tx.delete(row.key)
            if not owned:
                tx.delete(note)

        try:
            await transact(scope, batch, tries=1 if holding else None)
        except Conflict:
            if not holding:
                raise
            continue  # look again at what is left
        if not rows:
            break
        removed += len(rows)
    return removed
