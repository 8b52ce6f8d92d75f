"""A transaction over any engine: it remembers what it read and keeps its writes until commit."""

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .. import keys
from ..engine import Batch, Row, stamped
from ..errors import Closed, Conflict, InvalidArgument
from .contention import Attempts
from .namespace import Reader, Rows, Scope

if TYPE_CHECKING:
    pass

R = TypeVar("R")

PENDING = -1
"""The version of a row that this transaction wrote and has not committed yet."""

_LAST = (1 << 63) - 1  # where own appended rows stand in a scan until their version is known


class TransactionRows(Rows):
    """The rows of a transaction's part: point reads are remembered, writes are kept until commit."""

    def __init__(self, scope: Scope, *, any_root: bool = False, part: int | None = None) -> None:
        super().__init__(scope, -1 if part is None else part)
        self.closed = False
        self.version: int | None = None
        """That of its part, once it was committed."""
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

    async def prefetch(self, row_keys: Sequence[bytes]) -> None:
        """Read at once what `get` will surely be asked for, where each would be a round trip."""
        missing = [key for key in row_keys if key not in self._rows and key not in self._writes]
        if self.scope.distant and self.on_first_read is None and len(missing) > 1:
            self._rows.update(zip(missing, await self.committed(missing), strict=True))

    async def get_many(self, row_keys: Sequence[bytes]) -> list[Row | None]:
        await self.prefetch(row_keys)
        return [await self.get(key) for key in row_keys]

    async def get_new(self, key: bytes) -> Row | None:
        if not self.assume_new or key in self._writes or key in self._rows:
            return await self.get(key)
        self.assumed_new = True
        self._rows[key] = None
        return None

    async def peek(self, row_keys: Sequence[bytes]) -> list[Row | None]:
        rows = await self.committed(row_keys)
        return [self.own(key, row) for key, row in zip(row_keys, rows, strict=True)]

    async def scan(self, start: bytes, stop: bytes, *, limit: int, reverse: bool = False) -> list[Row]:
        return await self.overlaid(self.scan_committed, start, stop, limit=limit, reverse=reverse)

    async def overlaid(
        self, scan: Callable[..., Awaitable[list[Row]]], start: bytes, stop: bytes, *, limit: int, reverse: bool
    ) -> list[Row]:
        """The rows that a scan of what is committed gives, with own writes laid over them."""
        written, hidden = self._own_range(start, stop)
        if not written and not hidden:
            return await scan(start, stop, limit=limit, reverse=reverse)
        visible: list[Row] = []
        low, high = start, stop
        while len(visible) < limit:
            size = limit + hidden
            rows = await scan(low, high, limit=size, reverse=reverse)
            visible += [row for row in rows if row.key not in self._writes and not self._cleared(row.key)]
            if len(rows) < size:
                break
            if reverse:
                high = rows[-1].key
            else:
                low = rows[-1].key + b"\0"
        return sorted([*visible, *written], key=lambda row: row.key, reverse=reverse)[:limit]

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
        """Return what this transaction appended under an index, before it is committed."""
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
        """Say whether there is something to commit."""
        return bool(self._writes or self._adds or self._appends or self._clears)

    @property
    def keys_touched(self) -> int:
        """How many keys the batch has, of the `BATCH_KEYS` that it may have."""
        return len(self._rows) + len(self._writes) + len(self._adds) + len(self._appends) + len(self._clears)

    def written(self, key: bytes) -> bytes | None:
        """Return what this transaction wrote under a key."""
        return self._writes.get(key)

    def batch(self) -> Batch:
        """Return what is to be committed."""
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
        self.version = await self.scope.engine.commit(self.part, self.batch())
        return self.version

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
        written: list[Row] = []
        hidden = len(self._clears)
        for key, value in self._writes.items():
            if start <= key < stop:
                hidden += 1
                if value is not None:
                    written.append(Row(key, value, PENDING))
        for index, (prefix, value) in enumerate(self._appends):
            key = stamped(prefix, _LAST, index)
            if start <= key < stop:
                written.append(Row(key, value, PENDING))
        return written, hidden


class Transaction(Reader):
    """Reads and writes in one root; what it got by point reads must not have changed when it commits.

    `rows` are those of its part once `at` has fixed it. `part`: it works in that part, on whatever root.
    """

    def __init__(self, scope: Scope, *, any_root: bool = False, part: int | None = None) -> None:
        super().__init__(scope)
        self.rows = TransactionRows(scope, any_root=any_root, part=part)
        self.past: tuple[int, int, int] | None = None
        """Revision, creation and last change (microseconds) of the next record that is saved, as it was elsewhere."""

    def at(self, name: str) -> TransactionRows:
        return self.rows.at(name)

    def look_at(self, name: str) -> Rows:
        return self.rows.look_at(name)

    async def read_many(self, requests: Sequence[tuple[int, Sequence[bytes]]]) -> list[list[Row | None]]:
        committed = await self.scope.reader.read_many(requests)
        key_lists = [keys for _, keys in requests]
        return [
            [self.rows.own(*pair) for pair in zip(*pairs, strict=True)]
            for pairs in zip(key_lists, committed, strict=True)
        ]

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
        """Say whether it was committed or discarded."""
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
