"""The registry of locations of the values of DAGs; several nodes may hold the same value."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec
import ormsgpack

from ... import arguments, keys
from ...clock import from_micros, to_micros
from ...codec import seal, unseal
from ...codec.malformed import parsing
from ...core.namespace import Reader, Scope
from ...core.operation import M, iteration, operation, procedure, reading
from ...core.transaction import Transaction
from ...engine import Row
from ...errors import Timeout
from ...records.pages import BY_NAME, Page, check_limit, fingerprint, read_cursor, write_cursor
from . import record
from .nodes import Nodes
from .record import FORMS, RUN, Location

_GONE = 1000
"""Locations of one node that one step of `clear` removes."""


def _names(dag: Any, id: Any) -> tuple[str, str]:
    return arguments.name(dag, "dag"), arguments.name(id, "id")


class Locations(Nodes[M]):
    """``store.locations``: which node holds which result. Not in the feed."""

    @operation
    async def register(
        self,
        tx: Transaction,
        dag: str,
        id: str,
        node: str,
        *,
        digest: str | None = None,
        size: int | None = None,
        form: str | None = None,
        expires_at: datetime | None = None,
    ) -> Location:
        """Say that a node holds a value; what is not given is kept from an earlier registration of the same node.

        `digest` and `size` as in its `Result`; `form`: "bytes" or "value". Raises `InvalidArgument`.
        """
        dag, id = _names(dag, id)
        node, digest = arguments.name(node, "node"), record.check_digest(digest)
        size = None if size is None else arguments.number(size, "size")
        form = None if form is None else arguments.choice(form, "form", FORMS)
        if expires_at is not None:
            expires_at = from_micros(arguments.time(expires_at, "expires_at"))
        before = await record.load(tx, dag, id, node)
        if before is not None and digest in (None, before.digest) and expires_at in (None, before.expires_at):
            digest, expires_at = before.digest, before.expires_at
            size, form = (before.size if size is None else size), (before.form if form is None else form)
        now = from_micros(to_micros(tx.scope.clock.now()))
        location = Location(
            dag, id, node, digest=digest, size=size, form=form, expires_at=expires_at, revision=1, created_at=now,
            updated_at=now,
        )  # fmt: skip
        if before is not None:
            same = msgspec.structs.replace(location, revision=before.revision, created_at=before.created_at)
            if msgspec.structs.replace(same, updated_at=before.updated_at) == before:
                return before
            # Another value is another fact: how old it is counts from now.
            created = before.created_at if digest == before.digest else now
            updated = max(now, before.updated_at or now)
            location = msgspec.structs.replace(
                location, revision=before.revision + 1, created_at=created, updated_at=updated
            )
        record.write(tx, location, new=before is None)
        return location

    @operation
    async def unregister(self, tx: Transaction, dag: str, id: str, node: str | None = None) -> int:
        """Remove the location of a value on one node, or on all; gives how many there were."""
        dag, id = _names(dag, id)
        locations: list[Location] = []
        if node is not None:
            only = await record.load(tx, dag, id, arguments.name(node, "node"))
            locations = [] if only is None else [only]
        else:
            await tx.at(dag).get(record.writes_key(tx.scope, dag))
            locations = await record.all_under(tx, dag, id)
        for location in locations:
            record.remove(tx, location)
        return len(locations)

    @reading
    async def of(self, tx: Reader, dag: str, id: str) -> tuple[Location, ...]:
        """The locations of a value, by node; none: empty."""
        return tuple(await record.all_under(tx, *_names(dag, id)))

    @reading
    async def of_dag(self, tx: Reader, dag: str) -> dict[str, tuple[Location, ...]]:
        """The locations of every value of a DAG, by id; an unknown DAG: empty."""
        locations = await record.all_under(tx, arguments.name(dag, "dag"))
        return {id: tuple(group) for id, group in groupby(locations, key=attrgetter("id"))}

    @operation
    async def clear(self, tx: Transaction, dag: str) -> int:
        """Remove the locations of one DAG, and of no other; gives how many. The values stay where they are."""
        return await record.clear(tx, arguments.name(dag, "dag"))

    @procedure
    async def clear_node(self, node: str, dag: str | None = None) -> int:
        """Remove the locations of one node, in one DAG or in all, in steps of 1,000; gives how many."""
        node = arguments.name(node, "node")
        path = (node,) if dag is None else (node, arguments.name(dag, "dag"))
        removed = 0
        while True:
            pairs = await _of_node(self._scope.reader, path, b"", _GONE)
            by_dag: dict[str, list[str]] = {}
            for name, id in pairs:
                by_dag.setdefault(name, []).append(id)
            for name, ids in by_dag.items():
                removed += await self._transact(partial(_remove, node, name, ids))
            if len(pairs) < _GONE:
                return removed

    @reading
    async def holders(self, tx: Reader) -> tuple[str, ...]:
        """The nodes that have locations, by name, whether they are known or not; one read for each."""
        prefix = start = tx.scope.key(keys.LOCATION_BY_NODE)
        nodes: set[str] = set()
        while rows := await tx.scan(start, prefix + keys.END, limit=1):
            node = str(keys.parse(rows[0].key[len(prefix) :], (str,))[0])
            nodes.add(node)
            start = prefix + keys.path(node) + keys.END
        return tuple(sorted(nodes))

    @reading
    async def count(self, tx: Reader, dag: str) -> int:
        """How many locations a DAG has, from a counter; those whose value has expired count until they are removed."""
        return await tx.total([record.count_key(tx.scope, arguments.name(dag, "dag"))])

    @reading
    async def query(
        self,
        tx: Reader,
        *,
        dag: str | None = None,
        node: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Location]:
        """Locations (of one DAG, of one node) by DAG, id and node; of one node by DAG and id.

        Raises `InvalidArgument`.
        """
        check_limit(limit)
        path = _path(dag, node)
        mark = fingerprint(tx.scope.prefix, "locations", dag, node)
        after = b"" if cursor is None else read_cursor(cursor, mark, BY_NAME)
        items: list[Location] = []
        while len(items) <= limit:
            pairs, last = await _run(tx, path, node, after)
            for at, location in pairs:
                if len(items) == limit:
                    return Page(tuple(items), write_cursor(mark, after))
                items.append(location)
                after = at
            if last is None:
                break
            after = last
        return Page(tuple(items))

    @iteration
    async def scan(self, tx: Reader, *, dag: str | None = None, node: str | None = None) -> AsyncIterator[Location]:
        """All locations that `query` would page through."""
        path, after = _path(dag, node), b""
        while True:
            pairs, last = await _run(tx, path, node, after)
            for _, location in pairs:
                yield location
            if last is None:
                return
            after = last

    @procedure
    async def wait(
        self, dag: str, id: str, *, known: tuple[Location, ...] = (), timeout: float | timedelta = 5.0
    ) -> tuple[Location, ...]:
        """The locations of a value once there are some, and others than `known`; woken by the write.

        `timeout` in seconds. Raises `Timeout`.
        """
        dag, id = _names(dag, id)
        seconds = arguments.seconds(timeout, "timeout")
        scope = self._scope
        part, deadline = scope.part(keys.root(dag)), scope.clock.monotonic() + seconds
        while True:
            (head,) = await scope.reader.in_part(part).peek([b""])
            locations = tuple(await record.all_under(scope.reader, dag, id))
            if locations and locations != known:
                return locations
            remaining = deadline - scope.clock.monotonic()
            if remaining <= 0:
                raise Timeout(f"no new location of {id!r} of DAG {dag!r} after {seconds} s")
            await scope.engine.wait(part, 0 if head is None else head.version, remaining)

    @operation
    async def advance(self, tx: Transaction, dag: str) -> int:
        """Begin a new generation of a DAG: its locations go, and nothing of an earlier one is registered again.

        Gives the generation's number, which rises by 1 each time. Nodes compare it with the one their values are of.
        """
        dag = arguments.name(dag, "dag")
        rows, key = tx.at(dag), _generation_key(tx.scope, dag)
        number = 1 + _number(key, await rows.get(key))
        await record.clear(tx, dag)
        rows.put(key, seal(key, ormsgpack.packb(number)))
        rows.add(tx.scope.key(keys.ADVANCES), 1)
        return number

    @reading
    async def generation(self, tx: Reader, dag: str, node: str | None = None) -> int:
        """The generation of a DAG, or the one that a node's values are of; 0: it was never cleared everywhere.

        In a transaction it must be the same at commit.
        """
        dag = arguments.name(dag, "dag")
        if node is None:
            key = _generation_key(tx.scope, dag)
        else:
            key = tx.scope.key(keys.SETTLED, keys.path(dag, arguments.name(node, "node")))
        return _number(key, await tx.at(dag).get(key))

    @operation
    async def settle(self, tx: Transaction, dag: str, node: str, generation: int) -> None:
        """Say that what a node holds of a DAG is of this generation; an earlier one than before is ignored."""
        dag, node = arguments.name(dag, "dag"), arguments.name(node, "node")
        arguments.number(generation, "generation")
        rows, key = tx.at(dag), tx.scope.key(keys.SETTLED, keys.path(dag, node))
        if generation > _number(key, await rows.get(key)):
            rows.put(key, seal(key, ormsgpack.packb(generation)))

    @reading
    async def generations(self, tx: Reader) -> dict[str, int]:
        """The generation of every DAG that was ever cleared everywhere."""
        scope = tx.scope
        prefix = start = scope.key(keys.GENERATION)
        numbers: dict[str, int] = {}
        while True:
            rows = await tx.scan(start, prefix + keys.END, limit=RUN)
            numbers |= {row.key[len(prefix) : -1].decode(): _number(row.key, row) for row in rows}
            if len(rows) < RUN:
                return numbers
            start = rows[-1].key + b"\0"

    @reading
    async def advances(self, tx: Reader) -> int:
        """How many generations were begun, from a counter: whether `generations` gives something new."""
        return await tx.total([tx.scope.key(keys.ADVANCES)])


async def _remove(node: str, dag: str, ids: list[str], tx: Transaction) -> int:
    """Remove the locations of some values on one node."""
    removed = 0
    for id in ids:
        location = await record.load(tx, dag, id, node)
        if location is not None:
            record.remove(tx, location)
            removed += 1
    return removed


def _generation_key(scope: Scope, dag: str) -> bytes:
    return scope.key(keys.GENERATION, keys.path(dag))


def _number(key: bytes, row: Row | None) -> int:
    if row is None:
        return 0
    with parsing("a generation of locations", kind="locations", key=key):
        return int(ormsgpack.unpackb(unseal(key, row.value)))


def _path(dag: str | None, node: str | None) -> tuple[str, ...]:
    """The names that the rows of a query begin with."""
    steps = [] if node is None else [arguments.name(node, "node")]
    return tuple(steps if dag is None else [*steps, arguments.name(dag, "dag")])


async def _run(
    tx: Reader, path: tuple[str, ...], node: str | None, after: bytes
) -> tuple[list[tuple[bytes, Location]], bytes | None]:
    """Some locations with the ends of their keys, and where to go on; None at the end."""
    scope = tx.scope
    if node is not None:
        pairs = await _of_node(tx, path, after, RUN)
        rows: list[Row] = []
        for dag, id in pairs:
            (row,) = await tx.at(dag).peek([record.key_of(scope, dag, id, node)])
            rows += [] if row is None else [row]
        ends = [keys.path(dag, id) for dag, id in pairs]
        last = ends[-1] if len(pairs) == RUN else None
        located = [record.parse(scope, row) for row in rows]
        live = [
            (keys.path(location.dag, location.id), location) for location in located if record.is_live(scope, location)
        ]
        return live, last
    prefix = scope.key(keys.LOCATION)
    start = prefix + (after + b"\0" if after else keys.path(*path))
    stop = prefix + keys.path(*path) + keys.END
    rows = await (tx.look_at(path[0]) if path else tx).scan(start, stop, limit=RUN)
    last = rows[-1].key[len(prefix) :] if len(rows) == RUN else None
    located = [record.parse(scope, row) for row in rows]
    return [
        (keys.path(location.dag, location.id, location.node), location)
        for location in located
        if record.is_live(scope, location)
    ], last


async def _of_node(tx: Reader, path: tuple[str, ...], after: bytes, limit: int) -> list[tuple[str, str]]:
    """DAG and id of locations of a node, after a (DAG, id)."""
    scope = tx.scope
    prefix = scope.key(keys.LOCATION_BY_NODE, keys.path(path[0]))
    start = prefix + (after + b"\0" if after else keys.path(*path[1:]))
    stop = prefix + keys.path(*path[1:]) + keys.END
    rows = await (tx.look_at(path[1]) if len(path) > 1 else tx).scan(start, stop, limit=limit)
    return [(str(dag), str(id)) for dag, id in (keys.parse(row.key[len(prefix) :], (str, str)) for row in rows)]
