"""Values of any size behind one small wrapper: what fits stays in the row, the rest is kept as chunks.

A wrapper is ``00`` and the (perhaps encrypted) value, or ``01``, the size in 8 bytes and the reference of an object in
the same part: a leaf, or the root of a tree of nodes whose leaves are the value in runs of 256 KiB. Equal values, and
equal aligned runs of different ones, are stored once. A value too big for one batch is uploaded ahead of the
transaction that keeps it, which then only takes the reference over.
"""

from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from typing import TypeVar
from weakref import WeakKeyDictionary

from ..core.namespace import Rows, Scope
from ..core.transaction import PENDING, TransactionRows
from ..core.turns import give_way
from ..engine import Row
from ..errors import Conflict, Damaged
from ..limits import INLINE_BYTES, UPLOAD_BYTES
from . import objects, uploads
from .objects import CHUNK_BYTES, FANOUT, READ_BYTES, REF_BYTES, Object
from .uploads import Uploaded, Uploader

R = TypeVar("R")

INLINE, CHUNKED = b"\x00", b"\x01"
_SIZE = 8
_LEAVES = READ_BYTES // CHUNK_BYTES
_KNOWN = 64

_uploaded: "WeakKeyDictionary[Scope, dict[tuple[str, bytes], Uploaded]]" = WeakKeyDictionary()
"""Uploads that no commit is known to have taken over: a transaction that runs again finds its own here."""


