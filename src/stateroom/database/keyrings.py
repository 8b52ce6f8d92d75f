"""Encryption of a database as a whole: whether it has any, and by which key ring.

For each key a row holds a constant, encrypted under it. Opening a store looks at these rows: so another key under the
same id, or no ring at all, is found before anything is written beside what the right ring reads.
"""

from typing import Any

from ..codec import Codec, KeyRing, seal, unseal
from ..engine import Batch
from ..errors import Conflict, Damaged, Undecodable

PREFIX = b"\x00key\x00"  # no namespace is blank, so no record has such a key
_CONSTANT = b"the key of this store"
_MOST = 1000


async def key_rows(engine: Any) -> dict[str, bytes]:
    """The ids of the keys that a database was written under, with what is kept of each."""
    rows = await engine.scan(0, PREFIX, PREFIX + b"\xff", limit=_MOST)
    return {row.key[len(PREFIX) :].decode(): row.value for row in rows}


async def fitting_codec(engine: Any, codec: Codec, *, writable: bool) -> Codec:
    """The codec for a database: one that writes no value where there is no ring, or one with another key, for it."""
    rows = await key_rows(engine)
    ring = codec.key_ring
    if ring is None:
        if not rows:
            return codec
        return codec.locked(f"this store is encrypted with the key {max(rows)!r}; open it with its key_ring to write")
    wrong = _wrong(ring, rows)
    if not wrong and ring.current not in rows and writable:
        at = PREFIX + ring.current.encode()
        try:
            await engine.commit(0, Batch({at: 0}, {at: seal(at, codec.protect(at, _CONSTANT))}))
        except Conflict:  # somebody opened it at the same moment, perhaps with another key
            wrong = _wrong(ring, await key_rows(engine))
    if not wrong:
        return codec
    return codec.locked(
        f"the key {wrong!r} of this ring is another key than the one of that id that this store was written with; "
        "open it with its own key_ring to write"
    )


def _wrong(ring: KeyRing, rows: dict[str, bytes]) -> str | None:
    """The id of a key that is another than the one the database was written with."""
    codec = Codec(key_ring=ring)
    for name, value in rows.items():
        at = PREFIX + name.encode()
        try:
            if codec.reveal(at, unseal(at, value)) != _CONSTANT:
                return name
        except Undecodable:  # an old key, which this ring no longer has
            continue
        except Damaged:
            return name
    return None


async def copy_key_rows(source: Any, target: Any) -> None:
    """Take over which keys the values were written under."""
    present = await key_rows(target)
    missing = {PREFIX + name.encode(): value for name, value in (await key_rows(source)).items() if name not in present}
    if missing:
        await target.commit(0, Batch(write=missing))
