"""Snapshots of machines and their last failures, as they are and as they are kept."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ... import arguments, keys
from ...clock import from_micros, to_micros
from ...codec import seal, unseal
from ...codec.shown import Shown
from ...core.namespace import Reader, Rows, Scope
from ...core.transaction import Transaction, TransactionRows, Writable
from ...engine import Row
from ...errors import AlreadyExists, Damaged, NotFound, StaleRevision, Undecodable
from ...limits import INLINE_BYTES, SWEEP_ROWS
from ...records.audit import Problem, rows_of
from ...records.dependents import affordable, leave_sweep
from ...records.kind import Aging, Index, Kind, Record, Stored, register
from ...records.layout import decode_body, encode_body, nonce_of
from ...records.pages import left_out
from ...records.reading import open_current
from ...values import wrapper
from ...values.omitted import OMITTED
from .rules import load as load_definition


class _Named(Record, frozen=True):
    machine: str
    name: str
    state: str
    payload: Any


class Snapshot(_Named, frozen=True, kw_only=True):
    """The state of one machine, and how it came there."""

    previous_state: str | None = None
    """The state before the last save; None after the first."""
    event: str | None = None
    event_payload: Any = None


class Failure(Shown, frozen=True):
    """The last thing that went wrong with a machine, beside its good snapshot; `at` is aware UTC.

    `state` and `payload` are those of the snapshot at that time; None where there was none yet. In changes of the feed
    a part that is over 8 KiB of a failure over 64 KiB is `OMITTED`.
    """

    machine: str
    name: str
    reason: Any
    event: str | None
    state: str | None
    payload: Any
    info: Any
    at: datetime
    event_payload: Any = None


_FIELDS = ("machine", "name", "state", "payload", "previous_state", "event", "event_payload")


class _MachineKind(Kind[Snapshot]):
    name = "machines"
    letter = b"m"
    fields = _FIELDS
    shape = (str, str)
    key_names = ("machine", "name")
    texts = frozenset({"state", "previous_state", "event"})
    summary = b"m"
    aging = Aging(ends=True, group_steps=1, batch=5)  # each has a history
    indexes = (Index(b"s", lambda record: (keys.path(record.state),)),)

    def path(self, record: Snapshot) -> tuple[str, str]:
        return record.machine, record.name

    def owner(self, path: Sequence[Any]) -> str:
        return str(path[1])

    def pack(self, record: Snapshot) -> list[Any]:
        return [
            record.machine, record.name, record.state, record.payload, record.previous_state, record.event,
            record.event_payload,
        ]  # fmt: skip

    def unpack(self, fields: list[Any], revision: int, created_at: datetime, updated_at: datetime) -> Snapshot:
        machine, name, state, payload, previous, event, event_payload = fields
        return Snapshot(
            machine, name, state, payload, previous_state=previous, event=event, event_payload=event_payload,
            revision=revision, created_at=created_at, updated_at=updated_at,
        )  # fmt: skip

    def unpack_event(self, value: list[Any]) -> Failure:
        return _unpack(value)

    async def release(self, tx: Writable, stored: Stored[Snapshot]) -> None:
        await drop_failure(tx, stored.record.machine, stored.record.name)
        await drop_history(tx, stored)

    async def ended_since(self, rows: Rows, stored: Stored[Snapshot]) -> int | None:
        """Since when it has been in a final state of its definition, in microseconds; None: it is in no such state."""
        definition = await load_definition(rows, stored.record.machine)
        return stored.updated if definition is not None and stored.record.state in definition.final else None

    def counters(self, record: Snapshot) -> Iterable[bytes]:
        return b"m" + keys.path(record.machine), b"s" + keys.path(record.machine, record.state)

    async def audit(self, reader: Reader, part: int, records: dict[bytes, Stored[Snapshot]]) -> list[Any]:
        problems = await _audit_history(reader, part, records)
        for row in await rows_of(reader, part, reader.scope.key(keys.MACHINE_FAILURE)):
            try:
                await _open_failure(reader, row)
            except Damaged as error:
                problems.append(Problem(error.code, f"a failure: {error.message}", "machines", part=part))
        return problems


MACHINES = register(_MachineKind())


def missing(machine: str, name: str) -> NotFound:
    return NotFound(f"no snapshot of machine {machine!r}, name {name!r}", kind="machines", id=f"{machine}/{name}")


def check_revision(expected: int | None, record: Snapshot | None, machine: str, name: str) -> None:
    """Raise `AlreadyExists` or `StaleRevision` unless the record has the revision that is expected; 0: none."""
    if expected is None:
        return
    expected = arguments.number(expected, "expected_revision")
    actual = 0 if record is None else record.revision
    if expected == actual:
        return
    id = f"{machine}/{name}"
    if expected == 0:
        raise AlreadyExists(f"machine {id!r} exists, at revision {actual}", kind="machines", id=id)
    raise StaleRevision(
        f"machine {id!r} has revision {actual}, not {expected}; load it again",
        kind="machines",
        id=id,
        actual=actual,
        expected=expected,
    )


# --- history: rows of its own, since it outlives what the feed retains ---


def history_prefix(scope: Scope, stored: Stored[Snapshot]) -> bytes:
    """Return where the history of one machine is; its nonce keeps a machine that is made again from inheriting it."""
    record = stored.record
    return scope.key(keys.MACHINE_HISTORY, keys.path(record.machine, record.name) + stored.nonce)


async def add_history(tx: Transaction, stored: Stored[Snapshot], keep: int) -> None:
    """Keep this revision, and forget those beyond the newest `keep`, in the same batch."""
    record = stored.record
    rows = tx.at(record.name)
    prefix = history_prefix(tx.scope, stored)
    if keep:
        key = prefix + keys.number(record.revision)
        body = encode_body(tx.scope, MACHINES, record, record.revision, stored.created, stored.updated)
        rows.put(key, seal(key, await wrapper.keep(rows, key, body, 1)))
    if record.revision > keep:
        beyond = prefix + keys.number(record.revision - keep + 1)
        for row in affordable(await rows.scan(prefix, beyond, limit=SWEEP_ROWS)):
            await _forget(rows, row)


async def drop_history(tx: Writable, stored: Stored[Snapshot]) -> None:
    """Remove the whole history: at once where it is short, else by a sweep."""
    place = tx.at(stored.record.name)
    start = history_prefix(tx.scope, stored)
    stop = start + keys.END * 9
    rows = await place.scan(start, stop, limit=SWEEP_ROWS)
    if len(rows) == SWEEP_ROWS or len(affordable(rows)) < len(rows):
        leave_sweep(place, start, stop, holding=True)
        return
    for row in rows:
        await _forget(place, row)


async def _forget(rows: TransactionRows, row: Row) -> None:
    await wrapper.drop(rows, unseal(row.key, row.value))
    rows.delete(row.key)


class Past(NamedTuple):
    """Some of a machine's history, newest first."""

    snapshots: list[Snapshot]
    unopened: int
    """How many were left out because they cannot be opened at all."""
    has_older: bool
    """Whether there are older ones."""


