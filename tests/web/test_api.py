"""The JSON API over a store on every engine."""

import asyncio
import json
import re
from pathlib import Path

import httpx
import pytest

import stateroom
from stateroom import Context, Event, Execution, Instance, web
from stateroom.errors import InvalidArgument

WRITE = "w" * 40
READ = "r" * 40


class Client:
    """Requests to the app, from this machine unless it says otherwise."""

    def __init__(self, app, thread=None, client=("127.0.0.1", 5), base="http://localhost"):
        self._app, self._client, self._base = app, client, base

    def __call__(self, path, method="GET", token=None, **options):
        async def ask():
            headers = {**options.pop("headers", {}), **({"authorization": f"Bearer {token}"} if token else {})}
            transport = httpx.ASGITransport(app=self._app, client=self._client, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=self._base) as client:
                return await client.request(method, path, headers=headers, **options)

        return asyncio.run(ask())


@pytest.fixture
def plain_store(tmp_path):
    with stateroom.open(tmp_path / "web.db") as store:
        for number in range(5):
            store.instances.put(Instance(f"order-{number}", "checkout", status="running", labels={"tier": "gold"}))
        store.instances.put(Instance("order/with <b>&?#", "refund", context=Context({"n": 1})))
        store.executions.create(Execution("order-1/charge", "job"), events=[Event("one"), Event("two")])
        store.machines.save("door", "front/left", "open", {"by": "me"})
        store.results.put("dag", "r/1", b"\x00\xff")
        store.savepoints.init("run")
        store.savepoints.save("run", 7, {"a": 1})
        yield store


@pytest.fixture
def get(plain_store):
    return Client(web.app(plain_store))


def test_lists_filter_and_page(get):
    first = get("/api/v1/instances?workflow=checkout&limit=2").json()
    assert [item["id"] for item in first["items"]] == ["order-0", "order-1"]
    second = get("/api/v1/instances", params={"workflow": "checkout", "limit": 2, "cursor": first["cursor"]}).json()
    assert [item["id"] for item in second["items"]] == ["order-2", "order-3"]
    assert len(get("/api/v1/instances?status_in=running,waiting&label=tier%3Dgold").json()["items"]) == 5
    assert [item["name"] for item in get("/api/v1/machines?state=open").json()["items"]] == ["front/left"]
    assert [item["id"] for item in get("/api/v1/results?dag=dag").json()["items"]] == ["r/1"]
    assert get("/api/v1/savepoints?run=run").json()["items"] == [
        {"run": "run", "timestamp": 7, "count": 1, "bytes": get("/api/v1/savepoints/run/7").json()["bytes"]}
    ]


@pytest.mark.parametrize(
    ("path", "id"),
    [
        ("/api/v1/instances/order%2Fwith%20%3Cb%3E%26%3F%23", "order/with <b>&?#"),
        ("/api/v1/executions/order-1/charge", "order-1/charge"),
        ("/api/v1/executions/order-1%2Fcharge", "order-1/charge"),
        ("/api/v1/results/dag/r/1", "r/1"),
    ],
)
def test_one_record_by_its_key(get, path, id):
    answer = get(path)
    assert answer.status_code == 200
    assert answer.json()["id"] == id


def test_history_and_events(get, plain_store):
    plain_store.instances.put(Instance("order-0", "checkout", status="completed"))
    items = get("/api/v1/instances/order-0/history").json()["items"]
    assert [item["status"] for item in items] == ["completed", "running"]
    events = get("/api/v1/executions/order-1/charge/events?after=1").json()["items"]
    assert [event["message"] for event in events] == ["two"]
    assert get("/api/v1/results/dag/r/1/history").status_code == 404


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1/instances/none", 404, "not-found"),
        ("/api/v1/instances?colour=red", 422, "invalid-argument"),
        ("/api/v1/instances?limit=0", 422, "invalid-argument"),
        ("/api/v1/instances?limit=x", 422, "invalid-argument"),
        ("/api/v1/instances?cursor=zz", 422, "invalid-argument"),
        ("/api/v1/instances?updated_after=yesterday", 422, "invalid-argument"),
        ("/api/v1/instances?status=odd", 422, "invalid-argument"),
        ("/api/v1/feed?after=zz", 422, "invalid-argument"),
        ("/api/v1/machines/door", 404, "not-found"),
        ("/nothing", 404, "not-found"),
        ("/api/v1/instances/%ff", 422, "invalid-argument"),
    ],
)
def test_errors_say_code_message_and_fields(get, path, status, code):
    answer = get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json().keys() == {"code", "message", "fields"}
    assert answer.json()["message"]


def test_feed_pages(get, plain_store):
    page = get("/api/v1/feed?limit=2&families=instances").json()
    assert [item["id"] for item in page["items"]] == ["order-0", "order-1"]
    rest = get("/api/v1/feed", params={"after": page["next"], "families": "instances"}).json()
    assert [item["id"] for item in rest["items"]][:2] == ["order-2", "order-3"]


@pytest.mark.parametrize(
    "view",
    ["counts", "checkpoints", "watchers", "dead_letters", "timers", "leases", "retention", "nodes", "namespaces"],
)
def test_views_answer(get, view):
    assert get(f"/api/v1/{view}").status_code == 200
    assert get(f"/api/v1/{view}?colour=red").status_code == 422


def test_health_metrics_and_description(get):
    assert get("/healthz").json() == {"status": "ok"}
    assert get("/readyz").json() == {"status": "ready"}
    assert 'stateroom_records{namespace="default",family="instances",state="running"} 5' in get("/metrics").text
    assert "/api/v1/instances" in get("/openapi.json").json()["paths"]


