"""RocksDB's errors in our own words: the one place where they are mapped.

rocksdict raises a plain `Exception` whose text begins with the status ("IO error: ...", "Corruption: ...").
"""

from ...errors import Closed, Damaged, OutcomeUnknown, StoreError, Unavailable

__all__ = ["closed", "is_rocksdb", "mapped", "write_failed"]

_AWAY = ("Already borrowed", "Already mutably borrowed")
"""What rocksdict says of a database that another thread is closing."""


def closed(path: str) -> Closed:
    return Closed(f"{path} is closed; open the store again")


def is_rocksdb(error: Exception) -> bool:
    """Whether an exception is one of rocksdict's: they have no class of their own."""
    return type(error) is Exception or type(error).__name__ == "DbClosedError" or str(error) in _AWAY


def mapped(error: Exception, path: str) -> StoreError:
    """What `error` is called here; the caller chains it (``raise mapped(error, path) from error``)."""
    text = str(error)
    if type(error).__name__ == "DbClosedError" or text in _AWAY:
        return Closed(f"{path} was closed meanwhile; open the store again")
    if text.startswith("Corruption"):
        return Damaged(f"{path} is damaged ({text}); restore a backup, or look at it with `stateroom doctor`")
    if "No space left" in text:
        return Unavailable(
            f"the disk of {path} is full; nothing was written; free some space, then open the store again"
        )
    if "Permission denied" in text:
        return Unavailable(f"{path} cannot be used by this user ({text}); nothing was written")
    return Unavailable(f"the disk of {path} failed ({text}); nothing was written; look at the disk, then open it again")


def write_failed(error: Exception, path: str) -> StoreError:
    """What becomes of the batches of a write that failed.

    A record that could not be appended in full is cut off when the log is read. After anything else, as a failed
    flush, it may be there or not.
    """
    text = str(error)
    if "While appending" in text or type(error).__name__ == "DbClosedError" or not text.startswith("IO error"):
        return mapped(error, path)
    return OutcomeUnknown(
        f"the flush of {path} failed ({text}): the commit may be there or not; open the store again and look"
    )
