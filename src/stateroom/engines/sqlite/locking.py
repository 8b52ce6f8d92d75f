"""A lock on the folder of a database, for the moment in which one is opened."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from ...errors import InvalidArgument, Unavailable

try:
    import fcntl as _fcntl

    fcntl: Any = _fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt as _msvcrt

    msvcrt: Any = _msvcrt
except ImportError:
    msvcrt = None

__all__ = ["alone", "flush_folder"]

_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}


@contextlib.contextmanager
def alone(path: str, patience: float) -> Iterator[None]:
    """Be the only one of all processes that opens a database in the folder of `path`.

    The switch to a write-ahead log can fail as busy without asking the busy handler, so first opens take turns.
    The folder itself is locked, so that no lock file is left behind; where that cannot be done, a file beside `path`.
    """
    if fcntl is not None:
        name, flags, lock = os.path.dirname(path), os.O_RDONLY, _flock
    elif msvcrt is not None:
        name, flags, lock = f"{path}.lock", os.O_RDWR | os.O_CREAT, _locking
    else:
        raise InvalidArgument(
            f"cannot open {path}: this Python has neither fcntl nor msvcrt, without which two processes could make one"
            " file at once; use PostgreSQL, or 'memory:'",
            what="url",
            value=path,
        )
    try:
        handle = os.open(name, flags)
    except OSError as error:
        raise _refused(path, f"its folder cannot be read: {error.strerror}") from error
    try:
        _wait(lambda: lock(handle), path, patience)
        yield
    finally:
        os.close(handle)


def flush_folder(folder: str) -> None:
    """Make names in a folder durable; where a folder cannot be opened, the file system does so by itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flock(handle: int) -> None:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _locking(handle: int) -> None:
    os.lseek(handle, 0, os.SEEK_SET)
    msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)


def _wait(lock: Callable[[], None], path: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            lock()
        except OSError as error:
            if error.errno not in _TAKEN:
                raise _refused(path, f"its folder cannot be locked: {error.strerror}") from error
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"another process has been opening a database in {os.path.dirname(path)} for too long"
                ) from error
            time.sleep(0.002)
        else:
            return


def _refused(path: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"cannot open {path}: {why}", what="url", value=path)
