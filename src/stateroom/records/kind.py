"""Records: a row, its index rows, its counters and its feed entry, always written in one batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import msgspec

from ..core.namespace import Reader, Scope
from ..engine import Row


# Out of sight of the garbage collector: a page of records made it look at the whole process again and again, and what
# can be stored has no cycles.
class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What every record has. Records that you construct have revision 0 and no times; writes ignore these three."""

    revision: int = 0
    """1 at creation, +1 at each change."""
    created_at: datetime | None = None
    """Aware, UTC."""
    updated_at: datetime | None = None
    """Aware, UTC; never before the previous one."""


T = TypeVar("T", bound=Record)


class Index(NamedTuple):
    """Rows that find records by a value: in id order, and newest change first where `newest` is set."""

    letter: bytes
    values: Callable[[Any], Iterable[bytes]]
    by_id: bool = True
    newest: bool = False


class Stored(NamedTuple, Generic[T]):
    """A record as read, with what a change of it needs to know."""

    record: T
    row: Row
    wrapped: bytes
    pointer: tuple[int, int]
    """Version and index of its feed entry."""
    nonce: bytes
    """Made at creation: dependents are keyed by it, so a recreated id inherits nothing."""
    created: int
    updated: int


class Kind(ABC, Generic[T]):
    """A family's record: how it is keyed, packed, indexed and counted."""

    name: ClassVar[str]
    letter: ClassVar[bytes]
    layout: ClassVar[int] = 1
    fields: ClassVar[tuple[str, ...]] = ()
    """Names of the packed fields, for paths in errors."""
    indexes: ClassVar[tuple[Index, ...]] = ()
    shape: ClassVar[tuple[type, ...]] = (str,)
    """Which steps of the key are names and which are numbers."""

    @abstractmethod
    def path(self, record: T) -> tuple[str | int, ...]:
        """The full key."""

    def owner(self, path: Sequence[Any]) -> str:
        """Which string of the key decides the part."""
        return cast(str, path[0])

    @abstractmethod
    def pack(self, record: T) -> list[Any]:
        """The record's own fields as plain values, in the order of `fields`."""

    @abstractmethod
    def unpack(self, fields: list[Any], revision: int, created_at: datetime, updated_at: datetime) -> T:
        """The record that `pack` was given."""

    def counters(self, record: T) -> Iterable[bytes]:
        """Tails of the counters that count this record."""
        del record
        return ()

    def ended(self, record: T) -> bool:
        """Whether nothing more is expected of it: retention counts from when it came to be so."""
        del record
        return False

    def shown(self, record: T) -> T:
        """The record as pages and changes show it."""
        return record

    def held(self, record: T) -> Iterable[bytes]:
        """Wrappers of large values, beside its own body, that the record's row holds one reference to."""
        del record
        return ()

    async def audit(self, reader: Reader, part: int, records: "dict[bytes, Stored[T]]") -> list[Any]:
        """What `check` should look at beside indexes, counters and feed; gives `Problem`s."""
        del reader, part, records
        return []

    def prefix(self, scope: Scope) -> bytes:
        return scope.prefix + b"R" + self.letter

    def index_prefix(self, scope: Scope, index: Index, value: bytes, *, newest: bool = False) -> bytes:
        return scope.prefix + b"X" + self.letter + index.letter + (b"N" if newest else b"I") + value

    def counter(self, scope: Scope, tail: bytes) -> bytes:
        return scope.prefix + b"C" + self.letter + tail


KINDS: dict[str, Kind[Any]] = {}
"""Every kind by the name of its family: the feed, `check` and `copy` find them here."""

HELD: dict[bytes, Callable[[Row], bytes]] = {}
"""For each tag of a row that is no record and holds a value of any size: from the row to the value's wrapper."""


K = TypeVar("K", bound=Kind[Any])


def register(kind: K) -> K:
    """Make a kind known to the feed, `check` and `copy`."""
    KINDS[kind.name] = kind
    return kind
