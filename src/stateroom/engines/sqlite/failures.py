"""SQLite's errors in our own words: the one place where they are mapped."""

import apsw

from ...errors import Closed, Damaged, InvalidArgument, StoreError, Unavailable

__all__ = ["BAD_CHECKSUM", "flush_failed", "mapped"]

BAD_CHECKSUM = apsw.SQLITE_IOERR_DATA
"""Extended code of a page whose checksum does not match its content."""

_DAMAGE = {BAD_CHECKSUM, apsw.SQLITE_IOERR_CORRUPTFS, apsw.SQLITE_IOERR_SHORT_READ}
_NOTHING_WRITTEN = {apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_NOMEM, *_DAMAGE}


def flush_failed(error: apsw.Error) -> bool:
    """True when COMMIT failed in a way that leaves open whether the commit is on the disk.

    A refused write is no such case: the frame that makes a transaction count is the last one written, so nothing was
    committed. After a failed flush the kernel may have dropped the pages and call the next flush a success.
    """
    return isinstance(error, apsw.IOError) and _extended(error) not in _NOTHING_WRITTEN


def _extended(error: apsw.Error) -> int:
    return int(getattr(error, "extendedresult", 0))


def mapped(error: apsw.Error, path: str) -> StoreError:
    """Return what `error` is called here; the caller chains it (``raise mapped(error, path) from error``)."""
    text = str(error)
    match error:
        case apsw.BusyError() | apsw.LockedError():
            return Unavailable(f"{path} is busy: another process held its write lock for too long; try again")
        case apsw.FullError():
            return Unavailable(f"the disk of {path} is full; nothing was written; free some space and try again")
        case apsw.CorruptError() | apsw.NotADBError():
            return Damaged(f"{path} is damaged ({text}); restore a backup, or look at it with `stateroom doctor`")
        case apsw.IOError() if _extended(error) in _DAMAGE:
            return Damaged(
                f"a page of {path} fails its checksum: changed by the disk, or by another program that had it open, if"
                f" only to look; restore a backup, or open 'sqlite:///{path}?page_checksums=ignore', which reads such"
                " pages, let `check` say whether every row is whole, and make a `backup`, whose pages are sound"
                " (docs/operate/durability.md)"
            )
        case apsw.IOError() | apsw.CantOpenError():
            return Unavailable(
                f"the disk of {path} failed ({text}); nothing was written; look at the disk, then try again"
            )
        case apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.AuthError():
            return Unavailable(f"{path} cannot be written by this user ({text}); nothing was written")
        case apsw.ConnectionClosedError() | apsw.CursorClosedError() | apsw.InterruptError():
            return Closed(f"{path} was closed meanwhile; open the store again")
        case apsw.NoMemError():
            return Unavailable(f"out of memory while using {path}; nothing was written")
        case apsw.TooBigError():
            return InvalidArgument(f"a value is too large for {path}", what="value")
        case _:
            return Damaged(f"{path} is not as it was left ({type(error).__name__}: {text}); restore a backup")
