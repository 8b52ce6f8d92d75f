"""Workflow instances, after Hephaestus: each run's latest state, found by status, workflow, business key or label.

Unlike there, uniqueness of a business key is kept by the store in the batch that writes, a cancelled run cannot be
brought back by a runner's stale write, and an unknown filter is an error.
"""

from collections.abc import AsyncIterator, Callable, Collection
from datetime import datetime

import msgspec

from ... import arguments, keys
from ...core.namespace import Reader
from ...core.operation import Family, M, iteration, operation, procedure, reading
from ...core.transaction import Transaction
from ...errors import AlreadyExists, InvalidArgument, WrongState
from ...feed import history
from ...limits import BUSINESS_KEY_BYTES
from ...records.kind import Stored
from ...records.pages import Page
from ...records.reading import find, load
from ...records.saving import remove
from ..leases import revoke, rows
from .queries import Filters, orphans
from .record import (
    ACTIVE,
    INSTANCES,
    STATUSES,
    Instance,
    active_key,
    check,
    check_revision,
    check_status,
    check_unique,
    missing,
)
from .unique import actives, check_free, mark_active, write


class Instances(Family[M]):
    """``store.instances``: workflow instances."""

    @operation
    async def put(self, tx: Transaction, instance: Instance, *, expected_revision: int | None = None) -> Instance:
        """Insert or replace an instance whole.

        `expected_revision` 0: it must not exist (`AlreadyExists`); n: `StaleRevision` where it has another. An active
        status over a terminal instance needs `expected_revision`, else `WrongState` with terminal=True: so a runner
        cannot undo a cancel it has not seen. One that becomes active again, or in another workflow or version, is
        checked for uniqueness (`AlreadyExists`). Raises `InvalidArgument`, for a changed business key too.
        Source: Hephaestus' put.
        """
        instance = check(instance)
        before = await load(tx, INSTANCES, (instance.id,))
        check_revision(expected_revision, before.record if before else None, instance.id)
        if before is None:
            return await write(tx, None, instance)
        old = before.record
        if instance.business_key != old.business_key:
            raise InvalidArgument(
                f"the business key of instance {old.id!r} is {old.business_key!r} and cannot change",
                what="business_key",
                value=instance.business_key,
            )
        if instance.unique is None and old.unique is not None:
            instance = msgspec.structs.replace(instance, unique=old.unique)
        if instance.active and not old.active and expected_revision is None:
            raise WrongState(
                f"instance {old.id!r} is {old.status}; to make it {instance.status} give expected_revision",
                kind="instances",
                id=old.id,
                actual=old.status,
                expected=frozenset(ACTIVE),
                terminal=True,
            )
        if active_key(tx.scope, instance) not in (None, active_key(tx.scope, old)):
            await check_free(tx, instance)
        return await write(tx, before, instance)

    @operation
    async def start(self, tx: Transaction, instance: Instance, *, unique: str | None = "workflow") -> Instance:
        """Create an instance, unless another active one has its business key.

        `unique` says where: "workflow" (the same workflow), "version" (the same workflow and version), "global" (the
        namespace), None (not checked). Raises `AlreadyExists` naming the other in `id`, also for a taken id;
        `WrongState` for a terminal status; `InvalidArgument`. Source: Hephaestus' start, made atomic.
        """
        unique = check_unique(unique)
        if isinstance(instance, Instance):
            instance = msgspec.structs.replace(instance, unique=unique)
        instance = check(instance)
        if not instance.active:
            raise WrongState(
                f"instance {instance.id!r} would start as {instance.status}",
                kind="instances",
                id=instance.id,
                actual=instance.status,
                expected=frozenset(ACTIVE),
                terminal=True,
            )
        if await load(tx, INSTANCES, (instance.id,), new=True) is not None:
            raise AlreadyExists(f"instance {instance.id!r} exists", kind="instances", id=instance.id)
        await check_free(tx, instance)
        return await write(tx, None, instance)

    @reading
    async def active(
        self, tx: Reader, business_key: str, *, workflow: str | None = None, workflow_version: int | None = None
    ) -> Instance | None:
        """The active instance with a business key; of several the one created last; None where there is none."""
        business_key = arguments.name(business_key, "business_key", BUSINESS_KEY_BYTES)
        workflow = arguments.optional_name(workflow, "workflow")
        if workflow_version is not None:
            workflow_version = arguments.number(workflow_version, "workflow_version", least=1)
        newest: Stored[Instance] | None = None
        for id, other, version in await actives(tx, business_key):
            if workflow in (None, other) and workflow_version in (None, version):
                found = await load(tx, INSTANCES, (id,))
                if found is not None and (newest is None or _age(found) > _age(newest)):
                    newest = found
        return None if newest is None else newest.record

    @reading
    async def get(self, tx: Reader, id: str, *, raw: bool = False) -> Instance:
        """The instance under an id; `raw`: with a `codec.Raw` in place of each value that cannot be rebuilt here.

        Raises `NotFound`, and unless it is `raw` `Undecodable`.
        """
        id = arguments.name(id, "id")
        record = await find(tx, INSTANCES, (id,), raw=raw)
        if record is None:
            raise missing(id)
        return record

    @reading
    async def find(self, tx: Reader, id: str, *, raw: bool = False) -> Instance | None:
        """The instance under an id, or None; `raw` as in `get`."""
        id = arguments.name(id, "id")
        return await find(tx, INSTANCES, (id,), raw=raw)

    @operation
    async def delete(self, tx: Transaction, id: str, *, expected_revision: int | None = None) -> bool:
        """Remove an instance; False if there is none. Raises `StaleRevision`."""
        id = arguments.name(id, "id")
        before = await load(tx, INSTANCES, (id,), raw=True)
        if before is None:
            return False
        if expected_revision is not None:
            check_revision(arguments.number(expected_revision, "expected_revision", least=1), before.record, id)
        if before.record.active:
            await mark_active(tx, before.record, None)
        await remove(tx, INSTANCES, before)
        return True

    @operation
    async def cancel(self, tx: Transaction, id: str) -> Instance:
        """Make an active instance cancelled and revoke the lease under its id.

        Raises `NotFound`, and `WrongState` with terminal=True when it has ended already. Source: Hephaestus' cancel.
        """
        id = arguments.name(id, "id")
        await tx.at(id).prefetch((INSTANCES.prefix(tx.scope) + keys.path(id), *rows(tx.scope, id)))
        before = await load(tx, INSTANCES, (id,))
        if before is None:
            raise missing(id)
        if not before.record.active:
            raise WrongState(
                f"instance {id!r} is {before.record.status} already",
                kind="instances",
                id=id,
                actual=before.record.status,
                expected=frozenset(ACTIVE),
                terminal=True,
            )
        await revoke(tx, id)
        return await write(tx, before, msgspec.structs.replace(before.record, status="cancelled"))

    @reading
    async def count(self, tx: Reader, *, workflow: str | None = None, status: str | None = None) -> int:
        """How many there are, of a workflow and in a status; reads a few counters for each part."""
        statuses = sorted(STATUSES) if status is None else [check_status(status)]
        if workflow is None:
            tails = [b"s" + keys.path(one) for one in statuses]
        else:
            workflow = arguments.name(workflow, "workflow")
            tails = [b"w" + keys.path(workflow, one) for one in statuses]
        return await tx.total([INSTANCES.counter(tx.scope, tail) for tail in tails])

    @reading
    async def query(
        self,
        tx: Reader,
        *,
        id: str | None = None,
        status: str | None = None,
        status_in: Collection[str] | None = None,
        workflow: str | None = None,
        workflow_prefix: str | None = None,
        workflow_version: int | None = None,
        business_key: str | None = None,
        label: tuple[str, str] | None = None,
        updated_after: datetime | None = None,
        updated_before: datetime | None = None,
        order: str = "id",
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Instance]:
        """Instances that match all filters, by id or ("updated") newest change first. Raises `InvalidArgument`."""
        filters = Filters(
            id, status, status_in, workflow, workflow_prefix, workflow_version, business_key, label, updated_after,
            updated_before, order,
        )  # fmt: skip
        return await (await filters.query(tx)).page(limit, cursor)

    @iteration
    async def scan(
        self,
        tx: Reader,
        *,
        id: str | None = None,
        status: str | None = None,
        status_in: Collection[str] | None = None,
        workflow: str | None = None,
        workflow_prefix: str | None = None,
        workflow_version: int | None = None,
        business_key: str | None = None,
        label: tuple[str, str] | None = None,
        updated_after: datetime | None = None,
        updated_before: datetime | None = None,
        order: str = "id",
    ) -> AsyncIterator[Instance]:
        """All instances that `query` would page through."""
        filters = Filters(
            id, status, status_in, workflow, workflow_prefix, workflow_version, business_key, label, updated_after,
            updated_before, order,
        )  # fmt: skip
        async for record in (await filters.query(tx)).every():
            yield record

    @reading
    async def orphans(self, tx: Reader, *, limit: int = 100) -> tuple[Instance, ...]:
        """Active instances that no live lease (under their id) holds: what to resume after a restart, by id."""
        return await orphans(tx, limit)

    @procedure
    async def wait(self, id: str, predicate: Callable[[Instance], bool], *, timeout: float = 5.0) -> Instance:
        """The instance once it is there and `predicate` holds for it, woken by its changes. Raises `Timeout`."""
        id = arguments.name(id, "id")
        return await history.wait_for(self._scope, INSTANCES, (id,), predicate, timeout)

    @reading
    async def history(self, tx: Reader, id: str, *, limit: int = 100, cursor: str | None = None) -> Page[Instance]:
        """Its revisions, newest first, within what the feed retains. Raises `NotFound`."""
        id = arguments.name(id, "id")
        return await history.page(tx, INSTANCES, (id,), limit, cursor)

    @reading
    async def as_of(self, tx: Reader, id: str, when: str | datetime) -> Instance:
        """It as it was at a position or an aware datetime, within what the feed retains. Raises `NotFound`."""
        id = arguments.name(id, "id")
        return await history.as_of(tx.scope, INSTANCES, (id,), when)


def _age(stored: Stored[Instance]) -> tuple[int, str]:
    return stored.created, stored.record.id
