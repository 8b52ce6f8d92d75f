"""A transaction over any engine: it remembers what it read and keeps its writes until commit."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .. import keys
from ..clock import Clock
from ..engine import AsyncEngine, Batch, Engine, Gathering, Range, Row, read_counter, stamped
from ..errors import Closed, Conflict, InvalidArgument
from .contention import Attempts, Lines

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
        self.lines = Lines()
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


class Rows:
    """What is committed now in one part: the fast path of operations that only read. It remembers nothing.

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

    async def get_many(self, wanted: Sequence[bytes]) -> list[Row | None]:
        """As `get` of each, in one call of the engine."""
        return await self.committed(wanted) if wanted else []

    async def get_new(self, key: bytes) -> Row | None:
        """As `get`, of a row that most likely is not there; a transaction may assume so instead of looking."""
        return await self.get(key)

    async def peek(self, wanted: Sequence[bytes]) -> list[Row | None]:
        """Rows under several keys; never remembered, with a transaction's own writes."""
        return await self.committed(wanted)

    async def committed(self, wanted: Sequence[bytes]) -> list[Row | None]:
        """Rows under several keys as they are committed, without a transaction's own writes."""
        if self.scope.direct is not None:
            return self.scope.direct.read(self.part, wanted)
        return await self.scope.engine.read(self.part, wanted)

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

    async def read_many(self, wanted: Sequence[tuple[int, Sequence[bytes]]]) -> list[list[Row | None]]:
        """Rows under the keys of each (part, keys); one call of an engine that can. Never remembered."""
        gathering = self.scope.gathering
        if gathering is None or len(wanted) < 2:
            return [await Rows(self.scope, part).committed(found) for part, found in wanted]
        found: Any = gathering.read_many(wanted)
        rows: list[list[Row | None]] = found if self.scope.direct is not None else await found
        return rows

    async def scan_many(self, ranges: Sequence[Range]) -> list[list[Row]]:
        """Committed rows of each (part, start, stop, limit); one call of an engine that can."""
        gathering = self.scope.gathering
        if gathering is None or len(ranges) < 2:
            return [
                await Rows(self.scope, part).scan_committed(start, stop, limit=limit)
                for part, start, stop, limit in ranges
            ]
        found: Any = gathering.scan_many(ranges)
        rows: list[list[Row]] = found if self.scope.direct is not None else await found
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
        found = await self.scope.reader.read_many([(part, counters) for part in range(self.scope.parts)])
        return sum(read_counter(row.value) for rows in found for row in rows if row is not None)