async def read_history(reader: Reader, machine: str, name: str, below: int, keep: int, limit: int) -> Past:
    """Return, up to `limit` revisions under `below`, of the newest `keep`, each on its own: one row hides no other."""
    scope, rows, path = reader.scope, reader.at(name), (machine, name)
    row = await rows.get(MACHINES.prefix(scope) + keys.path(*path))
    if row is None:
        return Past([], 0, False)
    prefix = scope.key(keys.MACHINE_HISTORY, keys.path(*path) + nonce_of(row))
    last = await _last_revision(reader, path, row, prefix)
    low, stop = prefix + keys.number(max(0, last - keep + 1)), prefix + keys.number(below)
    snapshots: list[Snapshot] = []
    unopened = 0
    while True:
        size = limit - len(snapshots) + 1
        page = await rows.scan(low, stop, limit=size, reverse=True)
        for past in page:
            if len(snapshots) == limit:
                return Past(snapshots, unopened, True)
            try:
                snapshot = await wrapper.current(rows, past, lambda row: _open_history(rows, path, row, raw=True))
            except Damaged as error:
                left_out(scope, "machines", f"{machine}/{name}", error)
                unopened += 1
                continue
            if snapshot is not None:  # else it was purged meanwhile, or is behind the newest `keep` now
                snapshots.append(snapshot)
        if len(page) < size:
            return Past(snapshots, unopened, False)
        stop = page[-1].key


async def _last_revision(reader: Reader, path: tuple[str, str], row: Row, prefix: bytes) -> int:
    """The revision of a machine; where its snapshot cannot be opened, that of the newest row of its history."""
    try:
        stored = await open_current(reader, MACHINES, path, row.key, row, raw=True)
        return 0 if stored is None else stored.record.revision
    except Damaged:
        newest = await reader.at(path[1]).scan(prefix, prefix + keys.END * 9, limit=1, reverse=True)
        return int.from_bytes(newest[0].key[-8:], "big") if newest else 0


async def _open_history(rows: Rows, path: tuple[str, str], row: Row, *, raw: bool = False) -> Snapshot:
    body = await wrapper.fetch(rows, row.key, unseal(row.key, row.value))
    return decode_body(rows.scope, MACHINES, path, body, raw=raw)[0]


