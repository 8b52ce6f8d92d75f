"""An entry of the feed as it is stored: what changed, and where the same record's entry before it stands.

The record after the change is in the entry, the one before is in the entry before: so nothing is stored twice, and
following the pointers gives a record's history.
"""

from typing import NamedTuple

import ormsgpack

from .codec import seal, unseal
from .errors import Damaged
from .transaction import Scope

OPS = ("create", "update", "delete", "emit")

NO_POINTER = (0, 0)
"""A record's first entry points nowhere."""


class Entry(NamedTuple):
    """One change as stored."""

    op: str
    family: str
    id: str
    path: tuple[str | int, ...]
    before: tuple[int, int]
    """Version and index of the record's entry before this; version `PENDING`: of the same commit; 0: none."""
    at: int
    wrapped: bytes | None
    """The record after the change, as `blobs.keep` gave it."""
    events: bytes | None
    """What was given as events with the change, kept likewise."""

    @property
    def wrappers(self) -> tuple[bytes, ...]:
        """What this entry refers to."""
        return tuple(one for one in (self.wrapped, self.events) if one is not None)


def feed_prefix(scope: Scope) -> bytes:
    """The prefix of the feed's rows in a namespace."""
    return scope.key(b"F")


def encode(scope: Scope, entry: Entry) -> bytes:
    """The bytes of an entry."""
    op, family, id, path, before, at, wrapped, events = entry
    packed = ormsgpack.packb([OPS.index(op), family, id, list(path), before[0], before[1], at, wrapped, events])
    return seal(feed_prefix(scope), packed)


def decode(scope: Scope, stored: bytes) -> Entry:
    """What `encode` was given. Raises `Damaged`."""
    packed = unseal(feed_prefix(scope), stored)
    try:
        op, family, id, path, version, index, at, wrapped, events = ormsgpack.unpackb(packed)
        return Entry(OPS[op], family, id, tuple(path), (version, index), at, wrapped, events)
    except (ValueError, TypeError, IndexError) as error:
        raise Damaged("an entry of the feed cannot be read", kind="feed") from error
