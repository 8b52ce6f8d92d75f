"""Values of any size behind one small wrapper: what fits stays in the row."""

from .errors import Damaged
from .transaction import Reader, Scope, Transaction

INLINE, CHUNKED = b"\x00", b"\x01"


async def keep(tx: Transaction, root: str, bound: bytes, data: bytes, holders: int) -> bytes:
    """Store `data` so that `holders` rows can refer to it; gives the wrapper that each of them holds."""
    del root, holders
    return INLINE + tx.scope.codec.protect(bound, data)


async def fetch(reader: Reader, root: str, bound: bytes, wrapped: bytes) -> bytes:
    """What `keep` was given. Raises `Damaged`."""
    del root
    if wrapped[:1] == INLINE:
        return reader.scope.codec.reveal(bound, wrapped[1:])
    raise Damaged("a value has an unknown wrapper", key=bound)


async def drop(tx: Transaction, root: str, wrapped: bytes, holders: int = 1) -> None:
    """Give up references; what nobody refers to goes in the same batch."""
    del tx, root, wrapped, holders


async def transplant(reader: Reader, target: Scope, root: str, bound: bytes, wrapped: bytes) -> None:
    """Bring what a wrapper refers to into another database, for one more holder there."""
    del reader, target, root
    if wrapped[:1] != INLINE:
        raise Damaged("a value has an unknown wrapper", key=bound)
