"""The options before the noun: which database, which namespace, which form of output."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import typer

import stateroom

from ..errors import InvalidArgument
from .output import Output


@dataclass(frozen=True)
class Session:
    """One run of the command."""

    url: str | None
    namespace: str
    output: Output
    read_only: bool = False


def session(context: typer.Context) -> Session:
    """The session of a verb's context."""
    found = context.find_object(Session)
    assert found is not None, "the callback of the command makes it"
    return found


@contextmanager
def opened(context: typer.Context) -> Iterator[tuple[stateroom.Store, Output]]:
    """The store and the output. A verb never creates a database: a mistyped path is `NotFound`.

    Says at the end how many records a list had to leave out.
    """
    here = session(context)
    opening: dict[str, Any] = {"namespace": here.namespace, "create": False, "key_ring": key_ring()}
    with stateroom.open(here.url, read_only=here.read_only, **opening) as store:
        yield store, here.output
    if here.output.unopened:
        here.output.note(
            f"{here.output.unopened:,} records could not be opened and are left out; `stateroom doctor` lists them"
        )


def key_ring() -> stateroom.codec.KeyRing | None:
    """That of $STATEROOM_KEY_RING (JSON, or the path of a file); None where it is not set."""
    return stateroom.codec.KeyRing.from_env() if os.environ.get("STATEROOM_KEY_RING") else None


def paged(output: Output, query: Any, limit: int | None = None, **filters: Any) -> Iterator[Any]:
    """All records of a query, page by page; what could not be opened is counted for the end. One page where enough."""
    size = 1000 if limit is None else min(limit + 1, 1000)
    cursor = None
    while True:
        page = query(**filters, limit=size, cursor=cursor)
        output.unopened += getattr(page, "undecodable", 0)
        yield from page
        cursor = page.cursor
        if cursor is None:
            return


def load_types(modules: list[str]) -> None:
    """Import the modules that register types: those named, else those of $STATEROOM_IMPORT, separated by commas."""
    names = modules or [name.strip() for name in os.environ.get("STATEROOM_IMPORT", "").split(",") if name.strip()]
    if names and "" not in sys.path:
        sys.path.insert(0, "")  # a program's own modules, from its folder
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise InvalidArgument(
                f"cannot import {name!r}: {type(error).__name__}: {error}", what="--import", value=name
            ) from error
