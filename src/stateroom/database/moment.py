"""A database as of one moment, where its engine can show it so while others go on committing."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ..core.bridge import Inline, Remote, Threaded
from ..core.namespace import Scope
from ..engine import BackingUp, Snapshotting
from ..engines import sqlite


@asynccontextmanager
async def one_moment(scope: Scope, *, copying: bool = False) -> AsyncIterator[Scope]:
    """The same namespace for reading only, as of now; the namespace itself where its engine has no snapshots.

    `copying`: a file is copied into the folder for temporary files, which needs as much room there.
    """
    if isinstance(scope.direct, Snapshotting):
        with scope.direct.snapshot() as still:
            yield _over(scope, Inline(still), still)
    elif isinstance(scope.engine, Snapshotting):
        async with scope.engine.snapshot() as still:
            yield _over(scope, still, None)
    elif isinstance(scope.engine, Remote) and isinstance(scope.engine.engine, Snapshotting):
        snapshot = scope.engine.engine.snapshot()  # of a blocking engine, whose every call leaves the event loop
        still = await asyncio.to_thread(snapshot.__enter__)
        try:
            yield _over(scope, Remote(still), None)
        finally:
            await asyncio.to_thread(snapshot.__exit__, None, None, None)
    elif copying and isinstance(scope.direct, BackingUp):
        with tempfile.TemporaryDirectory(prefix="stateroom-") as folder:
            path = os.path.join(folder, "moment.db")
            hot = scope.direct
            if scope.suspends:
                await asyncio.to_thread(hot.backup, path)
            else:
                hot.backup(path)
            still = sqlite.connect(path, durability="normal")
            try:
                yield _over(scope, Threaded(still) if scope.suspends else Inline(still), still)
            finally:
                still.close()
    else:
        yield scope


def _over(scope: Scope, engine: Any, direct: Any) -> Scope:
    still = Scope(engine, direct, scope.namespace, scope.codec, scope.clock)
    still.suspends = scope.suspends
    return still