class TransactionRows(Rows):
    """The rows of a transaction's part: point reads are remembered, writes are kept until commit."""

    def __init__(self, scope: Scope, *, any_root: bool = False, part: int | None = None) -> None:
        super().__init__(scope, -1 if part is None else part)
        self.closed = False
        self.entered = False
        self._process = os.getpid()
        self._any_root = any_root or part is not None
        self._rows: dict[bytes, Row | None] = {}
        self._writes: dict[bytes, bytes | None] = {}
        self._adds: dict[bytes, int] = {}
        self._appends: list[tuple[bytes, bytes]] = []
        self._clears: list[tuple[bytes, bytes]] = []
        self._undo: list[Callable[[], object]] = []
        self.assume_new = False
        """Whether `get_new` may assume. Whoever sets it runs everything again without, where that turns out wrong."""
        self.assumed_new = False
        """Whether `get_new` did."""
        self.chunk_bytes = 0
        """Bytes of chunks written here: beyond what fits into a batch they are uploaded ahead."""
        self.chunks_freed = 0
        self.on_first_read: Callable[[Rows], Awaitable[None]] | None = None

    def check_open(self) -> None:
        """Raise `Closed` once it was committed or discarded, and in a process forked since it began."""
        if self.closed:
            raise Closed("this transaction has ended; start another")
        if os.getpid() != self._process:
            raise Closed("this transaction was open when its process forked; it goes on there, start another here")

    def at(self, name: str) -> "TransactionRows":
        """These rows, with the root fixed to that of `name`; `InvalidArgument` where another one is fixed."""
        root = keys.root(name)
        if self.entered and self.root == root:
            return self
        self.check_open()
        if not self.entered or self._any_root:
            part = self.scope.part(root)
            if self.part not in (-1, part):
                raise InvalidArgument(f"{name!r} is in part {part}, not {self.part}", what="root", value=root)
            self.part, self.root, self.entered = part, root, True
            return self
        raise InvalidArgument(
            f"this transaction is in root {self.root!r} and cannot touch {root!r}: what must change together needs"
            " ids that share what is before the first '/'",
            what="root",
            value=root,
        )

    def look_at(self, name: str) -> Rows:
        return self if self.entered and self.root == keys.root(name) else self.scope.reader.at(name)

    async def get(self, key: bytes) -> Row | None:
        if self.on_first_read is not None:
            hook, self.on_first_read = self.on_first_read, None
            await hook(self)
        if key in self._writes:
            value = self._writes[key]
            return None if value is None else Row(key, value, PENDING)
        if key in self._rows:
            return None if self._cleared(key) else self._rows[key]
        row = self._rows[key] = (await self.committed((key,)))[0]
        return None if self._cleared(key) else row

    async def prefetch(self, wanted: Sequence[bytes]) -> None:
        """Read at once what `get` will surely be asked for, where each would be a round trip."""
        missing = [key for key in wanted if key not in self._rows and key not in self._writes]
        if self.scope.distant and self.on_first_read is None and len(missing) > 1:
            self._rows.update(zip(missing, await self.committed(missing), strict=True))

    async def get_many(self, wanted: Sequence[bytes]) -> list[Row | None]:
        await self.prefetch(wanted)
        return [await self.get(key) for key in wanted]

    async def get_new(self, key: bytes) -> Row | None:
        if not self.assume_new or key in self._writes or key in self._rows:
            return await self.get(key)
        self.assumed_new = True
        self._rows[key] = None
        return None

    async def peek(self, wanted: Sequence[bytes]) -> list[Row | None]:
        rows = await self.committed(wanted)
        return [self.own(key, row) for key, row in zip(wanted, rows, strict=True)]

    async def scan(self, start: bytes, stop: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        return await self.overlaid(self.scan_committed, start, stop, limit=limit, reverse=reverse)

    async def overlaid(
        self, scan: Callable[..., Awaitable[list[Row]]], start: bytes, stop: bytes, *, limit: int, reverse: bool
    ) -> list[Row]:
        """The rows that a scan of what is committed gives, with own writes laid over them."""
        own, hidden = self._own_range(start, stop)
        if not own and not hidden:
            return await scan(start, stop, limit=limit, reverse=reverse)
        visible: list[Row] = []
        low, high = start, stop
        while len(visible) < limit:
            asked = limit + hidden
            rows = await scan(low, high, limit=asked, reverse=reverse)
            visible += [row for row in rows if row.key not in self._writes and not self._cleared(row.key)]
            if len(rows) < asked:
                break
            if reverse:
                high = rows[-1].key
            else:
                low = rows[-1].key + b"\0"
        return sorted([*visible, *own], key=lambda row: row.key, reverse=reverse)[:limit]

    def put(self, key: bytes, value: bytes) -> None:
        """Write a row."""
        self._remember(self._writes, key)
        self._writes[key] = value

    def delete(self, key: bytes) -> None:
        """Remove a row."""
        self._remember(self._writes, key)
        self._writes[key] = None

    def add(self, key: bytes, amount: int) -> None:
        """Add to a counter; never a conflict."""
        self._remember(self._adds, key)
        self._adds[key] = self._adds.get(key, 0) + amount

    def append(self, prefix: bytes, value: bytes) -> int:
        """Store under prefix + version + index, and give the index."""
        self._undo.append(self._appends.pop)
        self._appends.append((prefix, value))
        return len(self._appends) - 1

    def appended(self, index: int) -> bytes:
        """What this transaction appended under an index, before it is committed."""
        return self._appends[index][1]

    def clear(self, start: bytes, stop: bytes) -> None:
        """Empty a range; rows written by this transaction before are taken back."""
        for key in [key for key in self._writes if start <= key < stop]:
            self._remember(self._writes, key)
            self._writes[key] = None
        self._undo.append(self._clears.pop)
        self._clears.append((start, stop))

    def expect(self, key: bytes, row: Row | None) -> None:
        """Check at commit that a row read elsewhere is still the same."""
        if row is None or row.version != PENDING:
            self._rows.setdefault(key, row)

    def savepoint(self) -> int:
        """A point to go back to."""
        return len(self._undo)

    def rollback_to(self, point: int) -> None:
        """Take back every write since `point`, so that a refused operation leaves nothing behind."""
        while len(self._undo) > point:
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
        if not self.dirty or self.part < 0:
            return None
        return await self.scope.engine.commit(self.part, self.batch())

    def own_counters(self, start: bytes, stop: bytes) -> list[bytes]:
        """Counters in a range that this transaction adds to."""
        return [key for key in self._adds if start <= key < stop]

    def added(self, key: bytes) -> int:
        """How much this transaction adds to a counter."""
        return self._adds.get(key, 0)

    def own(self, key: bytes, row: Row | None) -> Row | None:
        """A committed row as this transaction sees it."""
        if key in self._writes:
            value = self._writes[key]
            return None if value is None else Row(key, value, PENDING)
        return None if row is None or self._cleared(key) else row

    def _remember(self, where: dict[bytes, Any], key: bytes) -> None:
        if key in where:
            old = where[key]
            self._undo.append(lambda: where.__setitem__(key, old))
        else:
            self._undo.append(lambda: where.__delitem__(key))

    def _cleared(self, key: bytes) -> bool:
        return any(start <= key < stop for start, stop in self._clears)

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


class Transaction(Reader):
    """Reads and writes in one root; what it got by point reads must not have changed when it commits.

    `rows` are those of its part once `at` has fixed it. `part`: it works in that part, on whatever root.
    """

    def __init__(self, scope: Scope, *, any_root: bool = False, part: int | None = None) -> None:
        super().__init__(scope)
        self.rows = TransactionRows(scope, any_root=any_root, part=part)

    def at(self, name: str) -> TransactionRows:
        return self.rows.at(name)

    def look_at(self, name: str) -> Rows:
        return self.rows.look_at(name)

    async def read_many(self, wanted: Sequence[tuple[int, Sequence[bytes]]]) -> list[list[Row | None]]:
        found = await self.scope.reader.read_many(wanted)
        asked = [keys for _, keys in wanted]
        return [[self.rows.own(*pair) for pair in zip(*pairs, strict=True)] for pairs in zip(asked, found, strict=True)]

    async def scan(self, start: bytes, stop: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        return await self.rows.overlaid(super().scan, start, stop, limit=limit, reverse=reverse)

    async def total(self, counters: Sequence[bytes]) -> int:
        return await super().total(counters) + sum(self.rows.added(key) for key in counters)

    def own_counters(self, start: bytes, stop: bytes) -> list[bytes]:
        return self.rows.own_counters(start, stop)

    def check_open(self) -> None:
        """Raise `Closed` once it was committed or discarded, and in a process forked since it began."""
        self.rows.check_open()

    @property
    def closed(self) -> bool:
        """Whether it was committed or discarded."""
        return self.rows.closed

    def close(self) -> None:
        """Discard it: later calls raise `Closed`."""
        self.rows.closed = True

    async def commit(self) -> int | None:
        """Apply all writes at once; None where there are none. Raises `Conflict`."""
        return await self.rows.commit()


Readable = Reader | Rows
"""What gives the rows of a name: a namespace, a transaction, or rows that are there already."""

Writable = Transaction | TransactionRows
"""A transaction, or the rows of its part."""


async def transact(
    scope: Scope,
    body: Callable[[Transaction], Awaitable[R]],
    *,
    tries: int | None = None,
    any_root: bool = False,
    part: int | None = None,
) -> R:
    """Run `body` and commit; after a `Conflict` run it again from the start. So bodies are pure.

    It goes on for `RETRY_SECONDS` and then raises `Unavailable`; with `tries` it raises `Conflict` after so many.
    Where reading is a round trip (`Scope.distant`) the first run assumes that rows which most likely are new are
    absent: the commit checks it. Whatever that run raises may be due to a wrong assumption, so the next one looks.
    `any_root`: it may touch several roots, which must be in one part. `part`: it works in that part.
    """
    attempts = Attempts(scope)
    count = 0
    assume_new = scope.distant
    try:
        while True:
            tx = Transaction(scope, any_root=any_root, part=part)
            rows = tx.rows
            rows.assume_new = assume_new
            try:
                result = await body(tx)
                await rows.commit()
                return result
            except Exception as error:
                conflict = isinstance(error, Conflict)
                if rows.assumed_new and (conflict or not rows.closed):
                    assume_new = False
                    continue
                count += 1
                if not isinstance(error, Conflict) or (tries is not None and count >= tries):
                    raise
                await attempts.pause(rows.root, error)
    finally:
        attempts.end()


def chunks(items: Sequence[R], size: int) -> Iterable[Sequence[R]]:
    """`items` in runs of at most `size`."""
    return (items[at : at + size] for at in range(0, len(items), size))
