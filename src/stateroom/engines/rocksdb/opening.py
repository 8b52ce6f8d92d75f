"""Opening RocksDB: its options, its lock, and what its log is like."""

import ctypes
import logging
import os

import rocksdict

from ...errors import Damaged, InUse, NotFound, StoreError, Unavailable
from .failures import mapped
from .logs import is_torn_tail
from .place import Folder, Settings
from .reading import FIRST, LAST

__all__ = ["keep_for_ever", "open_primary", "open_secondary", "open_still", "refuse_after_fork"]

_log = logging.getLogger("stateroom.rocksdb")

_MIB = 1 << 20
_OPEN_FILES = 512
_LOG_BYTES = 128 * _MIB
"""Log that is kept at most: what an opening after a crash reads."""


_used = False
_forked_from = 0


def refuse_after_fork(path: str) -> None:
    """Raise `Unavailable` in a process that was forked off one that used RocksDB; else note that this one does.

    RocksDB's threads are one set for the whole process. A child has none of them and does not know it: what it opens
    may hang, or end it at its exit.
    """
    global _used
    if _forked_from:
        raise Unavailable(
            f"cannot open {path}: this process was forked off process {_forked_from}, which had used RocksDB, whose"
            " threads no child inherits; start workers with spawn or forkserver, or fork before the first open"
        )
    _used = True


def _after_fork() -> None:
    global _forked_from
    if _used and not _forked_from:
        _forked_from = os.getppid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def options(settings: Settings, *, make: bool = False, tolerant: bool = False) -> rocksdict.Options:
    """RocksDB's options. Logs are not used again: in one that is, damage cannot be told from an old record."""
    chosen = rocksdict.Options(raw_mode=True)
    chosen.create_if_missing(make)
    table = rocksdict.BlockBasedOptions()
    table.set_block_cache(rocksdict.Cache(settings.cache * _MIB))
    table.set_bloom_filter(10, False)
    table.set_cache_index_and_filter_blocks(True)
    chosen.set_block_based_table_factory(table)
    chosen.set_write_buffer_size(settings.buffer * _MIB)
    chosen.set_max_write_buffer_number(3)
    chosen.set_max_total_wal_size(_LOG_BYTES)
    chosen.set_max_open_files(_OPEN_FILES)
    chosen.set_max_background_jobs(2)
    chosen.set_compression_type(rocksdict.DBCompressionType.lz4())
    chosen.set_level_compaction_dynamic_level_bytes(True)
    chosen.set_bytes_per_sync(_MIB)
    chosen.set_recycle_log_file_num(0)
    chosen.set_paranoid_checks(True)
    chosen.set_keep_log_file_num(3)
    chosen.set_max_log_file_size(_MIB)
    chosen.set_stats_dump_period_sec(0)
    chosen.set_stats_persist_period_sec(0)
    mode = rocksdict.DBRecoveryMode
    chosen.set_wal_recovery_mode(mode.point_in_time() if tolerant else mode.absolute_consistency())
    return chosen


def open_primary(folder: Folder, settings: Settings, *, make: bool, unsynced: bool) -> rocksdict.Rdict:
    """Open for writing. Raises `InUse`, `Damaged`, `Unavailable`.

    `unsynced`: the log was written without flushes, so its end may be missing anywhere after power loss.
    """
    if not make and not os.path.exists(os.path.join(folder.data, "CURRENT")):
        raise Damaged(f"{folder.path} has lost its files; restore a backup", kind="database", id=folder.path)
    try:
        db = _open(folder, options(settings, make=make))
    except Damaged as damage:
        if not (unsynced or _is_torn(folder)):
            raise
        _log.warning("%s: the last write was torn by a crash, and is left out (%s)", folder.path, damage.__cause__)
        db = _open(folder, options(settings, tolerant=True))
    if make and db.get(LAST) is None:
        written = rocksdict.WriteOptions()
        written.sync = True
        for key in (FIRST, LAST):
            db.put(key, b"", written)
    elif db.get(FIRST) is None or db.get(LAST) is None:
        db.close()
        raise Damaged(f"{folder.path} has lost rows of its own; restore a backup", kind="database", id=folder.path)
    return db


def open_still(path: str, settings: Settings) -> rocksdict.Rdict:
    """Open files that nobody writes, for reading alone."""
    return rocksdict.Rdict(path, options(settings), access_type=rocksdict.AccessType.read_only(False))


def open_secondary(folder: Folder, settings: Settings, notes: str) -> rocksdict.Rdict:
    """Open for reading beside the process that writes; RocksDB's own notes go to the folder `notes`."""
    chosen = options(settings, tolerant=True)
    chosen.set_max_open_files(-1)  # files that the writer has removed stay readable
    if not os.path.exists(os.path.join(folder.data, "CURRENT")):
        raise NotFound(f"there is no database at {folder.path}", kind="database", id=folder.path)
    try:
        return rocksdict.Rdict(folder.data, chosen, access_type=rocksdict.AccessType.secondary(notes))
    except Exception as error:
        raise mapped(error, folder.path) from error


def keep_for_ever(db: rocksdict.Rdict) -> None:
    """Let a database that a process has inherited never be closed: that would write, and wait for threads."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))


def _open(folder: Folder, chosen: rocksdict.Options) -> rocksdict.Rdict:
    try:
        return rocksdict.Rdict(folder.data, chosen)
    except Exception as error:
        text = str(error)
        if "lock hold by current process" in text or "While lock file" in text:
            raise in_use(folder) from error
        raise mapped(error, folder.path) from error


def in_use(folder: Folder) -> StoreError:
    """Say who has the folder open for writing."""
    pid = folder.writer()
    who = "this process" if pid == os.getpid() else f"process {pid}" if pid else "another process"
    return InUse(
        f"{folder.path} is open in {who}, and one writes at a time; share that store, close it, or open this one with"
        " read_only=True",
        pid=pid,
        path=folder.path,
    )


def _is_torn(folder: Folder) -> bool:
    try:
        return is_torn_tail(folder.data)
    except OSError:
        return False
