"""Reads on one connection: rows by key, and several scans as one."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any, TypeVar

import apsw

from ...engine import Row
from .group import READ

__all__ = ["PART", "SCAN", "SCAN_BACK", "as_row", "merged", "read_row", "read_rows"]

PART = "SELECT version FROM parts WHERE part = ?"
SCAN = "SELECT key, value, version FROM rows WHERE part = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?"
SCAN_BACK = "SELECT key, value, version FROM rows WHERE part = ? AND key >= ? AND key < ? ORDER BY key DESC LIMIT ?"
_key = itemgetter(0)
as_row: Callable[[Any], Row] = partial(tuple.__new__, Row)
T = TypeVar("T")


def read_rows(connection: apsw.Connection, part: int, keys: Sequence[bytes]) -> list[Row | None]:
    """The rows under `keys` of one part, all as of one commit."""
    return _in_one_view(connection, lambda: [read_row(connection, part, key) for key in keys])


def read_row(connection: apsw.Connection, part: int, key: bytes) -> Row | None:
    """The row under one key; under b"" the version of the part."""
    if key:
        row = connection.execute(READ, (part, key)).get
        return row and Row(key, row[0], row[1])
    return Row(b"", b"", connection.execute(PART, (part,)).get or 0)


def merged(
    connection: apsw.Connection,
    statement: str,
    bindings: Iterable[tuple[int, bytes, bytes, int]],
    limit: int,
    reverse: bool,
) -> list[Row]:
    """At most `limit` rows of several scans in key order, all as of one commit."""

    def run() -> list[Row]:
        cursors = [connection.execute(statement, binding) for binding in bindings]
        return list(map(as_row, islice(heapq.merge(*cursors, key=_key, reverse=reverse), limit)))

    return _in_one_view(connection, run)


def _in_one_view(connection: apsw.Connection, run: Callable[[], T]) -> T:
    """Return what `run` gives, with every statement seeing the same commits."""
    connection.execute("BEGIN")
    try:
        return run()
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")
