"""One active instance for a business key: a head row that counts the active ones, and a row for each of them.

A scan is not checked at commit, so the head is what a start that looks for others expects unchanged; whoever becomes
active or ends adds to it, which conflicts with nobody but such a start. The rows say who is active where. All stand in
the part of the business key, which is the part of its instances.
"""

from typing import NamedTuple

from ... import keys
from ...core.namespace import Reader
from ...core.transaction import Transaction
from ...engine import read_counter, write_counter
from ...errors import AlreadyExists
from ...records.kind import Stored
from ...records.places import commit_of
from ...records.saving import save
from .record import INSTANCES, Instance, active_key, active_prefix, head_key

_PAGE = 1000


class Active(NamedTuple):
    """The row of an active instance."""

    commit: int
    """The version of the commit that made it active here: the order in which they became so."""
    id: str
    workflow: str
    version: int


async def actives(tx: Reader, business_key: str) -> list[Active]:
    """The active instances with a business key."""
    start = active_prefix(tx.scope, business_key)
    stop = start + keys.END
    cut = len(start)
    active: list[Active] = []
    while True:
        rows = await tx.at(business_key).scan(start, stop, limit=_PAGE)
        for row in rows:
            workflow, version, id = keys.parse(row.key[cut:], (str, int, str))
            active.append(Active(commit_of(row), str(id), str(workflow), int(version)))
        if len(rows) < _PAGE:
            return active
        start = rows[-1].key + b"\0"


async def check_free(tx: Transaction, record: Instance) -> None:
    """Raise `AlreadyExists` where another active one has the business key, in the scope that the record asks for."""
    if record.unique is None or record.business_key is None:
        return
    rows, key = tx.at(record.business_key), head_key(tx.scope, record.business_key)
    head = await rows.get_new(key)
    if head is None and rows.assumed_new and not rows.added(key):  # never was one active; the commit checks that
        return
    for rival in await actives(tx, record.business_key):
        if rival.id == record.id:
            continue
        same = record.unique == "global" or (
            rival.workflow == record.workflow
            and (record.unique == "workflow" or rival.version == record.workflow_version)
        )
        if same:
            raise AlreadyExists(
                f"instance {rival.id!r} is active with business key {record.business_key!r}"
                f" (unique in {record.unique})",
                kind="instances",
                id=rival.id,
            )


async def mark_active(tx: Transaction, before: Instance | None, after: Instance | None) -> None:
    """Keep the rows of a business key in step with an instance that comes, changes or goes."""
    old = None if before is None else active_key(tx.scope, before)
    new = None if after is None else active_key(tx.scope, after)
    owner = before if before is not None else after
    if old == new or owner is None or owner.business_key is None:
        return
    rows, head = tx.at(owner.business_key), head_key(tx.scope, owner.business_key)
    if old is not None:
        rows.delete(old)
    if new is not None:
        rows.put(new, b"")
    if old is None or new is None:
        rows.add(head, 1 if old is None else -1)
    else:  # in another workflow or version: as many as before, and yet a start that looks there must notice
        row = await rows.get(head)
        rows.put(head, write_counter(read_counter(None if row is None else row.value)))


async def write(tx: Transaction, before: Stored[Instance] | None, after: Instance) -> Instance:
    """Save an instance and what its business key needs."""
    await mark_active(tx, None if before is None else before.record, after)
    return (await save(tx, INSTANCES, before, after)).record
