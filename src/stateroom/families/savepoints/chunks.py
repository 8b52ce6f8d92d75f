"""Entities in chunks, chunks in layers: how a savepoint is written.

Entities are sorted by id and cut where the hash of an id falls under a threshold, which a run keeps for ever: so equal
stretches of two savepoints make equal chunks, which are stored once, wherever something else came or went. A chunk is
an object of its own; beside it stands one with the hashes of its ids, so that `update` knows which ids are new without
reading the states. Up to `PAGE` chunks make a page, all pages a layer.

A layer of changes also has ids that were removed. All else is the same.
"""

import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec
import ormsgpack

from ...codec import Codec
from ...codec.malformed import parsing
from ...core.namespace import Scope
from ...core.transaction import TransactionRows
from ...core.turns import give_way
from ...errors import Damaged, Undecodable
from ...values import objects, wrapper
from ...values.objects import CHUNK_BYTES, REF_BYTES, Object
from ...values.uploads import Uploaded, Uploader
from ...values.wrapper import Tree

TARGET_BYTES = 64 << 10
"""What a chunk has on average."""

FORCED_BYTES = 512 << 10
"""What a chunk has at most, but for a single entity that is larger."""

PAGE = 256
"""Chunks of a page."""

DIRECT_BYTES = 1 << 20
"""Objects of at most this go in the batch of the savepoint itself; more are uploaded ahead."""

HASH_BYTES = 8
_RUN = 4096  # ids hashed at a time
_HEAD = struct.Struct(">I")
HASHES_AT = REF_BYTES + _HEAD.size
"""Where the hashes begin in the object beside a chunk: after the chunk's reference and their number."""
Entry = bytes | None
"""An encoded state; None: the entity was removed."""


def split_hashes(content: bytes) -> tuple[bytes, bytes]:
    """The sorted hashes of the ids that a chunk has, and of those it removes."""
    end = HASHES_AT + HASH_BYTES * _HEAD.unpack_from(content, REF_BYTES)[0]
    return content[HASHES_AT:end], content[end:]


def id_hash(id: str) -> bytes:
    """8 bytes that stand for an id."""
    return blake2b(id.encode(), digest_size=HASH_BYTES).digest()


