"""A record's history: its entries in the feed, followed back from the record."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from .. import arguments, keys
from ..clock import to_micros
from ..core.namespace import Reader, Rows, Scope
from ..core.outage import Outage, passes
from ..core.transaction import PENDING, TransactionRows
from ..engine import Row, stamped
from ..errors import Damaged, InvalidArgument, NotFound, StoreError, Timeout, Unavailable
from ..records.entry import Entry, decode, feed_prefix
from ..records.kind import Kind, Record
from ..records.pages import BY_ENTRY, Page, check_limit, fingerprint, read_cursor, write_cursor
from ..records.reading import load
from ..values import wrapper
from . import positions
from .feed import before_of, place_in, record_of
from .positions import BEGINNING, LATEST

log = logging.getLogger("stateroom.feed")

T = TypeVar("T", bound=Record)


async def _entry(rows: Rows, at: tuple[int, int]) -> Entry | None:
    """The entry at a place; None where it is no longer retained."""
    if at[0] == PENDING and isinstance(rows, TransactionRows):
        return decode(rows.scope, rows.appended(at[1]))
    row = (await rows.peek([stamped(feed_prefix(rows.scope), *at)]))[0]
    return None if row is None else decode(rows.scope, row.value)


async def chain(rows: Rows, at: tuple[int, int] | None) -> AsyncIterator[tuple[tuple[int, int], Entry]]:
    """Entries from a place back to the creation, or to what is no longer retained."""
    while at is not None:
        entry = await _entry(rows, at)
        if entry is None:
            return
        yield at, entry
        at = (PENDING, entry.before[1]) if entry.before[0] == PENDING == at[0] else before_of(at, entry)


async def _record(reader: Rows, at: tuple[int, int], entry: Entry, raw: bool) -> Any:
    """The record in an entry of a chain; None where the entry, and so a large value, was pruned meanwhile."""
    scope = reader.scope
    if at[0] == PENDING:
        unplaced = Row(feed_prefix(scope), b"", PENDING)  # where it will stand is not known yet
        return await wrapper.current(reader, unplaced, lambda _: record_of(reader, entry, raw=raw))
    while True:
        try:
            return await record_of(scope.reader, entry, raw=raw)
        except Damaged as error:
            now = await _entry(reader, at) if error.fields.get("missing") else entry
            if now is None:
                return None
            if now == entry:
                raise
            entry = now


async def page(reader: Reader, kind: Kind[T], path: Sequence[str], limit: int, cursor: str | None) -> Page[T]:
    """A record's revisions, newest first, within what the feed retains; `NotFound` where there is no record.

    Values that cannot be rebuilt here are shown as `codec.Raw`; what cannot be opened at all is counted.
    """
    check_limit(limit)
    query = fingerprint(reader.scope.prefix, kind.name, "history", path)
    rows = reader.at(kind.owner(path))
    if cursor is None:
        stored = await load(reader, kind, path, raw=True)
        if stored is None:
            raise NotFound(f"no {kind.name} {'/'.join(path)!r}", kind=kind.name, id="/".join(path))
        at: tuple[int, int] | None = stored.pointer
    else:
        at = read_cursor(cursor, query, BY_ENTRY)
    items: list[T] = []
    undecodable = 0
    entries = chain(rows, at)
    while True:
        try:
            position, entry = await anext(entries)
        except StopAsyncIteration:
            break
        except Damaged:  # what is older cannot be found from here
            undecodable += 1
            break
        if len(items) + undecodable == limit:
            return Page(tuple(items), write_cursor(query, position), undecodable)
        try:
            record = await _record(rows, position, entry, raw=True)
        except Damaged:
            undecodable += 1
            continue
        if record is None:  # as all that is older
            break
        items.append(record)
    return Page(tuple(items), None, undecodable)


async def as_of(scope: Scope, kind: Kind[T], path: Sequence[str], when: str | datetime, *, raw: bool = False) -> T:
    """The record as it was at a position or time, within what the feed retains.

    Raises `NotFound`, and unless it is `raw` `Undecodable`.
    """
    root = keys.root(kind.owner(path))
    before = await _limit(scope, root, when)
    missing = NotFound(
        f"{kind.name} {'/'.join(path)!r} was not there then, or that is no longer retained",
        kind=kind.name,
        id="/".join(path),
    )
    stored = await load(scope.reader, kind, path, raw=True)
    if stored is not None and before(stored.pointer, stored.updated):  # it is so still, whatever is retained
        if not raw:  # else what it holds was shown as it is
            stored = await load(scope.reader, kind, path)
        if stored is None:
            raise missing
        return kind.shown(stored.record)
    start = stored.pointer if stored is not None else await _last_entry(scope, kind, path, None)
    while start is not None:
        oldest = start
        async for at, entry in chain(scope.reader.at(kind.owner(path)), start):
            if before(at, entry.at):
                if entry.op == "delete":
                    raise missing
                record: T | None = await _record(scope.reader.at(kind.owner(path)), at, entry, raw)
                if record is None:
                    raise missing
                return record
            oldest = at
        start = await _last_entry(scope, kind, path, oldest)  # of a record that had this id before
    raise missing


async def _limit(scope: Scope, root: str, when: str | datetime) -> Callable[[tuple[int, int], int], bool]:
    """Say whether what stands at a place, and was written at a time, is not after `when`."""
    if isinstance(when, datetime):
        micros = to_micros(when, "when")
        return lambda at, written: written <= micros
    if when == LATEST:
        return lambda at, written: True
    if when == BEGINNING:
        return lambda at, written: False
    if not isinstance(when, str):
        raise InvalidArgument(f"when is {when!r}; use a position or an aware datetime", what="when", value=when)
    last = (await positions.read(scope, when))[scope.part(root)]
    return lambda at, written: at <= last


async def _last_entry(
    scope: Scope, kind: Kind[Any], path: Sequence[str], before: tuple[int, int] | None
) -> tuple[int, int] | None:
    """The newest entry of an id before a place: nothing points there, so its part's feed is gone through backwards."""
    prefix = feed_prefix(scope)
    part = scope.part(keys.root(kind.owner(path)))
    stop = prefix + keys.END if before is None else stamped(prefix, *before)
    while True:
        rows = await scope.reader.in_part(part).scan(prefix, stop, limit=500, reverse=True)
        for row in rows:
            try:
                entry = decode(scope, row.value)
            except Damaged:  # `check` reports it; it says nothing of this record
                continue
            if entry.family == kind.name and entry.path == tuple(path):
                return place_in(row.key)
        if len(rows) < 500:
            return None
        stop = rows[-1].key


