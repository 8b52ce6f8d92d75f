"""A store at a glance: read from counters, so that it costs the same however much there is."""

import inspect
from collections import Counter
from datetime import datetime
from typing import Any

import msgspec

from .. import keys
from ..codec.shown import Shown
from ..core.namespace import Reader, Scope
from ..engine import Named, Sized, read_counter
from ..errors import InvalidArgument
from ..families.locations.nodes import every_node
from ..feed import positions
from ..feed.positions import BEGINNING
from ..records.kind import KINDS
from ..watch.checkpoints import all_checkpoints
from ..watch.dead_letters import letters_prefix
from .keyrings import key_rows

_RUN = 1000


class Lag(Shown, frozen=True):
    """A consumer of the feed, and how many commits of the database came after its checkpoint."""

    name: str
    commits: int
    updated_at: datetime


class Stats(Shown, frozen=True):
    """The contents of a namespace in numbers. Counts are exact as of some moment during the call."""

    namespace: str
    engine: str
    """What keeps it, with its version where that matters."""
    parts: int
    commits: int
    """Commits to the database so far, of all namespaces."""
    bytes: int | None
    """Size on disk, where the engine knows it."""
    instances: dict[str, int]
    """By status."""
    executions: dict[str, int]
    """By state."""
    machines: dict[str, int]
    """By machine."""
    checkpoints: tuple[Lag, ...]
    dead_letters: int
    nodes: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    """How many nodes are alive, and how many dead."""
    locations: int = 0
    """How many locations of results there are, over all DAGs."""
    encrypted: bool = False
    """Whether values were written under a key ring, with which this store was opened or not."""
    records: dict[str, dict[str, int]] = msgspec.field(default_factory=dict[str, dict[str, int]])
    """Of every family that counts its records: by status, state or machine; "all" where it does not tell them apart."""


async def stats(scope: Scope) -> Stats:
    """Return what a namespace holds."""
    versions = await positions.versions(scope.reader)
    records = {
        kind.name: await _counted(scope.reader, keys.COUNTER + kind.letter + kind.summary)
        for kind in KINDS.values()
        if kind.summary is not None
    }
    engine: Any = scope.engine if scope.direct is None else scope.direct
    size = engine.size() if isinstance(engine, Sized) else None
    return Stats(
        scope.namespace,
        engine.about if isinstance(engine, Named) else type(engine).__name__,
        scope.parts,
        sum(versions),
        await size if inspect.isawaitable(size) else size,
        records["instances"],
        records["executions"],
        records["machines"],
        await _lags(scope, versions),
        await _letters(scope.reader),
        dict(sorted(Counter("alive" if node.alive else "dead" for node in await every_node(scope.reader)).items())),
        sum((await _counted(scope.reader, keys.LOCATION_COUNT)).values()),
        bool(await key_rows(scope.engine)),
        records,
    )


async def _counted(reader: Reader, tag: bytes) -> dict[str, int]:
    """The counters under a tag, summed over parts, without those that are 0."""
    prefix = reader.scope.key(tag)
    totals: dict[str, int] = {}
    for part in range(reader.scope.parts):
        start = prefix
        while True:
            rows = await reader.in_part(part).scan(start, prefix + keys.END, limit=_RUN)
            for row in rows:
                name = row.key[len(prefix) : -1].decode() or "all"
                totals[name] = totals.get(name, 0) + read_counter(row.value)
            if len(rows) < _RUN:
                break
            start = rows[-1].key + b"\0"
    return {name: number for name, number in sorted(totals.items()) if number}


async def _lags(scope: Scope, versions: list[int]) -> tuple[Lag, ...]:
    lags = []
    for checkpoint in await all_checkpoints(scope.reader):
        try:
            vector = await _vector(scope, checkpoint.position)
        except InvalidArgument:  # of a database that this one was restored over
            vector = positions.beginning(scope)
        behind = sum(max(0, version - at[0]) for version, at in zip(versions, vector, strict=True))
        lags.append(Lag(checkpoint.name, behind, checkpoint.updated_at))
    return tuple(lags)


async def _vector(scope: Scope, position: str) -> Any:
    return positions.beginning(scope) if position == BEGINNING else await positions.read(scope, position)


async def _letters(reader: Reader) -> int:
    start = letters_prefix(reader.scope)
    stop = start + keys.END
    count = 0
    while True:
        rows = await reader.scan(start, stop, limit=_RUN)
        count += len(rows)
        if len(rows) < _RUN:
            return count
        start = rows[-1].key + b"\0"
