"""First open of a file: made, checked and, where it is not ours, refused, under a lock on its folder."""

import contextlib
import os
import threading
import time
from urllib.parse import quote

import apsw
import apsw.sqlite_extra

from ...errors import Damaged, InvalidArgument, NotFound, StoreError, UnsupportedFormat
from .failures import mapped
from .location import Mounts, refuse_network
from .locking import alone, flush_folder
from .place import APPLICATION_ID, IDENTITY, Place, check_log, draw

__all__ = [
    "APPLICATION_ID",
    "FORMAT",
    "check_library",
    "connection",
    "gate",
    "inspect",
    "opening_error",
    "prepare",
    "reading_connection",
]

_FORMER_ID = 0x48464454
"""Of files made under the project's former name."""

FORMAT = 1
"""Rises when an older version could not read the file any more."""

_OLDEST = (3, 51, 3)
"""SQLite before this may lose committed transactions when two connections checkpoint a log at once."""

_SCHEMA = """
CREATE TABLE rows (
    part INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL, UNIQUE (part, key)
) STRICT;
CREATE TABLE parts (part INTEGER PRIMARY KEY, version INTEGER NOT NULL) STRICT;
"""

_OPEN = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE

gate = threading.RLock()
"""Held while a connection is opened or a folder locked: a fork waits for it, so that no child inherits a half."""


def check_library(version: str) -> None:
    """Raise `InvalidArgument` when this SQLite is known to lose commits."""
    if tuple(int(n) for n in version.split(".")) < _OLDEST:
        raise InvalidArgument(
            f"SQLite {version} can lose commits (fixed in {'.'.join(map(str, _OLDEST))}); install a newer apsw",
            what="apsw",
            value=version,
        )


def prepare(
    path: str,
    *,
    create: bool,
    parts: int | None,
    patience: float,
    vfs: str,
    mounts: Mounts,
    verify: bool = True,
    place: Place | None = None,
) -> int:
    """Check the file at `path`, or make it with `parts` parts (default 1); gives the number of its parts.

    `place` is to remember the file, so that another one in its place is noticed.
    """
    check_library(apsw.sqlite_lib_version())
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        raise _refused(path, "it is a folder; name a file in it")
    if not create and not _content(path):
        raise NotFound(f"there is no database at {path}; create=True makes one", kind="database", id=path)
    if not os.path.isdir(folder):
        raise _refused(path, f"there is no folder {folder}; make it first")
    refuse_network(path, mounts)
    with gate, alone(path, patience):
        try:
            stored_parts = _inspect(path, create, parts, patience, vfs, verify, place)
            if stored_parts is None:
                _create(path)
                _make(path, 1 if parts is None else parts, patience, vfs)
                flush_folder(folder)
                stored_parts = _inspect(path, create, parts, patience, vfs, verify, place)
        except apsw.Error as error:
            raise opening_error(error, path) from error
    if stored_parts is None:
        raise Damaged(f"{path} was emptied while it was being opened; open it again", kind="database", id=path)
    if parts is not None and parts != stored_parts:
        raise InvalidArgument(
            f"{path} was made with {stored_parts} parts, not {parts}; leave `parts` out", what="parts", value=parts
        )
    return stored_parts


def reading_connection(path: str, *, still: bool, verify: bool) -> apsw.Connection:
    """A connection that changes nothing; `still`: nobody writes, so neither a log nor locks are looked at or made."""
    uri = f"file:{quote(path)}?mode=ro{'&immutable=1' if still else ''}"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with gate:
        opened = apsw.Connection(uri, flags=flags, vfs=_checksums() or None)
        opened.set_busy_handler(_BusyHandler(1.0))
        if not verify:
            opened.pragma("checksum_verification", "OFF")
        return opened


def connection(
    path: str, patience: float, vfs: str, *, verify: bool = True, synchronous: str = "FULL"
) -> apsw.Connection:
    """A connection that waits up to `patience` seconds for other processes and leaves checkpoints to us."""
    with gate:
        opened = apsw.Connection(path, flags=_OPEN, vfs=vfs or _checksums() or None)
        opened.set_busy_handler(_BusyHandler(patience))
        opened.wal_autocheckpoint(0)
        if not verify:
            opened.pragma("checksum_verification", "OFF")
        opened.execute(f"PRAGMA synchronous = {synchronous}; PRAGMA journal_size_limit = 67108864").get  # noqa: B018
        return opened


def _inspect(
    path: str, create: bool, parts: int | None, patience: float, vfs: str, verify: bool, place: Place | None
) -> int | None:
    """How many parts the file has; None when it has nothing in it yet."""
    if parts is not None and not 1 <= parts <= 65536:
        raise InvalidArgument(f"parts is {parts}; 1 to 65536", what="parts", value=parts)
    if not _content(path):
        return None
    with contextlib.closing(connection(path, patience, vfs, verify=verify)) as opened:
        # The log beside the file may be another's: nothing of it is copied into the file before that is known.
        opened.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        if not _is_ours(opened, path, vfs):
            if create:
                return None
            raise NotFound(f"{path} is an empty database; create=True fills it", kind="database", id=path)
        if opened.readonly("main"):
            raise _refused(
                path, "this user may not write it; grant write permission on the file and its folder", outside=True
            )
        if opened.pragma("journal_mode") != "wal":
            opened.pragma("journal_mode", "wal")
        check_log(opened, path)
        opened.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        _check_length(opened, path)
        if place is not None:
            place.check(opened)
        return _count_parts(opened, path)


