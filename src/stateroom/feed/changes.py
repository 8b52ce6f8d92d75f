"""Entries of the feed as the changes that a reader is given."""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from .. import keys
from ..clock import EPOCH, from_micros
from ..codec.interrupts import from_handler
from ..codec.malformed import parsing
from ..codec.shown import Shown
from ..core.namespace import Reader, Scope
from ..core.transaction import PENDING, Readable
from ..errors import Damaged, StoreError, Undecodable
from ..records.entry import NO_POINTER, ChangeOp, Entry, decode_run, feed_prefix, place_at
from ..records.kind import KINDS, Kind, kind_of_events
from ..records.layout import decode_body
from ..values import wrapper

if TYPE_CHECKING:
    from ..types import ChangedRecord
else:
    ChangedRecord = Any
    """The families stand above the feed; type checkers alone look up."""


class Change(Shown, frozen=True, gc=False):
    """One change."""

    position: str
    """Just after it: resuming here gives the next one."""
    before: str
    """Just before it: resuming here gives it again."""
    op: ChangeOp
    family: str
    id: str
    """The string that decides the part."""
    key: tuple[str | int, ...]
    """The full key."""
    record: "ChangedRecord"
    """The record after the change; None for a deletion; the emitted object for an emit."""
    previous: "ChangedRecord"
    """The record before it, where there was one and the feed still has it."""
    events: tuple[Any, ...]
    """What was given as events with the change."""
    at: datetime
    error: StoreError | None = None
    """Why not all of it could be rebuilt: `Undecodable` where a type is not registered here, whose values are shown as
    `codec.Raw`; another error where the record cannot be opened at all, and is None. It blocks nothing else."""


Seen = tuple[int, bytes, Entry, StoreError | None, str, str]
"""A matching entry: part, place (version and index as the end of its key), the entry, why it cannot be read if it
cannot, and the positions before and after it."""

Looked = dict[tuple[int, bytes], Entry]
"""Entries by their part and place."""


def place_in(key: bytes) -> tuple[int, int]:
    """Version and index at the end of an entry's key."""
    return int.from_bytes(key[-10:-2], "big"), int.from_bytes(key[-2:], "big")


async def record_of(reader: Readable, entry: Entry, *, raw: bool = False) -> Any:
    """The object in an entry, as changes show it. Raises `Damaged`, and unless it is `raw` `Undecodable`."""
    wrapped = entry.wrapped
    if wrapped is None:
        return None
    scope = reader.scope
    if wrapped[:1] == wrapper.INLINE:  # what every small record is: no detour
        bound = b"" if scope.codec.key_ring is None else entry_bound(scope, entry)
        body = scope.codec.reveal(bound, wrapped[1:])
    else:
        body = await wrapper.fetch(reader.look_at(entry.id), entry_bound(scope, entry), wrapped)
    kind = KINDS.get(entry.family)
    if kind is not None:
        return kind.shown(decode_body(scope, kind, entry.path, body, raw=raw)[0])
    value = scope.codec.decode(body, raw=raw)
    events = kind_of_events(entry.family)
    with parsing(f"a change of {entry.family}", kind=entry.family):
        return value if events is None else events.unpack_event(value)


def plain_bound(scope: Scope, family: str, id: str) -> bytes:
    """Return what the value of an entry without a record is bound to."""
    return feed_prefix(scope) + keys.path(family, id)


def entry_bound(scope: Scope, entry: Entry) -> bytes:
    """Return what the value and the events of an entry are bound to."""
    kind = KINDS.get(entry.family)
    if kind is None:
        return plain_bound(scope, entry.family, entry.id)
    return kind.prefix(scope) + keys.path(*entry.path)


def before_of(at: tuple[int, int], entry: Entry) -> tuple[int, int] | None:
    """Return where the record's entry before this one stands; None where there is none."""
    version, index = entry.before
    if version == PENDING:  # written by the same commit
        return at[0], index
    return None if entry.before == NO_POINTER else entry.before


async def _entries_before(reader: Reader, items: Sequence[Seen], passed: Looked) -> list[Entry | None]:
    """The same records' entries before some: None where there was none, or it is not retained or not readable.

    What was looked at (`passed` and `items`) is not read again, and the rest of each part is read at once.
    """
    entries_by_place = dict(passed)
    backs: list[Entry | None] = []
    missing: dict[int, list[tuple[int, bytes]]] = {}
    for part, at, entry, error, _, _ in items:
        version, index = entry.before
        previous = None
        if version:
            place = place_at(version, index) if version != PENDING else at[:8] + index.to_bytes(2, "big")
            previous = entries_by_place.get((part, place))
            if previous is None:
                missing.setdefault(part, []).append((len(backs), place))
        backs.append(previous)
        if error is None:
            entries_by_place[part, at] = entry
    prefix = feed_prefix(reader.scope)
    requests = [(part, [prefix + place for _, place in spots]) for part, spots in missing.items()]
    for spots, rows in zip(missing.values(), await reader.read_many(requests), strict=True):
        present = [(number, row) for (number, _), row in zip(spots, rows, strict=True) if row is not None]
        entries, errors = decode_run(reader.scope, [row for _, row in present])
        for (number, row), entry in zip(present, entries, strict=True):
            if row.key[-10:] not in errors:
                backs[number] = entry
    return backs