def test_nothing_can_be_changed_without_a_token_that_may(plain_store):
    tokens = [web.Token(WRITE, write=True, name="ann"), web.Token(READ)]
    path = "/api/v1/instances/order-0/cancel"
    assert Client(web.app(plain_store))(path, "POST").status_code == 403
    assert Client(web.app(plain_store, tokens=tokens))(path, "POST", WRITE).status_code == 403
    ask = Client(web.app(plain_store, tokens=tokens, read_only=False))
    assert ask(path, "POST", READ).status_code == 403
    assert ask(path, "POST").status_code == 403
    assert ask(path, "POST", "x" * 40).status_code == 401
    assert ask(path, "POST", WRITE, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert plain_store.instances.get("order-0").status == "running"


def test_an_action_is_in_the_feed_with_who_and_why(plain_store):
    app = web.app(plain_store, tokens=[web.Token(WRITE, write=True, name="ann")], read_only=False)
    answer = Client(app)("/api/v1/instances/order-0/cancel", "POST", WRITE, json={"why": "a test"})
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    change = plain_store.feed.read(families=["operator"]).items[-1]
    assert change.record == {
        "action": "cancel", "family": "instances", "key": ["order-0"], "who": "ann", "why": "a test",
    }  # fmt: skip
    again = Client(app)("/api/v1/instances/order-0/cancel", "POST", WRITE)
    assert (again.status_code, again.json()["code"]) == (409, "wrong-state")
    assert len(plain_store.feed.read(families=["operator"]).items) == 1
    gone = Client(app)("/api/v1/results/dag/r/1/delete", "POST", WRITE)
    assert gone.json() == {"deleted": True}
    assert not plain_store.results.has("dag", "r/1")


def test_strangers_need_a_token_and_names_of_others_are_refused(plain_store):
    app = web.app(plain_store, tokens=[web.Token(READ, namespaces=frozenset({"default"}))])
    far = Client(app, client=("192.0.2.7", 5))
    assert far("/api/v1/instances").status_code == 401
    assert far("/api/v1/instances", token=READ).status_code == 200
    assert far("/api/v1/instances?namespace=other", token=READ).status_code == 403
    assert Client(web.app(plain_store), base="http://evil.example.com")("/api/v1/instances").status_code == 421


def test_sizes_and_rates_are_bounded(plain_store, monkeypatch):
    app = web.app(plain_store, tokens=[web.Token(WRITE, write=True)], read_only=False)
    ask = Client(app)
    assert ask("/api/v1/instances?" + "a" * 9000).status_code == 414
    assert ask("/api/v1/instances/a/cancel", "POST", WRITE, content=b"x" * 70_000).status_code == 413
    assert ask("/api/v1/instances/a/cancel", "POST", WRITE, content=b"{" * 5000).status_code == 422
    monkeypatch.setattr("stateroom.web.guard.BURST", 2.0)
    monkeypatch.setattr("stateroom.web.guard.RATE", 0.0)
    ask = Client(web.app(plain_store))
    assert [ask("/api/v1/nodes").status_code for _ in range(4)] == [200, 200, 429, 429]
    assert ask("/healthz").status_code == 200


def test_an_event_stream_resumes_after_the_last_id(plain_store):
    app = web.app(plain_store)

    async def take(last_id, number):
        """Positions and ids of the first changes a client sees, cut off after that."""
        sent, done = [], asyncio.Event()

        async def receive():
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            text = message.get("body", b"").decode()
            for block in text.split("\n\n"):
                if "event: change" in block:
                    lines = dict(line.partition(": ")[::2] for line in block.splitlines())
                    sent.append((lines["id"], json.loads(lines["data"])["id"]))
            if len(sent) >= number:
                done.set()

        headers = [(b"accept", b"text/event-stream"), (b"host", b"localhost"), (b"last-event-id", last_id.encode())]
        scope = {
            "type": "http", "method": "GET", "path": "/api/v1/feed", "raw_path": b"/api/v1/feed", "root_path": "",
            "query_string": b"", "headers": headers, "client": ("127.0.0.1", 1), "server": ("localhost", 80),
            "scheme": "http", "http_version": "1.1", "asgi": {"version": "3.0", "spec_version": "2.0"},
        }  # fmt: skip
        await asyncio.wait_for(app(scope, receive, send), 20)
        return sent[:number]

    seen, position = [], "BEGINNING"
    for _ in range(4):
        changes = asyncio.run(take(position, 2))
        seen += [id for _, id in changes]
        position = changes[-1][0]
    assert seen == [change.id for change in plain_store.feed.read(limit=8).items]


def test_wrong_tokens_and_stores_are_refused(plain_store, tmp_path):
    with pytest.raises(InvalidArgument, match="32 bytes"):
        web.app(plain_store, tokens=["short"])
    with pytest.raises(InvalidArgument, match="give a Store"):
        web.app("runs.db")
    file = tmp_path / "tokens"
    file.write_text(f"{WRITE} write name=ann namespaces=a,b # the operator\n\n{READ}\n")
    with pytest.raises(InvalidArgument, match="chmod 600"):
        web.read_tokens(file)
    file.chmod(0o600)
    ann, reader = web.read_tokens(file)
    assert (ann.name, ann.write, ann.namespaces, reader.write) == ("ann", True, {"a", "b"}, False)
    assert WRITE not in repr(ann)


def test_the_dashboard_draws_only_metrics_that_there_are(get):
    dashboard = Path(__file__).parents[2] / "docs" / "operate" / "grafana-dashboard.json"
    if not dashboard.exists():
        pytest.skip("the documentation is not beside the tests (an installed wheel)")
    drawn = set(re.findall(r"stateroom_[a-z_]+", dashboard.read_text(encoding="utf-8")))
    assert drawn == set(re.findall(r"^# TYPE (stateroom_[a-z_]+) ", get("/metrics").text, re.M))
