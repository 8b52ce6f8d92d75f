"""Which records changed while a query read: what makes of several reads one answer, whatever moves meanwhile.

A query that looks at several indexes, or at one in several reads, may meet a record twice, or in none of them, because
it moved in between. The feed says which records those are; the query looks at each of them once more.
"""

from collections.abc import Sequence
from typing import Any

from .. import keys
from ..core.namespace import Scope
from ..engine import Range, stamped
from ..errors import Damaged
from .entry import decode, feed_prefix, floor_key
from .kind import Kind

_RUN = 256


class PrunedError(Exception):
    """The changes are not known, because the feed was pruned meanwhile."""


class ChangedSince:
    """The versions of some parts at a moment."""

    def __init__(self, scope: Scope, parts: Sequence[int]) -> None:
        self._scope = scope
        self._versions = dict.fromkeys(parts, 0)

    async def begin(self) -> None:
        """Take the moment: now."""
        self._versions, _ = await self._look(list(self._versions))

    async def next(self, kind: Kind[Any]) -> set[bytes]:
        """The keys of a kind's records that changed since the last call, or since `begin`. Raises `PrunedError`."""
        before = self._versions
        versions, _ = await self._look(list(before))
        moved = [part for part, version in versions.items() if version > before[part]]
        if not moved:
            return set()
        changed: set[bytes] = set()
        for part in moved:
            changed |= await self._entries(kind, part, before[part])
        _, floors = await self._look(moved)
        if any(floors[part] > before[part] for part in moved):
            raise PrunedError
        self._versions = versions
        return changed

    async def _look(self, parts: list[int]) -> tuple[dict[int, int], dict[int, int]]:
        """The version of each part, and the one up to which its feed was pruned."""
        head_keys = (b"", floor_key(self._scope))
        answers = await self._scope.reader.read_many([(part, head_keys) for part in parts])
        versions = {part: 0 if head is None else head.version for part, (head, _) in zip(parts, answers, strict=True)}
        floors = {
            part: 0 if floor is None else int.from_bytes(floor.value[:8], "big")
            for part, (_, floor) in zip(parts, answers, strict=True)
        }
        return versions, floors

    async def _entries(self, kind: Kind[Any], part: int, after: int) -> set[bytes]:
        scope, prefix = self._scope, feed_prefix(self._scope)
        start, stop = stamped(prefix, after + 1, 0), prefix + keys.END
        changed: set[bytes] = set()
        while True:
            (rows,) = await scope.reader.scan_many([Range(part, start, stop, _RUN)])
            for row in rows:
                try:
                    entry = decode(scope, row.value)
                except Damaged:  # it says nothing of any record
                    continue
                if entry.family == kind.name:
                    changed.add(keys.path(*entry.path))
            if len(rows) < _RUN:
                return changed
            start = rows[-1].key + b"\0"
