"""The contract of a storage engine: an ordered map of bytes in parts, changed by batches.

An engine knows bytes, parts and versions, and nothing of what they mean. Its contract is written out in
``docs/design/engine.md``; every sentence of it is a test of ``stateroom.testing.engine_suite``.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

from .errors import InvalidArgument
from .limits import BATCH_BYTES, BATCH_KEYS, INT64_MAX, KEY_BYTES, VALUE_BYTES

Durability = Literal["full", "normal"]
"""What commits survive: loss of power, or the death of the process."""

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class Row(NamedTuple):
    """A value, and the commit of its part that wrote it."""

    key: bytes
    value: bytes
    version: int


class Batch(msgspec.Struct, frozen=True):
    """Changes to one part that take effect together, or not at all. Order: clear, write, add, append."""

    expect: Mapping[bytes, int] = _NOTHING
    """Key to the version it must have; 0: it must be absent."""
    write: Mapping[bytes, bytes | None] = _NOTHING
    """Key to its new value; None removes."""
    add: Mapping[bytes, int] = _NOTHING
    """Counter to what is added to it; an absent counter is 0. Never a conflict."""
    append: Sequence[tuple[bytes, bytes]] = ()
    """(prefix, value), stored under prefix + this commit's version (8 bytes) + index in this list (2 bytes)."""
    clear: Sequence[tuple[bytes, bytes]] = ()
    """Ranges, first key included and last excluded, that are emptied first."""


class Engine(Protocol):
    """An engine whose calls block. Every method may be called from any thread."""

    @property
    def parts(self) -> int:
        """How many parts there are; 1 when embedded; fixed for the life of a database."""
        ...

    def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        """The rows under `keys`, in their order. The key ``b""`` gives a Row whose version is the part's own."""
        ...

    def scan(self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False) -> list[Row]:
        """At most `limit` rows with ``start <= key < stop``, in key order; part None: all parts merged."""
        ...

    def commit(self, part: int, batch: Batch, /) -> int:
        """Apply `batch` and give the part's new version; raises `Conflict` and writes nothing if it may not apply."""
        ...

    def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        """Return when the part is past `version` (None: when the sum of all parts is), or after `timeout` seconds."""
        ...

    def close(self) -> None:
        """Release everything; a second call does nothing; other calls raise `Closed` from then on."""
        ...


class AsyncEngine(Protocol):
    """The same, for an event loop."""

    @property
    def parts(self) -> int: ...
    async def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]: ...
    async def scan(
        self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False
    ) -> list[Row]: ...
    async def commit(self, part: int, batch: Batch, /) -> int: ...
    async def wait(self, part: int | None, version: int, timeout: float, /) -> None: ...
    async def close(self) -> None: ...


Outcome = int | BaseException


@runtime_checkable
class Submitting(Protocol):
    """An engine that also takes batches without blocking; `done` is called once, in any thread, with the outcome."""

    def submit(self, part: int, batch: Batch, done: Callable[[Outcome], None], /) -> None: ...


class Range(NamedTuple):
    """Rows to scan, in key order, in one part."""

    part: int
    start: bytes
    stop: bytes
    limit: int


@runtime_checkable
class Gathering(Protocol):
    """An engine that looks at several parts in one call: where each would be a round trip, all of them are one."""

    def read_many(self, requests: Sequence[tuple[int, Sequence[bytes]]], /) -> list[list[Row | None]]: ...
    def scan_many(self, ranges: Sequence[Range], /) -> list[list[Row]]: ...


@runtime_checkable
class Reporting(Protocol):
    """An engine that says after a wait whether anything came, so that who is idle need not look: a look is a trip."""

    def passed(self, part: int | None, version: int, timeout: float, /) -> Any:
        """As `wait`; False where, as far as is known, the version was not passed (an asynchronous one is awaited)."""
        ...


@runtime_checkable
class Snapshotting(Protocol):
    """An engine that reads a whole database as of one moment while others go on committing."""

    def snapshot(self) -> Any:
        """A context manager (an asynchronous one of an asynchronous engine) that gives the reading methods alone."""
        ...


@runtime_checkable
class Distant(Protocol):
    """An engine whose every call is a round trip, if `distant` is true: operations then look before they ask."""

    distant: bool


@runtime_checkable
class Instant(Protocol):
    """An engine whose calls never wait, if `blocks` is false: an event loop makes them in place."""

    blocks: bool


