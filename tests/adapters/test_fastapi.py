"""`lifespan`: a store for the time that an application runs."""

import asyncio
from contextlib import asynccontextmanager
from typing import Annotated

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi import Depends, FastAPI, Request
from fastapi.testclient import TestClient

import stateroom
from stateroom import AsyncStore
from stateroom.adapters.fastapi import get_store, lifespan
from stateroom.errors import Closed, InvalidArgument

Open = Annotated[AsyncStore, Depends(get_store)]


def application(store, **options):
    app = FastAPI(lifespan=lifespan(store, **options))

    @app.put("/{id}")
    async def put(id: str, request: Request):
        return await request.state.store.results.put("web", id, {"n": 1})

    @app.get("/{id}")
    async def get(id: str, store: Open):
        return await store.results.get("web", id)

    return app


def test_a_url_is_open_while_the_application_runs(url):
    app = application(url)
    with TestClient(app) as client:
        assert client.put("/a").json()["id"] == "a"
        assert client.get("/a").json() == {"n": 1}
        opened = app.state.store
    assert not hasattr(app.state, "store")
    with pytest.raises(Closed):
        asyncio.run(opened.results.get("web", "a"))
    with stateroom.open(url) as store:
        assert store.results.get("web", "a") == {"n": 1}


def test_a_store_stays_open_and_an_own_lifespan_runs_inside(store):
    order = []

    @asynccontextmanager
    async def inner(app):
        order.append(app.state.store is not None)
        yield {"mine": 1}
        order.append(app.state.store is not None)

    for given in (store, AsyncStore.over(store)):
        app = application(given, inner=inner)

        @app.get("/mine/state")
        async def mine(request: Request):
            return request.state.mine

        with TestClient(app) as client:
            client.put("/a")
            assert client.get("/mine/state").json() == 1
    assert order == [True] * 4
    assert store.results.get("web", "a") == {"n": 1}


def test_what_is_no_store_and_an_application_without_one_are_refused():
    with pytest.raises(InvalidArgument, match="url"):
        lifespan(7)
    app = FastAPI()

    @app.get("/")
    async def get(store: Open):
        return 1

    with TestClient(app) as client, pytest.raises(InvalidArgument, match="lifespan"):
        client.get("/")
