"""The board without a browser: every page in both forms, filters and pages, sessions, and what is refused."""

import asyncio
import re
from html.parser import HTMLParser
from urllib.parse import quote

import httpx
import pytest

from stateroom import web

from .conftest import EVIL, PATH, WRITE
from .test_api import Client

E, P = quote(EVIL, safe=""), quote(PATH, safe="")
PAGES = [
    "/", "/instances", "/executions", "/machines", "/results", "/savepoints", f"/savepoints?run={E}", "/feed",
    "/consumers", "/timers", "/leases", "/retention", "/nodes", f"/search?q={E}", "/search?q=tier%3Dgold", "/login",
    "/instances?status=running&workflow=checkout&label=tier%3Dgold&order=updated", "/instances/order-001",
    f"/instances/{P}", f"/instances/{P}?from=1&to=2", "/executions/order-001%2Fcharge", f"/executions/{P}",
    "/machines/door/front", f"/machines/{E}/{E}", "/definitions/door?name=front", f"/definitions/{E}?name={E}",
    "/dags/dag", f"/dags/{E}", "/results/dag/count", "/results/dag/large", "/results/dag/large?value=1",
    f"/results/{E}/{E}", "/runs/run", f"/runs/{E}", "/savepoints/run/2000?with=1000", f"/savepoints/{E}/1000",
    f"/feed?families={E}&ids={E}",
]  # fmt: skip


