"""How instances are looked for: which index serves which filters."""

from collections.abc import Collection
from datetime import datetime

import msgspec

from ... import arguments, keys
from ...clock import to_micros
from ...core.namespace import Reader, Scope
from ...core.transaction import Transaction
from ...errors import InvalidArgument
from ...records.kind import Index, Stored
from ...records.pages import fingerprint
from ...records.query import Query
from ..claims import Plan
from .record import (
    ACTIVE,
    BY_KEY,
    BY_LABEL,
    BY_STATUS,
    BY_TIME,
    BY_WORKFLOW,
    INSTANCES,
    STATUSES,
    TERMINAL,
    Instance,
    check_status,
)


class InstanceFilters(msgspec.Struct, kw_only=True):
    """The filters of a query, checked when it is made."""

    id: str | None = None
    id_prefix: str | None = None
    status: str | None = None
    status_in: Collection[str] | None = None
    workflow: str | None = None
    workflow_prefix: str | None = None
    workflow_version: int | None = None
    business_key: str | None = None
    label: tuple[str, str] | None = None
    updated_after: datetime | None = None
    updated_before: datetime | None = None
    order: str = "id"

    def __post_init__(self) -> None:
        self.id = arguments.optional_name(self.id, "id")
        self.id_prefix = None if self.id_prefix is None else arguments.prefix(self.id_prefix, "id_prefix")
        self.workflow = arguments.optional_name(self.workflow, "workflow")
        self.workflow_prefix = arguments.optional_name(self.workflow_prefix, "workflow_prefix")
        self.business_key = arguments.optional_name(self.business_key, "business_key")
        if self.workflow_version is not None:
            self.workflow_version = arguments.number(self.workflow_version, "workflow_version", least=1)
        if self.status is not None:
            self.status = check_status(self.status)
        if self.status_in is not None:
            statuses = arguments.collection(self.status_in, "status_in", "statuses")
            self.status_in = tuple([check_status(status, "status_in") for status in statuses])
        self.order = arguments.choice(self.order, "order", ("id", "updated"))
        if self.label is not None:
            if not isinstance(self.label, tuple | list) or len(self.label) != 2:
                raise InvalidArgument("label must be a pair (name, value)", what="label", value=self.label)
            self.label = (arguments.name(self.label[0], "label"), arguments.name(self.label[1], "label"))

    @property
    def statuses(self) -> frozenset[str] | None:
        """The statuses that pass; None: all."""
        allowed = None if self.status_in is None else frozenset(self.status_in)
        if self.status is None:
            return allowed
        return frozenset({self.status}) if allowed is None else allowed & {self.status}

    def query(self, tx: Reader) -> Query[Instance]:
        """A query that goes through the index of the narrowest filter that has one."""
        statuses = self.statuses
        after = arguments.optional_time(self.updated_after, "updated_after")
        before = arguments.optional_time(self.updated_before, "updated_before")

        def matches(record: Instance) -> bool:
            updated = 0 if record.updated_at is None else to_micros(record.updated_at)
            return (
                (self.id is None or record.id == self.id)
                and (self.id_prefix is None or record.id.startswith(self.id_prefix))
                and (statuses is None or record.status in statuses)
                and (self.workflow is None or record.workflow == self.workflow)
                and (self.workflow_prefix is None or record.workflow.startswith(self.workflow_prefix))
                and (self.workflow_version is None or record.workflow_version == self.workflow_version)
                and (self.business_key is None or record.business_key == self.business_key)
                and (self.label is None or record.labels.get(self.label[0]) == self.label[1])
                and (after is None or updated > after)
                and (before is None or updated < before)
            )

        mark = fingerprint(
            tx.scope.prefix, "instances", self.id, None if statuses is None else sorted(statuses), self.workflow,
            self.workflow_prefix, self.workflow_version, self.business_key, self.label, after, before, self.order,
            self.id_prefix,
        )  # fmt: skip
        query = Query(INSTANCES, tx, mark, matches)
        query.newest = self.order == "updated"
        if after is not None:
            query.least = max(0, after + 1)
        if before is not None:
            query.most = max(0, before - 1)
        if self.id is not None:
            query.only = keys.path(self.id)
        else:
            self._find_rows(query, tx, statuses)
            query.narrow(self.id_prefix)
        return query

    def _find_rows(self, query: Query[Instance], tx: Reader, statuses: frozenset[str] | None) -> None:
        """Say which index rows lead to what matches."""

        def rows(index: Index, *values: bytes) -> list[bytes]:
            return [INSTANCES.index_prefix(tx.scope, index, value, newest=query.newest) for value in values]

        async def of_workflows() -> list[bytes]:
            return rows(BY_WORKFLOW, *map(keys.path, await _workflows(tx, self.workflow_prefix or "")))

        by_status = [keys.path(status) for status in sorted(statuses or ())]
        if self.business_key is not None:
            query.prefixes = rows(BY_KEY, keys.path(self.business_key))
        elif self.label is not None:
            query.prefixes = rows(BY_LABEL, keys.path(*self.label))
        # Few instances are active at a time and many have ended: an active status is the narrower filter.
        elif statuses is not None and not statuses & set(TERMINAL):
            query.prefixes = rows(BY_STATUS, *by_status)
        elif self.workflow is not None:
            query.prefixes = rows(BY_WORKFLOW, keys.path(self.workflow))
        elif self.workflow_prefix is not None:
            query.find_prefixes = of_workflows
        elif statuses is not None:
            query.prefixes = rows(BY_STATUS, *by_status)
        elif query.newest:
            query.prefixes = rows(BY_TIME, b"")


