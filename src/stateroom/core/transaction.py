"""A transaction over any engine: it remembers what it read and keeps its writes until commit."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .. import keys
from ..clock import Clock
from ..engine import AsyncEngine, Batch, Engine, Gathering, Range, Row, read_counter, stamped
from ..errors import Closed, Conflict, InvalidArgument
from ..limits import TRIES

if TYPE_CHECKING:
    from ..codec import Codec

R = TypeVar("R")

PENDING = -1
"""The version of a row that this transaction wrote and has not committed yet."""

_LAST = (1 << 63) - 1  # where own appended rows stand in a scan until their version is known


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
        self.distant: bool = getattr(called, "distant", False)
        """Whether every call of the engine is a round trip."""
        self.gathering: Any = called if isinstance(called, Gathering) else None
        """The engine, where it looks at several parts in one call; its answer is awaited where there is no `direct`."""
        self.reader = Reader(self)

    def leave(self, gone: Any) -> None:
        """Call what stands for an engine that was closed, from now on."""
        self.engine = self.direct = gone
        self.distant, self.gathering = False, None

    def sibling(self, namespace: str) -> "Scope":
        """Another namespace of the same database."""
        other = Scope(self.engine, self.direct, namespace, self.codec, self.clock)
        other.suspends = self.suspends
        return other

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


class Reader:
    """Reads what is committed now, and remembers nothing: the fast path of read-only operations."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.instant = scope.direct is not None
        """Whether `now` may be called: reading takes no `await`."""

    async def get(self, root: str, key: bytes) -> Row | None:
        """The row under `key`; in a transaction it is remembered, and must be the same at commit."""
        scope = self.scope
        if scope.direct is not None:
            return scope.direct.read(scope.part(root), (key,))[0]
        return (await scope.engine.read(scope.part(root), (key,)))[0]

    async def get_many(self, root: str, wanted: Sequence[bytes]) -> list[Row | None]:
        """As `get` of each, in one call of the engine."""
        return await self._committed(self.scope.part(root), wanted) if wanted else []

    async def absent(self, root: str, key: bytes) -> Row | None:
        """As `get`, of a row that most likely is not there; a transaction may presume so instead of looking."""
        return await self.get(root, key)

    def now(self, root: str, key: bytes) -> Row | None:
        """As `get`, without a coroutine."""
        scope = self.scope
        direct: Any = scope.direct
        row: Row | None = direct.read(scope.part(root), (key,))[0]
        return row

    async def peek(self, part: int, found: Sequence[bytes]) -> list[Row | None]:
        """Rows under several keys of one part; never remembered."""
        return await self._committed(part, found)

    async def _committed(self, part: int, found: Sequence[bytes]) -> list[Row | None]:
        if self.scope.direct is not None:
            return self.scope.direct.read(part, found)
        return await self.scope.engine.read(part, found)

    async def peek_many(self, wanted: Sequence[tuple[int, Sequence[bytes]]]) -> list[list[Row | None]]:
        """As `peek` of each (part, keys); one call of an engine that can."""
        gathering = self.scope.gathering
        if gathering is None or len(wanted) < 2:
            return [await self.peek(part, found) for part, found in wanted]
        found: Any = gathering.read_many(wanted)
        rows: list[list[Row | None]] = found if self.scope.direct is not None else await found
        return rows

    async def scan_many(self, ranges: Sequence[Range]) -> list[list[Row]]:
        """As `scan_part` of each; one call of an engine that can."""
        gathering = self.scope.gathering
        if gathering is None or len(ranges) < 2:
            return [await self.scan_part(part, start, stop, limit=limit) for part, start, stop, limit in ranges]
        found: Any = gathering.scan_many(ranges)
        rows: list[list[Row]] = found if self.scope.direct is not None else await found
        return rows

    async def scan(
        self, root: str | None, start: bytes, stop: bytes, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        """Rows of one root's part, or of all parts; never remembered."""
        part = None if root is None else self.scope.part(root)
        if self.scope.direct is not None:
            return self.scope.direct.scan(part, start, stop, limit=limit, reverse=reverse)
        return await self.scope.engine.scan(part, start, stop, limit=limit, reverse=reverse)

    async def scan_part(self, part: int, start: bytes, stop: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        """Committed rows of one part; never remembered, and without a transaction's own writes."""
        if self.scope.direct is not None:
            return self.scope.direct.scan(part, start, stop, limit=limit, reverse=reverse)
        return await self.scope.engine.scan(part, start, stop, limit=limit, reverse=reverse)

    def own_counters(self, start: bytes, stop: bytes) -> list[bytes]:
        """Counters in a range that this transaction adds to."""
        del start, stop
        return []

    async def total(self, counters: Sequence[bytes]) -> int:
        """The sum of some counters over all parts."""
        found = await self.scope.reader.peek_many([(part, counters) for part in range(self.scope.parts)])
        return sum(read_counter(row.value) for rows in found for row in rows if row is not None)


class Transaction(Reader):
    """Reads and writes in one root; what it got by point reads must not have changed when it commits."""

    def __init__(self, scope: Scope, *, any_root: bool = False) -> None:
        super().__init__(scope)
        self.instant = False
        self.root: str | None = None
        self.closed = False
        self._process = os.getpid()
        self._any_root = any_root
        self._rows: dict[bytes, Row | None] = {}
        self._writes: dict[bytes, bytes | None] = {}
        self._adds: dict[bytes, int] = {}
        self._appends: list[tuple[bytes, bytes]] = []
        self._clears: list[tuple[bytes, bytes]] = []
        self._undo: list[Callable[[], object]] = []
        self.presuming = False
        """Whether `absent` may presume. Whoever sets it runs everything again without, where that turns out wrong."""
        self.presumed = False
        """Whether `absent` did."""
        self.chunk_bytes = 0
        """Bytes of chunks written here: beyond what fits into a batch they are uploaded ahead."""
        self.chunks_freed = 0
        self.on_first_read: Callable[[str], Awaitable[None]] | None = None

    def check_open(self) -> None:
        """Raise `Closed` once it was committed or discarded, and in a process forked since it began."""
        if self.closed:
            raise Closed("this transaction has ended; start another")
        if os.getpid() != self._process:
            raise Closed("this transaction was open when its process forked; it goes on there, start another here")

    def enter(self, root: str) -> None:
        """Fix the root, or raise `InvalidArgument` where another one is fixed."""
        if self.root == root:
            return
        self.check_open()
        if self.root is None:
            self.root = root
        elif not self._any_root:
            raise InvalidArgument(
                f"this transaction is in root {self.root!r} and cannot touch {root!r}: what must change together needs"
                " ids that share what is before the first '/'",
                what="root",
                value=root,
            )

    async def get(self, root: str, key: bytes) -> Row | None:
        self.enter(root)
        if self.on_first_read is not None:
            hook, self.on_first_read = self.on_first_read, None
            await hook(root)
        if key in self._writes:
            value = self._writes[key]
            return None if value is None else Row(key, value, PENDING)
        if key in self._rows:
            return None if self._cleared(key) else self._rows[key]
        row = self._rows[key] = (await self._committed(self.scope.part(root), (key,)))[0]
        return None if self._cleared(key) else row

    async def ahead(self, root: str, wanted: Sequence[bytes]) -> None:
        """Read at once what `get` will surely be asked for, where each would be a round trip."""
        self.enter(root)
        missing = [key for key in wanted if key not in self._rows and key not in self._writes]
        if self.scope.distant and self.on_first_read is None and len(missing) > 1:
            self._rows.update(zip(missing, await self._committed(self.scope.part(root), missing), strict=True))

    async def get_many(self, root: str, wanted: Sequence[bytes]) -> list[Row | None]:
        await self.ahead(root, wanted)
        return [await self.get(root, key) for key in wanted]

    async def absent(self, root: str, key: bytes) -> Row | None:
        if not self.presuming or key in self._writes or key in self._rows:
            return await self.get(root, key)
        self.enter(root)
        self.presumed = True
        self._rows[key] = None
        return None

    async def peek_many(self, wanted: Sequence[tuple[int, Sequence[bytes]]]) -> list[list[Row | None]]:
        found = await self.scope.reader.peek_many(wanted)
        asked = [keys for _, keys in wanted]
        return [[self._own(*pair) for pair in zip(*pairs, strict=True)] for pairs in zip(asked, found, strict=True)]

    async def peek(self, part: int, found: Sequence[bytes]) -> list[Row | None]:
        rows = await self._committed(part, found)
        return [self._own(key, row) for key, row in zip(found, rows, strict=True)]

    async def scan(
        self, root: str | None, start: bytes, stop: bytes, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        own, hidden = self._own_range(start, stop)
        if not own and not hidden:
            return await super().scan(root, start, stop, limit=limit, reverse=reverse)
        found: list[Row] = []
        low, high = start, stop
        while len(found) < limit:
            asked = limit + hidden
            rows = await super().scan(root, low, high, limit=asked, reverse=reverse)
            found += [row for row in rows if row.key not in self._writes and not self._cleared(row.key)]
            if len(rows) < asked:
                break
            if reverse:
                high = rows[-1].key
            else:
                low = rows[-1].key + b"\0"
        return sorted([*found, *own], key=lambda row: row.key, reverse=reverse)[:limit]

    async def total(self, counters: Sequence[bytes]) -> int:
        return await super().total(counters) + sum(self._adds.get(key, 0) for key in counters)

    def own_counters(self, start: bytes, stop: bytes) -> list[bytes]:
        return [key for key in self._adds if start <= key < stop]

    def put(self, root: str, key: bytes, value: bytes) -> None:
        """Write a row."""
        self.enter(root)
        self._remember(self._writes, key)
        self._writes[key] = value

    def delete(self, root: str, key: bytes) -> None:
        """Remove a row."""
        self.enter(root)
        self._remember(self._writes, key)
        self._writes[key] = None

    def add(self, root: str, key: bytes, amount: int) -> None:
        """Add to a counter; never a conflict."""
        self.enter(root)
        self._remember(self._adds, key)
        self._adds[key] = self._adds.get(key, 0) + amount

    def append(self, root: str, prefix: bytes, value: bytes) -> int:
        """Store under prefix + version + index, and give the index."""
        self.enter(root)
        self._undo.append(self._appends.pop)
        self._appends.append((prefix, value))
        return len(self._appends) - 1

    def appended(self, index: int) -> bytes:
        """What this transaction appended under an index, before it is committed."""
        return self._appends[index][1]

    def clear(self, root: str, start: bytes, stop: bytes) -> None:
        """Empty a range; rows written by this transaction before are taken back."""
        self.enter(root)
        for key in [key for key in self._writes if start <= key < stop]:
            self._remember(self._writes, key)
            self._writes[key] = None
        self._undo.append(self._clears.pop)
        self._clears.append((start, stop))

    def expect(self, key: bytes, row: Row | None) -> None:
        """Check at commit that a row read elsewhere is still the same."""
        if row is None or row.version != PENDING:
            self._rows.setdefault(key, row)

    def mark(self) -> int:
        """A point to go back to."""
        return len(self._undo)

    def back(self, mark: int) -> None:
        """Take back every write since `mark`, so that a refused operation leaves nothing behind."""
        while len(self._undo) > mark:
            self._undo.pop()()

    @property
    def dirty(self) -> bool:
        """Whether there is something to commit."""
        return bool(self._writes or self._adds or self._appends or self._clears)

    def batch(self) -> Batch:
        """What is to be committed."""
        expect = {key: 0 if row is None else row.version for key, row in self._rows.items()}
        adds = {key: amount for key, amount in self._adds.items() if amount}
        return Batch(expect, self._writes, adds, self._appends, self._clears)

    async def commit(self) -> int | None:
        """Apply all writes at once; None where there are none. Raises `Conflict`."""
        if os.getpid() != self._process:
            self.check_open()
        self.closed = True
        if not self.dirty or self.root is None:
            return None
        return await self.scope.engine.commit(self.scope.part(self.root), self.batch())

    def _remember(self, where: dict[bytes, Any], key: bytes) -> None:
        if key in where:
            old = where[key]
            self._undo.append(lambda: where.__setitem__(key, old))
        else:
            self._undo.append(lambda: where.__delitem__(key))

    def _cleared(self, key: bytes) -> bool:
        return any(start <= key < stop for start, stop in self._clears)

    def _own(self, key: bytes, row: Row | None) -> Row | None:
        if key in self._writes:
            value = self._writes[key]
            return None if value is None else Row(key, value, PENDING)
        return None if row is None or self._cleared(key) else row

    def _own_range(self, start: bytes, stop: bytes) -> tuple[list[Row], int]:
        """Own rows in a range, and how many rows of the engine they may hide there."""
        own: list[Row] = []
        hidden = len(self._clears)
        for key, value in self._writes.items():
            if start <= key < stop:
                hidden += 1
                if value is not None:
                    own.append(Row(key, value, PENDING))
        for index, (prefix, value) in enumerate(self._appends):
            key = stamped(prefix, _LAST, index)
            if start <= key < stop:
                own.append(Row(key, value, PENDING))
        return own, hidden


async def transact(
    scope: Scope, body: Callable[[Transaction], Awaitable[R]], *, tries: int = TRIES, any_root: bool = False
) -> R:
    """Run `body` and commit; after a `Conflict` run it again from the start, with jitter. So bodies are pure.

    Where reading is a round trip (`Scope.distant`) the first run presumes that rows are absent which most likely are:
    the commit checks it. Whatever that run raises may be due to a wrong presumption, so the next one looks.
    `any_root`: it may touch several roots, which must be in one part.
    """
    attempt = 0
    presuming = scope.distant
    while True:
        tx = Transaction(scope, any_root=any_root)
        tx.presuming = presuming
        try:
            result = await body(tx)
            await tx.commit()
        except Exception as error:
            conflict = isinstance(error, Conflict)
            if tx.presumed and (conflict or not tx.closed):
                presuming = False
                continue
            attempt += 1
            if not conflict or attempt >= tries:
                raise
            await scope.pause(backoff(attempt))
        else:
            return result


def backoff(attempt: int) -> float:
    """Seconds before try number `attempt` + 1: the first repeat at once, then jitter up to 50 ms."""
    return 0.0 if attempt < 2 else random.uniform(0, min(0.0005 * 2**attempt, 0.05))


def chunks(items: Sequence[R], size: int) -> Iterable[Sequence[R]]:
    """`items` in runs of at most `size`."""
    return (items[at : at + size] for at in range(0, len(items), size))