class Tags(HTMLParser):
    """The tags of a page with their attributes, as a browser reads them."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


@pytest.fixture
def get(full_store):
    return Client(web.app(full_store))


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_html_without_inline_code_and_json_for_programs(get, path):
    answer = get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    tags = Tags(answer.text).tags
    assert [name for name, _ in tags].count("h1") == 1
    assert not {"img", "iframe", "object", "style"} & {name for name, _ in tags}
    scripts = [attributes for name, attributes in tags if name == "script"]
    assert [attributes["src"].partition("?")[0] for attributes in scripts] == ["/static/board.js"]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on") or name == "style"]
    if path != "/login":
        json = get(path + ("&" if "?" in path else "?") + "format=json")
        assert json.headers["content-type"] == "application/json"
        assert json.json()


def test_filters_stay_in_the_address_and_pages_follow_by_cursor(get):
    ids, path = [], "/instances?status=running&limit=10"
    while path:
        text = get(path).text
        ids += re.findall(r'<th scope="row"><a href="/instances/(order-\d+)"', text)
        assert "<option selected>running</option>" in text
        link = re.search(r'rel="next" href="([^"]+)"', text)
        path = link and link.group(1).replace("&amp;", "&")
    assert ids == [f"order-{number:03}" for number in range(0, 120, 4)]


def test_a_namespace_stays_in_every_address(full_store):
    from stateroom import Instance

    full_store.namespace("other").instances.put(Instance("there", "w"))
    get = Client(web.app(full_store))
    text = get("/instances?namespace=other").text
    assert "/instances/there?namespace=other" in text
    addresses = re.findall(r'<a [^>]*href="(/[^"]*)"', text)
    assert all("namespace=other" in address for address in addresses if not address.startswith("/login"))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/instances/none", 404), ("/machines/x/y", 404), ("/savepoints/run/7", 404), ("/results/dag/none", 404),
        ("/instances?colour=red", 422), ("/instances?status=odd", 422), ("/feed?after=zz", 422), ("/runs/", 404),
        ("/login?token=x", 422), ("/bulk/instances/cancel", 403),
    ],
)  # fmt: skip
def test_errors_are_pages_for_people_and_json_for_programs(get, path, status):
    page = get(path, headers={"accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert 'role="alert"' in page.text
    assert get(path).json().keys() == {"code", "message", "fields"}


def browser_of(app):
    """A client that keeps cookies, as a browser does, over one event loop per request."""
    cookies = httpx.Cookies()

    def ask(path, method="GET", **options):
        async def send():
            transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 9))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", cookies=cookies) as client:
                answer = await client.request(method, path, **options)
                cookies.update(client.cookies)
                return answer

        return asyncio.run(send())

    return ask


def csrf_of(answer):
    return re.search(r'name="csrf" value="([^"]+)"', answer.text).group(1)


@pytest.fixture
def signed_in(full_store):
    ask = browser_of(web.app(full_store, tokens=[web.Token(WRITE, write=True, name="ann")], read_only=False))
    answer = ask("/login", "POST", data={"token": WRITE})
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert WRITE not in cookie
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    return ask


def test_a_form_acts_once_its_session_and_token_say_so(signed_in, full_store):
    path, address = "/instances/order-000", "/act/instances/order-000/cancel"
    assert signed_in(address, "POST", data={"why": "x"}).status_code == 403
    assert signed_in(address, "POST", data={"csrf": "wrong"}).status_code == 403
    csrf = csrf_of(signed_in(path))
    cross = signed_in(address, "POST", data={"csrf": csrf}, headers={"sec-fetch-site": "cross-site"})
    assert cross.status_code == 403
    assert signed_in("/api/v1/instances/order-000/cancel", "POST").status_code == 403  # a cookie alone is not enough
    assert full_store.instances.get("order-000").status == "running"
    assert signed_in(address, "POST", data={"csrf": csrf, "why": "a test"}).status_code == 303
    assert full_store.instances.get("order-000").status == "cancelled"
    change = full_store.feed.read(families=["operator"]).items[-1]
    assert (change.record["who"], change.record["why"]) == ("ann", "a test")


def test_deleting_wants_to_be_sure(signed_in, full_store):
    csrf = csrf_of(signed_in("/results/dag/count"))
    address = "/act/results/dag/count/delete"
    assert signed_in(address, "POST", data={"csrf": csrf}).status_code == 422
    assert full_store.results.has("dag", "count")
    assert signed_in(address, "POST", data={"csrf": csrf, "sure": "yes"}).status_code == 303
    assert not full_store.results.has("dag", "count")


def test_a_bulk_action_counts_asks_and_goes_on_in_steps(signed_in, full_store):
    page = signed_in("/bulk/instances/cancel?workflow=checkout&status_in=running,waiting")
    assert "<b>60</b> instances match" in page.text
    address = "/bulk/instances/cancel"
    form = {"csrf": csrf_of(page), "total": "60", "filter.workflow": "checkout", "filter.status_in": "running,waiting"}
    assert signed_in(address, "POST", data={**form, "confirm": "cancel 61"}).status_code == 422
    assert full_store.instances.count(status="cancelled") == 0
    form |= {"confirm": "cancel 60", "why": "many"}
    step = signed_in(address, "POST", data=form)
    assert "50 done, 0 refused, of 60" in step.text
    assert full_store.instances.count(status="cancelled") == 50
    fields = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', step.text))
    last = signed_in(address, "POST", data=fields)
    assert "60 done, 0 refused, of 60" in last.text
    assert "It has ended" in last.text
    assert full_store.instances.count(status="cancelled") == 60
    assert len(full_store.feed.read(families=["operator"], limit=1000).items) == 60


def test_signing_out_ends_the_session(signed_in):
    page = signed_in("/")
    assert "Sign out" in page.text
    assert signed_in("/logout", "POST", data={"csrf": "wrong"}).status_code == 403
    assert signed_in("/logout", "POST", data={"csrf": csrf_of(page)}).status_code == 303
    assert "Sign out" not in signed_in("/").text


def test_strangers_see_only_where_to_sign_in(full_store):
    app = web.app(full_store, tokens=[web.Token(WRITE, write=True)], trust_local=False)
    get = Client(app)
    for path in PAGES:
        assert get(path).status_code == (200 if path == "/login" else 401)
    assert get("/login", "POST", data={"token": "x" * 40}).status_code == 401
    assert get("/static/board.css").status_code == 200
    assert get("/static/app.py").status_code == 404
    assert get("/static/..%2fapp.py").status_code == 401
