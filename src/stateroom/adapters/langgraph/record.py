"""A checkpoint as it is kept: its values through LangGraph's serializer, and each large one once.

What a serializer gives is small by itself, or is repeated: from one step to the next most of a state stays. So

- a value of a channel or write of `LARGE` bytes or more is kept apart under the digest of its bytes, shared by all
  checkpoints of the thread, forks included; one that has most in common with an earlier value of its channel, as a list
  that grows has, as what is new in it;
- the rest of a checkpoint is deflated against a *base*, an earlier checkpoint of the thread that is kept apart as well,
  and stored as the difference. When that grows to a sixteenth, the next base follows, which is stored as its difference
  to the first, its *root*; when that grows to a quarter, the next root.
"""

import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from threading import Lock
from typing import Any, NamedTuple

import msgspec
from langgraph.checkpoint.base import WRITES_IDX_MAP, Checkpoint
from langgraph.checkpoint.serde.types import INTERRUPT

LARGE = 16 << 10
"""Bytes from which on a value is kept apart."""
_LARGE_AMONG_MANY = 1 << 10
"""The same where the rest of the checkpoint is over `_WINDOW` altogether."""
_WINDOW = 32 << 10
"""How far deflate looks back: a base and what is deflated against it are at most this."""
_HEAD = 5
_WORTH = 1 << 10
"""Bytes from which on a difference is worth its base."""

SEALED = 8 << 10
"""Bytes of writes in a checkpoint's record from which on they are kept apart, so that many tasks cost no more each."""

PLAIN, DEFLATED, APART = 0, 1, 2
Packed = tuple[int, str, bytes]
"""Where the bytes are, the serializer's name for their type, and the bytes.

Of what is apart, its digest; where it is a difference, with a slash and the digest of what to.
"""


class Write(msgspec.Struct, frozen=True, array_like=True):
    """One write of a task to a channel."""

    path: str
    task: str
    index: int
    channel: str
    value: Packed

    @property
    def order(self) -> tuple[str, str, int]:
        return self.path, self.task, self.index


class Content(msgspec.Struct, frozen=True, array_like=True):
    """The part of a checkpoint that is for LangGraph alone."""

    checkpoint: Packed = (PLAIN, "", b"")
    apart: dict[str, tuple[Any, str, str, str | None]] = {}
    """Channels whose value is kept apart: version, type, digest, and digest of what it is the difference to."""
    base: str | None = None
    """Digest of what `checkpoint` and writes are deflated against."""
    root: str | None = None
    """Digest of what the base is deflated against, if it is."""
    writes: tuple[Write, ...] = ()
    """The last ones."""
    sealed: tuple[str, ...] = ()
    """Digests of the writes before them, the first ones first."""
    interrupted: bool = False
    """Whether a task waits to be resumed."""


class Kept(msgspec.Struct, frozen=True):
    """A checkpoint with its writes."""

    thread: str
    namespace: str
    id: str
    parent: str | None
    metadata: Any
    """A mapping; or, where the store's codec knows a type in it by no name, what the serializer gave."""
    content: Content = Content()
    early: dict[str, bytes] = {}
    """Of a head: writes of checkpoints that are not there yet, as `content` has them, by checkpoint."""

    @property
    def state(self) -> str:
        """Return what the thread's machine says of its newest checkpoint."""
        return "interrupted" if self.content.interrupted else "active"

    def uses(self) -> set[str]:
        """Digests of all that is kept apart for it, but of what is in sealed writes."""
        content = self.content
        digests = set(content.sealed) | apart_in(content.writes)
        digests |= {digest for _, _, *pair in content.apart.values() for digest in pair if digest is not None}
        for data in self.early.values():
            early = decode_content(data)
            digests |= apart_in(early.writes) | set(early.sealed)
        return digests | {digest for digest in (content.base, content.root) if digest is not None}


def apart_in(writes: Iterable[Write]) -> set[str]:
    """Digests of the values of writes that are kept apart, and of what those are differences to."""
    places = (write.value[2].decode() for write in writes if write.value[0] == APART)
    return {digest for place in places for digest in place.split("/")}


encode_content = msgspec.msgpack.Encoder().encode
decode_content = msgspec.msgpack.Decoder(Content).decode
encode_writes = msgspec.msgpack.Encoder().encode
decode_writes = msgspec.msgpack.Decoder(tuple[Write, ...]).decode


def dump(checkpoint: Kept) -> dict[str, Any]:
    """A checkpoint as a value of the store: what it is in words, and the content."""
    value = {
        "thread_id": checkpoint.thread,
        "checkpoint_ns": checkpoint.namespace,
        "checkpoint_id": checkpoint.id,
        "parent_checkpoint_id": checkpoint.parent,
        "metadata": checkpoint.metadata,
        "content": encode_content(checkpoint.content),
    }
    if checkpoint.early:
        value["early"] = dict(checkpoint.early)
    return value


