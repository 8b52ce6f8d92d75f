"""A store with something of everything, a server over it, and a real browser."""

import asyncio
import os
import shutil
import socket
import threading

import pytest
import uvicorn

import stateroom
from stateroom import Context, Event, Execution, Instance, web

WRITE = "w" * 40
EVIL = '<img src=x onerror="document.title=1"><script>document.title=1</script>\'"&{{7*7}}'
"""Stands wherever a text can be stored."""
PATH = "evil/" + EVIL
CHROMIUM = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def fill(store):
    """Put something of every family in a store, with text that means harm wherever text can stand."""
    for number in range(120):
        status = ("running", "waiting", "completed", "failed")[number % 4]
        store.instances.put(Instance(f"order-{number:03}", "checkout", status=status, labels={"tier": "gold"}))
    store.instances.put(
        Instance(
            PATH, EVIL, status="running", current_step=EVIL, context=Context({EVIL: EVIL}), labels={EVIL[:20]: EVIL}
        )
    )
    store.instances.update(PATH, metadata={"note": [EVIL, {"deep": EVIL}]})
    store.executions.create(Execution("order-001/charge", "order-001"), events=[Event("made", topic="test")])
    store.executions.update("order-001/charge", state="running", events=[Event("became running")])
    store.executions.create(Execution(PATH, EVIL, message=EVIL, node_id=EVIL), events=[Event(EVIL, topic=EVIL)])
    store.machines.define("door", {"shut": {"open": "open"}, "open": {"shut": "shut", "push": "open"}}, initial="shut")
    store.machines.save("door", "front", "shut", {"by": "ann"})
    store.machines.save("door", "front", "open", {"by": "bob"}, event="open")
    store.machines.save(EVIL, EVIL, EVIL, EVIL)
    store.machines.fail(EVIL, EVIL, EVIL, info={"why": EVIL})
    store.results.put("dag", "words", ["a", "b"], producer="split")
    store.results.put("dag", "count", 2, producer="count", inputs=["words"])
    store.results.put("dag", "large", "x" * 100_000)
    store.results.put(EVIL, EVIL, EVIL, producer=EVIL, inputs=[EVIL])
    store.locations.register("dag", "words", "node-a")
    store.locations.leave(store.locations.join(EVIL[:60], "http://127.0.0.1:1", "p", 10))
    for run in ("run", EVIL):
        store.savepoints.init(run)
        store.savepoints.save(run, 1000, {"a": 1, EVIL: EVIL})
        store.savepoints.save(run, 2000, {"a": 2, EVIL: EVIL})
    store.timers.set(EVIL, stateroom_time(), payload=EVIL)
    store.leases.acquire("order-001", EVIL, 3600)
    store.checkpoints.set(EVIL, store.feed.latest())
    store.feed.emit(EVIL, {EVIL: EVIL})


def stateroom_time():
    from datetime import UTC, datetime

    return datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def full_store(tmp_path):
    with stateroom.open(tmp_path / "board.db") as store:
        fill(store)
        yield store


class Site:
    """A server in a thread."""

    def __init__(self, app):
        config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def stop(self):
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()


@pytest.fixture
def site(full_store):
    """A server over the full store where a token may write."""
    here = Site(web.app(full_store, tokens=[web.Token(WRITE, write=True, name="ann")], read_only=False))
    yield here
    here.stop()


@pytest.fixture(scope="module")
def chromium():
    """A browser of one module, for its loop runs until it is closed; where there is none it skips, and fails on CI."""
    path = shutil.which("chromium") or "/usr/bin/chromium"
    if not os.path.exists(path):
        if os.environ.get("CI") == "true":
            pytest.fail("needs chromium (Debian: apt-get install chromium)")
        pytest.skip("needs chromium (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM))
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium, site):
    """A page of a browser that lets nothing pass that this site does not serve, and notes what goes wrong."""
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.wrongs = []
    page.on("pageerror", lambda error: page.wrongs.append(f"error: {error}"))
    page.on("console", lambda line: page.wrongs.append(line.text) if line.type == "error" else None)
    page.on("dialog", lambda dialog: (page.wrongs.append("dialog"), dialog.dismiss()))
    page.on("request", lambda ask: None if ask.url.startswith((site.url, "data:")) else page.wrongs.append(ask.url))
    yield page
    context.close()
