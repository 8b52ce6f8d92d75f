"""Many records at once: one commit for each part and batch, instead of one for each record."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from .. import keys
from ..core.namespace import Reader, Scope
from ..core.transaction import Transaction, TransactionRows, transact
from ..errors import AlreadyExists, InvalidArgument, NotFound, Refused, StoreError
from ..limits import BATCH_BYTES, BATCH_KEYS
from ..records.kind import Kind, Record
from ..records.query import Query
from ..records.reading import load

T = TypeVar("T", bound=Record)

BATCH = 1000
"""Records in one commit at most."""

_KEYS = BATCH_KEYS * 9 // 10
_BYTES = BATCH_BYTES // 2


class Bulk(NamedTuple, Generic[T]):
    """The treatment of each record."""

    kind: Kind[T]
    check: Callable[[T], T]
    """The record as it is kept. Raises `InvalidArgument`."""
    write: Callable[[Transaction, T], Awaitable[T]]
    ahead: bool = False
    """Whether most of them are there, and are read together before."""


async def write_many(scope: Scope, tx: Transaction | None, bulk: Bulk[T], items: Sequence[T]) -> tuple[T, ...]:
    """Write records, in `tx` or each batch in a commit of its own; gives them in their order.

    A refusal names the record; ``.fields["written"]`` says how many were stored before it. Its batch is not.
    """
    checked = []
    for item in items:
        with _Naming(0) as naming:
            naming.id = getattr(item, "id", None)
            checked.append(bulk.check(item))
    written: dict[int, T] = {}
    if tx is not None:
        for number, item in enumerate(checked):
            with _Naming(0, _id(bulk, item)):
                written[number] = await bulk.write(tx, item)
        return tuple(written[number] for number in range(len(checked)))
    parts: dict[int, list[int]] = {}
    for number, item in enumerate(checked):
        parts.setdefault(scope.part(keys.root(_id(bulk, item))), []).append(number)
    for part, numbers in parts.items():
        at = 0
        while at < len(numbers):
            run = numbers[at : at + BATCH]
            with _Naming(len(written)) as naming:
                saved = await transact(scope, _Batch(bulk, [checked[number] for number in run], naming).body, part=part)
            written.update(zip(run, saved, strict=False))
            at += len(saved)
    return tuple(written[number] for number in range(len(checked)))


def _id(bulk: Bulk[T], item: T) -> str:
    return bulk.kind.owner(bulk.kind.path(item))


class _Naming:
    """Says in a refusal which record it is about, and how many were stored before."""

    def __init__(self, written: int, id: str | None = None) -> None:
        self.written = written
        self.id = id

    def __enter__(self) -> "_Naming":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, StoreError):
            error.fields["written"] = self.written
            if self.id is not None and isinstance(error, AlreadyExists | InvalidArgument | NotFound | Refused):
                error.fields.setdefault("id", self.id)


class _Batch(Generic[T]):
    """The records of one commit: as many of them as fit."""

    def __init__(self, bulk: Bulk[T], items: list[T], naming: _Naming) -> None:
        self._bulk = bulk
        self._items = items
        self._naming = naming

    async def body(self, tx: Transaction) -> list[T]:
        """Write them; gives what was written."""
        bulk, saved = self._bulk, list[T]()
        size = 0
        if bulk.ahead:
            prefix = bulk.kind.prefix(tx.scope)
            rows = tx.at(_id(bulk, self._items[0]))
            await rows.prefetch([prefix + keys.path(*bulk.kind.path(item)) for item in self._items])
        for item in self._items:
            self._naming.id = _id(bulk, item)
            rows = tx.at(self._naming.id)
            point = rows.savepoint()
            record = await bulk.write(tx, item)
            size += _bytes(rows, bulk.kind.prefix(tx.scope) + keys.path(*bulk.kind.path(record)))
            if saved and (rows.keys_touched > _KEYS or size + rows.chunk_bytes > _BYTES):
                rows.rollback_to(point)
                return saved
            saved.append(record)
        return saved


def _bytes(rows: TransactionRows, key: bytes) -> int:
    """About how much a record adds to a batch: its row, its entry of the feed, its index rows."""
    return 2 * len(rows.written(key) or b"") + 1000


async def read_many(tx: Reader, kind: Kind[T], ids: Iterable[str]) -> dict[str, T]:
    """The records under some ids, in their order, without those that are not there; one read for each part.

    In a transaction each is a point read: it must not have changed at commit.
    """
    names = list(dict.fromkeys(ids))
    if isinstance(tx, Transaction):
        stored = {id: await load(tx, kind, (id,), raw=True) for id in names}
        return {id: entry.record for id, entry in stored.items() if entry is not None}
    records: dict[str, T] = {}
    for at in range(0, len(names), BATCH):
        records_read = await Query(kind, tx, 0, lambda record: True).read(names[at : at + BATCH])
        records |= dict(zip(names[at : at + BATCH], records_read, strict=True))  # type: ignore[arg-type]
    return {id: record for id, record in records.items() if record is not None}
