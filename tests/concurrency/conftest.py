"""Where several processes meet: a file, and a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import stateroom


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The url of a fresh database that processes share."""
    if kind == "sqlite":
        url = str(folder / "store.db")
        stateroom.open(url).close()
        yield url
        return
    pytest.importorskip("psycopg")
    from stateroom.testing.postgres import fresh_schema

    with fresh_schema() as url:
        stateroom.open(url, parts=3).close()
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, tmp_path) as url:
        yield url
