"""Namespaces of a database: which there are, and removing one in small steps."""

from functools import partial

from .. import keys
from ..core.namespace import Scope
from ..core.transaction import Transaction, transact
from .breathing import breathe

_RUN = 1000
_LARGE_RUN = 16
"""Rows of chunks that are looked at together: each may have 512 KiB."""


async def namespaces(scope: Scope) -> list[str]:
    """Every namespace of a database that holds something."""
    names: set[str] = set()
    for part in range(scope.parts):
        start = b"\x01"  # what is before belongs to the database itself
        while rows := await scope.engine.scan(part, start, keys.END * 2, limit=1):
            prefix = rows[0].key[: rows[0].key.index(b"\0")]
            names.add(prefix.decode())
            start = prefix + b"\x01"
    return sorted(names)


async def delete_namespace(scope: Scope) -> int:
    """Remove every row of a namespace; gives how many of them were records.

    The feed goes last: a reader sees what was there until nothing is.
    """
    chunks, feed = scope.key(keys.CHUNK), scope.key(keys.FEED)
    end = scope.prefix + keys.END
    steps = (
        (scope.prefix, chunks, _RUN),
        (chunks, scope.key(keys.CHUNK + keys.END), _LARGE_RUN),
        (scope.key(keys.CHUNK + keys.END), feed, _RUN),
        (scope.key(keys.FEED + keys.END), end, _RUN),
        (feed, end, _RUN),
    )
    records = 0
    for part in range(scope.parts):
        for start, stop, most in steps:
            while rows := await scope.engine.scan(part, start, stop, limit=most):
                await transact(scope, partial(_clear, rows[0].key, rows[-1].key + b"\0"), part=part)
                records += sum(row.key.startswith(scope.key(keys.RECORD)) for row in rows)
                await breathe(scope)
    return records


async def _clear(start: bytes, stop: bytes, tx: Transaction) -> None:
    tx.rows.clear(start, stop)
