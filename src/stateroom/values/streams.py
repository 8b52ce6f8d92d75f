"""Large values piece by piece: written from a file or an iterator, read as a file, in bounded memory."""

import io
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Iterable
from inspect import isawaitable
from typing import Any, Self

from ..core.bridge import run_now
from ..core.namespace import Rows, Scope
from ..core.transaction import TransactionRows
from ..errors import Closed, Conflict, Damaged, InvalidArgument
from ..limits import INLINE_BYTES
from . import objects, wrapper
from .objects import CHUNK_BYTES
from .uploads import Uploaded, Uploader
from .wrapper import Leaves, Tree


class Streamed:
    """A value that `upload_stream` stored: `size` bytes that wait for a transaction to refer to them."""

    def __init__(self, size: int, data: bytes, uploaded: Uploaded | None) -> None:
        self.size = size
        self.data = data
        self._uploaded = uploaded

    async def keep(self, tx: TransactionRows, bound: bytes, holders: int) -> bytes:
        """Let `holders` rows refer to it; gives the wrapper that each holds. Raises `Conflict` after an hour."""
        if self._uploaded is None:
            return await wrapper.keep(tx, bound, self.data, holders)
        await wrapper.adopt(tx, self._uploaded, holders)
        return wrapper.wrapper(self.size, self._uploaded.ref)


async def upload_stream(scope: Scope, root: str, source: Any, *, inline_size: int = INLINE_BYTES) -> Streamed:
    """Store what a file object or an iterator of bytes gives, ahead of a transaction; holds about 4 MiB at a time.

    A value of up to `inline_size` bytes is not stored ahead, but with the transaction, which is one commit less.

    On the asyncio face `source` may also be an async iterator, or have a `read` that is awaited. Raises
    `InvalidArgument` for anything else.
    """
    blocks = _Blocks(source, scope.suspends)
    pending, size = deque[bytes](), 0
    while size <= inline_size:
        block = await blocks.next()
        if not block:
            return Streamed(size, b"".join(pending), None)
        pending.append(block)
        size += len(block)
    uploader, tree = Uploader(scope, root), Tree(scope)
    while pending:
        for node in tree.add(await uploader.put(objects.leaf(scope, pending.popleft()))):
            await uploader.put(node)
        if not pending and (block := await blocks.next()):
            pending.append(block)
            size += len(block)
    for node in tree.finish():
        await uploader.put(node)
    return Streamed(size, b"", await uploader.finish(tree.top))


class _Blocks:
    """A source in runs of `CHUNK_BYTES`, whatever the sizes it gives; the last may be shorter, b"" ends it."""

    def __init__(self, source: Any, suspends: bool) -> None:
        self._source = source
        self._suspends = suspends
        self._rest = bytearray()
        self._ended = False
        self._items: Any = None
        if hasattr(source, "read"):
            return
        if isinstance(source, AsyncIterable):
            self._items = aiter(source)
        elif isinstance(source, Iterable) and not isinstance(source, str | bytes | bytearray | memoryview):
            self._items = iter(source)
        else:
            raise InvalidArgument(
                f"source is a {type(source).__name__}; give a binary file object or an iterator of bytes",
                what="source",
            )
        if isinstance(source, AsyncIterable) and not suspends:
            raise InvalidArgument("an async iterator needs an AsyncStore", what="source")

    async def next(self) -> bytes:
        while len(self._rest) < CHUNK_BYTES and not self._ended:
            block = await self._more()
            if block is None:
                self._ended = True
            else:
                self._rest += block
        block = bytes(self._rest[:CHUNK_BYTES])
        del self._rest[:CHUNK_BYTES]
        return block

    async def _more(self) -> bytes | None:
        if self._items is None:
            block = self._source.read(CHUNK_BYTES)
        elif hasattr(self._items, "__anext__"):
            block = await anext(self._items, None)
        else:
            block = next(self._items, None)
        if isawaitable(block):
            block = await self._awaited(block)
        if block is None or (self._items is None and not block):
            return None
        if not isinstance(block, bytes | bytearray | memoryview):
            raise InvalidArgument(f"source gave a {type(block).__name__}; it must give bytes", what="source")
        return bytes(block)

    async def _awaited(self, block: Awaitable[Any]) -> Any:
        if not self._suspends:
            close = getattr(block, "close", None)
            if close is not None:
                close()
            raise InvalidArgument("a file whose read is awaited needs an AsyncStore", what="source")
        return await block


