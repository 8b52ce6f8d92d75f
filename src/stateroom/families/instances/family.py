"""Workflow instances: each run's latest state, found by status, workflow, business key or label.

Uniqueness of a business key is kept in the batch that writes, a cancelled run cannot be brought back by a runner's
stale write, and an unknown filter is an error.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Unpack

import msgspec

from ... import arguments, keys
from ...core.namespace import Reader
from ...core.operation import Family, M, iteration, joining, operation, procedure, reading
from ...core.transaction import Transaction
from ...errors import AlreadyExists, InvalidArgument
from ...feed import history
from ...limits import BUSINESS_KEY_BYTES, PAGE_ITEMS
from ...records.kind import Stored
from ...records.pages import Page
from ...records.reading import find, load
from ...records.saving import remove
from ..bulk import Bulk, read_many, write_many
from ..claims import Claim, claim
from ..leases import forget, revoke, rows
from ..orphans import page as orphans_page
from .queries import InstanceFilters, claiming, orphans
from .record import (
    ACTIVE,
    CHANGEABLE,
    INSTANCES,
    STATUSES,
    Instance,
    InstanceChanges,
    InstanceOrder,
    InstanceStatus,
    active_key,
    check,
    check_revision,
    check_status,
    check_unique,
    missing,
    wrong,
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
        """
        return await _put(tx, check(instance), expected_revision)

    @joining
    async def put_many(self, instances: Iterable[Instance]) -> tuple[Instance, ...]:
        """Insert or replace many, each as `put` does; gives them in their order.

        One commit for each part and batch of at most 1,000. A refusal names the record, nothing of its batch is stored,
        and ``.fields["written"]`` says how many were before. In a transaction all must share its root.
        """
        records = arguments.collection(instances, "instances", "Instance")
        bulk = Bulk(INSTANCES, check, lambda tx, instance: _put(tx, instance, None), ahead=True)
        return await write_many(self._scope, self._face.tx, bulk, records)

    @operation
    async def update(
        self,
        tx: Transaction,
        /,
        id: str,
        *,
        expected_statuses: Collection[InstanceStatus | StrEnum] = (),
        expected_revision: int | None = None,
        **changes: Unpack[InstanceChanges],
    ) -> Instance:
        """Change the fields that are named, under conditions.

        What is not named is kept; a mapping replaces; None sets the field's default. Checked in this order: `NotFound`,
        the conditions (`WrongState`, `StaleRevision`), a terminal status, which needs `expected_revision` (`WrongState`
        with terminal=True). One that becomes active again, or in another version, is checked for uniqueness
        (`AlreadyExists`). Raises `InvalidArgument` for a field that cannot be changed.
        """
        id = arguments.name(id, "id")
        statuses = arguments.choices(expected_statuses, "expected_statuses", STATUSES, "statuses")
        if expected_revision is not None:
            arguments.number(expected_revision, "expected_revision")
        for name, value in changes.items():
            if name not in CHANGEABLE:
                raise InvalidArgument(
                    f"{name!r} cannot be changed; use {', '.join(CHANGEABLE)}", what=name, value=value
                )
        fields = {name: _DEFAULTS[name] if value is None else value for name, value in changes.items()}
        before = await load(tx, INSTANCES, (id,), raw=True)
        if before is None:
            check(msgspec.structs.replace(Instance(id, "-"), **fields))
            raise missing(id)
        after = check(msgspec.structs.replace(before.record, **fields))
        old = before.record
        if statuses and old.status not in statuses:
            raise wrong(old, statuses, f"expected {' or '.join(sorted(statuses))}")
        check_revision(expected_revision, old, id)
        if not old.active and expected_revision is None:
            raise wrong(old, frozenset(ACTIVE), "which is terminal; give expected_revision to change it", terminal=True)
        return await _replace(tx, before, after)

    @operation
    async def start(self, tx: Transaction, instance: Instance, *, unique: str | None = "workflow") -> Instance:
        """Create an instance, unless another active one has its business key.

        `unique` says where: "workflow" (the same workflow), "version" (the same workflow and version), "global" (the
        namespace), None (not checked). Raises `AlreadyExists` naming the other in `id`, also for a taken id;
        `WrongState` for a terminal status; `InvalidArgument`.
        """
        unique = check_unique(unique)
        if isinstance(instance, Instance):
            instance = msgspec.structs.replace(instance, unique=unique)
        instance = check(instance)
        if not instance.active:
            raise wrong(instance, frozenset(ACTIVE), "and would start so", terminal=True)
        if await load(tx, INSTANCES, (instance.id,), new=True) is not None:
            raise AlreadyExists(f"instance {instance.id!r} exists", kind="instances", id=instance.id)
        await check_free(tx, instance)
        return await write(tx, None, instance)

    @reading
    async def active(
        self, tx: Reader, business_key: str, *, workflow: str | None = None, workflow_version: int | None = None
    ) -> Instance | None:
        """The active instance with a business key; None where there is none.

        Of several the one that became active last, in the order of commits: clocks that are set do not change it.
        """
        business_key = arguments.name(business_key, "business_key", BUSINESS_KEY_BYTES)
        workflow = arguments.optional_name(workflow, "workflow")
        if workflow_version is not None:
            workflow_version = arguments.number(workflow_version, "workflow_version", least=1)
        fitting = [
            active
            for active in await actives(tx, business_key)
            if workflow in (None, active.workflow) and workflow_version in (None, active.version)
        ]
        for active in sorted(fitting, reverse=True):
            stored = await load(tx, INSTANCES, (active.id,), raw=True)
            if stored is not None and stored.record.active:  # it may have ended since its row was read
                return stored.record
        return None

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

    @reading
    async def get_many(self, tx: Reader, ids: Iterable[str]) -> dict[str, Instance]:
        """The instances under some ids, without those that are not there; one read for each part.

        As in lists, a value that cannot be rebuilt here is a `codec.Raw`.
        """
        return await read_many(tx, INSTANCES, arguments.names(ids, "ids"))

    @operation
    async def delete(self, tx: Transaction, id: str, *, expected_revision: int | None = None) -> bool:
        """Remove an instance and revoke the lease under its id; False if there is none. Raises `StaleRevision`."""
        id = arguments.name(id, "id")
        before = await load(tx, INSTANCES, (id,), raw=True)
        if before is None:
            return False
        if expected_revision is not None:
            check_revision(arguments.number(expected_revision, "expected_revision", least=1), before.record, id)
        if before.record.active:
            await mark_active(tx, before.record, None)
        await forget(tx, id)
        await remove(tx, INSTANCES, before)
        return True

    @operation
    async def cancel(self, tx: Transaction, id: str) -> Instance:
        """Make an active instance cancelled and revoke the lease under its id.

        Raises `NotFound`, and `WrongState` with terminal=True when it has ended already.
        """
        id = arguments.name(id, "id")
        await tx.at(id).prefetch((INSTANCES.prefix(tx.scope) + keys.path(id), *rows(tx.scope, id)))
        before = await load(tx, INSTANCES, (id,), raw=True)
        if before is None:
            raise missing(id)
        if not before.record.active:
            raise wrong(before.record, frozenset(ACTIVE), "already", terminal=True)
        await revoke(tx, id)
        return await write(tx, before, msgspec.structs.replace(before.record, status="cancelled"))

    @reading
    async def count(
        self, tx: Reader, *, workflow: str | None = None, status: InstanceStatus | StrEnum | None = None
    ) -> int:
        """How many there are, of a workflow and in a status; reads a few counters for each part."""
        statuses = sorted(STATUSES) if status is None else [check_status(status)]
        if workflow is None:
            tails = [b"s" + keys.path(name) for name in statuses]
        else:
            workflow = arguments.name(workflow, "workflow")
            tails = [b"w" + keys.path(workflow, name) for name in statuses]
        return await tx.total([INSTANCES.counter(tx.scope, tail) for tail in tails])

    @reading
    async def query(
        self,
        tx: Reader,
        *,
        id: str | None = None,
        id_prefix: str | None = None,
        status: InstanceStatus | StrEnum | None = None,
        status_in: Collection[InstanceStatus | StrEnum] | None = None,
        workflow: str | None = None,
        workflow_prefix: str | None = None,
        workflow_version: int | None = None,
        business_key: str | None = None,
        label: tuple[str, str] | None = None,
        updated_after: datetime | None = None,
        updated_before: datetime | None = None,
        order: InstanceOrder = "id",
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Instance]:
        """Instances that match all filters, by id or ("updated") newest change first. Raises `InvalidArgument`.

        A call gives each that matched all the time once. By "updated", what changes between two pages goes to the
        front, where the pages that follow do not look; `scan` gives it all the same.
        """
        filters = InstanceFilters(
            id=id, id_prefix=id_prefix, status=status, status_in=status_in, workflow=workflow,
            workflow_prefix=workflow_prefix, workflow_version=workflow_version, business_key=business_key, label=label,
            updated_after=updated_after, updated_before=updated_before, order=order,
        )  # fmt: skip
        return await filters.query(tx).page(limit, cursor)

    @iteration
    async def scan(
        self,
        tx: Reader,
        *,
        id: str | None = None,
        id_prefix: str | None = None,
        status: InstanceStatus | StrEnum | None = None,
        status_in: Collection[InstanceStatus | StrEnum] | None = None,
        workflow: str | None = None,
        workflow_prefix: str | None = None,
        workflow_version: int | None = None,
        business_key: str | None = None,
        label: tuple[str, str] | None = None,
        updated_after: datetime | None = None,
        updated_before: datetime | None = None,
        order: InstanceOrder = "id",
    ) -> AsyncIterator[Instance]:
        """All instances that `query` would page through."""
        filters = InstanceFilters(
            id=id, id_prefix=id_prefix, status=status, status_in=status_in, workflow=workflow,
            workflow_prefix=workflow_prefix, workflow_version=workflow_version, business_key=business_key, label=label,
            updated_after=updated_after, updated_before=updated_before, order=order,
        )  # fmt: skip
        async for record in filters.query(tx).every():
            yield record

    @reading
    async def orphans(
        self,
        tx: Reader,
        *,
        workflow: str | None = None,
        status_in: Collection[InstanceStatus | StrEnum] | None = None,
        updated_before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Instance]:
        """Active instances that no live lease (under their id) holds: what to resume after a restart, by id."""
        return await orphans_page(orphans(tx, workflow, status_in, updated_before), limit, cursor)

    @procedure
    async def claim(
        self,
        owner: str,
        ttl: float | timedelta,
        *,
        workflow: str | None = None,
        status_in: Collection[InstanceStatus | StrEnum] = ACTIVE,
        limit: int = 1,
        wait: float | timedelta = 0.0,
    ) -> tuple[Claim[Instance], ...]:
        """Take instances that no live lease holds, the oldest change of a part first, each with a lease under its id.

        Record and lease are one commit, in one part: so nobody else gets them, and there may be fewer than `limit`.
        Where there are none, waits up to `wait` for one (seconds, or a timedelta). A claim ends with its lease: renew
        that (`leases.renew`) and release it when the work is done. Raises `InvalidArgument`.
        """
        owner, length = arguments.name(owner, "owner"), arguments.microseconds(ttl, "ttl")
        limit = arguments.number(limit, "limit", least=1, most=PAGE_ITEMS)
        seconds = arguments.seconds(wait, "wait")
        plan = await claiming(self._scope, workflow, status_in)
        return await claim(self._scope, plan, owner, length, limit, seconds)

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
    async def as_of(self, tx: Reader, id: str, when: str | datetime, *, raw: bool = False) -> Instance:
        """It as it was at a position or an aware datetime, within what the feed retains. Raises `NotFound`."""
        id = arguments.name(id, "id")
        return await history.as_of(tx.scope, INSTANCES, (id,), when, raw=raw)


_DEFAULTS = {name: getattr(Instance("-", "-"), name) for name in CHANGEABLE}


async def _put(tx: Transaction, instance: Instance, expected_revision: int | None) -> Instance:
    before = await load(tx, INSTANCES, (instance.id,), raw=True)
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
        why = f"to make it {instance.status} give expected_revision"
        raise wrong(old, frozenset(ACTIVE), why, terminal=True)
    return await _replace(tx, before, instance)


async def _replace(tx: Transaction, before: Stored[Instance], after: Instance) -> Instance:
    """Write another state of an instance; one that becomes active, here or elsewhere, must be allowed to."""
    if active_key(tx.scope, after) not in (None, active_key(tx.scope, before.record)):
        await check_free(tx, after)
    return await write(tx, before, after)
