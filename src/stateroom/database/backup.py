"""A consistent copy of a whole database in one SQLite file, made while others go on."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Iterator

from ..core.bridge import Inline, Threaded
from ..core.namespace import Scope
from ..engine import BackingUp
from ..engines import sqlite
from ..errors import InvalidArgument
from ..feed import positions
from .copying import copy_database
from .moment import one_moment


def check_path(path: "str | os.PathLike[str]", what: str = "path") -> str:
    """`path` if it can name a file; else `InvalidArgument`."""
    try:
        text = os.fspath(path)
        os.fsencode(text)
    except (TypeError, UnicodeEncodeError) as error:
        raise InvalidArgument(f"{what} is {path!a}; name a file", what=what, value=path) from error
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise InvalidArgument(f"{what} is {path!r}; name a file", what=what, value=path)
    return text


async def backup(scope: Scope, path: "str | os.PathLike[str]") -> None:
    """Write the database of `scope` to a new SQLite file. Raises `InvalidArgument`, `Conflict`, `Unavailable`."""
    where = os.path.abspath(check_path(path))
    if os.path.lexists(where):
        raise InvalidArgument(f"{where} exists; name a file that does not", what="path", value=where)
    if not os.path.isdir(os.path.dirname(where)):
        raise InvalidArgument(f"there is no folder for {where}; make it first", what="path", value=where)
    engine, amend = scope.direct, positions.renewed(scope.parts)
    if not isinstance(engine, BackingUp):
        await _copied(scope, where)
    elif scope.suspends:
        await asyncio.to_thread(engine.backup, where, amend)
    else:
        engine.backup(where, amend)


async def _copied(scope: Scope, where: str) -> None:
    """Copy through the public way in, into a file that has its name only when it is whole."""
    folder, name = os.path.split(where)
    with _writable(where):  # under a name that nobody else has, for this user alone
        handle, partial = tempfile.mkstemp(prefix=f".{name[:100]}.", suffix=".partial", dir=folder)
        os.close(handle)
    try:
        engine = sqlite.connect(partial)
        # On an event loop each flush of the file happens beside it.
        target = Scope(Threaded(engine) if scope.suspends else Inline(engine), engine, "-", scope.codec, scope.clock)
        target.suspends = scope.suspends
        try:
            async with one_moment(scope) as still:
                await copy_database(still, target, verify=True)
        finally:
            await target.engine.close()
        with _writable(where):
            os.replace(partial, where)
    finally:
        _forget(partial)


@contextlib.contextmanager
def _writable(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidArgument(f"{where} cannot be written: {error.strerror}", what="path", value=where) from error


def _forget(path: str) -> None:
    for suffix in ("", "-wal", "-shm", ".lock"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)
