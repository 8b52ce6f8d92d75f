"""Leases: who may write now, with fencing tokens that rise for ever.

Two rows a lease: *token* (who, and the number; changed by acquire, release and revoke) and *until* (when it ends, and
how long it was given for; changed by renew). A fenced commit expects only the token's row, so that a renewal never
disturbs it. A lease whose record is deleted, or that nobody has used for a day, leaves nothing of its own: its token
goes into one of 64 marks of its part, above which every new lease of that part begins.
"""

import contextlib
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Annotated, Any, NamedTuple
from weakref import WeakKeyDictionary
from zlib import crc32

import msgspec
import ormsgpack

from ... import arguments, keys
from ...clock import FIRST, LAST, from_micros, to_micros
from ...codec import seal, unseal
from ...codec.malformed import parsing
from ...codec.shown import Shown
from ...core.namespace import Reader, Rows, Scope
from ...core.transaction import Transaction, Writable
from ...engine import Row
from ...errors import Damaged, LostLease
from ...limits import INT64_MAX, NAME_BYTES
from ...records.pages import left_out

MARKS = 64
"""Marks of a part: what remains of all leases that are gone is at most so many rows of some 50 bytes."""

_JUMP = 10_000_000
"""Microseconds by which the time of day may differ from the time that passed before it counts as set."""

LONGEST_KEY = NAME_BYTES + 16
"""In UTF-8: a lease of the store's own has a name as long as any, with something behind it."""

_SIGHTS = 4096
"""Leases whose first sight a store remembers."""


class Lease(Shown, frozen=True):
    """The right to write under a key until `expires_at` (aware UTC), or until a later acquire, release or revoke."""

    key: str
    owner: str
    token: int
    expires_at: datetime


class Held(NamedTuple):
    """The two rows of a lease; times in microseconds."""

    owner: str | None
    """None: released or revoked."""
    token: int
    until: int
    ttl: int = 0


_NOBODY = Held(None, 0, 0)


# As they are stored. Made here, for a type that two threads meet first at the same time is not safe to decode.
_Natural = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]
_TOKEN = msgspec.msgpack.Decoder(tuple[str | None, _Natural])
_UNTIL = msgspec.msgpack.Decoder(tuple[int, Annotated[int, msgspec.Meta(ge=FIRST, le=LAST)], _Natural])


class _Sight(NamedTuple):
    """A lease as this store saw it first: how long it had then, by the clocks of this process."""

    token: int
    until: int
    now: int
    monotonic: float
    left: int


_sights: "WeakKeyDictionary[Scope, OrderedDict[str, _Sight]]" = WeakKeyDictionary()


def token_key(scope: Scope, key: str) -> bytes:
    """Return the key of the token of a lease."""
    return scope.prefix + keys.LEASE_TOKEN + keys.path(key)


def until_key(scope: Scope, key: str) -> bytes:
    """Return where it stands until when a lease lasts."""
    return scope.prefix + keys.LEASE_UNTIL + keys.path(key)


def mark_key(scope: Scope, key: str) -> bytes:
    """Return where the highest token is of the leases that are gone and share a mark with this one."""
    return scope.prefix + keys.LEASE_MARK + bytes((1 + crc32(key.encode()) % MARKS,))


FLOOR = b"\0leases"
"""Where the token is above which every lease of a copied part begins, in any namespace, one that comes later too.

No namespace is blank, so no record has this key.
"""


def floor_keys(scope: Scope) -> tuple[bytes, bytes]:
    """Return where the tokens are above which the leases of a part begin: in any namespace, and in this one."""
    return FLOOR, FLOOR + scope.prefix


def rows(scope: Scope, key: str) -> tuple[bytes, bytes]:
    """The keys of its token's row and of the one that says until when."""
    return token_key(scope, key), until_key(scope, key)


def decode(token_at: bytes, token: Row | None, until_at: bytes, until: Row | None) -> Held:
    """Return what two rows say; no rows: never held. Raises `Damaged`."""
    if token is None:
        return _NOBODY
    with parsing("a lease", kind="leases", key=token_at):
        owner, number = _TOKEN.decode(unseal(token_at, token.value))
        made_for, ends, ttl = _UNTIL.decode(unseal(until_at, until.value)) if until is not None else (0, 0, 0)
    # A renewal that raced with a takeover belongs to the token it was made for.
    return Held(owner, number, ends, ttl) if made_for == number else Held(owner, number, 0)


