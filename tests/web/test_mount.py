"""The app inside other apps, under a path of theirs."""

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

import stateroom
from stateroom import Execution, Instance, web

from .test_api import Client


@pytest.fixture
def mounted_store(tmp_path):
    with stateroom.open(tmp_path / "mounted.db") as store:
        store.instances.put(Instance("a/b", "w", status="running"))
        store.executions.create(Execution("run/x", "job"))
        yield store


def in_fastapi(store, prefix):
    api = FastAPI()
    api.mount("/ops/state", web.app(store, prefix=prefix))
    return api


def in_starlette(store, prefix):
    return Starlette(routes=[Mount("/ops", routes=[Mount("/state", app=web.app(store, prefix=prefix))])])


@pytest.mark.parametrize("prefix", ["", "/ops/state"])
@pytest.mark.parametrize("mount", [in_fastapi, in_starlette])
def test_it_answers_under_a_path(mount, prefix, mounted_store):
    get = Client(mount(mounted_store, prefix))
    assert [item["id"] for item in get("/ops/state/api/v1/instances").json()["items"]] == ["a/b"]
    assert get("/ops/state/api/v1/instances/a%2Fb").json()["id"] == "a/b"
    assert get("/ops/state/api/v1/executions/run/x/events").json()["items"] == []
    assert get("/ops/state/api/v1/feed").json()["items"][0]["id"] == "a/b"
    assert get("/ops/state/openapi.json").json()["servers"] == [{"url": "/ops/state"}]
    assert get("/ops/state/healthz").status_code == 200
    assert get("/api/v1/instances").status_code == 404


def test_a_prefix_of_its_own(mounted_store):
    get = Client(web.app(mounted_store, prefix="/state/"))
    for base in ("/state", ""):
        assert get(f"{base}/api/v1/instances/a%2Fb").json()["id"] == "a/b"
        assert get(f"{base}/openapi.json").json()["servers"] == [{"url": "/state"}]
