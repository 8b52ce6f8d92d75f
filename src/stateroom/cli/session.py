"""The options before the noun: which database, which namespace, which form of output."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import typer

import stateroom

from .output import Output


@dataclass(frozen=True)
class Session:
    """One run of the command."""

    url: str | None
    namespace: str
    output: Output


def session(context: typer.Context) -> Session:
    """The session of a verb's context."""
    found = context.find_object(Session)
    assert found is not None, "the callback of the command makes it"
    return found


@contextmanager
def opened(context: typer.Context) -> Iterator[tuple[stateroom.Store, Output]]:
    """The store and the output. A verb never creates a database: a mistyped path is `NotFound`."""
    here = session(context)
    with stateroom.open(here.url, namespace=here.namespace, create=False, key_ring=key_ring()) as store:
        yield store, here.output


def key_ring() -> stateroom.codec.KeyRing | None:
    """That of $STATEROOM_KEY_RING (JSON, or the path of a file); None where it is not set."""
    return stateroom.codec.KeyRing.from_env() if os.environ.get("STATEROOM_KEY_RING") else None
