"""The operations on timers: at least once, whoever asks gets a due timer until somebody has called `done` for it."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from ... import arguments, keys
from ...clock import from_micros, to_micros
from ...core.namespace import Reader
from ...core.operation import Family, M, iteration, operation, procedure, reading
from ...core.transaction import Transaction
from ...engine import Row
from ...errors import Damaged, NotFound
from ...records.layout import NONCE_BYTES
from ...records.pages import BY_NAME, Page, check_limit, fingerprint, left_out, read_cursor, write_cursor
from ...values import wrapper
from ..waiting import Look, until
from . import recurrence
from .record import (
    BIAS,
    Timer,
    TimerRow,
    due_key,
    encode,
    made,
    open_timer,
    open_value,
    parse,
    remove,
    split_due,
    timer_key,
    write,
)


class Timers(Family[M]):
    """``store.timers``: durable timers. They are not in the feed."""

    @operation
    async def set(
        self,
        tx: Transaction,
        id: str,
        at: datetime | timedelta | None = None,
        payload: Any = None,
        *,
        every: timedelta | float | None = None,
        cron: str | None = None,
        tz: str = "UTC",
    ) -> Timer:
        """Set a timer for a time (aware, or a timedelta from now), or set it anew.

        A timer with `every` (seconds or a timedelta; elapsed time) or `cron` (by the clocks of `tz`) recurs: `done`
        sets it to its next time after now. Its first time is `at`; left out: the first one that comes. Raises
        `InvalidArgument`.
        """
        id = arguments.name(id, "id")
        repetition = recurrence.check(every, cron, tz)
        rows, key = tx.at(id), timer_key(tx.scope, id)
        now = to_micros(tx.scope.clock.now())
        due = _first(at, now, repetition)
        body = encode(tx.scope, payload, repetition)
        before = await rows.get(key)
        revision, created, updated = 1, now, now
        if before is not None:
            with suppress(Damaged):  # one that cannot be read is replaced as one that is not there
                old = parse(key, before.value)
                revision, created, updated = old.revision + 1, old.created, max(now, old.updated)
            await remove(rows, id, key, before.value)
        wrapped = await wrapper.keep(rows, key, body, 1)
        row = TimerRow(due, os.urandom(NONCE_BYTES), revision, created, updated, wrapped, repetition is not None)
        write(rows, id, key, row)
        return made(id, row, repetition, payload)

    @reading
    async def get(self, tx: Reader, id: str, *, raw: bool = False) -> Timer:
        """The timer under an id; `raw`: with a `codec.Raw` in place of each value that cannot be rebuilt here.

        Raises `NotFound`, and unless it is `raw` `Undecodable`.
        """
        timer = await self._find(tx, id, raw)
        if timer is None:
            raise NotFound(f"no timer {id!r}", kind="timers", id=id)
        return timer

    @reading
    async def find(self, tx: Reader, id: str, *, raw: bool = False) -> Timer | None:
        """The timer under an id, or None; `raw` as in `get`."""
        return await self._find(tx, id, raw)

    @reading
    async def due(self, tx: Reader, now: datetime | None = None, limit: int = 100) -> tuple[Timer, ...]:
        """Timers whose time has come (by the store's clock, or `now`), the longest due first, equal times by id; at
        most `limit` (1 to 1000). They stay until `done` or `cancel`.

        A value whose type is not registered here is shown as `codec.Raw`; what cannot be opened at all is left out,
        and said once as a warning.
        """
        check_limit(limit)
        return await _due(tx, to_micros(tx.scope.clock.now()) if now is None else arguments.time(now, "now"), limit)

    @procedure
    async def wait(self, timeout: float | timedelta = 5.0, *, limit: int = 100) -> tuple[Timer, ...]:
        """The timers that are due, as soon as there are any: woken by their times, and by one that is set meanwhile.

        Empty where none came within `timeout` (seconds, or a timedelta).
        """
        check_limit(limit)
        scope = self._scope

        async def look() -> Look:
            now = to_micros(scope.clock.now())
            timers = await _due(scope.reader, now, limit)
            upcoming = None if timers else await _next(scope.reader)
            return Look(timers, None if upcoming is None else (upcoming - now) / 1_000_000)

        timers: tuple[Timer, ...] = await until(scope, None, look, arguments.seconds(timeout, "timeout"))
        return timers

    @operation
    async def done(self, tx: Transaction, timer: Timer) -> bool:
        """Remove a timer that was handled, or set a recurring one to its next time after now.

        False where it was set anew, done, cancelled or removed since.
        """
        id = arguments.name(arguments.instance(timer, "timer", Timer).id, "id")
        rows, key = tx.at(id), timer_key(tx.scope, id)
        stored = await rows.get(key)
        row = None if stored is None else parse(key, stored.value)
        if row is None or stored is None or row.nonce != timer.nonce:
            return False
        now = to_micros(tx.scope.clock.now())
        repetition = (await open_value(rows, key, row, raw=True))[0] if row.recurs else None
        upcoming = None if repetition is None else repetition.after(row.at, now)
        if upcoming is None:
            await remove(rows, id, key, stored.value)
            return True
        rows.delete(due_key(tx.scope, row.at, id))
        write(
            rows, id, key,
            row._replace(
                at=upcoming, nonce=os.urandom(NONCE_BYTES), revision=row.revision + 1, updated=max(now, row.updated)
            ),
        )  # fmt: skip
        return True

    @operation
    async def cancel(self, tx: Transaction, id: str) -> bool:
        """Remove a timer; False if there is none."""
        id = arguments.name(id, "id")
        rows, key = tx.at(id), timer_key(tx.scope, id)
        stored = await rows.get(key)
        if stored is None:
            return False
        await remove(rows, id, key, stored.value)
        return True

    @reading
    async def next(self, tx: Reader) -> datetime | None:
        """When the first timer is due that `due` would give, past or to come; None where there is no timer."""
        upcoming = await _next(tx)
        return None if upcoming is None else from_micros(upcoming)

    @reading
    async def query(
        self,
        tx: Reader,
        prefix: str = "",
        *,
        before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Timer]:
        """Timers whose ids begin with `prefix`, in the order of ids; `before`: only those of an earlier time."""
        check_limit(limit)
        prefix = arguments.prefix(prefix, "prefix")
        least = arguments.optional_time(before, "before")
        mark = fingerprint(tx.scope.prefix, "timers", prefix, least)
        after = None if cursor is None else read_cursor(cursor, mark, BY_NAME)
        timers: list[Timer] = []
        undecodable = pending = 0
        async for timer in _all(tx, prefix, least, after):
            if timer is None:
                pending += 1
            elif len(timers) == limit:
                return Page(tuple(timers), write_cursor(mark, timers[-1].id.encode()), undecodable)
            else:
                timers.append(timer)
                undecodable, pending = undecodable + pending, 0
        return Page(tuple(timers), None, undecodable + pending)

    @iteration
    async def scan(self, tx: Reader, prefix: str = "", *, before: datetime | None = None) -> AsyncIterator[Timer]:
        """All timers that `query` would page through."""
        prefix = arguments.prefix(prefix, "prefix")
        async for timer in _all(tx, prefix, arguments.optional_time(before, "before"), None):
            if timer is not None:
                yield timer

    async def _find(self, tx: Reader, id: str, raw: bool) -> Timer | None:
        id = arguments.name(id, "id")
        rows, key = tx.at(id), timer_key(tx.scope, id)
        row = await rows.get(key)
        return await wrapper.current(rows, row, lambda item: open_timer(rows, id, key, item.value, raw=raw))


def _first(at: datetime | timedelta | None, now: int, repetition: recurrence.Recurrence | None) -> int:
    """The first time of a timer in microseconds."""
    if isinstance(at, timedelta):
        return arguments.later(now, at // timedelta(microseconds=1), "at")
    if at is None and repetition is not None:
        upcoming = repetition.after(now, now)
        return arguments.later(now, 1 << 62, "every") if upcoming is None else upcoming
    return arguments.time(at, "at")


async def _due(tx: Reader, upto: int, limit: int) -> tuple[Timer, ...]:
    scope = tx.scope
    start, stop = scope.key(keys.TIMER_DUE), scope.key(keys.TIMER_DUE, keys.number(upto + BIAS + 1))
    timers: dict[str, Timer] = {}  # by id: one that is set anew meanwhile may come twice
    while len(timers) < limit:
        rows = await tx.scan(start, stop, limit=limit)
        for timer in await _read(tx, [split_due(scope, row.key)[1] for row in rows]):
            if timer is not None and to_micros(timer.at) <= upto:
                timers.setdefault(timer.id, timer)
        if len(rows) < limit:
            break
        start = rows[-1].key + b"\0"
    return tuple(sorted(timers.values(), key=lambda timer: (timer.at, timer.id.encode()))[:limit])


async def _next(tx: Reader) -> int | None:
    start, stop = tx.scope.key(keys.TIMER_DUE), tx.scope.key(keys.TIMER_DUE, keys.END)
    size = 1
    while True:
        rows = await tx.scan(start, stop, limit=size)
        times = [timer.at for timer in await _read(tx, [split_due(tx.scope, row.key)[1] for row in rows]) if timer]
        if times:
            return to_micros(min(times))
        if len(rows) < size:
            return None
        start, size = rows[-1].key + b"\0", 100


async def _all(tx: Reader, prefix: str, before: int | None, after: bytes | None) -> AsyncIterator[Timer | None]:
    """Timers in the order of ids; None for each that cannot be opened."""
    start = tx.scope.key(keys.TIMER)
    cut, stop = len(start), start + prefix.encode() + keys.END
    low = start + (prefix.encode() if after is None else after + b"\0\0")
    while True:
        rows = await tx.scan(low, stop, limit=256)
        for row in rows:
            timer = await _open(tx, row.key[cut:-1].decode(), row)
            if timer is None or before is None or to_micros(timer.at) < before:
                yield timer
        if len(rows) < 256:
            return
        low = rows[-1].key + b"\0"


async def _read(tx: Reader, ids: Sequence[str]) -> list[Timer | None]:
    """Timers in the order given, one read for each part; None for one that is gone or cannot be opened."""
    scope = tx.scope
    parts: dict[int, list[bytes]] = {}
    for id in ids:
        parts.setdefault(scope.part(keys.root(id)), []).append(timer_key(scope, id))
    answers = await tx.read_many(list(parts.items()))
    rows = {row.key: row for group in answers for row in group if row is not None}
    timers = []
    for id in ids:
        row = rows.get(timer_key(scope, id))
        timers.append(None if row is None else await _open(tx, id, row))
    return timers


async def _open(tx: Reader, id: str, row: Row) -> Timer | None:
    rows = tx.look_at(id)
    try:
        return await wrapper.current(rows, row, lambda item: open_timer(rows, id, item.key, item.value, raw=True))
    except Damaged as error:
        left_out(tx.scope, "timers", id, error)
        return None
