"""Namespaces of a database: which there are, and removing one in small steps."""

from functools import partial

from .. import keys
from ..core.namespace import Scope
from ..core.transaction import Transaction, transact
from ..families.leases import record as leases
from .breathing import breathe

_RUN = 1000
_TAKEN_MEANWHILE = 1_000_000
"""Tokens that may be given while a namespace is being deleted."""
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
        leased = await transact(scope, partial(_keep_tokens, False), part=part)
        for start, stop, most in steps:
            while rows := await scope.engine.scan(part, start, stop, limit=most):
                await transact(scope, partial(_clear, rows[0].key, rows[-1].key + b"\0"), part=part)
                records += sum(row.key.startswith(scope.key(keys.RECORD)) for row in rows)
                await breathe(scope)
        if leased:
            await transact(scope, partial(_keep_tokens, True), part=part)
    return records


async def _keep_tokens(again: bool, tx: Transaction) -> bool:
    """Let leases that are taken in this namespace from now on begin above all that were; gives whether any was.

    `again`: leases that were taken while the namespace was deleted may be gone with it.
    """
    scope, place = tx.scope, tx.scope.reader.in_part(tx.rows.part)
    start, stop = scope.key(keys.LEASE_MARK), scope.key(keys.LEASE_TOKEN + keys.END)
    if not again and not await place.scan(start, stop, limit=1):
        return False
    _, at = leases.floor_keys(scope)
    await tx.rows.get(at)  # must be the same at commit
    token = _TAKEN_MEANWHILE + await leases.highest_token(scope, tx.rows.part)
    tx.rows.put(at, leases.write_mark(at, token))
    return True


async def _clear(start: bytes, stop: bytes, tx: Transaction) -> None:
    tx.rows.clear(start, stop)
