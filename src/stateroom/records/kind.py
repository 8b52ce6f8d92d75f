"""Records: a row, its index rows, its counters and its feed entry, always written in one batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

from .. import keys
from ..codec import unseal
from ..codec.shown import Shown
from ..core.namespace import Reader, Rows, Scope
from ..core.transaction import Writable
from ..engine import Row
from ..errors import Damaged


# Out of sight of the garbage collector: a page of records made it look at the whole process again and again, and what
# can be stored has no cycles.
class Record(Shown, frozen=True, kw_only=True, gc=False):
    """The part that every record has. Records that you construct have revision 0 and no times; writes ignore these
    three.
    """

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


class Aging(NamedTuple):
    """How records of a kind age: what retention needs besides the records themselves."""

    ends: bool = False
    """Whether there are records that are terminal."""
    leased: bool = False
    """Whether a lease on its id says that somebody still works on a record."""
    batch: int = 50
    """Records that go in one commit; fewer where much hangs on each."""
    ended: tuple[Index, tuple[bytes, ...]] | None = None
    """An index, and its values, that give terminal records by time; None: all records are looked at."""
    every: tuple[Index, tuple[bytes, ...]] | None = None
    """An index, and its values, that give all records by time; None: all records are looked at."""
    group: Index | None = None
    """An index that gives the records of a group by time, for `keep_latest`."""
    group_steps: int = 0
    """Steps at the start of a key that make a group, where no index gives it; 0: there are no groups."""
    newest_by_key: bool = False
    """Whether the newest of a group is the one with the highest number at the end of its key."""

    @property
    def grouped(self) -> bool:
        """Say whether a number of the latest can be kept."""
        return self.group is not None or self.group_steps > 0


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
    key_names: ClassVar[tuple[str, ...]] = ("id",)
    """The names of those steps, as fields of the record."""
    texts: ClassVar[frozenset[str]] = frozenset()
    """Fields that are text for SQL users; what is neither here nor in `numbers` is JSON."""
    numbers: ClassVar[frozenset[str]] = frozenset()
    """Fields that are whole numbers for SQL users."""
    events_family: ClassVar[str | None] = None
    """The family of changes that add an event to a record without changing it, where there is one."""
    aging: ClassVar[Aging] = Aging()
    summary: ClassVar[bytes | None] = None
    """The counters that `stats` shows: what their keys begin with after the kind's letter."""

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

    def unpack_event(self, value: Any) -> Any:
        """An event that was given with a change, from the value it was stored as."""
        return value

    def counters(self, record: T) -> Iterable[bytes]:
        """Tails of the counters that count this record."""
        del record
        return ()

    def ended(self, record: T) -> bool:
        """Say whether nothing more is expected of it: retention counts from when it came to be so."""
        del record
        return False

    async def ended_since(self, rows: Rows, stored: "Stored[T]") -> int | None:
        """Since when a record has been terminal, in microseconds; None where it is not."""
        if not self.ended(stored.record):
            return None
        tail = self.letter + keys.path(*self.path(stored.record))
        row = await rows.get(rows.scope.key(keys.ENDED_SINCE, tail))
        return stored.updated if row is None else int.from_bytes(row.value, "big")

    async def release(self, tx: Writable, stored: "Stored[T]") -> None:
        """Give up what hangs on a record that is removed in the same transaction."""
        del tx, stored

    def shown(self, record: T) -> T:
        """The record as pages and changes show it."""
        return record

    def held(self, record: T) -> Iterable[bytes]:
        """Wrappers of large values, beside its own body, that the record's row holds one reference to."""
        del record
        return ()

    async def audit(self, reader: Reader, part: int, records: "dict[bytes, Stored[T]]") -> list[Any]:
        """Return what `check` should look at beside indexes, counters and feed; gives `Problem`s."""
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


def changed_families() -> tuple[str, ...]:
    """The families in the feed: every kind, and the events of those that have a family of their own."""
    return tuple(name for kind in KINDS.values() for name in (kind.name, kind.events_family) if name is not None)


def kind_of_events(family: str) -> Kind[Any] | None:
    """The kind whose events make changes of this family."""
    return next((kind for kind in KINDS.values() if kind.events_family == family), None)


K = TypeVar("K", bound=Kind[Any])


def register(kind: K) -> K:
    """Make a kind known to the feed, `check` and `copy`."""
    KINDS[kind.name] = kind
    return kind


def owner_of(suffix: bytes) -> str:
    """The string that decides the part of a row, from its key after the namespace. Raises `Damaged`."""
    tag = keys.row_tag(suffix)
    owner = None if tag is None else keys.ROWS[tag].owner
    if tag is None or owner is None:
        raise Damaged(f"a row with the unknown tag {suffix[:2]!r}; it was written by a newer version", key=suffix)
    tail = suffix[len(tag) :]
    try:
        match owner:
            case keys.Owner.FIRST:
                return _name(tail)
            case keys.Owner.SECOND:
                return _name(tail[tail.index(b"\0") + 1 :])
            case keys.Owner.AFTER_NUMBER:
                return _name(tail[8:])
            case keys.Owner.RECORD:
                return _owner_of_record(tail)
            case keys.Owner.ENDED:
                return _owner_of_record(tail[:1] + tail[9:])
            case keys.Owner.RANGE:
                return owner_of(tail[tail.index(b"\0") + 1 :])
            case root:
                return str(root)
    except (ValueError, IndexError) as error:
        raise Damaged("a key cannot be read", key=suffix) from error


def _name(tail: bytes) -> str:
    return tail[: tail.index(b"\0")].decode()


def _owner_of_record(tail: bytes) -> str:
    for kind in KINDS.values():
        if kind.letter == tail[:1]:
            return kind.owner(keys.parse(tail[1:], kind.shape))
    return _name(tail[1:])  # a head row of something that is no record


def wrapper_in(scope: Scope, row: Row) -> bytes | None:
    """The wrapper of the value in a row that is no record; None where such rows hold none. Raises `Damaged`."""
    tag = keys.row_tag(row.key[len(scope.prefix) :])
    at = None if tag is None else keys.ROWS[tag].value_at
    return None if at is None else unseal(row.key, row.value)[at:]