def load(value: Mapping[str, Any]) -> Kept:
    """Return what `dump` was given."""
    return Kept(
        value["thread_id"],
        value["checkpoint_ns"],
        value["checkpoint_id"],
        value["parent_checkpoint_id"],
        value["metadata"],
        decode_content(value["content"]),
        value.get("early") or {},
    )


def digest_of(data: bytes, type: str, root: str | None = None) -> str:
    """The name of what is kept apart; as a difference it has another than whole, for it needs its root."""
    digest = blake2b(data, digest_size=16, person=type.encode()[:16])
    digest.update(b"" if root is None else root.encode())
    return digest.hexdigest()


class Apart:
    """Values that are kept apart: those to be stored, and a few that were read or written lately.

    A digest names one content for ever, and so does what was deflated with its base: nothing that is remembered goes
    stale.
    """

    def __init__(self, most_bytes: int = 64 << 20) -> None:
        self._recent: OrderedDict[str | bytes, bytes] = OrderedDict()
        self._bytes = 0
        self._most = most_bytes
        self._lock = Lock()

    def get(self, digest: str | bytes) -> bytes | None:
        """A value that is remembered."""
        with self._lock:
            data = self._recent.get(digest)
            if data is not None:
                self._recent.move_to_end(digest)
            return data

    def add(self, digest: str | bytes, data: bytes) -> None:
        """Remember a value."""
        with self._lock:
            if digest in self._recent or len(data) > self._most:
                return
            self._recent[digest] = data
            self._bytes += len(data)
            while self._bytes > self._most:
                self._bytes -= len(self._recent.popitem(last=False)[1])


def deflate(data: bytes, base: bytes) -> bytes:
    """Bytes as their difference to a base."""
    squeeze = zlib.compressobj(1, zlib.DEFLATED, -15, 6, zlib.Z_DEFAULT_STRATEGY, base)
    return squeeze.compress(data) + squeeze.flush()


def inflate(data: bytes, base: bytes) -> bytes:
    """Return what `deflate` was given."""
    return zlib.decompressobj(-15, base).decompress(data)


def spliced(data: bytes, root: bytes) -> dict[str, Any] | None:
    """A large value as what is new between what it has in common with another; None: that is too much of it.

    The first bytes are by themselves: there a list says how many items it has.
    """
    most = min(len(data), len(root)) - _HEAD
    prefix = _common(memoryview(data)[_HEAD:], memoryview(root)[_HEAD:], most)
    right = _common(memoryview(data)[::-1], memoryview(root)[::-1], most - prefix)
    middle = data[_HEAD + prefix : len(data) - right]
    if len(middle) * 8 > len(data):
        return None
    return {"head": data[:_HEAD], "left": prefix, "right": right, "middle": middle}


def _common(first: memoryview, second: memoryview, most: int) -> int:
    """How many of the first bytes are the same, at most so many."""
    low, high = 0, max(0, most)
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle].tobytes() == second[low:middle].tobytes():
            low = middle
        else:
            high = middle - 1
    return low


def restored(stored: Mapping[str, Any], root: bytes) -> bytes:
    """Return what was kept apart as its difference to a root."""
    if "difference" in stored:
        return inflate(stored["difference"], root)
    right = root[len(root) - stored["right"] :]
    return b"".join((stored["head"], root[_HEAD : _HEAD + stored["left"]], stored["middle"], right))


class Base(NamedTuple):
    """The root that checkpoints are deflated against, and its own base."""

    digest: str
    data: bytes
    root: "Base | None" = None


class New(NamedTuple):
    """A value to be kept apart: what it is, how it is stored, and its bytes."""

    what: str
    stored: Any
    data: bytes


