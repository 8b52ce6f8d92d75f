"""Uploads: what is too big for one batch is stored ahead of the batch that refers to it.

An upload is a row that holds one reference on each object that was stored for it, and ends at a time. The batch that
refers to the result removes the row and takes its one reference over. Where that batch never comes, the upload ends
and `free` gives its references up.
"""

import os
from collections import Counter
from datetime import datetime

import msgspec

from .. import keys
from ..clock import to_micros
from ..core.namespace import Rows, Scope
from ..core.transaction import Transaction, TransactionRows, transact
from ..errors import Unavailable
from ..limits import UPLOAD_BYTES
from . import objects
from .objects import Object

LASTS = 3600 * 1_000_000
"""Microseconds an upload lasts after its last batch: more than any transaction is held open."""

_OBJECTS = 1000
_STEP = 200


class Uploaded(msgspec.Struct, frozen=True):
    """The result of an upload: an object that its row holds, waiting to be referred to."""

    id: bytes
    root: str
    ref: bytes


class Uploader:
    """Stores objects ahead, in batches of at most `UPLOAD_BYTES`, each a transaction of its own."""

    def __init__(self, scope: Scope, root: str) -> None:
        self.scope = scope
        self.root = root
        self.id = os.urandom(16)
        self._refs: list[bytes] = []
        self._pending: list[Object] = []
        self._bytes = 0
        self._started = False

    async def put(self, item: Object) -> bytes:
        """Store an object; a node takes over its children's references. Gives its reference."""
        if self._pending and (self._bytes + len(item.content) > UPLOAD_BYTES or len(self._pending) >= _OBJECTS):
            await self._flush()
        self._pending.append(item)
        self._bytes += len(item.content)
        return item.ref

    async def finish(self, ref: bytes) -> Uploaded:
        """Store what is pending; `ref`, the last object, is all that the upload holds now."""
        await self._flush()
        return Uploaded(self.id, self.root, ref)

    async def _flush(self) -> None:
        refs = _held(self._refs, self._pending)

        async def body(transaction: Transaction) -> None:
            tx = transaction.at(self.root)
            row = await tx.get(objects.upload_key(self.scope, self.id))
            if (row is not None) is not self._started:
                raise Unavailable("an upload made no progress for an hour and was given up; write the value again")
            await objects.store(tx, self._pending)
            expires = to_micros(self.scope.clock.now()) + LASTS
            objects.write_upload(tx, self.id, expires, refs)

        await transact(self.scope, body)
        self._started = True
        self._refs, self._pending, self._bytes = refs, [], 0


def _held(refs: list[bytes], stored: list[Object]) -> list[bytes]:
    """Return what an upload holds once more objects are stored: nodes have taken their children over."""
    holdings = refs + [item.ref for item in stored]
    children = Counter(child for item in stored for child in item.children)
    if not children:
        return holdings
    remaining = []
    for ref in holdings:
        if children[ref]:
            children[ref] -= 1
        else:
            remaining.append(ref)
    return remaining


async def adopt(tx: TransactionRows, uploaded: Uploaded, holders: int) -> bool:
    """Take an upload's reference over for `holders` rows; False where the upload is not there any more."""
    key = objects.upload_key(tx.scope, uploaded.id)
    if await tx.get(key) is None:
        return False
    tx.delete(key)
    await objects.hold(tx, uploaded.ref, holders - 1)
    return True


async def free(scope: Scope, now: datetime, max_rows: int = 1_000_000) -> int:
    """Give up what ended uploads and big removals hold; gives the number of references, at most about `max_rows`."""
    freed, before = 0, -1
    while before < freed < max_rows:
        before = freed  # what one round frees may leave more behind
        for part in range(scope.parts):
            freed += await _free_part(scope, part, to_micros(now), max_rows - freed)
    return freed


async def free_removed(rows: Rows) -> int:
    """Give up what big removals in a part left behind, now; gives the number of references."""
    freed, before = 0, -1
    while before < freed:
        before = freed
        freed += await _free_part(rows.scope, rows.part, 0, 1_000_000)
    return freed


async def _free_part(scope: Scope, part: int, now: int, max_rows: int) -> int:
    freed = 0
    start, stop = scope.key(keys.UPLOAD), scope.key(keys.UPLOAD, keys.END * 17)
    while freed < max_rows:
        rows = await scope.reader.in_part(part).scan(start, stop, limit=16)
        for row in rows:
            expires, root, _ = objects.read_upload(row.key, row.value)
            count = 1 if expires <= now else 0
            while count and freed < max_rows:
                count = await _step(scope, root, row.key, now, min(_STEP, max_rows - freed))
                freed += count
        if len(rows) < 16:
            break
        start = rows[-1].key + b"\0"
    return freed


async def _step(scope: Scope, root: str, key: bytes, now: int, most: int) -> int:
    """Give up some of an upload's references, and its row with the last."""

    async def body(transaction: Transaction) -> int:
        tx = transaction.at(root)
        row = await tx.get(key)
        if row is None:
            return 0
        expires, _, refs = objects.read_upload(key, row.value)
        if expires > now:
            return 0
        batch, remaining = refs[:most], refs[most:]
        if remaining:
            objects.write_upload(tx, key[len(scope.key(keys.UPLOAD)) :], expires, remaining)
        else:
            tx.delete(key)
        await objects.release(tx, Counter(batch))
        return len(batch)

    return await transact(scope, body)
