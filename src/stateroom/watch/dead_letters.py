"""Changes that a watcher gave up on, kept until somebody decides."""

from collections.abc import AsyncIterator
from datetime import datetime

import msgspec

from .. import arguments, keys
from ..clock import from_micros, new_id, to_micros
from ..codec import seal, unseal
from ..codec.shown import Shown
from ..core.namespace import Reader, Scope
from ..core.operation import Family, M, operation, reading
from ..core.transaction import Transaction
from ..engine import Row, read_counter, write_counter
from ..errors import NotFound
from ..feed.feed import Change

_RUN = 1000


class DeadLetter(Shown, frozen=True):
    """A change that a watcher's handler refused 1 + max_retries times."""

    id: str
    watcher: str
    position: str
    """Just after the change; reading from `before` gives it again, while the feed retains it."""
    before: str
    family: str
    key: tuple[str | int, ...]
    op: str
    error: str
    """Type and message of the last error."""
    attempts: int
    at: datetime
    retry: bool = False
    """Handed back to the watcher, which has not come to it yet."""


def letters_prefix(scope: Scope, watcher: str | None = None) -> bytes:
    return scope.key(keys.DEAD_LETTER, b"" if watcher is None else keys.path(watcher))


def _key(scope: Scope, letter: DeadLetter) -> bytes:
    return scope.key(keys.DEAD_LETTER, keys.path(letter.watcher, letter.id))


def retry_key(scope: Scope, watcher: str) -> bytes:
    """A row that changes when a letter is handed back, so that the watcher need not look at all letters."""
    return scope.key(keys.RETRY, keys.path(watcher))


def write_letter(tx: Transaction, letter: DeadLetter) -> None:
    """Write a letter in the part of its watcher."""
    key = _key(tx.scope, letter)
    packed = msgspec.msgpack.encode(
        [
            letter.position, letter.before, letter.family, letter.key, letter.op, letter.error, letter.attempts,
            to_micros(letter.at), letter.retry,
        ]
    )  # fmt: skip
    tx.at(letter.watcher).put(key, seal(key, tx.scope.codec.protect(key, packed)))


def delete_letter(tx: Transaction, letter: DeadLetter) -> None:
    """Remove a letter."""
    tx.at(letter.watcher).delete(_key(tx.scope, letter))


def make_letter(scope: Scope, watcher: str, change: Change, error: BaseException, attempts: int) -> DeadLetter:
    """A letter for a change of the feed."""
    text = f"{type(error).__name__}: {error}"[:4000]
    now = scope.clock.now()
    return DeadLetter(
        new_id(), watcher, change.position, change.before, change.family, change.key, change.op, text, attempts, now
    )


def _decode(scope: Scope, row: Row) -> DeadLetter:
    watcher, id = keys.parse(row.key[len(letters_prefix(scope)) :], (str, str))
    packed = scope.codec.reveal(row.key, unseal(row.key, row.value))
    position, before, family, key, op, error, attempts, at, retry = msgspec.msgpack.decode(packed)
    return DeadLetter(
        str(id), str(watcher), position, before, family, tuple(key), op, error, attempts, from_micros(at), retry
    )


async def letters(reader: Reader, watcher: str | None) -> AsyncIterator[DeadLetter]:
    """All letters, or a watcher's, by watcher and then oldest first."""
    scope = reader.scope
    start = letters_prefix(scope, watcher)
    stop = start + keys.END
    while True:
        rows = await (reader if watcher is None else reader.at(watcher)).scan(start, stop, limit=_RUN)
        for row in rows:
            yield _decode(scope, row)
        if len(rows) < _RUN:
            return
        start = rows[-1].key + b"\0"


class DeadLetters(Family[M]):
    """``store.dead_letters``: what watchers that skip gave up on."""

    @reading
    async def list(self, tx: Reader, watcher: str | None = None) -> tuple[DeadLetter, ...]:
        """All letters, or those of one watcher, oldest first for each watcher."""
        watcher = arguments.optional_name(watcher, "watcher")
        return tuple([letter async for letter in letters(tx, watcher)])

    @operation
    async def retry(self, tx: Transaction, letter: DeadLetter) -> None:
        """Hand a letter back: the watcher of that name, in whatever process, handles it again. Raises `NotFound`."""
        await self._load(tx, letter)
        write_letter(tx, msgspec.structs.replace(letter, retry=True))
        rows, key = tx.at(letter.watcher), retry_key(tx.scope, letter.watcher)
        row = await rows.get(key)
        rows.put(key, write_counter(1 + read_counter(row.value if row is not None else None)))

    @operation
    async def delete(self, tx: Transaction, letter: DeadLetter) -> bool:
        """Remove a letter; False if it is gone."""
        try:
            await self._load(tx, letter)
        except NotFound:
            return False
        delete_letter(tx, letter)
        return True

    async def _load(self, tx: Transaction, letter: DeadLetter) -> None:
        arguments.instance(letter, "letter", DeadLetter)
        if await tx.at(letter.watcher).get(_key(tx.scope, letter)) is None:
            raise NotFound(f"no dead letter {letter.id!r}", kind="dead_letters", id=letter.id)
