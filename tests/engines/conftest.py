"""Fixtures for the tests of the PostgreSQL engine. Nothing is imported before it is asked for: the driver is optional."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def url() -> Iterator[str]:
    """A url with a schema of its own."""
    from stateroom.testing.postgres import fresh_schema

    with fresh_schema("18") as url:
        yield url


@pytest.fixture
def server(url: str) -> Iterator[Any]:
    """A plain connection of the superuser."""
    import psycopg

    with psycopg.connect(url.partition("?")[0], autocommit=True) as connection:
        yield connection


@pytest.fixture
def opened() -> Iterator[Callable[..., Any]]:
    """Opens engines and closes them at the end."""
    from stateroom.engines.postgres import connect

    engines = []

    def open_one(url: str, **options: Any) -> Any:
        engines.append(connect(url, **options))
        return engines[-1]

    yield open_one
    for each in engines:
        each.close()