def threshold(sizes: Sequence[int]) -> int:
    """Which hashes end a chunk, out of 2**64, so that chunks of entities of such sizes have `TARGET_BYTES`."""
    mean = max(1, sum(sizes) // max(1, len(sizes)))
    return max(1, min((1 << 64) - 1, (mean << 64) // TARGET_BYTES))


class Sink:
    """The destination of new objects: the batch of the savepoint while they are few, else an upload."""

    def __init__(self, scope: Scope, root: str) -> None:
        self.scope = scope
        self.root = root
        self._pending: list[Object] = []
        self._bytes = 0
        self._uploader: Uploader | None = None
        self._uploaded: Uploaded | None = None

    async def put(self, item: Object) -> bytes:
        """Store an object after those it refers to; gives its reference."""
        if self._uploader is not None:
            return await self._uploader.put(item)
        self._pending.append(item)
        self._bytes += len(item.content)
        if self._bytes > DIRECT_BYTES:
            self._uploader = Uploader(self.scope, self.root)
            for queued in self._pending:
                await self._uploader.put(queued)
            self._pending = []
        return item.ref

    async def finish(self, ref: bytes) -> None:
        """The last object is in, and refers to all others."""
        if self._uploader is not None:
            self._uploaded = await self._uploader.finish(ref)

    async def settle(self, tx: TransactionRows) -> None:
        """Make the last object the caller's, with one reference."""
        if self._uploaded is not None:
            await wrapper.adopt(tx, self._uploaded, 1)
        else:
            await objects.store(tx, self._pending)


class Chunk(NamedTuple):
    """Some entities, sorted by id, with their encoded states; and the ids of removed ones."""

    ids: list[str]
    removed: list[str]
    lengths: "array[int]"
    states: bytes
    """An encoded list of all states."""

    def each(self) -> Iterator[tuple[str, bytes]]:
        """Ids and encoded states, one by one."""
        at = len(self.states) - sum(self.lengths)
        for id, length in zip(self.ids, self.lengths, strict=True):
            yield id, self.states[at : at + length]
            at += length

    def state(self, id: str) -> bytes | None:
        """The encoded state of one entity; None where it is not here."""
        for key, state in self.each():
            if key == id:
                return state
        return None

    def values(self, codec: Codec, *, raw: bool = False) -> list[object]:
        """All states, decoded in one go. Raises `Undecodable`, naming the entity; not for unknown types if `raw`."""
        try:
            values: list[object] = codec.decode(self.states, raw=raw)
        except Undecodable:
            return [decode_state(codec, id, state, raw=raw) for id, state in self.each()]
        if len(values) != len(self.ids):
            raise Damaged("a chunk of a savepoint has other numbers of ids and states", kind="savepoints")
        return values


def decode_state(codec: Codec, id: str, state: bytes, *, raw: bool = False) -> object:
    """One state. Raises `Undecodable` naming the entity."""
    try:
        return codec.decode(state, raw=raw)
    except Undecodable as error:
        message = f"the state of entity {id!r}: {error.message}"
        raise Undecodable(message, kind="savepoints", id=id, path=error.path, tag=error.tag) from error


def _portable(numbers: "array[int]") -> "array[int]":
    """Numbers of this machine in the order of stored ones, or the other way round."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def pack_chunk(ids: list[str], states: list[bytes], removed: list[str]) -> bytes:
    """The content of a chunk."""
    head = ormsgpack.packb([ids, removed, _portable(array("I", map(len, states))).tobytes()])
    count = len(states)
    mark = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    if count > 0xFFFF:
        mark = b"\xdd" + count.to_bytes(4, "big")
    return b"".join((_HEAD.pack(len(head)), head, mark, *states))


_CHUNK = msgspec.msgpack.Decoder(tuple[list[str], list[str], bytes])


def open_chunk(content: bytes) -> Chunk:
    """Return what `pack_chunk` was given. Raises `Damaged`."""
    with parsing("a chunk of a savepoint", kind="savepoints"):
        end = _HEAD.size + _HEAD.unpack_from(content)[0]
        ids, removed, packed = _CHUNK.decode(content[_HEAD.size : end])
        lengths = array("I")
        lengths.frombytes(packed)
        lengths = _portable(lengths)
    if len(lengths) != len(ids):
        raise Damaged("a chunk of a savepoint has other numbers of ids and states", kind="savepoints")
    return Chunk(ids, removed, lengths, content[end:])


class LayerHead(msgspec.Struct, frozen=True, array_like=True):
    """The head of a layer."""

    count: int
    removed: int
    bytes: int
    firsts: list[str]
    """The first id of each page."""


class PageHead(msgspec.Struct, frozen=True, array_like=True):
    """The head of a page of chunks."""

    firsts: list[str]
    sizes: list[int]


# Now: two threads that decode a type for the first time at once crash msgspec.
msgspec.msgpack.Decoder(LayerHead)
msgspec.msgpack.Decoder(PageHead)


class LayerWriter:
    """Writes one layer from entries that come sorted by id."""

    def __init__(self, sink: Sink, cut: int) -> None:
        self._sink = sink
        self._scope = sink.scope
        self._cut = cut.to_bytes(HASH_BYTES, "big")
        self._ids: list[str] = []
        self._hashes: list[bytes] = []
        self._entries: list[Entry] = []
        self._page: tuple[list[bytes], list[str], list[int]] = ([], [], [])
        self._pages: list[bytes] = []
        self._firsts: list[str] = []
        self.count = self.removed = self.bytes = 0

    async def extend(self, ids: Sequence[str], entry: Callable[[str], Entry]) -> None:
        """Add entities that come after all before."""
        for start in range(0, len(ids), _RUN):
            await give_way(self._scope)
            run = ids[start : start + _RUN]
            hashes = [blake2b(id, digest_size=HASH_BYTES).digest() for id in map(str.encode, run)]
            entries = list(map(entry, run))
            begin = 0
            for end in [at + 1 for at, digest in enumerate(hashes) if digest < self._cut]:
                self._take(run[begin:end], hashes[begin:end], entries[begin:end])
                await self._close()
                begin = end
            self._take(run[begin:], hashes[begin:], entries[begin:])

    def _take(self, ids: Iterable[str], hashes: Iterable[bytes], entries: Iterable[Entry]) -> None:
        self._ids += ids
        self._hashes += hashes
        self._entries += entries

    async def finish(self) -> Object:
        """The layer's own object, which is still to be put."""
        await self._close()
        await self._close_page()
        head = LayerHead(self.count, self.removed, self.bytes, self._firsts)
        return objects.node(self._scope, self._pages, msgspec.msgpack.encode(head))

    async def _close(self) -> None:
        """Write what has been gathered as one chunk, or as several where it is too large for one."""
        ids, hashes, entries = self._ids, self._hashes, self._entries
        self._ids, self._hashes, self._entries = [], [], []
        begin = size = 0
        for at, entry in enumerate(entries) if sum(map(_cost, entries)) > FORCED_BYTES - 64 * len(ids) else ():
            increment = _cost(entry) + 4 * len(ids[at]) + 16
            if size and size + increment > FORCED_BYTES:
                await self._write(ids[begin:at], hashes[begin:at], entries[begin:at])
                begin, size = at, 0
            size += increment
        if begin < len(ids):
            await self._write(ids[begin:], hashes[begin:], entries[begin:])

    async def _write(self, ids: list[str], hashes: list[bytes], entries: list[Entry]) -> None:
        states = [entry for entry in entries if entry is not None]
        first, removed, removed_hashes = ids[0], list[str](), list[bytes]()
        if len(states) < len(ids):
            pairs = list(zip(ids, hashes, entries, strict=True))
            removed = [id for id, _, entry in pairs if entry is None]
            removed_hashes = [digest for _, digest, entry in pairs if entry is None]
            ids = [id for id, _, entry in pairs if entry is not None]
            hashes = [digest for _, digest, entry in pairs if entry is not None]
        content = pack_chunk(ids, states, removed)
        refs, firsts, sizes = self._page
        ref = await self._put(content)
        # The chunk's own reference goes first: else all savepoints of the same ids, whatever their states, would share
        # these objects, and whoever saves would meet all others in the counts of them.
        summary = ref + _HEAD.pack(len(hashes)) + b"".join(sorted(hashes)) + b"".join(sorted(removed_hashes))
        refs.append(ref)
        refs.append(await self._put(summary))
        firsts.append(first)
        sizes.append(len(content))
        self.count += len(ids)
        self.removed += len(removed)
        self.bytes += len(content) + len(summary)
        if len(firsts) == PAGE:
            await self._close_page()

    async def _put(self, content: bytes) -> bytes:
        if len(content) <= FORCED_BYTES + CHUNK_BYTES:
            return await self._sink.put(objects.leaf(self._scope, content))
        tree = Tree(self._scope)
        for at in range(0, len(content), CHUNK_BYTES):
            ref = await self._sink.put(objects.leaf(self._scope, content[at : at + CHUNK_BYTES]))
            for node in tree.add(ref):
                await self._sink.put(node)
        for node in tree.finish():
            await self._sink.put(node)
        return tree.top

    async def _close_page(self) -> None:
        refs, firsts, sizes = self._page
        if firsts:
            body = msgspec.msgpack.encode(PageHead(firsts, sizes))
            self._pages.append(await self._sink.put(objects.node(self._scope, refs, body)))
            self._firsts.append(firsts[0])
            self._page = ([], [], [])


def _cost(entry: Entry) -> int:
    return 0 if entry is None else len(entry)
