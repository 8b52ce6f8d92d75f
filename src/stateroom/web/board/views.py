"""Pages of a store as a whole: overview, consumers, timers, leases, retention, nodes, the feed, search."""

from datetime import UTC, datetime
from typing import Any

from ... import AsyncStore
from ...types import InstanceStatus
from .. import feed, house
from ..errors import HttpError
from ..jsonable import plain
from .render import Shown, Visit

OLDEST_OF = 1000
"""The oldest active record is looked for where there are no more active ones than these."""


async def overview(visit: Visit) -> Shown:
    """What there is, how fast it changes, and what needs somebody."""
    pulse = visit.server.pulse
    pulse.begin()
    stats = await visit.store.stats()
    if not pulse.active():
        pulse.take(stats)
    counts = plain(stats)
    oldest = await _oldest(visit.store, stats)
    data = {
        "counts": counts,
        "oldest": oldest,
        "findings": _findings(counts),
        "rates": [round(rate, 3) for rate in pulse.rates()],
        "active": pulse.active(),
    }
    return Shown("overview.html", "Overview", data)


async def _oldest(store: AsyncStore, stats: Any) -> dict[str, Any] | None:
    states: tuple[InstanceStatus, ...] = ("pending", "running", "waiting")
    number = sum(stats.instances.get(state, 0) for state in states)
    if not 0 < number <= OLDEST_OF:
        return None
    page = await store.instances.query(status_in=states, limit=OLDEST_OF)
    oldest = min(page.items, key=lambda record: record.created_at or datetime.now(UTC), default=None)
    return None if oldest is None else {"id": oldest.id, "created_at": plain(oldest.created_at)}


def _findings(counts: dict[str, Any]) -> list[str]:
    findings = []
    if counts["dead_letters"]:
        findings.append(f"{counts['dead_letters']} changes were given up on (dead letters)")
    if counts["nodes"].get("dead"):
        findings.append(f"{counts['nodes']['dead']} nodes are dead")
    return findings


async def consumers(visit: Visit) -> Shown:
    """Watchers, checkpoints and dead letters."""
    stats = plain(await visit.store.stats())
    data = {
        "watchers": (await house.watchers(visit.store, {}))["items"],
        "checkpoints": (await house.checkpoints(visit.store, {}))["items"],
        "lags": {lag["name"]: lag["commits"] for lag in stats["checkpoints"]},
        "dead_letters": (await house.dead_letters(visit.store, {}))["items"],
    }
    return Shown("consumers.html", "Consumers of the feed", data)


async def timers(visit: Visit) -> Shown:
    """Timers by id."""
    prefix = visit.query.get("prefix", [""])[-1]
    page = await house.timers(visit.store, visit.query)
    return Shown("timers.html", "Timers", page, {"prefix": prefix})


async def leases(visit: Visit) -> Shown:
    """Leases that are held."""
    prefix = visit.query.get("prefix", [""])[-1]
    page = await house.leases(visit.store, visit.query)
    return Shown("leases.html", "Leases", page, {"prefix": prefix})


async def retention(visit: Visit) -> Shown:
    """Policies beside what a run would delete now."""
    return Shown("retention.html", "Retention", await house.retention(visit.store, {**visit.query, "plan": ["1"]}))


async def nodes(visit: Visit) -> Shown:
    """Nodes, dead ones too."""
    return Shown("nodes.html", "Nodes", await house.nodes(visit.store, visit.query))


async def feed_page(visit: Visit) -> Shown:
    """A page of changes, and the filters that a live view goes on with."""
    filters = {name: ",".join(visit.query.get(name, [])) for name in ("families", "ops", "ids")}
    after = visit.query.get("after", [""])[-1]
    page = await feed.page_of(visit.store, visit.query)
    stream = visit.url("api", "v1", "feed", **filters)
    return Shown("feed.html", "Feed", page, {"filters": filters, "after": after, "stream": stream})


async def search(visit: Visit) -> Shown:
    """Records by an id, the beginning of one, or a label KEY=VALUE; a page of each family."""
    words = visit.one("q").strip()
    data: dict[str, Any] = {"q": words, "found": {}}
    if not words:
        return Shown("search.html", "Search", data)
    key, sign, value = words.partition("=")
    if sign and key:
        page = await visit.store.instances.query(label=(key, value), limit=50)
        data["found"]["instances"] = [[record.id] for record in page.items]
    prefixed: dict[str, list[list[str]]] = {}
    for family in ("instances", "executions", "machines", "results"):
        store_family: Any = getattr(visit.store, family)
        page = await store_family.query(id_prefix=words, limit=50)
        names = {"machines": ("machine", "name"), "results": ("dag", "id")}.get(family, ("id",))
        prefixed[family] = [[getattr(record, name) for name in names] for record in page.items]
    runs = await visit.store.savepoints.runs(words, limit=50)
    for family, keys in prefixed.items():
        if keys:
            data["found"][family] = data["found"].get(family, []) + [
                key for key in keys if key not in data["found"].get(family, [])
            ]
    data["runs"] = [str(getattr(run, "run", run)) for run in runs.items]
    return Shown("search.html", f"Search: {words}"[:100], data)


async def login(visit: Visit) -> Shown:
    """Where a token is shown."""
    if visit.query:
        raise HttpError(422, "invalid-argument", "send the form; a token does not belong into an address")
    return Shown("login.html", "Sign in", {"name": visit.session.token.name if visit.session else None})
