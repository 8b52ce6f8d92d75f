"""How instances are looked for: which index serves which filters."""

from collections.abc import Collection
from datetime import datetime

import msgspec

from ... import arguments, keys
from ...clock import to_micros
from ...core.namespace import Reader
from ...errors import InvalidArgument
from ...records.kind import Index
from ...records.pages import check_limit, fingerprint
from ...records.query import Query
from ..leases import live_holders
from .record import (
    ACTIVE,
    BY_KEY,
    BY_LABEL,
    BY_STATUS,
    BY_TIME,
    BY_WORKFLOW,
    INSTANCES,
    TERMINAL,
    Instance,
    check_status,
)


class Filters(msgspec.Struct):
    """The filters of a query, checked when it is made."""

    id: str | None
    status: str | None
    status_in: Collection[str] | None
    workflow: str | None
    workflow_prefix: str | None
    workflow_version: int | None
    business_key: str | None
    label: tuple[str, str] | None
    updated_after: datetime | None
    updated_before: datetime | None
    order: str

    def __post_init__(self) -> None:
        self.id = arguments.optional_name(self.id, "id")
        self.workflow = arguments.optional_name(self.workflow, "workflow")
        self.workflow_prefix = arguments.optional_name(self.workflow_prefix, "workflow_prefix")
        self.business_key = arguments.optional_name(self.business_key, "business_key")
        if self.workflow_version is not None:
            self.workflow_version = arguments.number(self.workflow_version, "workflow_version", least=1)
        if self.status is not None:
            self.status = check_status(self.status)
        if self.status_in is not None:
            given = arguments.collection(self.status_in, "status_in", "statuses")
            self.status_in = tuple([check_status(status, "status_in") for status in given])
        self.order = arguments.choice(self.order, "order", ("id", "updated"))
        if self.label is not None:
            if not isinstance(self.label, tuple | list) or len(self.label) != 2:
                raise InvalidArgument("label must be a pair (name, value)", what="label", value=self.label)
            self.label = (arguments.name(self.label[0], "label"), arguments.name(self.label[1], "label"))

    @property
    def statuses(self) -> frozenset[str] | None:
        """The statuses that pass; None: all."""
        wanted = None if self.status_in is None else frozenset(self.status_in)
        if self.status is None:
            return wanted
        return frozenset({self.status}) if wanted is None else wanted & {self.status}

    async def query(self, tx: Reader) -> Query[Instance]:
        """A query that goes through the index of the narrowest filter that has one."""
        statuses = self.statuses
        after = arguments.optional_time(self.updated_after, "updated_after")
        before = arguments.optional_time(self.updated_before, "updated_before")

        def matches(record: Instance) -> bool:
            updated = 0 if record.updated_at is None else to_micros(record.updated_at)
            return (
                (self.id is None or record.id == self.id)
                and (statuses is None or record.status in statuses)
                and (self.workflow is None or record.workflow == self.workflow)
                and (self.workflow_prefix is None or record.workflow.startswith(self.workflow_prefix))
                and (self.workflow_version is None or record.workflow_version == self.workflow_version)
                and (self.business_key is None or record.business_key == self.business_key)
                and (self.label is None or record.labels.get(self.label[0]) == self.label[1])
                and (after is None or updated > after)
                and (before is None or updated < before)
            )

        wanted = None if statuses is None else sorted(statuses)
        mark = fingerprint(
            tx.scope.prefix, "instances", self.id, wanted, self.workflow, self.workflow_prefix, self.workflow_version,
            self.business_key, self.label, after, before, self.order,
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
            query.prefixes = await self._prefixes(tx, statuses)
        return query

    async def _prefixes(self, tx: Reader, statuses: frozenset[str] | None) -> list[bytes] | None:
        newest = self.order == "updated"

        def rows(index: Index, value: bytes) -> bytes:
            return INSTANCES.index_prefix(tx.scope, index, value, newest=newest)

        if self.business_key is not None:
            return [rows(BY_KEY, keys.path(self.business_key))]
        if self.label is not None:
            return [rows(BY_LABEL, keys.path(*self.label))]
        # Few instances are active at a time and many have ended: an active status is the narrower filter.
        if statuses is not None and not statuses & set(TERMINAL):
            return [rows(BY_STATUS, keys.path(status)) for status in sorted(statuses)]
        if self.workflow is not None:
            return [rows(BY_WORKFLOW, keys.path(self.workflow))]
        if self.workflow_prefix is not None:
            return [rows(BY_WORKFLOW, keys.path(one)) for one in await _workflows(tx, self.workflow_prefix)]
        if statuses is not None:
            return [rows(BY_STATUS, keys.path(status)) for status in sorted(statuses)]
        return [rows(BY_TIME, b"")] if newest else None


async def _workflows(tx: Reader, prefix: str) -> list[str]:
    """The workflows whose name starts with a prefix, found by their counters: far fewer than instances."""
    start = INSTANCES.counter(tx.scope, b"w" + prefix.encode())
    stop = start + keys.END
    cut = len(INSTANCES.counter(tx.scope, b"w"))
    found: list[str] = []
    for part in range(tx.scope.parts):  # one part at a time: the same counter stands in several
        low = start
        while rows := await tx.in_part(part).scan(low, stop, limit=1):
            name = rows[0].key[cut : rows[0].key.index(b"\0", cut)]
            found.append(name.decode())
            low = INSTANCES.counter(tx.scope, b"w" + name + b"\0" + keys.END)
    own = (key[cut : key.index(b"\0", cut)].decode() for key in tx.own_counters(start, stop))
    return sorted({*found, *own})


async def orphans(tx: Reader, limit: int) -> tuple[Instance, ...]:
    """Active instances that no live lease holds, by id."""
    check_limit(limit)
    prefixes = [INSTANCES.index_prefix(tx.scope, BY_STATUS, keys.path(status)) for status in ACTIVE]
    found: list[Instance] = []
    after: bytes | None = None
    while len(found) < limit:
        query = Query(INSTANCES, tx, 0, lambda record: record.active)
        query.prefixes = prefixes
        candidates, _ = await query.fill(256, after)
        free = await _without_lease(tx, [stored.record for stored, _ in candidates])
        found += free[: limit - len(found)]
        if len(candidates) < 256:
            break
        after = candidates[-1][1]
    return tuple(found)


async def _without_lease(tx: Reader, records: list[Instance]) -> list[Instance]:
    held: set[str] = set()
    parts: dict[int, list[str]] = {}
    for record in records:
        parts.setdefault(tx.scope.part(keys.root(record.id)), []).append(record.id)
    for part, ids in parts.items():
        held.update(id for id, live in zip(ids, await live_holders(tx, part, ids), strict=True) if live)
    return [record for record in records if record.id not in held]