async def _workflows(tx: Reader, prefix: str) -> list[str]:
    """The workflows whose name starts with a prefix, found by their counters: far fewer than instances."""
    start = INSTANCES.counter(tx.scope, b"w" + prefix.encode())
    stop = start + keys.END
    cut = len(INSTANCES.counter(tx.scope, b"w"))
    names: list[str] = []
    for part in range(tx.scope.parts):  # one part at a time: the same counter stands in several
        low = start
        while rows := await tx.in_part(part).scan(low, stop, limit=1):
            name = rows[0].key[cut : rows[0].key.index(b"\0", cut)]
            names.append(name.decode())
            low = INSTANCES.counter(tx.scope, b"w" + name + b"\0" + keys.END)
    written = (key[cut : key.index(b"\0", cut)].decode() for key in tx.own_counters(start, stop))
    return sorted({*names, *written})


def orphans(
    tx: Reader, workflow: str | None, status_in: Collection[str] | None, updated_before: datetime | None
) -> Query[Instance]:
    """A query for the active instances among which those without a lease are."""
    filters = InstanceFilters(workflow=workflow, status_in=status_in, updated_before=updated_before)
    filters.status_in = sorted((filters.statuses or frozenset(ACTIVE)) & set(ACTIVE)) if status_in is None else [
        status for status in filters.status_in or () if status in ACTIVE
    ]  # fmt: skip
    query = filters.query(tx)
    query.fingerprint = fingerprint(query.fingerprint, "orphans")
    return query


async def claiming(scope: Scope, workflow: str | None, status_in: Collection[str]) -> Plan[Instance]:
    """How instances are claimed: nothing of them changes, the lease says it all."""
    workflow = arguments.optional_name(workflow, "workflow")
    allowed = arguments.collection(status_in, "status_in", "statuses")
    statuses = sorted({check_status(status, "status_in") for status in allowed})
    index, values = BY_STATUS, [keys.path(status) for status in statuses]
    if workflow is not None and await _are_fewer(scope, workflow, statuses):
        index, values = BY_WORKFLOW, [keys.path(workflow)]

    def matches(record: Instance, lapsed: bool) -> bool:
        del lapsed
        return record.status in statuses and workflow in (None, record.workflow)

    async def take(tx: Transaction, stored: Stored[Instance]) -> Instance:
        del tx
        return stored.record

    async def give_back(tx: Transaction, claimed: Instance, before: Instance) -> None:
        del tx, claimed, before

    lanes = [INSTANCES.index_prefix(scope, index, value, newest=True) for value in values]
    return Plan(INSTANCES, lanes, matches, take, give_back)


async def _are_fewer(scope: Scope, workflow: str, statuses: Collection[str]) -> bool:
    """Say whether a workflow has fewer instances than there are in some statuses."""
    of_workflow = [INSTANCES.counter(scope, b"w" + keys.path(workflow, status)) for status in STATUSES]
    of_statuses = [INSTANCES.counter(scope, b"s" + keys.path(status)) for status in statuses]
    return await scope.reader.total(of_workflow) < await scope.reader.total(of_statuses)
