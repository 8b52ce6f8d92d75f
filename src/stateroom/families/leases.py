"""Leases: who may write now, with fencing tokens that rise for ever.

Two rows a lease: *token* (who, and the number; changed by acquire, release and revoke) and *until* (when it ends;
changed by renew). A fenced commit expects only the token's row, so that a renewal never disturbs it.
"""

from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
import ormsgpack

from .. import arguments, keys
from ..clock import FIRST, LAST, from_micros, to_micros
from ..codec import seal, unseal
from ..codec.malformed import parsing
from ..core.namespace import Reader, Scope
from ..core.operation import Family, M, operation, reading
from ..core.transaction import Transaction
from ..engine import Row
from ..errors import LostLease
from ..limits import INT64_MAX, NAME_BYTES


class Lease(msgspec.Struct, frozen=True):
    """The right to write under a key until `expires_at` (aware UTC), or until a later acquire, release or revoke."""

    key: str
    owner: str
    token: int
    expires_at: datetime


# As they are stored. Made here, for a type that two threads meet first at the same time is not safe to decode.
_TOKEN = msgspec.msgpack.Decoder(tuple[str | None, Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]])
_UNTIL = msgspec.msgpack.Decoder(tuple[int, Annotated[int, msgspec.Meta(ge=FIRST, le=LAST)]])


class Held(msgspec.Struct, frozen=True):
    """What the two rows of a lease say."""

    owner: str | None
    """None: released or revoked."""
    token: int
    until: int


def token_key(scope: Scope, key: str) -> bytes:
    return scope.prefix + keys.LEASE_TOKEN + keys.path(key)


def until_key(scope: Scope, key: str) -> bytes:
    return scope.prefix + keys.LEASE_UNTIL + keys.path(key)


def decode(token_at: bytes, token: Row | None, until_at: bytes, until: Row | None) -> Held:
    """What two rows say; no rows: never held."""
    if token is None:
        return Held(None, 0, 0)
    with parsing("a lease", kind="leases", key=token_at):
        owner, number = _TOKEN.decode(unseal(token_at, token.value))
        made_for, ends = _UNTIL.decode(unseal(until_at, until.value)) if until is not None else (0, 0)
    # A renewal that raced with a takeover belongs to the token it was made for.
    return Held(owner, number, ends if made_for == number else 0)


def rows(scope: Scope, key: str) -> tuple[bytes, bytes]:
    """The keys of its token's row and of the one that says until when."""
    return token_key(scope, key), until_key(scope, key)


async def _held(tx: Transaction, key: str) -> Held:
    place = tx.at(key)
    token_at, until_at = rows(tx.scope, key)
    await place.prefetch((token_at, until_at))
    return decode(token_at, await place.get(token_at), until_at, await place.get(until_at))


def _write(tx: Transaction, key: str, owner: str | None, token: int) -> None:
    at = token_key(tx.scope, key)
    tx.at(key).put(at, seal(at, ormsgpack.packb([owner, token])))


def _write_until(tx: Transaction, key: str, token: int, until: int) -> None:
    at = until_key(tx.scope, key)
    tx.at(key).put(at, seal(at, ormsgpack.packb([token, until])))


async def revoke(tx: Transaction, key: str) -> None:
    """Take a lease away from whoever holds it: a write under its token never lands from then on."""
    held = await _held(tx, key)
    if held.token and held.owner is not None:
        _write(tx, key, None, held.token)


_LONGEST_KEY = NAME_BYTES + 16
"""In UTF-8: a lease of the store's own has a name as long as any, with something behind it."""


def _check(lease: Any) -> None:
    arguments.instance(lease, "lease", Lease)
    arguments.name(lease.key, "key", _LONGEST_KEY)
    arguments.number(lease.token, "token")


async def fence(tx: Transaction, lease: Lease) -> None:
    """Make `tx` commit only while the lease's token is current. Raises `LostLease`."""
    _check(lease)
    held = await _held_unexpired(tx, lease)
    if held.token != lease.token or held.owner is None:
        raise lost(lease.key, held)


async def _held_unexpired(tx: Transaction, lease: Lease) -> Held:
    """The token's row is remembered and checked at commit; the other is only looked at, so renewals do not disturb."""
    token_at, until_at = token_key(tx.scope, lease.key), until_key(tx.scope, lease.key)
    rows = tx.at(lease.key)
    token = await rows.get(token_at)
    (until,) = await rows.peek([until_at])
    held = decode(token_at, token, until_at, until)
    if held.token == lease.token and held.owner is not None:
        _check_time(tx.scope, lease.key, held)
    return held


def _check_time(scope: Scope, key: str, held: Held) -> None:
    if held.until <= to_micros(scope.clock.now()):
        raise LostLease(
            f"lease {key!r}: token {held.token} expired at {from_micros(held.until).isoformat()}",
            key=key,
            holder=None,
            token=held.token,
            expires_at=from_micros(held.until),
        )


