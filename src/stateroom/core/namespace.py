"""A namespace of an open database, and the rows of its parts as they are committed."""

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import keys
from ..clock import Clock
from ..engine import AsyncEngine, Distant, Engine, Gathering, Range, Row, read_counter
from .contention import Lines

if TYPE_CHECKING:
    from ..codec import Codec


class Scope:
    """A namespace of an open database, and what serves it; shared by all families of a store."""

    def __init__(
        self, engine: AsyncEngine, direct: Engine | None, namespace: str, codec: "Codec", clock: Clock
    ) -> None:
        self.namespace = namespace
        self.prefix = keys.namespace(namespace)
        self.codec = codec
        self.clock = clock
        self.parts = engine.parts
        self.engine = engine
        self.direct = direct
        """The blocking engine, where there is one: reads are made in place, on either face."""
        called: Any = engine if direct is None else direct
        self.distant = isinstance(called, Distant) and called.distant
        """Whether every call of the engine is a round trip."""
        self.gathering: Any = called if isinstance(called, Gathering) else None
        """The engine, where it looks at several parts in one call; its answer is awaited where there is no `direct`."""
        self.lines = Lines()
        self.reader = Reader(self)

    def leave(self, closed: Any) -> None:
        """Call what stands for an engine that was closed, from now on."""
        self.engine = self.direct = closed
        self.distant, self.gathering = False, None

    def sibling(self, namespace: str) -> "Scope":
        """Another namespace of the same database."""
        scope = Scope(self.engine, self.direct, namespace, self.codec, self.clock)
        scope.suspends = self.suspends
        return scope

    def part(self, root: str) -> int:
        return keys.part_of(self.prefix, root, self.parts) if self.parts > 1 else 0

    def key(self, tag: bytes, tail: bytes = b"") -> bytes:
        return self.prefix + tag + tail

    async def pause(self, seconds: float) -> None:
        """Sleep, without holding up an event loop."""
        if seconds <= 0:
            return
        if getattr(self, "suspends", False):
            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)

    suspends = False
    """Whether coroutines of this scope may suspend: on the asyncio face."""


class Rows:
    """Committed rows of one part: the fast path of operations that only read. It remembers nothing.

    A family opens the rows of a name once (``rows = tx.at(name)``); nothing below it says a root or a part.
    """

    def __init__(self, scope: Scope, part: int, root: str = "") -> None:
        self.scope = scope
        self.part = part
        self.root = root
        """What decided the part; "" where somebody works part by part."""

    def at(self, name: str) -> "Rows":
        """The rows of the part of a name."""
        return self if keys.root(name) == self.root else self.scope.reader.at(name)

    def look_at(self, name: str) -> "Rows":
        """As `at`, for a look: a transaction neither fixes its root by it nor remembers what is read."""
        return self.at(name)

    async def get(self, key: bytes) -> Row | None:
        """The row under `key`; in a transaction it is remembered, and must be the same at commit."""
        scope = self.scope
        if scope.direct is not None:
            return scope.direct.read(self.part, (key,))[0]
        return (await scope.engine.read(self.part, (key,)))[0]

    async def get_many(self, row_keys: Sequence[bytes]) -> list[Row | None]:
        """As `get` of each, in one call of the engine."""
        return await self.committed(row_keys) if row_keys else []

    async def get_new(self, key: bytes) -> Row | None:
        """As `get`, of a row that most likely is not there; a transaction may assume so instead of looking."""
        return await self.get(key)

    async def peek(self, row_keys: Sequence[bytes]) -> list[Row | None]:
        """Rows under several keys; never remembered, with a transaction's own writes."""
        return await self.committed(row_keys)

    async def committed(self, row_keys: Sequence[bytes]) -> list[Row | None]:
        """Rows under several keys as they are committed, without a transaction's own writes."""
        if self.scope.direct is not None:
            return self.scope.direct.read(self.part, row_keys)
        return await self.scope.engine.read(self.part, row_keys)

    async def scan(self, start: bytes, stop: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        """Rows of a range; never remembered, with a transaction's own writes."""
        return await self.scan_committed(start, stop, limit=limit, reverse=reverse)

    async def scan_committed(self, start: bytes, stop: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        """Rows of a range as they are committed, without a transaction's own writes."""
        if self.scope.direct is not None:
            return self.scope.direct.scan(self.part, start, stop, limit=limit, reverse=reverse)
        return await self.scope.engine.scan(self.part, start, stop, limit=limit, reverse=reverse)


class Reader:
    """Reads of a namespace: over all parts, or the rows of one."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def at(self, name: str) -> Rows:
        """The rows of the part that a name decides: of an id, machine, DAG, run or key."""
        root = keys.root(name)
        return Rows(self.scope, self.scope.part(root), root)

    def look_at(self, name: str) -> Rows:
        """As `at`, for a look: a transaction neither fixes its root by it nor remembers what is read."""
        return self.at(name)

    def in_part(self, part: int) -> Rows:
        """The committed rows of a part by number, for what works part by part."""
        return Rows(self.scope, part)

    async def read_many(self, requests: Sequence[tuple[int, Sequence[bytes]]]) -> list[list[Row | None]]:
        """Rows under the keys of each (part, keys); one call of an engine that can. Never remembered."""
        gathering = self.scope.gathering
        if gathering is None or len(requests) < 2:
            return [await Rows(self.scope, part).committed(answer) for part, answer in requests]
        answer: Any = gathering.read_many(requests)
        rows: list[list[Row | None]] = answer if self.scope.direct is not None else await answer
        return rows

    async def scan_many(self, ranges: Sequence[Range]) -> list[list[Row]]:
        """Committed rows of each (part, start, stop, limit); one call of an engine that can."""
        gathering = self.scope.gathering
        if gathering is None or len(ranges) < 2:
            return [
                await Rows(self.scope, part).scan_committed(start, stop, limit=limit)
                for part, start, stop, limit in ranges
            ]
        answer: Any = gathering.scan_many(ranges)
        rows: list[list[Row]] = answer if self.scope.direct is not None else await answer
        return rows

    async def scan(self, start: bytes, stop: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        """Rows of all parts in a range; never remembered."""
        if self.scope.direct is not None:
            return self.scope.direct.scan(None, start, stop, limit=limit, reverse=reverse)
        return await self.scope.engine.scan(None, start, stop, limit=limit, reverse=reverse)

    def own_counters(self, start: bytes, stop: bytes) -> list[bytes]:
        """Counters in a range that this transaction adds to."""
        del start, stop
        return []

    async def total(self, counters: Sequence[bytes]) -> int:
        """The sum of some counters over all parts."""
        answers = await self.read_many([(part, counters) for part in range(self.scope.parts)])
        return sum(read_counter(row.value) for rows in answers for row in rows if row is not None)
