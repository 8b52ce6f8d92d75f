"""Whether a database is encrypted, and whether a key ring is the one it was written with.

For each key a row holds a constant, encrypted under it. Opening a store looks at these rows: so another key under the
same id, or no ring at all, is found before anything is written beside what the right ring reads.
"""

from typing import Any

from ..codec import Codec, KeyRing, seal, unseal
from ..engine import Batch
from ..errors import Conflict, Damaged, InvalidArgument, Undecodable

PREFIX = b"\x00key\x00"  # no namespace is blank, so no record has such a key
_CONSTANT = b"the key of this store"
_MOST = 1000


async def key_rows(engine: Any) -> dict[str, bytes]:
    """The ids of the keys that a database was written under, with what is kept of each."""
    rows = await engine.scan(0, PREFIX, PREFIX + b"\xff", limit=_MOST)
    return {row.key[len(PREFIX) :].decode(): row.value for row in rows}


async def fitting_codec(engine: Any, codec: Codec, *, writable: bool) -> Codec:
    """The codec for a database: without a ring one that writes no value into what is encrypted.

    Raises `InvalidArgument` for a ring that has another key under an id that the database was written with.
    """
    rows = await key_rows(engine)
    ring = codec.key_ring
    if ring is None:
        return codec.locked(sorted(rows)) if rows else codec
    _verify(ring, rows)
    if ring.current not in rows and writable:
        at = PREFIX + ring.current.encode()
        try:
            await engine.commit(0, Batch({at: 0}, {at: seal(at, codec.protect(at, _CONSTANT))}))
        except Conflict:  # somebody opened it at the same moment, perhaps with another key
            _verify(ring, await key_rows(engine))
    return codec


def _verify(ring: KeyRing, rows: dict[str, bytes]) -> None:
    codec = Codec(key_ring=ring)
    for name, value in rows.items():
        at = PREFIX + name.encode()
        try:
            if codec.reveal(at, unseal(at, value)) != _CONSTANT:
                raise Damaged("it is not what was written")
        except Undecodable:  # an old key, which this ring no longer has
            continue
        except Damaged as error:
            raise InvalidArgument(
                f"the key {name!r} of this ring is not the one that this store was written with",
                what="key_ring",
                value=name,
            ) from error


async def copy_key_rows(source: Any, target: Any) -> None:
    """Take over which keys the values were written under."""
    present = await key_rows(target)
    missing = {PREFIX + name.encode(): value for name, value in (await key_rows(source)).items() if name not in present}
    if missing:
        await target.commit(0, Batch(write=missing))