class _Pieces:
    """A value as runs of bytes around an offset: what both kinds of file read from."""

    def __init__(self, rows: Rows, bound: bytes, wrapped: bytes) -> None:
        ref = wrapper.reference(wrapped)
        self._scope = rows.scope
        self._key = bound
        self._inline: bytes | None = None
        self._leaves: Leaves | None = None
        if ref is None:
            self._inline = rows.scope.codec.reveal(bound, wrapped[1:])
            self.size = len(self._inline)
        else:
            self.size = wrapper.size_of(rows.scope, bound, wrapped)
            self._leaves = Leaves(rows, ref, self.size)
        self._at = self._end = 0
        self._run = b""

    async def after(self, offset: int) -> memoryview:
        """Bytes from `offset` on, as many as are at hand; empty at the end."""
        if self._inline is not None:
            return memoryview(self._inline)[offset:]
        if offset >= self.size:
            return memoryview(b"")
        if not self._at <= offset < self._end:
            await self._load(offset)
        return memoryview(self._run)[offset - self._at :]

    async def _load(self, offset: int) -> None:
        assert self._leaves is not None
        first = offset // CHUNK_BYTES
        # Reading on from where the last run ended is worth a long run; a jump is not.
        most = objects.READ_BYTES // CHUNK_BYTES if offset == self._end else 1
        try:
            run = await self._leaves.read(first, most)
        except Damaged as error:
            if not error.fields.get("missing"):
                raise
            raise Conflict(
                "this value was replaced or removed while it was read; open it again", key=self._key
            ) from error
        self._run = b"".join(run)
        self._at = first * CHUNK_BYTES
        self._end = self._at + len(self._run)


class BlobFile(io.RawIOBase):
    """A value as a readable, seekable file. Raises `Conflict` when it is replaced while it is read."""

    def __init__(self, rows: Rows, bound: bytes, wrapped: bytes) -> None:
        super().__init__()
        self._pieces = _Pieces(rows, bound, wrapped)
        self.size = self._pieces.size
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.closed:
            raise ValueError("read of a closed file")
        target = memoryview(buffer).cast("B")
        data = run_now(self._pieces.after(self._offset))[: len(target)]
        target[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def readall(self) -> bytes:
        parts = []
        while data := run_now(self._pieces.after(self._offset)):
            parts.append(bytes(data))
            self._offset += len(data)
        return b"".join(parts)

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._offset = _moved(offset, whence, self._offset, self.size)
        return self._offset


def _moved(offset: int, whence: int, now: int, size: int) -> int:
    start = {io.SEEK_SET: 0, io.SEEK_CUR: now, io.SEEK_END: size}.get(whence)
    if start is None or start + offset < 0:
        raise InvalidArgument(f"seek to {offset} from {whence}; not before the start", what="offset", value=offset)
    return start + offset


class AsyncBlobFile:
    """A value as a readable, seekable file whose reads are awaited; also an async iterator of bytes.

    Raises `Conflict` when the value is replaced while it is read.
    """

    def __init__(self, rows: Rows, bound: bytes, wrapped: bytes) -> None:
        self._pieces = _Pieces(rows, bound, wrapped)
        self.size = self._pieces.size
        self._offset = 0
        self.closed = False

    async def read(self, size: int = -1) -> bytes:
        """At most `size` bytes from here on; all of them for -1; b"" at the end."""
        remaining = self.size if size is None or size < 0 else size
        parts = []
        while remaining > 0 and (data := (await self._next())[:remaining]):
            parts.append(bytes(data))
            self._offset += len(data)
            remaining -= len(data)
        return b"".join(parts)

    async def _next(self) -> memoryview:
        if self.closed:
            raise Closed("this value's file is closed; open it again")
        return await self._pieces.after(self._offset)

    async def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset, and give it."""
        self._offset = _moved(offset, whence, self._offset, self.size)
        return self._offset

    def tell(self) -> int:
        """Return where the next read starts."""
        return self._offset

    async def close(self) -> None:
        """Later reads raise `Closed`."""
        self.closed = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        data = await self.read(CHUNK_BYTES)
        if not data:
            raise StopAsyncIteration
        return data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def open_stream(rows: Rows, bound: bytes, wrapped: bytes) -> Any:
    """A value as a file: `io.BufferedReader` on the blocking face, `AsyncBlobFile` on the other."""
    if rows.scope.suspends:
        return AsyncBlobFile(rows, bound, wrapped)
    return io.BufferedReader(BlobFile(rows, bound, wrapped), CHUNK_BYTES)
