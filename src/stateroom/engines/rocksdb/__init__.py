"""An embedded engine for one process that writes much: a log-structured merge tree, RocksDB by way of rocksdict.

One process has the folder; others read it as secondaries (``read_only=True``), at most a second behind. When to take it
is told in ``docs/operate/engines.md``. In dependency order: `failures`, `reading` (how rows are kept), `place` (the
folder), `logs`, `opening`, `group` (batches as one write), `writer` (who commits), `engine`, `secondary`.
"""

from typing import TYPE_CHECKING

from ...errors import InvalidArgument

if TYPE_CHECKING:
    from .engine import RocksEngine
    from .secondary import RocksReader

__all__ = ["connect"]


def connect(
    url: str, *, durability: str = "full", create: bool = True, parts: int | None = None, read_only: bool = False
) -> "RocksEngine | RocksReader":
    """Open, or make, the database in the folder of ``rocksdb:///relative`` or ``rocksdb:////absolute``.

    ``?cache=256`` gives RocksDB that many MiB for blocks it has read (default 64), ``&buffer=64`` for changes before
    they become a file (default 32; three at most). `durability` is ``"full"`` (a returned commit survives power loss)
    or ``"normal"`` (it survives the death of the process). `parts` is how many parts a new database gets, default 1.

    With `read_only` nothing is made or changed, and what is read is at most a second old.

    Raises `InvalidArgument`, `NotFound`, `InUse` (another process writes there; its pid), `UnsupportedFormat`,
    `Damaged`, `Unavailable`.
    """
    if durability not in ("full", "normal"):
        raise InvalidArgument(f"durability is {durability!r}; full or normal", what="durability", value=durability)
    try:
        import rocksdict  # noqa: F401
    except ImportError as error:
        raise InvalidArgument(
            "a rocksdb: url needs rocksdict; pip install 'stateroom[rocksdb]'", what="url", value="rocksdb"
        ) from error
    from .engine import RocksEngine
    from .opening import open_primary, refuse_after_fork
    from .place import Folder, parse
    from .secondary import RocksReader

    path, settings = parse(url)
    folder = Folder(path)
    refuse_after_fork(path)
    if read_only:
        number = int(folder.read_card()["parts"])
        if parts is not None and parts != number:
            raise InvalidArgument(
                f"{path} has {number} parts, not {parts}; leave `parts` out", what="parts", value=parts
            )
        return RocksReader(folder, settings, number)
    number, make, unsynced = folder.prepare(create=create, parts=parts)
    db = open_primary(folder, settings, make=make, unsynced=unsynced)
    try:
        folder.opened(number, durability)
    except BaseException:
        db.close()
        raise
    return RocksEngine(folder, db, number, durability=durability, settings=settings)
