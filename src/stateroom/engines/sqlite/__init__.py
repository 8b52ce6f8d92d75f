"""The default engine: one SQLite file, several processes, one flush for all who commit at once.

Built on apsw, whose wheel carries a current SQLite; a system's own may be one that loses commits. How it works is told
in ``docs/design/commit.md``. In dependency order: `location` and `opening` (which file, and is it ours), `connections`,
`group` (batches as one transaction), `writer` (who commits), `checkpoint`, `waiting`, `upkeep`, `fork`, `engine`.
"""

from ...errors import InvalidArgument
from .connections import Connections
from .engine import SqliteEngine
from .location import checks_pages, local_path, mounts
from .opening import prepare
from .reader import SqliteReader, open_reader

__all__ = ["SqliteEngine", "connect", "local_path"]

PATIENCE = 30.0
"""Seconds to wait for another process' write lock before `Unavailable`."""


def connect(
    url: str, *, durability: str = "full", create: bool = True, parts: int | None = None, read_only: bool = False
) -> SqliteEngine | SqliteReader:
    """Open, or make, the database at `url`: a path, ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.

    With ``?page_checksums=ignore`` pages are read whatever their checksums say: to find out what is left of a file that
    is refused as damaged. Rows have checksums of their own, so `check` and `backup` tell, and make a sound copy.

    `durability` is ``"full"`` (a returned commit survives power loss) or ``"normal"`` (it survives the death of the
    process; power loss may take the last ones). `parts` is how many parts a new database gets, default 1.

    With `read_only` nothing is made or changed, neither the file nor anything beside it, which this user may be unable
    to write; a commit raises `ReadOnly`.

    Raises `InvalidArgument` (a bad url, a folder, somebody else's file, no permission, a network file system, other
    `parts` than the file has), `NotFound` (nothing there and `create` is False), `UnsupportedFormat` (written by a
    newer version), `Damaged`, `Unavailable` (another process would not let go of it).
    """
    if durability not in ("full", "normal"):
        raise InvalidArgument(f"durability is {durability!r}; full or normal", what="durability", value=durability)
    path, verify = local_path(url), checks_pages(url)
    if read_only:
        return open_reader(path, parts=parts, verify=verify)
    connections = Connections(path, durability=durability, patience=PATIENCE, vfs="", verify=verify)
    number = prepare(
        path,
        create=create,
        parts=parts,
        patience=PATIENCE,
        vfs="",
        mounts=mounts,
        verify=verify,
        place=connections.place,
    )
    return SqliteEngine(connections, number)
