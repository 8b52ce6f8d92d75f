"""A store for each engine, checked when the test ends; adapters are given it, or its url."""

import contextlib
import uuid

import pytest

import stateroom

ENGINES = ("memory", "sqlite", "postgresql")


@pytest.fixture(scope="session")
def server():
    pytest.importorskip("psycopg")
    from stateroom.testing.postgres import fresh_schema

    with fresh_schema("18") as url:
        stateroom.open(url, parts=3).close()
        yield url


@contextlib.contextmanager
def opened(engine, request):
    """A store in a namespace of its own, checked at the end."""
    options = {}
    if engine == "postgresql":
        url, options = request.getfixturevalue("server"), {"namespace": uuid.uuid4().hex}
    else:
        url = "memory:" if engine == "memory" else str(request.getfixturevalue("tmp_path") / "store.db")
    with stateroom.open(url, **options) as store:
        yield store
        assert store.check() == []


@pytest.fixture(params=ENGINES)
def store(request):
    """An open store."""
    with opened(request.param, request) as store:
        yield store


@pytest.fixture
def saver(store):
    """A checkpointer on it."""
    from stateroom.adapters.langgraph import StateroomSaver

    return StateroomSaver(store)


@pytest.fixture(params=ENGINES[1:])
def url(request, tmp_path):
    """The url of a database that outlives the stores on it."""
    if request.param == "sqlite":
        yield str(tmp_path / "store.db")
        return
    from stateroom.testing.postgres import fresh_schema

    pytest.importorskip("psycopg")
    with fresh_schema("18") as fresh:
        stateroom.open(fresh, parts=3).close()
        yield fresh
