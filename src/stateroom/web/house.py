"""Views of what is beside the records: counts, consumers, timers, leases, retention, nodes."""

from collections.abc import Awaitable, Callable
from typing import Any

from .. import AsyncStore
from ..errors import InvalidArgument
from .families import moment, number
from .jsonable import plain

Query = dict[str, list[str]]
View = Callable[[AsyncStore, Query], Awaitable[Any]]


def _nothing(query: Query, what: str) -> None:
    if query:
        raise InvalidArgument(f"{what} have no filter {next(iter(query))[:100]!r}", what="filters")


def _paging(query: Query) -> dict[str, Any]:
    arguments: dict[str, Any] = {"limit": number("limit", query.pop("limit", ["100"]))}
    if "cursor" in query:
        arguments["cursor"] = query.pop("cursor")[-1]
    return arguments


async def counts(store: AsyncStore, query: Query) -> Any:
    """How many records there are of each family and state, and what else `stats` knows."""
    _nothing(query, "counts")
    return plain(await store.stats())


async def checkpoints(store: AsyncStore, query: Query) -> Any:
    """Consumers of the feed, and the positions they have come to."""
    _nothing(query, "checkpoints")
    return {"items": plain(list(await store.checkpoints.list()))}


async def watchers(store: AsyncStore, query: Query) -> Any:
    """The watchers of this process: those of others are seen by their checkpoints and leases."""
    _nothing(query, "watchers")
    return {"items": [plain(watcher.stats()) for watcher in store.watchers()]}


async def dead_letters(store: AsyncStore, query: Query) -> Any:
    """Changes that watchers gave up on."""
    watcher = query.pop("watcher", [None])[-1]
    _nothing(query, "dead letters")
    return {"items": plain(list(await store.dead_letters.list(watcher)))}


async def timers(store: AsyncStore, query: Query) -> Any:
    """Timers, in the order of their ids; `before`: due before a time."""
    arguments = _paging(query)
    prefix = query.pop("prefix", [""])[-1]
    if "before" in query:
        arguments["before"] = moment("before", query.pop("before"))
    _nothing(query, "timers")
    return _page(await store.timers.query(prefix, **arguments))


async def leases(store: AsyncStore, query: Query) -> Any:
    """Leases that are held."""
    arguments = _paging(query)
    prefix = query.pop("prefix", [""])[-1]
    _nothing(query, "leases")
    return _page(await store.leases.query(prefix, **arguments))


async def retention(store: AsyncStore, query: Query) -> Any:
    """Policies; with ``plan=1`` what a run would delete now."""
    wants_plan = query.pop("plan", ["0"])[-1] in ("1", "true", "yes")
    _nothing(query, "policies")
    body: dict[str, Any] = {"policies": plain(list(await store.retention.list()))}
    if wants_plan:
        body["plan"] = plain(await store.retention.plan())
    return body


async def nodes(store: AsyncStore, query: Query) -> Any:
    """Nodes that hold results, and whether they are alive."""
    _nothing(query, "nodes")
    return {"items": plain(list(await store.locations.nodes()))}


async def namespaces(store: AsyncStore, query: Query) -> Any:
    """The namespaces of the database that hold something."""
    _nothing(query, "namespaces")
    return {"items": list(await store.namespaces())}


def _page(page: Any) -> dict[str, Any]:
    return {"items": plain(list(page.items)), "cursor": page.cursor}


VIEWS: dict[str, View] = {
    view.__name__: view
    for view in (counts, checkpoints, watchers, dead_letters, timers, leases, retention, nodes, namespaces)
}
