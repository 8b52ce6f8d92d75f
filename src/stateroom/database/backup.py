"""A consistent copy of a whole database in one SQLite file, made while others go on."""

import asyncio
import contextlib
import os
import tempfile

from ..core.bridge import Inline
from ..core.namespace import Scope
from ..engine import BackingUp
from ..engines import sqlite
from ..errors import InvalidArgument
from ..feed import positions
from .copying import copy_database


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
    folder, name = os.path.split(where)
    try:  # under a name that nobody else has, for this user alone
        handle, partial = tempfile.mkstemp(prefix=f".{name[:100]}.", suffix=".partial", dir=folder)
        os.close(handle)
    except OSError as error:
        raise InvalidArgument(f"{where} cannot be written: {error.strerror}", what="path", value=where) from error
    try:
        engine = sqlite.connect(partial)
        try:
            target = Scope(Inline(engine), engine, scope.namespace, scope.codec, scope.clock)
            await copy_database(scope, target, verify=True)
        finally:
            engine.close()
        os.replace(partial, where)
    finally:
        _forget(partial)


def _forget(path: str) -> None:
    for suffix in ("", "-wal", "-shm", ".lock"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)