async def _audit_history(reader: Reader, part: int, records: dict[bytes, Stored[Snapshot]]) -> list[Problem]:
    scope = reader.scope
    owners = {history_prefix(scope, stored): stored for stored in records.values()}
    swept = [note.key[len(scope.key(keys.SWEEP)) :] for note in await rows_of(reader, part, scope.key(keys.SWEEP))]
    newest: dict[bytes, int] = {}
    problems: list[Problem] = []
    for row in await rows_of(reader, part, scope.key(keys.MACHINE_HISTORY)):
        prefix, revision = row.key[:-8], int.from_bytes(row.key[-8:], "big")
        stored = owners.get(prefix)
        if stored is None:
            if not any(prefix.startswith(range) for range in swept):
                problems.append(Problem("history-stale", f"history row {row.key!r} has no machine", "machines"))
            continue
        newest[prefix] = revision
        try:
            named = stored.record
            past = await _open_history(reader.at(named.name), (named.machine, named.name), row)
        except Damaged as error:
            problems.append(Problem(error.code, f"history row {row.key!r}: {error.message}", "machines", part=part))
            continue
        if past.revision != revision or (revision == stored.record.revision and past != stored.record):
            problems.append(Problem("history-differs", f"history row {row.key!r} is not that revision", "machines"))
    for prefix, revision in newest.items():
        if revision != owners[prefix].record.revision:
            problems.append(Problem("history-missing", f"history {prefix!r} ends at {revision}", "machines"))
    return problems


# --- failures: one row beside the snapshot, which they leave as it is ---


def failure_key(scope: Scope, machine: str, name: str) -> bytes:
    return scope.key(keys.MACHINE_FAILURE, keys.path(machine, name))


async def load_failure(reader: Reader, machine: str, name: str, *, raw: bool = False) -> Failure | None:
    """The last failure; None where there is none. Raises `Undecodable`, unless it is `raw`."""
    rows = reader.at(name)
    row = await rows.get(failure_key(reader.scope, machine, name))
    try:
        return await wrapper.current(rows, row, lambda current: _open_failure(reader, current, raw=raw))
    except Undecodable as error:
        id = f"{machine}/{name}"
        named = {**error.fields, "kind": "machines", "id": id}
        raise Undecodable(f"the last error of machine {id!r}: {error.message}", **named) from error


async def _open_failure(reader: Reader, row: Row, *, raw: bool = False) -> Failure:
    prefix = reader.scope.key(keys.MACHINE_FAILURE)
    _, name = keys.parse(row.key[len(prefix) :], (str, str))
    body = await wrapper.fetch(reader.look_at(str(name)), row.key, unseal(row.key, row.value))
    return _unpack(reader.scope.codec.decode(body, raw=raw))


async def store_failure(tx: Transaction, failure: Failure) -> list[Any]:
    """Replace the last failure; gives what the feed says of it, without what is too large for it."""
    rows = tx.at(failure.name)
    key = failure_key(tx.scope, failure.machine, failure.name)
    packed = _pack(failure)
    body = tx.scope.codec.encode(packed)
    await _drop_row(rows, key)
    rows.put(key, seal(key, await wrapper.keep(rows, key, body, 1)))
    if len(body) <= INLINE_BYTES:
        return packed
    large = [at for at in range(_PARTS, len(packed)) if len(tx.scope.codec.encode(packed[at])) > INLINE_BYTES // 8]
    return [large, *(None if at in large else packed[at] for at in range(1, len(packed)))]


async def drop_failure(tx: Writable, machine: str, name: str) -> bool:
    """Remove the last failure; False where there is none."""
    return await _drop_row(tx.at(name), failure_key(tx.scope, machine, name))


async def _drop_row(tx: TransactionRows, key: bytes) -> bool:
    row = await tx.get(key)
    if row is None:
        return False
    await wrapper.drop(tx, unseal(key, row.value))
    tx.delete(key)
    return True


_PARTS = 6  # from here on the packed fields are the caller's, of any size


def _pack(failure: Failure) -> list[Any]:
    at = to_micros(failure.at)
    names = [failure.machine, failure.name, failure.event, failure.state, at]
    return [[], *names, failure.reason, failure.payload, failure.info, failure.event_payload]


def _unpack(packed: list[Any]) -> Failure:
    large, machine, name, event, state, at, *parts = packed
    reason, payload, info, event_payload = (
        OMITTED if index in large else part for index, part in enumerate(parts, _PARTS)
    )
    return Failure(machine, name, reason, event, state, payload, info, from_micros(at), event_payload)


def check_names(machine: str, name: str) -> tuple[str, str]:
    """A machine and a name as they are kept. Raises `InvalidArgument`."""
    return arguments.name(machine, "machine"), arguments.name(name, "name")
