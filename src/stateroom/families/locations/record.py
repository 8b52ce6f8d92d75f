"""A location, its rows, and what `check` asks of them.

Every row of a DAG is in its root. *Location* says what a node holds; *by node* finds it from the node; *writes* moves
with every change, so that a clear removes nothing that it did not look at.
"""

import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import ormsgpack

from ... import keys
from ...clock import from_micros, to_micros
from ...codec import seal, unseal
from ...codec.malformed import parsing
from ...core.namespace import Reader, Scope
from ...core.transaction import Transaction
from ...engine import Row, read_counter
from ...errors import Damaged, InvalidArgument, Undecodable
from ...records.audit import Problem, rows_of
from ...records.kind import Record

RUN = 500
_LAYOUT = 1
_SHAPE = (str, str, str)
_DIGEST = re.compile(r"[0-9a-f]{64}")

FORMS = ("bytes", "value")
"""What a value's bytes are: themselves, or a value as it is encoded."""


class _Identified(Record, frozen=True):
    dag: str
    id: str
    node: str


class Location(_Identified, frozen=True, kw_only=True):
    """A node that holds the value of one function of one DAG."""

    digest: str | None = None
    """SHA-256 of the value's bytes in hexadecimal; None where whoever registered it did not know."""
    size: int | None = None
    """How many bytes those are."""
    form: str | None = None
    """"bytes" for a value that is bytes, "value" for any other."""
    expires_at: datetime | None = None
    """Aware UTC; from then on the value is absent, and so is this location."""


def key_of(scope: Scope, dag: str, id: str, node: str) -> bytes:
    """The row of a location."""
    return scope.key(keys.LOCATION, keys.path(dag, id, node))


def node_key(scope: Scope, dag: str, id: str, node: str) -> bytes:
    """The row that finds a location from its node."""
    return scope.key(keys.LOCATION_BY_NODE, keys.path(node, dag, id))


def writes_key(scope: Scope, dag: str) -> bytes:
    """The counter of changes to the locations of a DAG."""
    return scope.key(keys.LOCATION_WRITES, keys.path(dag))


def count_key(scope: Scope, dag: str) -> bytes:
    """The counter of a DAG's locations."""
    return scope.key(keys.LOCATION_COUNT, keys.path(dag))