def remaining(scope: Scope, key: str, current: Held) -> int:
    """Microseconds that a lease still has by this store's clock; 0 or less: it is free.

    What passed since this store saw the lease first is measured by the monotonic clock where the time of day was set
    meanwhile, forwards or back; and nobody waits for longer than the lease was given for.
    """
    if current.owner is None or not current.until:
        return 0
    now, monotonic = to_micros(scope.clock.now()), scope.clock.monotonic()
    sights = _sights.setdefault(scope, OrderedDict())
    sight = sights.get(key)
    if sight is None or (sight.token, sight.until) != (current.token, current.until):
        micros = current.until - now
        _see(scope, key, current, now, monotonic, min(micros, current.ttl) if current.ttl else micros)
        return sights[key].left if key in sights else micros
    moved, passed = now - sight.now, round((monotonic - sight.monotonic) * 1_000_000)
    if passed > 0 and abs(moved - passed) > _JUMP:  # a clock that knows no elapsed time stands still
        moved = passed
    return sight.left - moved


def _see(scope: Scope, key: str, current: Held, now: int, monotonic: float, micros: int) -> None:
    sights = _sights.setdefault(scope, OrderedDict())
    sights.pop(key, None)
    sights[key] = _Sight(current.token, current.until, now, monotonic, micros)
    if len(sights) > _SIGHTS:
        sights.popitem(last=False)


async def _held(tx: Writable, key: str) -> Held:
    """Return what a lease is, which must be the same at commit."""
    place = tx.at(key)
    token_at, until_at = rows(tx.scope, key)
    await place.prefetch((token_at, until_at))
    return decode(token_at, await place.get(token_at), until_at, await place.get(until_at))


async def next_token(tx: Writable, key: str, current: Held) -> int:
    """A token above every one that was ever given for a key: by this lease, one that is gone, or before a restore."""
    place, scope = tx.at(key), tx.scope
    marks = floor_keys(scope) if current.token else (*floor_keys(scope), mark_key(scope, key))
    return 1 + max([current.token, *(read_mark(row) for row in await place.get_many(marks))])


def read_mark(row: Row | None) -> int:
    """The token in a mark's row; 0 where there is none."""
    return 0 if row is None else int.from_bytes(unseal(row.key, row.value), "big")


def write_mark(key: bytes, token: int) -> bytes:
    """The value of a mark's row."""
    return seal(key, keys.number(token))


async def highest_token(scope: Scope, part: int) -> int:
    """The highest token that a part shows: of the namespace's leases, of those that are gone, and of its floors."""
    place = scope.reader.in_part(part)
    start, stop = scope.key(keys.LEASE_MARK), scope.key(keys.LEASE_TOKEN + keys.END)
    tokens = [read_mark(row) for row in await place.peek(floor_keys(scope))]
    while rows_read := await place.scan(start, stop, limit=1000):
        for row in rows_read:
            with contextlib.suppress(Damaged):  # `check` says so; nobody can write under it
                if row.key.startswith(scope.key(keys.LEASE_MARK)):
                    tokens.append(read_mark(row))
                else:
                    tokens.append(decode(row.key, row, b"", None).token)
        tokens, start = [max(tokens)], rows_read[-1].key + b"\0"
    return max(tokens)


def _write(tx: Writable, key: str, owner: str | None, token: int) -> None:
    at = token_key(tx.scope, key)
    tx.at(key).put(at, seal(at, ormsgpack.packb([owner, token])))


def _write_until(tx: Writable, key: str, token: int, until: int, ttl: int) -> None:
    at = until_key(tx.scope, key)
    tx.at(key).put(at, seal(at, ormsgpack.packb([token, until, ttl])))


async def revoke(tx: Writable, key: str) -> None:
    """Take a lease away from whoever holds it: a write under its token never lands from then on."""
    current = await _held(tx, key)
    if current.owner is not None:
        _give_up(tx, key, current.token)


def _give_up(tx: Writable, key: str, token: int) -> None:
    _write(tx, key, None, token)
    tx.at(key).delete(until_key(tx.scope, key))


async def forget(tx: Writable, key: str) -> None:
    """Revoke a lease and remove its rows, as the record under its key is deleted: only a mark remains."""
    place = tx.at(key)
    token_at, until_at = rows(tx.scope, key)
    row = await place.get(token_at)
    if row is None:
        return
    current = decode(token_at, row, until_at, None)
    place.delete(token_at)
    place.delete(until_at)
    mark_at = mark_key(tx.scope, key)
    mark = read_mark(await place.get(mark_at))
    place.put(mark_at, write_mark(mark_at, max(mark, current.token)))


def check(lease: Any) -> None:
    arguments.instance(lease, "lease", Lease)
    arguments.name(lease.key, "key", LONGEST_KEY)
    arguments.number(lease.token, "token")


async def fence(tx: Transaction, lease: Lease) -> None:
    """Make `tx` commit only while the lease's token is current. Raises `LostLease`."""
    check(lease)
    current = await _held_unexpired(tx, lease)
    if current.token != lease.token or current.owner is None:
        raise lost(lease.key, current)