async def wait_for(
    scope: Scope, kind: Kind[T], path: Sequence[str], predicate: Callable[[T], bool], timeout: float
) -> T:
    """The record once it is there and `predicate` holds for it. Raises `Timeout`."""
    timeout = arguments.seconds(timeout, "timeout")
    name = f"{kind.name} {'/'.join(path)!r}"
    part = scope.part(keys.root(kind.owner(path)))
    deadline = scope.clock.monotonic() + timeout
    away = Outage(log, f"waiting for {name}", scope.clock)
    while True:
        cause: StoreError | None = None
        version, pause = 0, 0.0
        try:
            head = (await scope.reader.in_part(part).peek([b""]))[0]
            version = 0 if head is None else head.version
            stored = await load(scope.reader, kind, path)
            if stored is not None and predicate(stored.record):
                return stored.record
            state = "is not there" if stored is None else f"is at revision {stored.record.revision}"
        except StoreError as error:
            if not passes(error):
                raise
            cause, state, pause = error, f"cannot be read ({error})", away.failed(error)
        remaining = deadline - scope.clock.monotonic()
        if remaining <= 0:
            raise Timeout(f"{name} {state} after {timeout} s") from cause
        if cause is not None:
            await scope.pause(min(pause, remaining))
            continue
        with suppress(Unavailable):  # the next look says so, and pauses
            await scope.engine.wait(part, version, remaining)
