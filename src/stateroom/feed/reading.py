"""Going through the entries of the feed in commit order, in runs, and picking those that match."""

import heapq
from collections.abc import Collection
from itertools import repeat
from typing import Any, NamedTuple

import msgspec

from .. import arguments, keys
from ..core.namespace import Reader
from ..engine import Range, Row
from ..errors import InvalidArgument, StoreError
from ..records.entry import OPS, Entry, decode_run, feed_prefix
from ..records.kind import changed_families
from .changes import Looked, Seen
from .positions import Place

LEAST_RUN, RUN = 16, 256
"""Entries that are read at once."""

LOOKED_AT = 2000
"""Entries one read looks at before it returns, however few of them match."""

_KEPT_BYTES = 4096
"""Size of a value up to which an entry that does not match is kept until the read ends."""


class Filter(msgspec.Struct, frozen=True):
    """Which changes a reader wants; None wants all."""

    families: frozenset[str] | None = None
    ops: frozenset[str] | None = None
    ids: frozenset[Any] | None = None

    def wants(self, entry: Entry) -> bool:
        return (
            (self.families is None or entry.family in self.families)
            and (self.ops is None or entry.op in self.ops)
            and (self.ids is None or entry.id in self.ids or entry.path in self.ids)
        )

    def may_need(self, entry: Entry) -> bool:
        """Say whether an entry that does not match may be the one before an entry that does: of the same record."""
        return self.ops is not None and (entry.wrapped is None or len(entry.wrapped) <= _KEPT_BYTES)


EVERYTHING = Filter()


def make_filter(families: Collection[str] | None, ops: Collection[str] | None, ids: Collection[Any] | None) -> Filter:
    """A checked filter. Raises `InvalidArgument` for a bare str, an unknown op or an id that is no name."""
    return Filter(
        None if families is None else _make_families(families),
        None if ops is None else arguments.choices(ops, "ops", OPS, "ops"),
        None if ids is None else _make_ids(ids),
    )


def _make_ids(ids: Collection[Any]) -> frozenset[Any]:
    """Ids and whole keys, as changes have them."""
    items = [tuple(id) if isinstance(id, list) else id for id in arguments.collection(ids, "ids", "ids and keys")]
    try:
        return frozenset([arguments.text(id, "ids") if isinstance(id, str) else id for id in items])
    except TypeError as error:
        raise InvalidArgument(f"ids has what cannot be one: {items!r}", what="ids", value=items) from error


def _make_families(families: Collection[str]) -> frozenset[str]:
    """Families and emitted types; a noun for a family matches nothing, and is a slip."""
    names = frozenset(arguments.names(families, "families"))
    nouns = {family.removesuffix("s"): family for family in changed_families()}
    for name in names & nouns.keys():
        raise InvalidArgument(f"there is no family {name!r}; {nouns[name]!r} is meant", what="families", value=name)
    return names


Picked = tuple[list[Seen], Looked]
"""The first two of `Selection`, while they are looked for."""


class Selection(NamedTuple):
    """The entries after a place."""

    matches: list[Seen]
    """Entries that match."""
    passed: Looked
    """Entries that do not, where one that does may need them."""
    total: int
    """How many were looked at."""
    ended: bool
    """Whether it is known that none is left."""


