"""How executions are looked for: which index serves which filters, and which may be claimed."""

import heapq
from collections.abc import Collection
from datetime import datetime

import msgspec

from ... import arguments, keys
from ...clock import to_micros
from ...core.namespace import Reader, Scope
from ...core.transaction import Transaction
from ...errors import InvalidArgument
from ...records.kind import Stored
from ...records.pages import fingerprint
from ...records.places import Place
from ...records.query import Query
from ...records.reading import load
from ...records.saving import save
from ..claims import Plan
from .record import EXECUTIONS, LIVE, STATES, TERMINAL, Execution, check_state, check_states

BY_STATE, BY_JOB, BY_NODE = EXECUTIONS.indexes

_FEW = 1000
"""Executions in some states that are looked through for those of a job, instead of all that the job ever had."""


class ExecutionFilters(msgspec.Struct, kw_only=True):
    """The filters of a query, checked when it is made."""

    id_prefix: str | None = None
    job_id: str | None = None
    state: str | None = None
    state_in: Collection[str] | None = None
    node_id: str | None = None
    updated_before: datetime | None = None

    def __post_init__(self) -> None:
        self.id_prefix = None if self.id_prefix is None else arguments.prefix(self.id_prefix, "id_prefix")
        self.job_id = arguments.optional_name(self.job_id, "job_id")
        self.state = None if self.state is None else check_state(self.state)
        self.state_in = None if self.state_in is None else check_states(self.state_in, "state_in")
        self.node_id = arguments.optional_name(self.node_id, "node_id")

    @property
    def states(self) -> frozenset[str] | None:
        """The states that pass; None: all."""
        allowed = None if self.state_in is None else frozenset(self.state_in)
        if self.state is None:
            return allowed
        return frozenset({self.state}) if allowed is None else allowed & {self.state}

    def query(self, tx: Reader) -> Query[Execution]:
        """A query that goes through the index of the narrowest filter that has one."""
        states, before = self.states, arguments.optional_time(self.updated_before, "updated_before")

        def matches(record: Execution) -> bool:
            return (
                (self.job_id is None or record.job_id == self.job_id)
                and (self.id_prefix is None or record.id.startswith(self.id_prefix))
                and (states is None or record.state in states)
                and (self.node_id is None or record.node_id == self.node_id)
                and (before is None or (record.updated_at is not None and to_micros(record.updated_at) < before))
            )

        mark = fingerprint(
            tx.scope.prefix, "executions", self.job_id, None if states is None else sorted(states), self.node_id,
            before, self.id_prefix,
        )  # fmt: skip
        query = Query(EXECUTIONS, tx, mark, matches)
        if self.job_id is not None:
            query.prefixes = [EXECUTIONS.index_prefix(tx.scope, BY_JOB, keys.path(self.job_id))]
        elif states is not None:
            query.prefixes = [EXECUTIONS.index_prefix(tx.scope, BY_STATE, keys.path(name)) for name in sorted(states)]
        elif self.node_id is not None:
            query.prefixes = [EXECUTIONS.index_prefix(tx.scope, BY_NODE, keys.path(self.node_id))]
        query.narrow(self.id_prefix)
        return query


def check_limit(limit: int | None) -> int | None:
    """The number of records of a list as it is meant; None: all."""
    return None if limit is None else arguments.number(limit, "limit", least=1)


async def live(tx: Reader, limit: int | None) -> tuple[Execution, ...]:
    """Live executions, newest change first."""
    query = Query(EXECUTIONS, tx, 0, lambda record: record.state in LIVE)
    query.prefixes = [EXECUTIONS.index_prefix(tx.scope, BY_STATE, keys.path(state), newest=True) for state in LIVE]
    query.newest = True
    return await query.first(limit)


async def for_job(tx: Reader, job_id: str, limit: int | None) -> tuple[Execution, ...]:
    """The executions of a job, newest change first; those of one part in the order of commits."""
    query = Query(EXECUTIONS, tx, 0, lambda record: record.job_id == job_id)
    query.prefixes = [EXECUTIONS.index_prefix(tx.scope, BY_JOB, keys.path(job_id), newest=True)]
    query.newest = True
    query.order = _by_commit
    return await query.first(limit)


def _by_commit(tx: Reader, places: list[Place]) -> list[Place]:
    """Places newest change first, those of one part in the order of commits: their clocks may have been set back."""
    parts: dict[int, list[Place]] = {}
    for place in places:
        parts.setdefault(tx.scope.part(keys.root(str(keys.parse(place.tail, (str,))[0]))), []).append(place)
    for group in parts.values():
        group.sort(key=lambda place: (place.position[1], place.position[0], place.tail), reverse=True)
    return list(heapq.merge(*parts.values(), key=lambda place: place.position, reverse=True))


def orphans(
    tx: Reader, job_id: str | None, state_in: Collection[str] | None, updated_before: datetime | None
) -> Query[Execution]:
    """A query for the live executions among which those without a lease are."""
    states = LIVE if state_in is None else sorted(check_states(state_in, "state_in") & set(LIVE))
    query = ExecutionFilters(job_id=job_id, state_in=states, updated_before=updated_before).query(tx)
    query.fingerprint = fingerprint(query.fingerprint, "orphans")
    return query


async def claiming(scope: Scope, owner: str, job_id: str | None, states: Collection[str], to: str) -> Plan[Execution]:
    """How executions are claimed: they get another state and a node."""
    sources, to = check_states(states, "states"), arguments.choice(to, "to", STATES)
    job_id = arguments.optional_name(job_id, "job_id")
    ended = sorted((sources | {to}) & TERMINAL)
    if ended:
        raise InvalidArgument(
            f"{ended[0]} is terminal: what has ended is not claimed; use other states", what="states", value=ended[0]
        )
    lanes = [EXECUTIONS.index_prefix(scope, BY_STATE, keys.path(state), newest=True) for state in sorted(sources)]
    if job_id is not None:
        count = await scope.reader.total([EXECUTIONS.counter(scope, keys.path(state)) for state in sources])
        if count > _FEW:
            lanes = [EXECUTIONS.index_prefix(scope, BY_JOB, keys.path(job_id), newest=True)]

    def matches(record: Execution, lapsed: bool) -> bool:
        return job_id in (None, record.job_id) and (record.state == to if lapsed else record.state in sources)

    async def take(tx: Transaction, stored: Stored[Execution]) -> Execution:
        after = msgspec.structs.replace(stored.record, state=to, node_id=owner)
        return (await save(tx, EXECUTIONS, stored, after)).record

    async def give_back(tx: Transaction, claimed: Execution, before: Execution) -> None:
        stored = await load(tx, EXECUTIONS, (claimed.id,), raw=True)
        if stored is not None and stored.record.revision == claimed.revision:
            after = msgspec.structs.replace(stored.record, state=before.state, node_id=before.node_id)
            await save(tx, EXECUTIONS, stored, after)

    lapsed = None if to in sources else EXECUTIONS.index_prefix(scope, BY_STATE, keys.path(to), newest=True)
    return Plan(EXECUTIONS, lanes, matches, take, give_back, lapsed)
