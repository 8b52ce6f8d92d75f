"""Consumers' positions in the feed. A checkpoint is where a consumer stands, never state."""

import logging
from datetime import datetime

import ormsgpack

from .. import arguments, keys
from ..clock import EPOCH, from_micros, to_micros
from ..codec import seal, unseal
from ..codec.shown import Shown
from ..core.namespace import Reader, Scope
from ..core.operation import Family, M, operation, reading
from ..core.transaction import Transaction
from ..engine import Row
from ..errors import Damaged, NotFound
from ..feed import positions
from ..feed.positions import BEGINNING, LATEST
from ..records.audit import Problem, rows_of

log = logging.getLogger("stateroom.watch")

_RUN = 1000


class Checkpoint(Shown, frozen=True):
    """A consumer's position, and when it was set (aware UTC)."""

    name: str
    position: str
    updated_at: datetime


def checkpoint_key(scope: Scope, name: str) -> bytes:
    """The row of a consumer's checkpoint."""
    return scope.key(keys.CHECKPOINT, keys.path(name))


def _decode(scope: Scope, row: Row) -> Checkpoint:
    data = unseal(row.key, row.value)
    try:
        position, at = ormsgpack.unpackb(data)
        name = row.key[len(scope.key(keys.CHECKPOINT)) : -1].decode()
        return Checkpoint(name, position, from_micros(at))
    except (ValueError, TypeError, OverflowError) as error:
        raise Damaged("a checkpoint cannot be read; set it anew", kind="checkpoints", key=row.key) from error


def checkpoint_row(scope: Scope, checkpoint: Checkpoint) -> tuple[bytes, bytes]:
    """Key and value of a checkpoint's row."""
    key = checkpoint_key(scope, checkpoint.name)
    return key, seal(key, ormsgpack.packb([checkpoint.position, to_micros(checkpoint.updated_at)]))


def write_checkpoint(tx: Transaction, name: str, position: str) -> Checkpoint:
    """Write a checkpoint whose name and position were checked."""
    checkpoint = Checkpoint(name, position, tx.scope.clock.now())
    tx.at(name).put(*checkpoint_row(tx.scope, checkpoint))
    return checkpoint


async def begin_checkpoint(tx: Transaction, name: str, position: str) -> Checkpoint:
    """The consumer's checkpoint, which is made at `position` where there is none."""
    row = await tx.at(name).get(checkpoint_key(tx.scope, name))
    return write_checkpoint(tx, name, position) if row is None else _decode(tx.scope, row)


async def read_checkpoint(reader: Reader, name: str) -> Checkpoint | None:
    """A consumer's checkpoint, or None."""
    row = (await reader.at(name).peek([checkpoint_key(reader.scope, name)]))[0]
    return None if row is None else _decode(reader.scope, row)


async def all_checkpoints(reader: Reader) -> list[Checkpoint]:
    """Every checkpoint of a namespace, by name."""
    scope = reader.scope
    start, stop = scope.key(keys.CHECKPOINT), scope.key(keys.CHECKPOINT, keys.END)
    result: list[Checkpoint] = []
    while True:
        rows = await reader.scan(start, stop, limit=_RUN)
        result += [_readable(scope, row) for row in rows]
        if len(rows) < _RUN:
            return result
        start = rows[-1].key + b"\0"


def _readable(scope: Scope, row: Row) -> Checkpoint:
    """A checkpoint; one that cannot be read holds the feed as if its consumer had seen nothing, and stops nothing."""
    try:
        return _decode(scope, row)
    except Damaged as error:
        name = row.key[len(scope.key(keys.CHECKPOINT)) : -1].decode(errors="replace")
        log.warning("checkpoint %r is taken to be at the beginning: %s", name, error)
        return Checkpoint(name, BEGINNING, EPOCH)


async def audit(reader: Reader, part: int) -> list[Problem]:
    """Checkpoints that cannot be read."""
    scope, problems = reader.scope, []
    for row in await rows_of(reader, part, scope.key(keys.CHECKPOINT)):
        try:
            _decode(scope, row)
        except Damaged as error:
            name = row.key[len(scope.key(keys.CHECKPOINT)) : -1].decode(errors="replace")
            problems.append(Problem("damaged", f"checkpoint {name!r}: {error.message}", "checkpoints", name, part))
    return problems


class Checkpoints(Family[M]):
    """``store.checkpoints``: named positions, kept until they are deleted; the feed is not pruned past the lowest."""

    @operation
    async def set(self, tx: Transaction, name: str, position: str) -> Checkpoint:
        """Set a consumer's position, also a lower one; LATEST means the newest change now.

        Raises `InvalidArgument` for a blank name, or a position that is malformed or of another database.
        """
        name = arguments.name(name, "name")
        if position == LATEST:
            position = await positions.write(tx.scope, await positions.latest(tx.scope.reader))
        elif position != BEGINNING:
            await positions.read(tx.scope, position)
        return write_checkpoint(tx, name, position)

    @reading
    async def get(self, tx: Reader, name: str) -> str:
        """A consumer's position. Raises `NotFound`."""
        checkpoint = await self._find(tx, name)
        if checkpoint is None:
            raise NotFound(f"no checkpoint {name!r}", kind="checkpoints", id=name)
        return checkpoint.position

    @reading
    async def find(self, tx: Reader, name: str) -> str | None:
        """A consumer's position, or None."""
        checkpoint = await self._find(tx, name)
        return None if checkpoint is None else checkpoint.position

    @reading
    async def list(self, tx: Reader) -> tuple[Checkpoint, ...]:
        """Every checkpoint, by name."""
        return tuple(await all_checkpoints(tx))

    @operation
    async def delete(self, tx: Transaction, name: str) -> bool:
        """Forget a consumer; False if there is none. It no longer holds the feed back."""
        name = arguments.name(name, "name")
        rows, key = tx.at(name), checkpoint_key(tx.scope, name)
        if await rows.get(key) is None:
            return False
        rows.delete(key)
        return True

    async def _find(self, tx: Reader, name: str) -> Checkpoint | None:
        name = arguments.name(name, "name")
        return await read_checkpoint(tx, name)