async def find_entries(reader: Reader, place: Place, parts: list[int], limit: int, filter: Filter) -> Selection:
    """Go through entries in order until `limit` match, `LOOKED_AT` were seen or there are no more; moves `place`."""
    share = limit if len(parts) == 1 else max(LEAST_RUN, 2 * limit // len(parts))
    run = min(share, RUN) if filter == EVERYTHING else RUN
    streams = [Stream(reader, part, place.at(part), run) for part in parts]
    picked: Picked = ([], {})
    if len(streams) == 1:
        count = await _go_through(place, streams[0], limit, filter, picked)
    else:
        ranges = [stream.range for stream in streams]
        for stream, rows in zip(streams, await reader.scan_many(ranges), strict=True):
            stream.take(rows)
        count = await _merge(place, streams, limit, filter, picked)
    return Selection(*picked, count, all(stream.ended for stream in streams))


async def _go_through(place: Place, stream: "Stream", limit: int, filter: Filter, picked: Picked) -> int:
    """Take whole runs: nothing of another part comes between."""
    matches, remaining = picked[0], LOOKED_AT
    everything = filter == EVERYTHING
    while remaining and len(matches) < limit and await stream.fill():
        ats = stream.ats[: min(remaining, limit - len(matches)) if everything else remaining]
        texts = [place.text, *place.texts(stream.part, ats)]
        errors = map(stream.errors.get, ats)
        run = list(zip(repeat(stream.part), ats, stream.entries, errors, texts, texts[1:], strict=False))
        if everything:
            matches += run
            number = len(run)
        else:
            number = _pick(run, limit, filter, picked)
        place.move(stream.part, ats[number - 1])
        stream.next = number
        remaining -= number
    return LOOKED_AT - remaining


def _pick(run: list[Seen], limit: int, filter: Filter, picked: Picked) -> int:
    """Take what matches, until there are `limit`; gives how many were looked at."""
    matches, passed = picked
    for number, item in enumerate(run):
        if len(matches) == limit:
            return number
        part, at, entry, error, _, _ = item
        if error is not None or filter.wants(entry):
            matches.append(item)
        elif filter.may_need(entry):
            passed[part, at] = entry
    return len(run)


async def _merge(place: Place, streams: list["Stream"], limit: int, filter: Filter, picked: Picked) -> int:
    """Take entries of several parts by their time, each part's in its order."""
    matches, passed = picked
    heads = [(stream.entries[0].at, stream.part, stream) for stream in streams if await stream.fill()]
    heapq.heapify(heads)
    count = 0
    while heads and len(matches) < limit and count < LOOKED_AT:
        _, part, stream = heads[0]
        at, entry = stream.ats[stream.next], stream.entries[stream.next]
        error = stream.errors.get(at)
        count += 1
        stream.next += 1
        if error is not None or filter.wants(entry):
            before = place.text
            place.move(part, at)
            matches.append((part, at, entry, error, before, place.text))
        else:
            place.move(part, at)
            if filter.may_need(entry):
                passed[part, at] = entry
        if stream.next < len(stream.ats) or (len(matches) < limit and await stream.fill()):
            heapq.heapreplace(heads, (stream.entries[stream.next].at, part, stream))
        else:
            heapq.heappop(heads)
    return count


class Stream:
    """The entries of one part after a place, read ahead in runs."""

    def __init__(self, reader: Reader, part: int, after: bytes, run: int) -> None:
        self.part = part
        self.ats: list[bytes] = []
        """Where those of this run stand: the ends of their keys."""
        self.entries: list[Entry] = []
        self.errors: dict[bytes, StoreError] = {}
        """Why an entry could not be read."""
        self.next = 0
        """Which of them comes next."""
        self._reader = reader
        self._run = run
        self._prefix = feed_prefix(reader.scope)
        self._start = self._prefix + after + b"\0"
        self._last = False

    @property
    def ended(self) -> bool:
        """Say whether it is known that nothing is left."""
        return self._last and self.next == len(self.ats)

    async def fill(self) -> bool:
        """Say whether there is a next entry; reads the next run where this one is used up."""
        if self.next < len(self.ats):
            return True
        if self._last:
            return False
        part, start, stop, limit = self.range
        return self.take(await self._reader.in_part(part).scan(start, stop, limit=limit))

    @property
    def range(self) -> Range:
        """Return what the next run is read from."""
        return Range(self.part, self._start, self._prefix + keys.END, self._run)

    def take(self, rows: list[Row]) -> bool:
        """Go on with the rows of a run; whether there are any."""
        self._last = len(rows) < self._run
        self.next = 0
        self.ats = [row[0][-10:] for row in rows]
        self.entries, self.errors = decode_run(self._reader.scope, rows)
        if rows:
            self._start = rows[-1].key + b"\0"
        return bool(rows)
