"""A checkpoint as it is kept: its values through LangGraph's serializer, and each large one once.

What a serializer gives is small by itself, or is repeated: from one step to the next most of a state stays. So

- a value of a channel or write of `LARGE` bytes or more is kept apart under the digest of its bytes, shared by all
  checkpoints of the thread, forks included;
- the rest of a checkpoint is deflated against a *base*, an earlier checkpoint of the thread that is kept apart as well,
  and stored as the difference. A base is replaced when what differs from it grows to a quarter.
"""

import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from threading import Lock
from typing import Any

import msgspec
from langgraph.checkpoint.base import WRITES_IDX_MAP, Checkpoint
from langgraph.checkpoint.serde.types import INTERRUPT

LARGE = 16 << 10
"""Bytes from which on a value is kept apart."""
_LARGE_AMONG_MANY = 1 << 10
"""The same where the rest of the checkpoint is over `_WINDOW` altogether."""
_WINDOW = 32 << 10
"""How far deflate looks back: a base and what is deflated against it are at most this."""
_WORTH = 1 << 10
"""Bytes from which on a difference is worth its base."""

PLAIN, DEFLATED, APART = 0, 1, 2
Packed = tuple[int, str, bytes]
"""Where the bytes are, the serializer's name for their type, and the bytes (or the digest of what is apart)."""


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


class Kept(msgspec.Struct, frozen=True):
    """A checkpoint with its writes."""

    thread: str
    namespace: str
    id: str
    parent: str | None
    metadata: Any
    """A mapping; or, where the store's codec knows a type in it by no name, what the serializer gave."""
    checkpoint: Packed = (PLAIN, "", b"")
    apart: dict[str, tuple[Any, str, str]] = {}
    """Channels whose value is kept apart: version, type, digest."""
    base: str | None = None
    """Digest of what `checkpoint` is deflated against."""
    writes: tuple[Write, ...] = ()

    @property
    def state(self) -> str:
        """What the thread's machine says of its newest checkpoint: whether a task of it waits to be resumed."""
        return "interrupted" if any(write.channel == INTERRUPT for write in self.writes) else "active"

    def uses(self) -> set[str]:
        """Digests of all that is kept apart for it."""
        digests = {digest for _, _, digest in self.apart.values()}
        digests.update(write.value[2].decode() for write in self.writes if write.value[0] == APART)
        return digests if self.base is None else digests | {self.base}


def dump(kept: Kept) -> dict[str, Any]:
    """A checkpoint as a value of the store, readable as far as it can be."""
    value: dict[str, Any] = {
        "thread_id": kept.thread,
        "checkpoint_ns": kept.namespace,
        "checkpoint_id": kept.id,
        "parent_checkpoint_id": kept.parent,
        "metadata": kept.metadata,
        "checkpoint": list(kept.checkpoint),
    }
    if kept.apart:
        value["apart"] = {channel: list(place) for channel, place in kept.apart.items()}
    if kept.base is not None:
        value["base"] = kept.base
    if kept.writes:
        value["writes"] = [[w.path, w.task, w.index, w.channel, list(w.value)] for w in kept.writes]
    return value


def load(value: Mapping[str, Any]) -> Kept:
    """What `dump` was given."""
    get = value.get
    return Kept(
        value["thread_id"],
        value["checkpoint_ns"],
        value["checkpoint_id"],
        value["parent_checkpoint_id"],
        value["metadata"],
        tuple(value["checkpoint"]),
        {channel: tuple(place) for channel, place in get("apart", {}).items()},
        get("base"),
        tuple(Write(path, task, at, ch, tuple(packed)) for path, task, at, ch, packed in get("writes", ())),
    )


def digest_of(data: bytes, type: str = "") -> str:
    """The name of what is kept apart."""
    return blake2b(data, digest_size=16, person=type.encode()[:16]).hexdigest()