async def _held_unexpired(tx: Transaction, lease: Lease) -> Held:
    """The token's row is remembered and checked at commit; the other is only looked at, so renewals do not disturb."""
    token_at, until_at = rows(tx.scope, lease.key)
    place = tx.at(lease.key)
    token = await place.get(token_at)
    (ends,) = await place.peek([until_at])
    current = decode(token_at, token, until_at, ends)
    if current.token == lease.token and current.owner is not None:
        _check_time(tx.scope, lease.key, current)
    return current


def _check_time(scope: Scope, key: str, current: Held) -> None:
    if remaining(scope, key, current) <= 0:
        raise LostLease(
            f"lease {key!r}: token {current.token} expired at {from_micros(current.until).isoformat()}",
            key=key,
            holder=None,
            token=current.token,
            expires_at=from_micros(current.until),
        )


async def look(scope: Scope, key: str) -> Held:
    """Return what is committed of a lease."""
    token_at, until_at = rows(scope, key)
    token, ends = await scope.reader.at(key).peek([token_at, until_at])
    return decode(token_at, token, until_at, ends)


async def check_time(tx: Transaction, lease: Lease) -> None:
    """Raise `LostLease` for a fenced transaction whose lease has run out.

    The transaction may give up, renew or take the lease itself: what is committed with it does not count against it.
    """
    token_at, until_at = rows(tx.scope, lease.key)
    token, ends = await tx.at(lease.key).peek([token_at, until_at])
    current = decode(token_at, token, until_at, ends)
    if current.token == lease.token and current.owner is not None and ends is not None:
        _check_time(tx.scope, lease.key, current)


def lost(key: str, current: Held) -> LostLease:
    """The error that says who holds it instead."""
    return LostLease(
        f"lease {key!r} is held by {current.owner!r} with token {current.token}"
        if current.owner
        else f"lease {key!r} is held by nobody; its last token is {current.token}",
        key=key,
        holder=current.owner,
        token=current.token,
        expires_at=from_micros(current.until) if current.until else None,
    )


async def live_holders(reader: Reader, part: int, names: list[str]) -> list[bool]:
    """Say whether each of some keys of one part is held now."""
    return [micros > 0 for micros in await times_left(reader.in_part(part), names)]


async def times_left(place: Rows, names: list[str]) -> list[int]:
    """Microseconds that the lease of each of some keys of one part still has; 0 or less: free."""
    scope = place.scope
    row_keys: list[bytes] = []
    for key in names:
        row_keys += rows(scope, key)
    answers = await place.peek(row_keys)
    times = []
    for key, at in zip(names, range(0, len(row_keys), 2), strict=True):
        try:
            times.append(remaining(scope, key, decode(row_keys[at], answers[at], row_keys[at + 1], answers[at + 1])))
        except Damaged as error:  # who knows who holds it: nobody else should
            left_out(scope, "leases", key, error)
            times.append(1)
    return times


def grant(tx: Writable, key: str, owner: str, token: int, ttl: int) -> Lease:
    """Write a lease that is free, with its new token; `ttl` in microseconds."""
    scope = tx.scope
    now = to_micros(scope.clock.now())
    ends = arguments.later(now, ttl, "ttl")
    _write(tx, key, owner, token)
    _write_until(tx, key, token, ends, ttl)
    _see(scope, key, Held(owner, token, ends, ttl), now, scope.clock.monotonic(), ttl)
    return Lease(key, owner, token, from_micros(ends))


async def acquire(tx: Writable, key: str, owner: str, ttl: float | timedelta) -> Lease:
    """See `Leases.acquire`."""
    length = arguments.microseconds(ttl, "ttl")
    await tx.at(key).prefetch((*rows(tx.scope, key), *floor_keys(tx.scope), mark_key(tx.scope, key)))
    current = await _held(tx, key)
    if current.owner is not None and current.owner != owner and remaining(tx.scope, key, current) > 0:
        raise lost(key, current)
    return grant(tx, key, owner, await next_token(tx, key, current), length)


async def renew(tx: Transaction, lease: Lease, ttl: float | timedelta) -> Lease:
    """See `Leases.renew`."""
    scope, length = tx.scope, arguments.microseconds(ttl, "ttl")
    now = to_micros(scope.clock.now())
    ends = arguments.later(now, length, "ttl")
    await fence(tx, lease)
    _write_until(tx, lease.key, lease.token, ends, length)
    _see(scope, lease.key, Held(lease.owner, lease.token, ends, length), now, scope.clock.monotonic(), length)
    return Lease(lease.key, lease.owner, lease.token, from_micros(ends))


async def release(tx: Writable, lease: Lease) -> bool:
    """See `Leases.release`."""
    current = await _held(tx, lease.key)
    if current.token != lease.token or current.owner is None:
        return False
    _give_up(tx, lease.key, current.token)
    return True


def live(scope: Scope, key: str, current: Held) -> Lease | None:
    if current.owner is None or remaining(scope, key, current) <= 0:
        return None
    return Lease(key, current.owner, current.token, from_micros(current.until))
