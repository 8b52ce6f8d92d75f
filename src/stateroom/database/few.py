"""The few rows of a part, read at once: a look at a part is some forty scans, each a round trip to a server."""

from bisect import bisect_left
from collections.abc import Sequence

from .. import keys
from ..core.namespace import Reader, Rows, Scope
from ..engine import Row

MANY = 500
"""Rows of a part that are too many to be read at once, beside those of chunks; each may have 64 KiB."""

_CHUNKS = b"B"  # every chunk, count and upload: they are large, and `references` reads them in runs


class FewRows(Rows):
    """The rows of a part, of which most are in memory."""

    def __init__(self, few: "Few", part: int, root: str = "") -> None:
        super().__init__(few.scope, part, root)
        self._few = few

    def at(self, name: str) -> Rows:
        return self._few.at(name)

    async def committed(self, row_keys: Sequence[bytes]) -> list[Row | None]:
        if not all(self._few.kept(self.part, key) for key in row_keys):
            return await super().committed(row_keys)
        return self._few.read(row_keys)

    async def get(self, key: bytes) -> Row | None:
        return (await self.committed([key]))[0]

    async def scan_committed(self, start: bytes, stop: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        if not self._few.kept(self.part, start):
            return await super().scan_committed(start, stop, limit=limit, reverse=reverse)
        return self._few.between(start, stop, limit, reverse)


class Few(Reader):
    """The few rows of a part, read at once and looked at in memory; what they are not is read where it is.

    A look at a part is some forty scans, each a round trip to a server.
    """

    def __init__(self, scope: Scope, part: int, rows: Sequence[Row]) -> None:
        super().__init__(scope)
        self._part = part
        self._rows = rows
        self._keys = [row.key for row in rows]
        self._elsewhere = scope.key(_CHUNKS)

    @classmethod
    async def of(cls, scope: Scope, part: int) -> Reader:
        """The reader of a part; where it has more rows, one that reads them as they are asked for."""
        rows: list[Row] = []
        for start, stop in ((b"", _CHUNKS), (_CHUNKS + keys.END, keys.END)):
            batch = await scope.reader.in_part(part).scan(scope.key(start), scope.key(stop), limit=MANY)
            if len(batch) == MANY:
                return scope.reader
            rows += batch
        return cls(scope, part, rows)

    def kept(self, part: int, start: bytes) -> bool:
        return part == self._part and start.startswith(self.scope.prefix) and not start.startswith(self._elsewhere)

    def at(self, name: str) -> Rows:
        root = keys.root(name)
        return FewRows(self, self.scope.part(root), root)

    def in_part(self, part: int) -> Rows:
        return FewRows(self, part)

    def read(self, row_keys: Sequence[bytes]) -> list[Row | None]:
        """Rows under several keys, from memory."""
        places = [(key, bisect_left(self._keys, key)) for key in row_keys]
        return [self._rows[at] if self._keys[at : at + 1] == [key] else None for key, at in places]

    def between(self, start: bytes, stop: bytes, limit: int, reverse: bool) -> list[Row]:
        """Rows of a range, from memory."""
        rows = self._rows[bisect_left(self._keys, start) : bisect_left(self._keys, stop)]
        return list(rows[::-1] if reverse else rows)[:limit]