class Apart:
    """Values that are kept apart: those to be stored, and a few that were read or written lately.

    A digest names one content for ever, so that what is remembered never goes stale.
    """

    def __init__(self, most_bytes: int = 64 << 20) -> None:
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._most = most_bytes
        self._lock = Lock()

    def get(self, digest: str) -> bytes | None:
        """A value that is remembered."""
        with self._lock:
            data = self._recent.get(digest)
            if data is not None:
                self._recent.move_to_end(digest)
            return data

    def add(self, digest: str, data: bytes) -> None:
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
    squeeze = zlib.compressobj(1, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, base)
    return squeeze.compress(data) + squeeze.flush()


def inflate(data: bytes, base: bytes) -> bytes:
    """What `deflate` was given."""
    return zlib.decompressobj(-15, base).decompress(data)


class Packer:
    """Turns checkpoints and writes into what is stored; `new` is what has to be stored apart with them."""

    def __init__(self, serde: Any, base: tuple[str, bytes] | None) -> None:
        self._serde = serde
        self.base = base
        self.new: dict[str, tuple[str, bytes]] = {}
        """By digest: what it is, and the bytes."""

    def checkpoint(
        self, checkpoint: Checkpoint, new_versions: Mapping[str, Any], parent: Kept | None
    ) -> tuple[Packed, dict[str, tuple[Any, str, str]]]:
        """A checkpoint and its large values; `parent` is where those that did not change are."""
        versions = checkpoint["channel_versions"]
        values = {ch: value for ch, value in checkpoint["channel_values"].items() if ch in versions}
        before = {} if parent is None else parent.apart
        apart = {
            channel: place
            for channel, place in before.items()
            if channel in values and channel not in new_versions and versions[channel] == place[0]
        }
        rest = {channel: value for channel, value in values.items() if channel not in apart}
        type, data = self._serde.dumps_typed({**checkpoint, "channel_values": rest})
        if len(data) >= LARGE and rest:
            limit = _LARGE_AMONG_MANY if len(data) > _WINDOW else LARGE
            for channel, value in list(rest.items()):
                value_type, value_data = self._serde.dumps_typed(value)
                if len(value_data) >= limit:
                    apart[channel] = (versions[channel], value_type, self._apart(value_type, value_data, "value"))
                    del rest[channel]
            type, data = self._serde.dumps_typed({**checkpoint, "channel_values": rest})
        return self._pack(type, data, new_base=True), apart

    def write(self, value: Any) -> Packed:
        """The value of a write."""
        type, data = self._serde.dumps_typed(value)
        if len(data) >= LARGE:
            return APART, type, self._apart(type, data, "value").encode()
        return self._pack(type, data, new_base=False)

    def _apart(self, type: str, data: bytes, what: str) -> str:
        digest = digest_of(data, type)
        self.new[digest] = what, data
        return digest

    def _pack(self, type: str, data: bytes, *, new_base: bool) -> Packed:
        if len(data) < _WORTH or len(data) > _WINDOW or type != "msgpack":
            return PLAIN, type, bytes(data)
        if self.base is not None:
            deflated = deflate(data, self.base[1])
            if len(deflated) * 4 <= len(data) or (not new_base and len(deflated) < len(data)):
                return DEFLATED, type, deflated
        if not new_base:
            return PLAIN, type, bytes(data)
        self.base = self._apart("base", bytes(data), "base"), bytes(data)
        return DEFLATED, type, deflate(data, data)


def merged(writes: Sequence[Write], more: Sequence[Write]) -> tuple[Write, ...]:
    """Writes of a checkpoint with some more: the first of a place stays; of errors, interrupts and such the last.

    A place is a task's and an index; in the order in which LangGraph applies them.
    """
    places = {(write.task, write.index): write for write in writes}
    for write in more:
        place = write.task, write.index
        if write.index < 0 or place not in places:
            places[place] = write
    return tuple(sorted(places.values(), key=lambda write: write.order))


def index_of(channel: str, number: int) -> int:
    """A write's index in its task: the special ones have negative ones of their own."""
    return WRITES_IDX_MAP.get(channel, number)
