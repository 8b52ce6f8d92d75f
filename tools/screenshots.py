"""Take the pictures of docs/guide/board.md with the tests' browser: python tools/screenshots.py"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

PICTURES = (("board-overview.png", "/", "light"), ("board-machine.png", "/definitions/order?name=order-0017", "dark"))


def fill(store: object) -> None:
    """A store like those of small shops: orders, their jobs, their machines and a nightly DAG."""
    from stateroom import Event, Execution, Instance

    for number in range(60):
        id = f"order-{number:04}"
        status = ("running", "waiting", "completed", "completed", "failed")[number % 5]
        store.instances.put(Instance(id, "checkout", status=status, labels={"tier": "gold"}))
        store.executions.create(Execution(f"{id}/charge", id), events=[Event("created")])
        if number % 3:
            store.executions.update(f"{id}/charge", state="running", node_id="worker-1")
    transitions = {"new": {"pay": "paid", "drop": "dropped"}, "paid": {"ship": "shipped", "refund": "dropped"}}
    store.machines.define("order", transitions, initial="new", final=("shipped", "dropped"))
    store.machines.save("order", "order-0017", "new", {"total": 40, "items": ["lamp"]})
    store.machines.save("order", "order-0017", "new", {"total": 65, "items": ["lamp", "desk"]})
    store.machines.save("order", "order-0017", "paid", {"total": 65, "items": ["lamp", "desk"]}, event="pay")
    store.results.put("nightly", "rows", [1, 2, 3])
    store.checkpoints.set("mailer", store.feed.read(limit=100).next)


def main() -> None:
    """Write the pictures."""
    from playwright.sync_api import sync_playwright

    import stateroom
    from stateroom import web
    from web.conftest import CHROMIUM, Site

    with tempfile.TemporaryDirectory() as folder, stateroom.open(f"{folder}/shop.db") as store:
        fill(store)
        site = Site(web.app(store))
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(CHROMIUM))
                for name, path, scheme in PICTURES:
                    page = browser.new_page(viewport={"width": 1100, "height": 690}, color_scheme=scheme)
                    page.goto(site.url + path)
                    page.screenshot(path=str(ROOT / "docs" / "guide" / name))
                browser.close()
        finally:
            site.stop()


if __name__ == "__main__":
    main()
