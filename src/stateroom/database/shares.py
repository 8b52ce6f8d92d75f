"""Families look at all records of a part at once. Where there are too many to be held, they are shown a share of the
part's roots at a time: what a record hangs together with has the same root.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from zlib import crc32

from .. import keys
from ..core.namespace import Reader, Rows
from ..engine import Row
from ..errors import Damaged
from ..records.kind import Kind, Stored, owner_of
from .rows import SHARE, Look, opened


class Share:
    """Some roots of a part."""

    def __init__(self, look: Look, number: int, count: int) -> None:
        self._look = look
        self._number, self._count = number, count
        self.reader: Reader = look.reader if count == 1 else _ShareReader(look.reader, self.has)

    def has(self, root: str) -> bool:
        """Say whether a root belongs to it."""
        return self._count == 1 or crc32(root.encode()) % self._count == self._number

    async def records(self, kind: Kind[Any]) -> dict[bytes, Stored[Any]]:
        """The readable records of a kind, by the tail of their keys."""
        records: dict[bytes, Stored[Any]] = {}
        async for batch, _ in opened(self._look, kind, None if self._count == 1 else self.has):
            records.update(batch)
        return records


def shares_of(look: Look) -> Iterator[Share]:
    """The shares of a part that was gone through once."""
    count = 1 + look.records // SHARE
    return (Share(look, number, count) for number in range(count))


class _ShareReader(Reader):
    """Reads of a part in which the rows of other shares are left out of scans."""

    def __init__(self, reader: Reader, has: Callable[[str], bool]) -> None:
        super().__init__(reader.scope)
        self._reader = reader
        self._has = has

    def at(self, name: str) -> Rows:
        return self._reader.at(name)

    def in_part(self, part: int) -> Rows:
        return _ShareRows(self._reader.in_part(part), self._has)


class _ShareRows(Rows):
    def __init__(self, rows: Rows, has: Callable[[str], bool]) -> None:
        super().__init__(rows.scope, rows.part)
        self._rows = rows
        self._has = has

    async def committed(self, row_keys: Sequence[bytes]) -> list[Row | None]:
        return await self._rows.committed(row_keys)

    async def scan_committed(self, start: bytes, stop: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        chosen: list[Row] = []
        low, high = start, stop
        while len(chosen) < limit:
            rows = await self._rows.scan_committed(low, high, limit=limit, reverse=reverse)
            chosen += [row for row in rows if self._is_ours(row)]
            if len(rows) < limit:
                break
            if reverse:
                high = rows[-1].key
            else:
                low = rows[-1].key + b"\0"
        return chosen[:limit]

    def _is_ours(self, row: Row) -> bool:
        try:
            return self._has(keys.root(owner_of(row.key[len(self.scope.prefix) :])))
        except (Damaged, ValueError):  # of no root, or of none that can be read: shown with each share
            return True