class Packer:
    """Turns checkpoints and writes into what is stored; `new` is what has to be stored apart with them, by digest."""

    def __init__(self, serde: Any, base: Base | None, roots: Mapping[str, Base] | None = None) -> None:
        self._serde = serde
        self._base = base
        self._roots = roots or {}
        """By channel: what its large values may be differences to."""
        self.new: dict[str, New] = {}

    def content(self, checkpoint: Checkpoint, new_versions: Mapping[str, Any], parent: Kept | None) -> Content:
        """A checkpoint; `parent` is where the large values that did not change are."""
        versions = checkpoint["channel_versions"]
        values = {ch: value for ch, value in checkpoint["channel_values"].items() if ch in versions}
        before = {} if parent is None else parent.content.apart
        apart = {
            channel: place
            for channel, place in before.items()
            if channel in values and channel not in new_versions and versions[channel] == place[0]
        }
        small = {channel: value for channel, value in values.items() if channel not in apart}
        type, data = self._serde.dumps_typed({**checkpoint, "channel_values": small})
        if len(data) >= LARGE and small:
            limit = _LARGE_AMONG_MANY if len(data) > _WINDOW else LARGE
            for channel, value in list(small.items()):
                value_type, value_data = self._serde.dumps_typed(value)
                if len(value_data) >= limit:
                    apart[channel] = (versions[channel], value_type, *self._large(channel, value_type, value_data))
                    del small[channel]
            type, data = self._serde.dumps_typed({**checkpoint, "channel_values": small})
        packed = self._pack(type, data, new_base=True)
        if packed[0] != DEFLATED or self._base is None:
            return Content(packed, apart)
        root = self._base.root
        return Content(packed, apart, self._base.digest, None if root is None else root.digest)

    def writes(self, writes: Iterable[tuple[int, str, Any]], task: str, path: str) -> list[Write]:
        """Writes of a task: their indexes, channels and values."""
        return [Write(path, task, index, channel, self._write(channel, value)) for index, channel, value in writes]

    def with_writes(self, content: Content, additions: Sequence[Write]) -> Content:
        """A checkpoint with some more writes; the same where there was each of them already."""
        writes = merged(content.writes, additions)
        if writes == content.writes:
            return content
        sealed = content.sealed
        interrupted = content.interrupted or any(write.channel == INTERRUPT for write in additions)
        if sum(len(write.value[2]) + 100 for write in writes) >= SEALED:
            sealed = (*sealed, self._apart("writes", encode_writes(writes), "writes"))
            writes = ()
        return msgspec.structs.replace(content, writes=writes, sealed=sealed, interrupted=interrupted)

    def _write(self, channel: str, value: Any) -> Packed:
        type, data = self._serde.dumps_typed(value)
        if len(data) >= LARGE:
            digest, root = self._large(channel, type, data)
            return APART, type, (digest if root is None else f"{digest}/{root}").encode()
        return self._pack(type, data, new_base=False)

    def _large(self, channel: str, type: str, data: bytes) -> tuple[str, str | None]:
        """Keep a large value apart, whole or as a difference; gives its digest, and that of what to."""
        root = self._roots.get(channel)
        full_digest = digest_of(data, type)
        if root is not None and root.digest == full_digest:
            return full_digest, None
        difference = None if root is None else spliced(data, root.data)
        if root is None or difference is None:
            return self._apart(type, data, "value"), None
        digest = digest_of(data, type, root.digest)
        self.new[digest] = New("value", {"root": root.digest, **difference}, data)
        return digest, root.digest

    def _apart(self, type: str, data: bytes, what: str) -> str:
        digest = digest_of(data, type)
        self.new[digest] = New(what, data, data)
        return digest

    def _pack(self, type: str, data: bytes, *, new_base: bool) -> Packed:
        if len(data) < _WORTH or len(data) > _WINDOW or type != "msgpack":
            return PLAIN, type, bytes(data)
        base = self._base
        if base is not None:
            deflated = deflate(data, base.data)
            if len(deflated) * 16 <= len(data) or (not new_base and len(deflated) < len(data)):
                return DEFLATED, type, deflated
        if not new_base:
            return PLAIN, type, bytes(data)
        self._base = self._new_base(bytes(data), None if base is None else base.root or base)
        return DEFLATED, type, deflate(data, data)

    def _new_base(self, data: bytes, root: Base | None) -> Base:
        difference = data if root is None else deflate(data, root.data)
        if root is None or len(difference) * 4 > len(data):
            return Base(self._apart("base", data, "base"), data)
        digest = digest_of(data, "base", root.digest)
        self.new[digest] = New("base", {"root": root.digest, "difference": difference}, data)
        return Base(digest, data, root)


def merged(*groups: Iterable[Write]) -> tuple[Write, ...]:
    """Writes in the order in which they came, made one for each place: the first; of errors and the like the last.

    A place is a task's and an index. They are sorted in the order in which LangGraph applies them.
    """
    places: dict[tuple[str, int], Write] = {}
    for group in groups:
        for write in group:
            place = write.task, write.index
            if write.index < 0 or place not in places:
                places[place] = write
    return tuple(sorted(places.values(), key=lambda write: write.order))


def index_of(channel: str, number: int) -> int:
    """A write's index in its task: the special ones have negative ones of their own."""
    return WRITES_IDX_MAP.get(channel, number)
