"""A list that grows at its end, in results: one for each item, and a head that says how many there are."""

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from .faces import Face

SLICE = 500
"""Items that are read at once."""
COMMIT = 1000
"""Items that are written in one commit."""


class Head(NamedTuple):
    """Where a list ends. Another `mark` is another list of the same name, made after the first was cleared."""

    size: int
    mark: str


class Log:
    """A list named by the root of its results; several writers at once each add theirs."""

    def __init__(self, root: str) -> None:
        self.items_dag = f"{root}/items"
        self.head_dag = f"{root}/head"

    async def head(self, face: Face) -> Head | None:
        """Read where the list ends; None where it is not there."""
        result = await face.done(face.store.results.find(self.head_dag, "head"))
        return None if result is None else Head(result.value["size"], result.value["mark"])

    async def append(self, face: Face, values: Sequence[Any], ttl: float | None = None) -> Head:
        """Add values, 1,000 in a commit, and return the new end; `ttl` in seconds is that of all that is written."""
        head = Head(0, "")
        for first in range(0, len(values), COMMIT):
            head = await self._append(face, values[first : first + COMMIT], ttl)
        return head

    async def _append(self, face: Face, values: Sequence[Any], ttl: float | None) -> Head:
        fresh = secrets.token_hex(8)

        async def body(tx: Any) -> Head:
            before = await self.head(face.inside(tx)) or Head(0, fresh)
            for number, value in enumerate(values, before.size):
                await face.done(tx.results.put(self.items_dag, item_id(number), value, ttl=ttl))
            return await self._move(face, tx, before._replace(size=before.size + len(values)), ttl)

        return await face.transact(body)

    async def slice(self, face: Face, start: int, stop: int) -> list[tuple[int, Any]]:
        """Read items and their numbers, from `start` to before `stop`; those that are gone are left out."""
        items: list[tuple[int, Any]] = []
        for first in range(start, stop, SLICE):
            numbers = range(first, min(stop, first + SLICE))
            values = await face.done(face.store.results.gather(self.items_dag, [item_id(n) for n in numbers]))
            items += [(n, values[item_id(n)]) for n in numbers if item_id(n) in values]
        return items

    async def last(self, face: Face, limit: int | None) -> list[Any]:
        """Read the last so many items, oldest first, as they were at one moment."""
        while True:
            head = await self.head(face)
            if head is None:
                return []
            first = 0 if limit is None else max(0, head.size - limit)
            items = await self.slice(face, first, head.size)
            after = await self.head(face)
            if after is not None and after.mark == head.mark and after.size >= head.size:
                return [value for _, value in items]

    async def pop(self, face: Face) -> Any | None:
        """Remove the last item and return it; None where there is none."""

        async def body(tx: Any) -> Any | None:
            before = await self.head(face.inside(tx))
            if before is None or before.size == 0:
                return None
            number = before.size - 1
            value = await face.done(tx.results.get(self.items_dag, item_id(number)))
            await face.done(tx.results.delete(self.items_dag, item_id(number)))
            await self._move(face, tx, before._replace(size=number), None)
            return value

        return await face.transact(body)

    async def clear(self, face: Face) -> None:
        """Remove the list; nothing is left of it."""

        async def body(tx: Any) -> None:
            await face.done(tx.results.clear(self.head_dag))
            await face.done(tx.results.clear(self.items_dag))

        await face.transact(body)

    async def _move(self, face: Face, tx: Any, head: Head, ttl: float | None) -> Head:
        await face.done(tx.results.put(self.head_dag, "head", head._asdict(), ttl=ttl))
        return head


def item_id(number: int) -> str:
    """The id of an item; ids sort as numbers do."""
    return f"{number:012d}"