@runtime_checkable
class Named(Protocol):
    """An engine that says what keeps its rows: ``"SQLite 3.51.3"``."""

    @property
    def about(self) -> str: ...


@runtime_checkable
class Sized(Protocol):
    """An engine that knows how many bytes its rows take where they are kept."""

    def size(self) -> int: ...


@runtime_checkable
class Verifying(Protocol):
    """An engine whose storage can be examined."""

    def verify(self) -> list[str]:
        """Return what the storage finds wrong with itself, one sentence each; empty when it is sound."""
        ...


@runtime_checkable
class Compacting(Protocol):
    """An engine that can give space back to the disk."""

    def compact(self) -> int:
        """Give back what is free; by how many bytes it is smaller."""
        ...


@runtime_checkable
class BackingUp(Protocol):
    """An engine that makes a consistent copy of itself in one file, while others go on committing."""

    def backup(self, path: str, amend: "Amend | None" = None, /) -> None:
        """Write a copy to `path`, where nothing is; `amend`: what it is not to have in common with the original."""
        ...


class View(NamedTuple):
    """A kind of record for users of SQL."""

    name: str
    tag: bytes
    """The two letters of its keys after the namespace."""
    key: tuple[str, ...]
    """Columns from the key, in order; a number's name starts with ``#``."""
    columns: tuple[tuple[str, int, str], ...]
    """Column, place in the record's list of fields, and type: text, bigint, time (of microseconds) or jsonb."""


@runtime_checkable
class Describing(Protocol):
    """An engine that shows records to users of SQL (an asynchronous one is awaited)."""

    def describe(self, number: int, views: Sequence[View], /) -> Any:
        """Make or renew the views; `number` rises with each change of their text."""
        ...


HANDED_THROUGH = ("distant", "about", "size", "verify", "compact", "backup", "snapshot", "describe")
"""Members of these protocols that an engine over another one has from it as they are."""

Amend = Callable[[Callable[[int, Sequence[bytes]], list[Row | None]]], Batch]
"""Given a function that reads rows of a part, makes a batch for part 0."""


def stamped(prefix: bytes, version: int, index: int) -> bytes:
    """The key of an appended row."""
    return prefix + version.to_bytes(8, "big") + index.to_bytes(2, "big")


def read_counter(value: bytes | None) -> int:
    """The number in a counter's row; 0 where there is none."""
    return int.from_bytes(value, "big", signed=True) if value else 0


def write_counter(number: int) -> bytes:
    """The value of a counter's row: 8 bytes, signed, big-endian. Raises `InvalidArgument` when it does not fit."""
    if not -INT64_MAX <= number <= INT64_MAX:
        raise InvalidArgument("a counter went beyond 64 bits", what="counter", value=number)
    return number.to_bytes(8, "big", signed=True)


def validate(batch: Batch) -> None:
    """Raise `InvalidArgument` where a batch breaks a limit; every engine calls this before it does anything."""
    keys = len(batch.expect) + len(batch.write) + len(batch.add) + len(batch.append) + len(batch.clear)
    if keys > BATCH_KEYS:
        raise InvalidArgument(f"a batch of {keys} keys; at most {BATCH_KEYS}", what="batch", value=keys)
    size = 0
    for key in batch.expect:
        size += _key_size(key)
    for key, value in batch.write.items():
        size += _key_size(key) + (0 if value is None else _value_size(key, value))
    for key in batch.add:
        size += _key_size(key) + 8
    for prefix, value in batch.append:
        size += _key_size(prefix, 10) + _value_size(prefix, value)
    for start, stop in batch.clear:
        size += len(start) + len(stop)
    if size > BATCH_BYTES:
        raise InvalidArgument(f"a batch of {size} bytes; at most {BATCH_BYTES}", what="batch", value=size)


def _key_size(key: bytes, suffix_size: int = 0) -> int:
    size = len(key) + suffix_size
    if not suffix_size < size <= KEY_BYTES:
        raise InvalidArgument(f"a key of {size} bytes; 1 to {KEY_BYTES}", what="key", value=key[:64])
    return size


def _value_size(key: bytes, value: bytes) -> int:
    if len(value) > VALUE_BYTES:
        raise InvalidArgument(f"a value of {len(value)} bytes; at most {VALUE_BYTES}", what="value", value=key[:64])
    return len(value)
