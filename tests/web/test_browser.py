"""The board in a real browser: nothing stored becomes code, the feed is live, forms act, at every width."""

from stateroom import Instance

from .conftest import WRITE
from .test_board import PAGES


def sign_in(tab, site):
    tab.goto(f"{site.url}/login")
    tab.get_by_label("Token").fill(WRITE)
    tab.get_by_role("main").get_by_role("button", name="Sign in").click()
    tab.get_by_role("button", name="Sign out").wait_for()


def test_nothing_stored_becomes_code_and_no_page_is_wider_than_its_window(tab, site):
    sign_in(tab, site)
    for path in PAGES:
        for width in (400, 1600):
            tab.set_viewport_size({"width": width, "height": 900})
            tab.goto(site.url + path, wait_until="load")
            assert tab.title().endswith(" · Stateroom"), path
            assert tab.locator("main img, main script").count() == 0
            assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (path, width)
        unnamed = """[...document.querySelectorAll('input:not([type=hidden]), select, button, a, progress')]
            .filter(e => !(e.labels && e.labels.length) && !e.textContent.trim() && !e.ariaLabel).map(e => e.outerHTML)"""
        assert tab.evaluate(unnamed) == [], path
    assert tab.wrongs == []


def test_the_feed_is_live_filtered_and_can_be_paused(tab, site, full_store):
    tab.goto(f"{site.url}/feed?families=instances")
    tab.locator("#live-state", has_text="live").wait_for()
    full_store.results.put("dag", "unseen", 1)
    full_store.instances.put(Instance("live-1", "w", status="running"))
    rows = tab.locator("#live-rows tr")
    tab.locator("#live-rows", has_text="live-1").wait_for()
    assert rows.count() == 1
    tab.get_by_role("button", name="Pause").click()
    full_store.instances.put(Instance("live/<b>2", "w"))
    tab.locator("#live-state", has_text="1 waiting").wait_for()
    assert rows.count() == 1
    tab.get_by_role("button", name="Go on").click()
    tab.get_by_role("link", name="live/<b>2").click()
    tab.get_by_role("heading", level=1, name="live/<b>2").wait_for()
    assert tab.wrongs == []


def test_filters_are_kept_in_the_address(tab, site):
    tab.goto(f"{site.url}/instances")
    tab.locator("select[name=status]").select_option("failed")
    tab.get_by_label("on a page").fill("5")
    tab.get_by_role("button", name="Filter").click()
    tab.get_by_role("link", name="Next page").click()
    assert "status=failed" in tab.url
    assert tab.locator("tbody .state").all_inner_texts() == ["failed"] * 5
    assert tab.locator("tbody time").first.inner_text() != ""


def test_an_action_and_a_bulk_action(tab, site, full_store):
    sign_in(tab, site)
    tab.goto(f"{site.url}/instances/order-000")
    form = tab.locator("form.act", has=tab.get_by_role("button", name="Cancel"))
    form.get_by_label("Why").fill("by hand")
    form.get_by_role("button").click()
    tab.locator(".state", has_text="cancelled").first.wait_for()
    assert full_store.instances.get("order-000").status == "cancelled"
    tab.goto(f"{site.url}/instances?status_in=running,waiting&workflow=checkout")
    tab.get_by_role("link", name="Cancel all").click()
    tab.get_by_label("Type").fill("cancel 59")
    tab.get_by_role("button", name="Cancel 59").click()
    tab.get_by_text("It has ended").wait_for()
    assert full_store.instances.count(status="cancelled") == 60
    assert tab.wrongs == []


def test_the_keyboard_reaches_the_content(tab, site):
    tab.goto(f"{site.url}/instances")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"
    tab.keyboard.press("Tab")
    style = "getComputedStyle(document.activeElement)"
    assert tab.evaluate(f"{style}.outlineStyle") == "solid"


def test_it_is_read_without_script(chromium, site):
    context = chromium.new_context(java_script_enabled=False, color_scheme="dark")
    page = context.new_page()
    page.goto(f"{site.url}/instances/order-001")
    assert "UTC" in page.locator("time").first.inner_text()
    page.goto(f"{site.url}/feed")
    assert page.get_by_role("heading", name="From the beginning").is_visible()
    context.close()
