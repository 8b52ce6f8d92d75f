"""Timers as they are and as they are kept.

Two rows a timer: its own, and one without content that stands in the order of times. The row's head says when it is
due, so that most changes need no payload. What recurs has another layout: there the value says how, before the payload.
"""

from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

import msgspec

from ... import keys
from ...clock import FIRST, LAST, from_micros, to_micros
from ...codec import seal, unseal
from ...codec.malformed import parsing
from ...core.namespace import Reader, Rows, Scope
from ...core.transaction import TransactionRows
from ...errors import Damaged, Undecodable
from ...records.audit import Problem, rows_of
from ...records.kind import Record
from ...records.layout import NONCE_BYTES
from ...values import wrapper
from .recurrence import Recurrence

_ONCE, _RECURRING = 1, 2
BIAS = 1 << 62  # times before 1970 sort too


class _Identified(Record, frozen=True):
    id: str
    at: datetime


class Timer(_Identified, frozen=True, kw_only=True):
    """Something that is due at a time (aware UTC)."""

    _internal: ClassVar[frozenset[str]] = frozenset({"nonce"})
    payload: Any = None
    every: timedelta | None = None
    """How long after its time it is due again."""
    cron: str | None = None
    """The expression that says when it is due again, by the clocks of `tz`."""
    tz: str = "UTC"
    nonce: bytes = b""
    """Made at each `set`: by it `done` knows whether the timer is still the one it was."""

    @property
    def recurring(self) -> bool:
        """Say whether `done` sets it to its next time."""
        return self.every is not None or self.cron is not None


class TimerRow(NamedTuple):
    """A timer as stored, or as much of it as a change needs; times in microseconds."""

    at: int
    nonce: bytes
    revision: int
    created: int
    updated: int
    wrapped: bytes
    """The payload; of a timer that recurs how it does, and the payload."""
    recurs: bool = False


def timer_key(scope: Scope, id: str) -> bytes:
    """Return the key of a timer."""
    return scope.key(keys.TIMER, keys.path(id))


def due_key(scope: Scope, at: int, id: str) -> bytes:
    """Return the key of a timer in the order of times."""
    return scope.key(keys.TIMER_DUE, keys.number(at + BIAS) + keys.path(id))


def split_due(scope: Scope, key: bytes) -> tuple[int, str]:
    """The time and the id in a key of `due_key`. Raises `Damaged`."""
    cut = len(scope.key(keys.TIMER_DUE))
    (id,) = keys.parse(key[cut + 8 :], (str,))
    return int.from_bytes(key[cut : cut + 8], "big") - BIAS, str(id)


def parse(key: bytes, value: bytes) -> TimerRow:
    """The head of a timer's row. Raises `Damaged`."""
    payload = unseal(key, value)
    layout, at, revision, created, updated = (
        int.from_bytes(payload[cut : cut + 8], "big", signed=True) for cut in range(0, 40, 8)
    )
    if layout not in (_ONCE, _RECURRING):
        raise Undecodable(
            f"a timer of layout {layout}; this version reads {_ONCE} and {_RECURRING}", kind="timers", tag=layout
        )
    if not all(FIRST <= micros <= LAST for micros in (at, created, updated)):
        raise Damaged("a timer has a time that is none", kind="timers", key=key)
    end = 40 + NONCE_BYTES
    return TimerRow(at, payload[40:end], revision, created, updated, payload[end:], layout == _RECURRING)


def build(row: TimerRow) -> bytes:
    """The payload that `parse` reads."""
    numbers = (_RECURRING if row.recurs else _ONCE, row.at, row.revision, row.created, row.updated)
    return b"".join(number.to_bytes(8, "big", signed=True) for number in numbers) + row.nonce + row.wrapped


def encode(scope: Scope, payload: Any, recurrence: Recurrence | None) -> bytes:
    """The value of a timer's row."""
    return scope.codec.encode(payload if recurrence is None else [*recurrence, payload])


async def open_value(rows: Rows, key: bytes, row: TimerRow, *, raw: bool = False) -> tuple[Recurrence | None, Any]:
    """How a timer recurs, and its payload; `raw`: with an envelope in place of each value that cannot be rebuilt.

    Raises `Damaged`.
    """
    value = rows.scope.codec.decode(await wrapper.fetch(rows, key, row.wrapped), raw=raw)
    if not row.recurs:
        return None, value
    with parsing("a recurring timer", kind="timers", key=key):
        interval, cron, zone, payload = value
        return msgspec.convert((interval, cron, zone), Recurrence), payload


async def open_timer(rows: Rows, id: str, key: bytes, value: bytes, *, raw: bool = False) -> Timer:
    """The timer in a row, as `open_value`."""
    row = parse(key, value)
    return made(id, row, *await open_value(rows, key, row, raw=raw))


def made(id: str, row: TimerRow, recurrence: Recurrence | None, payload: Any) -> Timer:
    """The timer of a row."""
    span, cron, zone = recurrence or (None, None, "UTC")
    return Timer(
        id, from_micros(row.at), payload=payload, every=None if span is None else timedelta(0, 0, span), cron=cron,
        tz=zone, nonce=row.nonce, revision=row.revision, created_at=from_micros(row.created),
        updated_at=from_micros(row.updated),
    )  # fmt: skip


def write(rows: TransactionRows, id: str, key: bytes, row: TimerRow) -> None:
    """Write a timer and its place in the order of times."""
    rows.put(key, seal(key, build(row)))
    rows.put(due_key(rows.scope, row.at, id), b"")


async def remove(rows: TransactionRows, id: str, key: bytes, value: bytes) -> None:
    """Remove a timer, also one whose row cannot be read: then its place is looked for."""
    rows.delete(key)
    try:
        row = parse(key, value)
    except Damaged:
        await _remove_places(rows, id)
        return
    rows.delete(due_key(rows.scope, row.at, id))
    await wrapper.drop(rows, row.wrapped)


async def _remove_places(rows: TransactionRows, id: str) -> None:
    start = rows.scope.key(keys.TIMER_DUE)
    tail, stop = keys.path(id), start + keys.END
    while True:
        places = await rows.scan(start, stop, limit=1000)
        for place in places:
            if place.key.endswith(tail) and split_due(rows.scope, place.key)[1] == id:
                rows.delete(place.key)
        if len(places) < 1000:
            return
        start = places[-1].key + b"\0"


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
            timer = await open_timer(reader.in_part(part), id, row.key, row.value, raw=True)
            expected.add(due_key(scope, to_micros(timer.at), id))
        except Damaged as error:
            damaged = True
            problems.append(Problem(error.code, f"timer {id!r}: {error.message}", "timers", id, part))
    actual = {row.key for row in await rows_of(reader, part, scope.key(keys.TIMER_DUE))}
    problems += [Problem("index-missing", f"timer row {key!r} is missing", "timers") for key in expected - actual]
    if not damaged:
        problems += [Problem("index-stale", f"timer row {key!r} has no timer", "timers") for key in actual - expected]
    return problems