async def changes_of(reader: Reader, items: Sequence[Seen], passed: Looked) -> tuple[Change, ...]:
    """Entries as changes; `passed`: those that were looked at and did not match."""
    backs = await _entries_before(reader, items, passed)
    changes = _plain_changes(reader.scope, items, backs)
    for number, change in enumerate(changes):
        if change is None:
            changes[number] = await _change(reader, items[number], backs[number])
    return tuple(changes)  # type: ignore[arg-type]


class _Times(dict[int, datetime]):
    """Moments by their microseconds: the same ones come again, as a change's and as its records'."""

    def __missing__(self, micros: int) -> datetime:
        moment = self[micros] = EPOCH + timedelta(0, 0, micros)  # `from_micros` in place
        return moment


def _plain_changes(scope: Scope, items: Sequence[Seen], backs: Sequence[Entry | None]) -> list[Change | None]:
    """Entries as changes, where all values are small, in clear and readable, as most are; None for others."""
    changes: list[Change | None] = []
    if scope.codec.key_ring is not None:
        return [None] * len(items)
    add, times = changes.append, _Times()
    decode = scope.codec.quick
    records = _Openers(decode, times)
    for (_, _, entry, error, before, after), former in zip(items, backs, strict=True):
        op, family, id, path, _, at, wrapped, events_wrapper = entry
        try:
            record = None if wrapped is None else records[family](wrapped)
            # Decoded once more where it was the record of the change before: who changes one must not see it there.
            earlier = None if former is None else former.wrapped
            previous = None if earlier is None else records[family](earlier)
            events = () if events_wrapper is None else _plain_events(decode, family, events_wrapper)
            add(Change(after, before, op, family, id, path, record, previous, events, times[at], error))
        except Exception as failed:
            if from_handler(failed):
                raise
            add(None)  # `_change` finds out why, and says it
    return changes


Decode = Callable[[bytes], Any]


class _Openers(dict[str, Decode]):
    """For each family, what gives the object in a wrapper as `record_of` does, and raises whatever where it cannot."""

    def __init__(self, decode: Decode, times: _Times) -> None:
        self._decode, self._times = decode, times

    def __missing__(self, family: str) -> Decode:
        kind = KINDS.get(family)
        opener = self[family] = self._plain(family) if kind is None else self._record(kind)
        return opener

    def _plain(self, family: str) -> Decode:
        decode, events = self._decode, kind_of_events(family)
        build = None if events is None else events.unpack_event

        def opened(wrapped: bytes) -> Any:
            value = decode(_inline(wrapped))
            return value if build is None else build(value)

        return opened

    def _record(self, kind: Kind[Any]) -> Decode:
        decode, times, unpack, layout = self._decode, self._times, kind.unpack, kind.layout
        public = None if type(kind).shown is Kind.shown else kind.shown

        def opened(wrapped: bytes) -> Any:
            if wrapped[0]:  # `_inline` in place
                raise ValueError
            layout_number, revision, created, updated, *fields = decode(wrapped[1:])
            if layout_number != layout:
                raise ValueError
            record = unpack(fields, revision, times[created], times[updated])
            return record if public is None else public(record)

        return opened


def _plain_events(decode: Decode, family: str, wrapped: bytes) -> tuple[Any, ...]:
    """As `_events`, likewise."""
    return tuple(map(KINDS[family].unpack_event, decode(_inline(wrapped))))


def _inline(wrapped: bytes) -> bytes:
    if wrapped[:1] != wrapper.INLINE:
        raise ValueError
    return wrapped[1:]


async def _change(reader: Reader, item: Seen, former: Entry | None) -> Change:
    """One entry as a change, whatever there is in it."""
    _, _, entry, error, before, after = item
    record = previous = None
    events: tuple[Any, ...] = ()
    if error is None:
        record, error = await _shown(lambda raw: record_of(reader, entry, raw=raw))
    if entry.events is not None:
        opened, why = await _shown(lambda raw: events_of(reader, entry, raw=raw))
        events, error = opened or (), error or why
    if former is not None:
        previous, _ = await _shown(lambda raw: record_of(reader, former, raw=raw))
    return Change(
        after, before, entry.op, entry.family, entry.id, entry.path, record, previous, events,
        from_micros(entry.at), error,
    )  # fmt: skip


async def _shown(opened: Callable[[bool], Awaitable[Any]]) -> tuple[Any, StoreError | None]:
    """Return what can be shown of a value, and why that is not all of it."""
    try:
        return await opened(False), None
    except Undecodable as error:
        with contextlib.suppress(Damaged):
            return await opened(True), error
        return None, error
    except Damaged as error:
        return None, error


async def events_of(reader: Readable, entry: Entry, *, raw: bool = False) -> tuple[Any, ...]:
    """Return what was given as events with a change of a record; `raw` as in `record_of`."""
    if entry.events is None:
        return ()
    scope = reader.scope
    if entry.family not in KINDS:
        raise Damaged(f"a change of {entry.family!r}, which is no family, has events", kind=entry.family)
    bound = KINDS[entry.family].prefix(scope) + keys.path(*entry.path)
    values = scope.codec.decode(await wrapper.fetch(reader.look_at(entry.id), bound, entry.events), raw=raw)
    with parsing(f"the events of a change of {entry.family}", kind=entry.family):
        return tuple(map(KINDS[entry.family].unpack_event, values))