async def look(scope: Scope, key: str) -> Held:
    """What is committed of a lease."""
    token_at, until_at = token_key(scope, key), until_key(scope, key)
    token, until = await scope.reader.at(key).peek([token_at, until_at])
    return decode(token_at, token, until_at, until)


async def check_time(tx: Transaction, lease: Lease) -> None:
    """Raise `LostLease` for a fenced transaction whose lease has run out.

    The transaction may give up, renew or take the lease itself: what is committed with it does not count against it.
    """
    until_at = until_key(tx.scope, lease.key)
    (row,) = await tx.at(lease.key).peek([until_at])
    with parsing("a lease", kind="leases", key=until_at):
        token, until = _UNTIL.decode(unseal(until_at, row.value)) if row is not None else (0, 0)
    if token == lease.token:
        _check_time(tx.scope, lease.key, Held(lease.owner, token, until))


def lost(key: str, held: Held) -> LostLease:
    """The error that says who holds it instead."""
    return LostLease(
        f"lease {key!r} is held by {held.owner!r} with token {held.token}"
        if held.owner
        else f"lease {key!r} is held by nobody; its last token is {held.token}",
        key=key,
        holder=held.owner,
        token=held.token,
        expires_at=from_micros(held.until) if held.until else None,
    )


async def live_holders(reader: Reader, part: int, found: list[str]) -> list[bool]:
    """Whether each of some keys of one part is held now."""
    scope = reader.scope
    wanted: list[bytes] = []
    for key in found:
        wanted += [token_key(scope, key), until_key(scope, key)]
    rows = await reader.in_part(part).peek(wanted)
    now = to_micros(scope.clock.now())
    live = []
    for at in range(0, len(rows), 2):
        held = decode(wanted[at], rows[at], wanted[at + 1], rows[at + 1])
        live.append(held.owner is not None and held.until > now)
    return live


def _until(tx: Transaction, ttl: float | timedelta) -> tuple[int, int]:
    """Now, and when a lease that is taken now ends."""
    now = to_micros(tx.scope.clock.now())
    return now, arguments.later(now, arguments.microseconds(ttl, "ttl"), "ttl")


async def acquire(tx: Transaction, key: str, owner: str, ttl: float | timedelta) -> Lease:
    """See `Leases.acquire`."""
    held = await _held(tx, key)
    now, until = _until(tx, ttl)
    if held.owner is not None and held.owner != owner and held.until > now:
        raise lost(key, held)
    _write(tx, key, owner, held.token + 1)
    _write_until(tx, key, held.token + 1, until)
    return Lease(key, owner, held.token + 1, from_micros(until))


async def renew(tx: Transaction, lease: Lease, ttl: float | timedelta) -> Lease:
    """See `Leases.renew`."""
    _, until = _until(tx, ttl)
    await fence(tx, lease)
    _write_until(tx, lease.key, lease.token, until)
    return Lease(lease.key, lease.owner, lease.token, from_micros(until))


async def release(tx: Transaction, lease: Lease) -> bool:
    """See `Leases.release`."""
    held = await _held(tx, lease.key)
    if held.token != lease.token or held.owner is None:
        return False
    _write(tx, lease.key, None, held.token)
    return True


class Leases(Family[M]):
    """``store.leases``: ownership with fencing tokens, across processes."""

    @operation
    async def acquire(self, tx: Transaction, key: str, owner: str, ttl: float | timedelta) -> Lease:
        """Take a free or expired lease for a time (seconds, or a timedelta), with a token higher than any before.

        The owner that holds it already gets a new token too. Raises `LostLease` with `holder` when another holds it.
        """
        key = arguments.name(key, "key")
        owner = arguments.name(owner, "owner")
        return await acquire(tx, key, owner, ttl)

    @operation
    async def renew(self, tx: Transaction, lease: Lease, ttl: float | timedelta) -> Lease:
        """Hold it for so long from now (seconds, or a timedelta).

        Raises `LostLease` when it was superseded or has expired.
        """
        return await renew(tx, lease, ttl)

    @operation
    async def release(self, tx: Transaction, lease: Lease) -> bool:
        """Give it up; False when it was superseded already. The token survives, so that the next one is higher."""
        _check(lease)
        return await release(tx, lease)

    @reading
    async def holder(self, tx: Reader, key: str) -> Lease | None:
        """Who holds a lease now; None when nobody does."""
        key = arguments.name(key, "key")
        scope = self._scope
        token_at, until_at = token_key(scope, key), until_key(scope, key)
        token, until = await tx.at(key).peek([token_at, until_at])
        held = decode(token_at, token, until_at, until)
        if held.owner is None or held.until <= to_micros(scope.clock.now()):
            return None
        return Lease(key, held.owner, held.token, from_micros(held.until))
