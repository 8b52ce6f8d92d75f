"""One active instance for a business key: a head row that every activation rewrites, and a row for each active one.

A scan is not checked at commit, so the head is what two starts conflict on; the rows say who is active where. All
stand in the part of the business key, which is the part of its instances.
"""

from ... import keys
from ...core.namespace import Reader, Scope
from ...core.transaction import Transaction
from ...engine import read_counter, write_counter
from ...errors import AlreadyExists
from ...records.kind import Stored
from ...records.saving import save
from .record import INSTANCES, Instance, active_key, active_prefix

_PAGE = 1000


def _head(scope: Scope, business_key: str) -> bytes:
    return scope.key(keys.HEADS + b"k", keys.path(business_key))


async def actives(tx: Reader, business_key: str) -> list[tuple[str, str, int]]:
    """Id, workflow and version of the active instances with a business key."""
    start = active_prefix(tx.scope, business_key)
    stop = start + keys.END
    cut = len(start)
    found: list[tuple[str, str, int]] = []
    while True:
        rows = await tx.at(business_key).scan(start, stop, limit=_PAGE)
        for row in rows:
            workflow, version, id = keys.parse(row.key[cut:], (str, int, str))
            found.append((str(id), str(workflow), int(version)))
        if len(rows) < _PAGE:
            return found
        start = rows[-1].key + b"\0"


async def check_free(tx: Transaction, record: Instance) -> None:
    """Raise `AlreadyExists` where another active one has the business key, in the scope that the record asks for."""
    if record.unique is None or record.business_key is None:
        return
    head = await tx.at(record.business_key).get_new(_head(tx.scope, record.business_key))
    if head is None and tx.rows.assumed_new:  # never was one active; the commit checks that it is so
        return
    for id, workflow, version in await actives(tx, record.business_key):
        if id == record.id:
            continue
        same = record.unique == "global" or (
            workflow == record.workflow and (record.unique == "workflow" or version == record.workflow_version)
        )
        if same:
            raise AlreadyExists(
                f"instance {id!r} is active with business key {record.business_key!r} (unique in {record.unique})",
                kind="instances",
                id=id,
            )


async def mark_active(tx: Transaction, before: Instance | None, after: Instance | None) -> None:
    """Keep the rows of a business key in step with an instance that comes, changes or goes."""
    old = None if before is None else active_key(tx.scope, before)
    new = None if after is None else active_key(tx.scope, after)
    if old == new:
        return
    if old is not None and before is not None:
        tx.at(before.id).delete(old)
    if new is not None and after is not None and after.business_key is not None:
        rows, head = tx.at(after.business_key), _head(tx.scope, after.business_key)
        row = await rows.get(head)
        rows.put(head, write_counter(1 + read_counter(row.value if row is not None else None)))
        rows.put(new, b"")


async def write(tx: Transaction, before: Stored[Instance] | None, after: Instance) -> Instance:
    """Save an instance and what its business key needs."""
    await mark_active(tx, None if before is None else before.record, after)
    return (await save(tx, INSTANCES, before, after)).record
