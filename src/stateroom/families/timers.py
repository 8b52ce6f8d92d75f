"""Timers that survive restarts: what is due is found by time over all parts, and is there until it is marked done.

At least once: whoever asks gets a due timer until somebody has called `done` for it. Hephaestus loses a scheduled
resume with its process, and Finitomata warns against its timers for the same reason.
"""

import os
from datetime import datetime
from typing import Any, NamedTuple

from .. import arguments, keys
from ..clock import FIRST, LAST, from_micros, to_micros
from ..codec import seal, unseal
from ..core.namespace import Reader, Scope
from ..core.operation import Family, M, operation, reading
from ..core.transaction import Transaction
from ..engine import Row
from ..errors import Damaged, Undecodable
from ..records.audit import Problem, rows_of
from ..records.kind import Record
from ..records.layout import NONCE_BYTES
from ..records.pages import check_limit
from ..values import wrapper

_LAYOUT = 1
_BIAS = 1 << 62  # times before 1970 sort too


class _Identified(Record, frozen=True):
    id: str
    at: datetime


class Timer(_Identified, frozen=True, kw_only=True):
    """Something that is due at a time (aware UTC)."""

    payload: Any = None
    nonce: bytes = b""
    """Made at each `set`: by it `done` knows whether the timer is still the one it was."""


class _Row(NamedTuple):
    """A timer as stored, or as much of it as a change needs."""

    at: int
    nonce: bytes
    revision: int
    created: int
    updated: int
    wrapped: bytes


def _key(scope: Scope, id: str) -> bytes:
    return scope.key(keys.TIMER, keys.path(id))


def _due_key(scope: Scope, at: int, id: str) -> bytes:
    return scope.key(keys.TIMER_DUE, keys.number(at + _BIAS) + keys.path(id))


def _parse(key: bytes, value: bytes) -> _Row:
    """The head of a timer's row. Raises `Damaged`."""
    payload = unseal(key, value)
    try:
        layout, at, revision, created, updated = (
            int.from_bytes(payload[cut : cut + 8], "big", signed=True) for cut in range(0, 40, 8)
        )
    except ValueError as error:
        raise Damaged("a timer cannot be read", kind="timers", key=key) from error
    if layout == _LAYOUT and not all(FIRST <= micros <= LAST for micros in (at, created, updated)):
        raise Damaged("a timer has a time that is none", kind="timers", key=key)
    if layout != _LAYOUT:
        raise Undecodable(f"a timer of layout {layout}; this version reads {_LAYOUT}", kind="timers", tag=layout)
    end = 40 + NONCE_BYTES
    return _Row(at, payload[40:end], revision, created, updated, payload[end:])


def _build(row: _Row) -> bytes:
    numbers = (_LAYOUT, row.at, row.revision, row.created, row.updated)
    return b"".join(number.to_bytes(8, "big", signed=True) for number in numbers) + row.nonce + row.wrapped


async def _open(reader: Reader, id: str, key: bytes, value: bytes) -> Timer:
    row = _parse(key, value)
    body = await wrapper.fetch(reader.look_at(id), key, row.wrapped)
    return _timer(id, row, reader.scope.codec.decode(body))


def _timer(id: str, row: _Row, payload: Any) -> Timer:
    return Timer(
        id, from_micros(row.at), payload=payload, nonce=row.nonce, revision=row.revision,
        created_at=from_micros(row.created), updated_at=from_micros(row.updated),
    )  # fmt: skip


async def _remove(tx: Transaction, id: str, key: bytes, row: _Row) -> None:
    rows = tx.at(id)
    rows.delete(key)
    rows.delete(_due_key(tx.scope, row.at, id))
    await wrapper.drop(rows, row.wrapped)