def inspect(opened: apsw.Connection, path: str, vfs: str = "") -> int:
    """How many parts a file has that is only read. Raises as `prepare` does, and `NotFound` where it is empty."""
    if not _is_ours(opened, path, vfs):
        raise NotFound(f"{path} is an empty database", kind="database", id=path)
    check_log(opened, path)
    return _count_parts(opened, path)


def _is_ours(opened: apsw.Connection, path: str, vfs: str) -> bool:
    """Say whether there is a database of ours; False for an empty one. Raises where it cannot be read, or is
    another's.
    """
    owner, number = opened.pragma("application_id"), opened.pragma("user_version")
    if owner == 0 and number == 0 and not opened.execute("SELECT count(*) FROM sqlite_schema").get:
        return False
    if owner == _FORMER_ID:
        raise UnsupportedFormat(
            f"{path} was made before the project had its present name, and cannot be read by this version",
            found=0,
            supported=FORMAT,
        )
    if owner != APPLICATION_ID:
        raise _refused(path, "it is a database of another program; name another file")
    if number > FORMAT:
        raise UnsupportedFormat(
            f"{path} has format {number}, this version reads up to {FORMAT}; use a newer version of Stateroom",
            found=number,
            supported=FORMAT,
        )
    if opened.reserve_bytes("main") and not (vfs or _checksums()):
        raise _refused(
            path, "its pages carry checksums, which this build of apsw cannot keep; install apsw's wheel", outside=True
        )
    return True


def _count_parts(opened: apsw.Connection, path: str) -> int:
    number = opened.execute("SELECT count(*) FROM parts WHERE part >= 0").get
    if not isinstance(number, int) or not number:
        raise Damaged(f"{path} has lost the rows of its parts; restore a backup", kind="database", id=path)
    return number


def _check_length(opened: apsw.Connection, path: str) -> None:
    """Raise `Damaged` for a file that ends inside a page: SQLite reads zeros there, and its checksum is not looked at.

    A checkpoint that power loss has interrupted may leave one too, but then the log has that page whole.
    """
    page = opened.pragma("page_size")
    if os.stat(path).st_size % page:
        opened.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if os.stat(path).st_size % page:
            raise Damaged(f"{path} ends inside a page: it was cut; restore a backup", kind="database", id=path)


def _make(path: str, parts: int, patience: float, vfs: str) -> None:
    with contextlib.closing(connection(path, patience, vfs)) as opened:
        if vfs or _checksums():
            opened.reserve_bytes("main", 8)
        opened.execute("PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL").get  # noqa: B018
        opened.pragma("journal_mode", "wal")
        with opened:
            opened.execute(_SCHEMA).get  # noqa: B018
            versions = [(IDENTITY, draw()), *((part, 0) for part in range(parts))]
            opened.executemany("INSERT INTO parts VALUES (?, ?)", versions)
            opened.pragma("application_id", APPLICATION_ID)
            opened.pragma("user_version", FORMAT)


def _create(path: str) -> None:
    """Make an empty file that this user alone may read: SQLite leaves that to the umask. One that is there stays."""
    with contextlib.suppress(FileExistsError):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except PermissionError as error:
            raise _refused(path, f"this user may not write its folder: {error.strerror}") from error


def _content(path: str) -> bool:
    """Say whether there is a file with something in it. Never opens it: closing a handle would drop SQLite's own
    locks.
    """
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _refused(path, f"{error.strerror}") from error
    if size == 1:  # SQLite takes a file of one byte for an empty one, and would write over it
        raise _refused(path, "it is not a database; name another file")
    return size > 0


class _BusyHandler:
    """Tries again after 0.2 to 2 ms; SQLite's own pauses of up to 100 ms starve a waiter under load."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._deadline = 0.0

    def __call__(self, tries: int, /) -> bool:
        now = time.monotonic()
        if tries == 0:
            self._deadline = now + self._patience
        time.sleep(0.0002 * (1 + (tries * 7) % 10))
        return now < self._deadline


_vfs: str | None = None


def _checksums() -> str:
    """The name of the VFS that keeps a checksum in every page, "" where this build of apsw has none."""
    global _vfs
    if _vfs is None:
        try:
            usual = apsw.vfs_names()[0]
            with contextlib.closing(apsw.Connection(":memory:")) as loader:
                apsw.sqlite_extra.load(loader, "cksumvfs")
            apsw.set_default_vfs(usual)
            _vfs = "cksmvfs"
        except (apsw.sqlite_extra.NotAvailable, LookupError, apsw.ExtensionLoadingError, AttributeError):
            _vfs = ""
    return _vfs


def opening_error(error: apsw.Error, path: str) -> StoreError:
    match error:
        case apsw.NotADBError():
            return _refused(path, "it is not a database; name another file")
        case apsw.CantOpenError() | apsw.ReadOnlyError() | apsw.PermissionsError():
            return _refused(path, f"this user may not read and write it and its folder ({error})")
        case _:
            return mapped(error, path)


def _refused(path: str, why: str, **fields: bool) -> InvalidArgument:
    return InvalidArgument(f"cannot open {path}: {why}", what="url", value=path, **fields)
