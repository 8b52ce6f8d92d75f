"""Rows as RocksDB has them: the part in two bytes before the key, the version in eight before the value.

Two rows of ours stand before and behind all others. An iterator that meets a damaged block ends as if there were no
more rows; with a row behind every scan, an end is always damage.
"""

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any

import rocksdict

from ...engine import Row
from ...errors import Damaged, InvalidArgument

__all__ = ["FIRST", "LAST", "MAX_PARTS", "full_key", "prefix_of", "read_rows", "scan_parts", "version_of"]

FIRST, LAST = b"\x00", b"\xff\xff"
"""The rows before and behind all others: no part's."""

MAX_PARTS = 0xFFFF

_SEEN = 8
"""Bytes of version before each value."""


def prefix_of(part: int) -> bytes:
    return part.to_bytes(2, "big")


def full_key(prefix: bytes, key: bytes) -> bytes:
    """A bound of a range as RocksDB has it; never the row of the part's version, which has no key at all."""
    return prefix + (key or b"\x00")


def version_of(value: bytes | None) -> int:
    return int.from_bytes(value[:_SEEN], "big") if value else 0


def read_rows(db: rocksdict.Rdict, part: int, keys: Sequence[bytes]) -> list[Row | None]:
    """The rows under `keys`, all as of one commit."""
    prefix = part.to_bytes(2, "big")
    values: Any
    if len(keys) == 1:
        values = [db.get(prefix + keys[0])]
    elif keys:
        values = db.get([prefix + key for key in keys])  # as of one moment: one MultiGet
    else:
        return []
    return [
        Row(key, value[_SEEN:], int.from_bytes(value[:_SEEN], "big"))
        if value is not None
        else (None if key else Row(b"", b"", 0))
        for key, value in zip(keys, values, strict=True)
    ]


def scan_parts(
    db: rocksdict.Rdict, path: str, parts: Sequence[int], start: bytes, stop: bytes, limit: int, reverse: bool
) -> list[Row]:
    """At most `limit` rows of ``start <= key < stop``, in key order, of each part as of one commit."""
    if limit < 0:
        raise InvalidArgument(f"limit is {limit}; at least 0", what="limit", value=limit)
    if not limit or start >= stop:
        return []
    run = _backward if reverse else _forward
    runs = [list(islice(run(db, path, prefix_of(part), start, stop), limit)) for part in parts]
    if len(runs) == 1:
        return runs[0]
    return list(islice(merge(*runs, key=itemgetter(0), reverse=reverse), limit))


def _forward(db: rocksdict.Rdict, path: str, prefix: bytes, start: bytes, stop: bytes) -> Iterator[Row]:
    end = prefix + stop
    rows: Any = db.items(from_key=full_key(prefix, start))
    for key, value in rows:
        if key >= end:
            return
        yield Row(key[2:], value[_SEEN:], int.from_bytes(value[:_SEEN], "big"))
    raise _ended(path)


def _backward(db: rocksdict.Rdict, path: str, prefix: bytes, start: bytes, stop: bytes) -> Iterator[Row]:
    first, end = full_key(prefix, start), prefix + stop
    rows: Any = db.items(backwards=True, from_key=end)
    for key, value in rows:
        if key < first:
            return
        if key != end:
            yield Row(key[2:], value[_SEEN:], int.from_bytes(value[:_SEEN], "big"))
    raise _ended(path)


def _ended(path: str) -> Damaged:
    return Damaged(f"a scan of {path} met a damaged block; restore a backup, or look with `stateroom doctor`")