class Tree:
    """Builds the nodes over the leaves of a value, bottom up and left to right; holds one node for each level."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._levels: list[list[bytes]] = [[]]
        self.top = b""

    def add(self, ref: bytes) -> Iterator[Object]:
        """Take the next leaf; gives the nodes that are full with it."""
        return self._add(0, ref)

    def finish(self) -> Iterator[Object]:
        """Give the nodes that are not full; then `top` is set."""
        level = 0
        while len(self._levels) > level + 1 or len(self._levels[level]) > 1:
            if self._levels[level]:
                yield from self._close(level)
            level += 1
        (self.top,) = self._levels[level]

    def _add(self, level: int, ref: bytes) -> Iterator[Object]:
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(ref)
        if len(self._levels[level]) == FANOUT:
            yield from self._close(level)

    def _close(self, level: int) -> Iterator[Object]:
        node = objects.node(self._scope, self._levels[level])
        self._levels[level] = []
        yield node
        yield from self._add(level + 1, node.ref)


def wrapper(size: int, ref: bytes) -> bytes:
    """Return what a row holds instead of a large value."""
    return CHUNKED + size.to_bytes(_SIZE, "big") + ref


def reference(wrapped: bytes) -> bytes | None:
    """The object a wrapper refers to; None where the value is inside. Raises `Damaged`."""
    if wrapped[:1] == INLINE:
        return None
    if wrapped[:1] != CHUNKED or len(wrapped) != 1 + _SIZE + REF_BYTES:
        raise Damaged("a value has an unknown wrapper", kind="value")
    return wrapped[1 + _SIZE :]


def size_of(scope: Scope, bound: bytes, wrapped: bytes) -> int:
    """Bytes of the value behind a wrapper."""
    if wrapped[:1] == INLINE:
        return len(scope.codec.reveal(bound, wrapped[1:]))
    return int.from_bytes(wrapped[1 : 1 + _SIZE], "big")


async def keep(tx: TransactionRows, bound: bytes, data: bytes, holders: int) -> bytes:
    """Store `data` so that `holders` rows can refer to it; gives the wrapper that each of them holds."""
    scope = tx.scope
    if len(data) <= INLINE_BYTES:
        return INLINE + scope.codec.protect(bound, data)
    refs, tree, nodes = [], Tree(scope), list[Object]()
    for at in range(0, len(data), CHUNK_BYTES):
        if at % READ_BYTES == 0:
            await give_way(scope)
        refs.append(objects.leaf(scope, data[at : at + CHUNK_BYTES]).ref)
        nodes += tree.add(refs[-1])
    nodes += tree.finish()
    wrapped = wrapper(len(data), tree.top)
    if await _take(tx, tree.top, holders):
        return wrapped
    if tx.chunk_bytes + len(data) <= UPLOAD_BYTES:
        await objects.store(tx, [*_leaves(data, refs), *nodes])
        await objects.hold(tx, tree.top, holders - 1)
        return wrapped
    uploader = Uploader(scope, tx.root)
    for item in _leaves(data, refs):
        await uploader.put(item)
    for item in nodes:
        await uploader.put(item)
    recent = _uploaded.setdefault(scope, {})
    recent[tx.root, tree.top] = uploaded = await uploader.finish(tree.top)
    while len(recent) > _KNOWN:
        recent.pop(next(iter(recent)), None)
    await adopt(tx, uploaded, holders)
    return wrapped


def _leaves(data: bytes, refs: list[bytes]) -> Iterator[Object]:
    return (Object(ref, data[at * CHUNK_BYTES : (at + 1) * CHUNK_BYTES]) for at, ref in enumerate(refs))


async def _take(tx: TransactionRows, ref: bytes, holders: int) -> bool:
    """Refer to an object that is there, or that an earlier run of this transaction uploaded; False: neither."""
    recent = _uploaded.get(tx.scope, {})
    uploaded = recent.get((tx.root, ref))
    if uploaded is not None:
        if await uploads.adopt(tx, uploaded, holders):
            return True
        recent.pop((tx.root, ref), None)
    if not await objects.count(tx, ref):
        return False
    await objects.hold(tx, ref, holders)
    return True


async def adopt(tx: TransactionRows, uploaded: Uploaded, holders: int) -> None:
    """Let `holders` rows refer to what was uploaded. Raises `Conflict` where the upload has ended."""
    if not await uploads.adopt(tx, uploaded, holders):
        key = objects.upload_key(tx.scope, uploaded.id)
        raise Conflict("the upload of a large value has ended, or was used already; write the value again", key=key)


async def fetch(rows: Rows, bound: bytes, wrapped: bytes) -> bytes:
    """Return what `keep` was given. Raises `Damaged`, with ``missing=True`` where a chunk is not there: see
    `replacement`.
    """
    ref = reference(wrapped)
    if ref is None:
        return rows.scope.codec.reveal(bound, wrapped[1:])
    size = int.from_bytes(wrapped[1 : 1 + _SIZE], "big")
    if ref[:1] == objects.LEAF:
        data = (await objects.contents(rows, [ref]))[0]
    else:
        leaves = Leaves(rows, ref, size)
        pieces: list[bytes] = []
        for at in range(0, leaves.count, _LEAVES):
            pieces += await leaves.read(at, _LEAVES)
            await give_way(rows.scope)
        data = b"".join(pieces)
    if len(data) != size:
        raise Damaged(f"a value of {len(data)} bytes should have {size}", kind="value", key=bound)
    return data


class Leaves:
    """The leaves of one value by number, with the nodes on the way to the last one read."""

    def __init__(self, rows: Rows, ref: bytes, size: int) -> None:
        self._rows = rows
        self._ref = ref
        self.size = size
        self.count = max(1, -(-size // CHUNK_BYTES))
        self._depth = 0
        while FANOUT**self._depth < self.count:
            self._depth += 1
        self._path: list[tuple[bytes, tuple[bytes, ...]]] = [(b"", ())] * self._depth

    async def read(self, first: int, most: int = _LEAVES) -> list[bytes]:
        """Leaves from number `first`, at most `most`. Raises `Damaged`."""
        refs = [await self._find(number) for number in range(first, min(first + most, self.count))]
        return await objects.contents(self._rows, refs)

    async def _find(self, number: int) -> bytes:
        ref = self._ref
        for level in range(self._depth):
            if self._path[level][0] != ref:
                content = (await objects.contents(self._rows, [ref]))[0]
                self._path[level] = (ref, objects.split(content)[0])
            children = self._path[level][1]
            at = number // FANOUT ** (self._depth - 1 - level) % FANOUT
            if at >= len(children):
                raise Damaged("a value's tree is shorter than its size", kind="value", key=self._ref)
            ref = children[at]
        return ref


async def replacement(rows: Rows, row: Row, error: Damaged) -> Row | None:
    """The row as it is now, where `error` says that a chunk it referred to is gone because it was replaced meanwhile.

    Raises `error` where it was not, and `Conflict` in a transaction, which could not commit any more.
    """
    if not error.fields.get("missing"):
        raise error
    (now,) = await rows.committed([row.key])
    if now == row:
        raise error
    if isinstance(rows, TransactionRows):
        if row.version == PENDING and not await _chunk_went(rows, error):
            raise error
        actual = 0 if now is None else now.version
        raise Conflict("a large value was replaced while it was read", key=row.key, expected=row.version, actual=actual)
    return now


async def current(rows: Rows, row: Row | None, read: Callable[[Row], Awaitable[R]]) -> R | None:
    """Return what `read` makes of a row, or of the row that replaced it while its value was read; None: it was removed.

    Raises as `replacement`.
    """
    while row is not None:
        try:
            return await read(row)
        except Damaged as error:
            row = await replacement(rows, row, error)
    return None


async def _chunk_went(rows: TransactionRows, error: Damaged) -> bool:
    """Say whether a chunk that this transaction counted on has been removed by somebody else."""
    (row,) = await rows.committed([error.key])
    return row is None


async def drop(tx: TransactionRows, wrapped: bytes, holders: int = 1) -> None:
    """Give up references; what nobody refers to goes in the same batch.

    The transaction must expect the row that held the wrapper, so that nothing is given up twice.
    """
    ref = reference(wrapped)
    if ref is not None:
        await objects.release(tx, {ref: holders})


async def expire_uploads(scope: Scope, now: datetime, max_rows: int = 1_000_000) -> int:
    """Free what uploads that ended by `now` and removals of large values left behind; gives references given up."""
    return await uploads.free(scope, now, max_rows)


async def transplant(rows: Rows, target: Scope, wrapped: bytes) -> None:
    """Bring what a wrapper refers to into another database, for one more holder there. Raises `Damaged`."""
    ref = reference(wrapped)
    if ref is not None:
        await objects.transplant(rows, target, {ref: 1})
