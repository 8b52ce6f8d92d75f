"""Whole databases: copy and restore."""

import os
from typing import Any

from ..codec import Codec
from ..core.bridge import run_now
from ..core.namespace import Scope
from ..database.backup import check_path
from ..database.copying import Copied, copy_database
from ..database.moment import one_moment
from ..engines import urls
from ..errors import InvalidArgument, NotFound
from .opening import open
from .store import Store


def copy(
    source_url: "str | os.PathLike[str]",
    target_url: "str | os.PathLike[str]",
    *,
    verify: bool = True,
    codec: Codec | None = None,
    key_ring: Any = None,
    parts: int | None = None,
) -> Copied:
    """Move everything from one database into a new or empty one, on whatever engines; both are left as they are.

    Records, histories, events, leases and checkpoints come along; a consumer may see changes again and misses none.
    `verify` compares digests of both sides afterwards. The source is copied as of one moment, so writers may go on (on
    Citus each part as of its own moment; engines of others without snapshots must rest). A copy that fails, or was
    interrupted before, leaves nothing in the target. Raises `NotFound`, `AlreadyExists` (the target holds something),
    `Conflict` (the source changed), `Damaged`.
    """
    if urls.resolve(source_url) == urls.resolve(target_url):
        raise InvalidArgument("source and target are the same", what="target_url", value=str(target_url))
    with (
        open(source_url, create=False, codec=codec, key_ring=key_ring) as source,
        open(target_url, codec=codec, key_ring=key_ring, parts=parts) as target,
    ):
        return copy_stores(source, target, verify=verify)


def copy_stores(source: Store, target: Store, *, verify: bool = True) -> Copied:
    """Copy between two open stores; see `copy`."""
    return run_now(_copy(source._scope, target._scope, verify))


async def _copy(source: Scope, target: Scope, verify: bool) -> Copied:
    async with one_moment(source, copying=True) as still:
        return await copy_database(still, target, verify=verify)


def restore(
    path: "str | os.PathLike[str]",
    url: "str | os.PathLike[str]",
    *,
    codec: Codec | None = None,
    key_ring: Any = None,
) -> Copied:
    """Bring a backup into a new or empty database; an encrypted one needs its `key_ring`.

    Raises `NotFound`, `AlreadyExists`, `Damaged`.
    """
    check_path(path)
    if not os.path.exists(path):
        raise NotFound(f"no backup at {os.fspath(path)}", kind="backup", id=os.fspath(path))
    return copy(path, url, codec=codec, key_ring=key_ring)