def check_digest(digest: Any) -> str | None:
    """A SHA-256 in lower-case hexadecimal, or None. Raises `InvalidArgument`."""
    if digest is None or (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        return digest
    raise InvalidArgument(
        f"digest is {digest!r:.80}; use a SHA-256 in lower-case hexadecimal, as Result.digest has it",
        what="digest",
        value=digest,
    )


def build(scope: Scope, key: bytes, location: Location) -> bytes:
    """A location's row: encrypted where a key ring is set, for a digest says much about a short value."""
    assert location.created_at is not None
    assert location.updated_at is not None
    expires = None if location.expires_at is None else to_micros(location.expires_at)
    times = [to_micros(location.created_at), to_micros(location.updated_at)]
    fields = [_LAYOUT, location.revision, *times, location.digest, location.size, location.form, expires]
    return seal(key, scope.codec.protect(key, ormsgpack.packb(fields)))


def parse(scope: Scope, row: Row) -> Location:
    """The location in a row. Raises `Damaged`."""
    dag, id, node = map(str, keys.parse(row.key[len(scope.key(keys.LOCATION)) :], _SHAPE))
    with parsing("a location", kind="locations", key=row.key):
        fields = ormsgpack.unpackb(scope.codec.reveal(row.key, unseal(row.key, row.value)))
        if fields[0] != _LAYOUT:
            raise Undecodable(f"a location of layout {fields[0]}; this version reads {_LAYOUT}", kind="locations")
        _, revision, created, updated, digest, size, form, expires = fields
    return Location(
        dag, id, node, digest=digest, size=size, form=form,
        expires_at=None if expires is None else from_micros(expires), revision=revision,
        created_at=from_micros(created), updated_at=from_micros(updated),
    )  # fmt: skip


def is_live(scope: Scope, location: Location) -> bool:
    """Say whether its value has not expired, by the store's clock."""
    return location.expires_at is None or location.expires_at > scope.clock.now()


async def under(reader: Reader, *path: str) -> AsyncIterator[Location]:
    """The locations of a DAG, or of one value, in order; those whose value has expired are left out."""
    scope = reader.scope
    start = scope.key(keys.LOCATION, keys.path(*path))
    stop = start + keys.END
    while True:
        rows = await reader.look_at(path[0]).scan(start, stop, limit=RUN)
        for row in rows:
            location = parse(scope, row)
            if is_live(scope, location):
                yield location
        if len(rows) < RUN:
            return
        start = rows[-1].key + b"\0"


async def all_under(reader: Reader, *path: str) -> list[Location]:
    """As `under`, at once."""
    return [location async for location in under(reader, *path)]


async def load(tx: Transaction, dag: str, id: str, node: str) -> Location | None:
    """One location, which must be the same at commit."""
    row = await tx.at(dag).get(key_of(tx.scope, dag, id, node))
    return None if row is None else parse(tx.scope, row)


def write(tx: Transaction, location: Location, *, new: bool) -> None:
    """Write a location that has its times."""
    scope, rows = tx.scope, tx.at(location.dag)
    key = key_of(scope, location.dag, location.id, location.node)
    rows.put(key, build(scope, key, location))
    rows.add(writes_key(scope, location.dag), 1)
    if new:
        rows.put(node_key(scope, location.dag, location.id, location.node), b"")
        rows.add(count_key(scope, location.dag), 1)


def remove(tx: Transaction, location: Location) -> None:
    """Remove a location that is there."""
    scope, rows = tx.scope, tx.at(location.dag)
    rows.delete(key_of(scope, location.dag, location.id, location.node))
    rows.delete(node_key(scope, location.dag, location.id, location.node))
    rows.add(writes_key(scope, location.dag), 1)
    rows.add(count_key(scope, location.dag), -1)


async def clear(tx: Transaction, dag: str) -> int:
    """Remove every location of a DAG in one batch, whatever their number; gives how many whose value had not expired.

    Nothing is removed that was not looked at: the counter of changes is expected.
    """
    scope, dag_rows = tx.scope, tx.at(dag)
    await dag_rows.get(writes_key(scope, dag))
    start = scope.key(keys.LOCATION, keys.path(dag))
    total = live = 0
    nodes: set[str] = set()
    at = start
    while True:
        rows = await dag_rows.scan(at, start + keys.END, limit=RUN)
        for row in rows:
            nodes.add(str(keys.parse(row.key[len(scope.key(keys.LOCATION)) :], _SHAPE)[2]))
            total += 1
            live += _readable_and_live(scope, row)
        if len(rows) < RUN:
            break
        at = rows[-1].key + b"\0"
    if not total:
        return 0
    dag_rows.clear(start, start + keys.END)
    for node in nodes:
        prefix = scope.key(keys.LOCATION_BY_NODE, keys.path(node, dag))
        dag_rows.clear(prefix, prefix + keys.END)
    dag_rows.add(writes_key(scope, dag), 1)
    dag_rows.add(count_key(scope, dag), -total)
    return live


def _readable_and_live(scope: Scope, row: Row) -> bool:
    try:
        return is_live(scope, parse(scope, row))
    except Damaged:  # it goes with the others
        return False


async def audit(reader: Reader, part: int) -> list[Problem]:
    """Every location can be read and is found from its node, nothing else is, and the counters agree."""
    scope = reader.scope
    problems: list[Problem] = []
    expected: set[bytes] = set()
    counts: dict[bytes, int] = {}
    for row in await rows_of(reader, part, scope.key(keys.LOCATION)):
        dag, id, node = map(str, keys.parse(row.key[len(scope.key(keys.LOCATION)) :], _SHAPE))
        expected.add(node_key(scope, dag, id, node))
        counts[count_key(scope, dag)] = counts.get(count_key(scope, dag), 0) + 1
        try:
            parse(scope, row)
        except Damaged as error:
            text = f"the location of {id!r} of {dag!r} on {node!r}: {error.message}"
            problems.append(Problem(error.code, text, "locations", id, part))
    actual = {row.key for row in await rows_of(reader, part, scope.key(keys.LOCATION_BY_NODE))}
    for tag in (keys.GENERATION, keys.SETTLED, keys.NODE):
        for row in await rows_of(reader, part, scope.key(tag)):
            try:
                body = unseal(row.key, row.value)
                ormsgpack.unpackb(scope.codec.reveal(row.key, body) if tag == keys.NODE else body)
            except (Damaged, ValueError) as error:
                problems.append(Problem("damaged", f"row {row.key!r} of nodes: {error}", "locations", part=part))
    rows = await rows_of(reader, part, scope.key(keys.LOCATION_COUNT))
    stored = {row.key: read_counter(row.value) for row in rows}
    problems += [Problem("index-missing", f"location row {key!r} is missing", "locations") for key in expected - actual]
    problems += [
        Problem("index-stale", f"location row {key!r} has no location", "locations") for key in actual - expected
    ]
    problems += [
        Problem(
            "counter", f"counter {key!r} says {stored.get(key, 0)}, not {counts.get(key, 0)}", "locations", part=part
        )
        for key in counts.keys() | stored.keys()
        if counts.get(key, 0) != stored.get(key, 0)
    ]
    return problems