class Timers(Family[M]):
    """``store.timers``: durable timers. They are not in the feed."""

    @operation
    async def set(self, tx: Transaction, id: str, at: datetime, payload: Any = None) -> Timer:
        """Set a timer for a time (aware), or set it anew. Raises `InvalidArgument`."""
        id = arguments.name(id, "id")
        due = arguments.time(at, "at")
        rows, key = tx.at(id), _key(tx.scope, id)
        now = to_micros(tx.scope.clock.now())
        body = tx.scope.codec.encode(payload)
        found = await rows.get(key)
        revision, created, updated = 1, now, now
        if found is not None:
            before = _parse(key, found.value)
            revision, created, updated = before.revision + 1, before.created, max(now, before.updated)
            await _remove(tx, id, key, before)
        wrapped = await wrapper.keep(rows, key, body, 1)
        row = _Row(due, os.urandom(NONCE_BYTES), revision, created, updated, wrapped)
        rows.put(key, seal(key, _build(row)))
        rows.put(_due_key(tx.scope, due, id), b"")
        return _timer(id, row, payload)

    @reading
    async def due(self, tx: Reader, now: datetime | None = None, limit: int = 100) -> tuple[Timer, ...]:
        """Timers whose time has come (by the store's clock, or `now`), the longest due first; at most `limit` (1 to
        1000). They stay until `done` or `cancel`. One that cannot be decoded here is left out; `check` lists it.
        """
        check_limit(limit)
        scope = tx.scope
        upto = arguments.time(scope.clock.now() if now is None else now, "now")
        start, stop = scope.key(keys.TIMER_DUE), scope.key(keys.TIMER_DUE, keys.number(upto + _BIAS + 1))
        found: list[Timer] = []
        while len(found) < limit:
            rows = await tx.scan(start, stop, limit=limit)
            found += await _read(tx, [_id(scope, row.key) for row in rows], upto)
            if len(rows) < limit:
                break
            start = rows[-1].key + b"\0"
        return tuple(found[:limit])

    @operation
    async def done(self, tx: Transaction, timer: Timer) -> bool:
        """Remove a timer that was handled; False where it was set anew, cancelled or removed since."""
        id = arguments.name(arguments.instance(timer, "timer", Timer).id, "id")
        key = _key(tx.scope, id)
        found = await tx.at(id).get(key)
        row = None if found is None else _parse(key, found.value)
        if row is None or row.nonce != timer.nonce:
            return False
        await _remove(tx, id, key, row)
        return True

    @operation
    async def cancel(self, tx: Transaction, id: str) -> bool:
        """Remove a timer; False if there is none."""
        id = arguments.name(id, "id")
        key = _key(tx.scope, id)
        found = await tx.at(id).get(key)
        if found is None:
            return False
        await _remove(tx, id, key, _parse(key, found.value))
        return True

    @reading
    async def next(self, tx: Reader) -> datetime | None:
        """When the first timer is due, past or to come; None where there is no timer."""
        start = tx.scope.key(keys.TIMER_DUE)
        rows = await tx.scan(start, start + keys.END, limit=1)
        return from_micros(_at(tx.scope, rows[0].key)) if rows else None


def _at(scope: Scope, key: bytes) -> int:
    cut = len(scope.key(keys.TIMER_DUE))
    return int.from_bytes(key[cut : cut + 8], "big") - _BIAS


def _id(scope: Scope, key: bytes) -> str:
    return key[len(scope.key(keys.TIMER_DUE)) + 8 : -1].decode()


async def _read(tx: Reader, ids: list[str], upto: int) -> list[Timer]:
    """Timers in the order given, one read for each part; without those that changed meanwhile."""
    scope = tx.scope
    rows: dict[str, Row | None] = {}
    parts: dict[int, list[str]] = {}
    for id in ids:
        parts.setdefault(scope.part(keys.root(id)), []).append(id)
    found = await tx.read_many([(part, [_key(scope, id) for id in here]) for part, here in parts.items()])
    for here, read in zip(parts.values(), found, strict=True):
        rows.update(zip(here, read, strict=True))
    timers = []
    for id in ids:
        row = rows[id]
        if row is None:
            continue
        try:
            timer = await _open(tx, id, row.key, row.value)
        except Damaged:
            continue
        if to_micros(timer.at) <= upto:
            timers.append(timer)
    return timers


async def audit(reader: Reader, part: int) -> list[Problem]:
    """Every timer can be read and stands in the order of times once; nothing else does."""
    scope = reader.scope
    problems: list[Problem] = []
    expected: set[bytes] = set()
    prefix = scope.key(keys.TIMER)
    damaged = False
    for row in await rows_of(reader, part, prefix):
        id = row.key[len(prefix) : -1].decode(errors="replace")
        try:
            expected.add(_due_key(scope, to_micros((await _open(reader, id, row.key, row.value)).at), id))
        except Damaged as error:
            damaged = True
            problems.append(Problem(error.code, f"timer {id!r}: {error.message}", "timers", id, part))
    actual = {row.key for row in await rows_of(reader, part, scope.key(keys.TIMER_DUE))}
    problems += [Problem("index-missing", f"timer row {key!r} is missing", "timers") for key in expected - actual]
    if not damaged:
        problems += [Problem("index-stale", f"timer row {key!r} has no timer", "timers") for key in actual - expected]
    return problems
