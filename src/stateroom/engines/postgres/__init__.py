"""An engine in two PostgreSQL tables: one server, a replicated one, one behind a transaction pooler, or Citus.

Needs ``pip install stateroom[postgres]``; psycopg is imported nowhere else.
"""

from typing import NoReturn

from stateroom.engine import AsyncEngine, Engine
from stateroom.errors import InvalidArgument

__all__ = ["connect", "connect_async", "distribute"]


def connect(url: str, *, durability: str = "full", create: bool = True, parts: int | None = None) -> Engine:
    """The engine behind ``postgresql://...``; makes its tables at first use unless `create` is False.

    `parts` (default 16) is fixed when the tables are made. Durability "normal" lets the server flush after it has
    acknowledged. Raises `NotFound`, `Unavailable`, `UnsupportedFormat` or `InvalidArgument`.
    """
    try:
        from .engine import open_engine
    except ImportError as error:
        _missing(error)
    return open_engine(url, durability=durability, create=create, parts=parts)


async def connect_async(
    url: str, *, durability: str = "full", create: bool = True, parts: int | None = None
) -> AsyncEngine:
    """The same for event loops: the engine may be used in any of them and closed in any."""
    try:
        from .engine import open_async
    except ImportError as error:
        _missing(error)
    return await open_async(url, durability=durability, create=create, parts=parts)


def distribute(url: str) -> None:
    """Spread the tables of an existing store over the workers of a Citus cluster, by part.

    Safe while others write, and to repeat: it does what is missing, which after an upgrade of Citus or of this package
    may be the function that commits there. The url must reach the coordinator.
    """
    try:
        from .citus import distribute as spread
    except ImportError as error:
        _missing(error)
    spread(url)


def _missing(error: ImportError) -> NoReturn:
    if (error.name or "psycopg").partition(".")[0] not in ("psycopg", "psycopg_binary", "psycopg_c"):
        raise error
    raise InvalidArgument(
        f"PostgreSQL needs the driver psycopg: pip install 'stateroom[postgres]' ({error})", what="url"
    ) from error
