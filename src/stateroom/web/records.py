"""Records: lists, one record, its history and its events."""

from typing import Any

from .. import AsyncStore
from ..errors import InvalidArgument, NoSavepoint, NotFound
from .families import Listed, number, read_filters
from .jsonable import encode, plain

PAGE_BYTES = 4 << 20
"""JSON of one page; records beyond it come with the next one."""


async def page_of(store: AsyncStore, family: Listed, query: dict[str, list[str]]) -> dict[str, Any]:
    """A page of a family: ``items``, ``cursor`` (None at the end), ``undecodable``."""
    arguments = read_filters(family, query)
    if family.name == "savepoints":
        return await _savepoints(store, arguments)
    list_page = getattr(store, family.name).query
    while True:
        page = await _call(list_page, arguments)
        items = [plain(record) for record in page.items]
        if len(items) < 2 or len(encode(items)) <= PAGE_BYTES:
            return {"items": items, "cursor": page.cursor, "undecodable": page.undecodable}
        arguments["limit"] = max(1, len(items) // 4)


async def _call(list_page: Any, arguments: dict[str, Any]) -> Any:
    try:
        return await list_page(**arguments)
    except TypeError as error:
        raise InvalidArgument(f"a filter does not fit: {error}", what="filters") from error


async def _savepoints(store: AsyncStore, arguments: dict[str, Any]) -> dict[str, Any]:
    """Runs, or the savepoints of one."""
    run = arguments.pop("run", None)
    if run is None:
        prefix = arguments.pop("id_prefix", "")
        savepoints: Any = store.savepoints
        page = await savepoints.runs(prefix, **arguments)
        return {"items": plain(list(page.items)), "cursor": page.cursor, "undecodable": page.undecodable}
    if arguments.keys() & {"cursor", "id_prefix"}:
        raise InvalidArgument("the savepoints of a run have no filter and no cursor", what="run")
    limit = arguments.get("limit", 100)
    times = (await store.savepoints.list(run))[-limit:]
    items = [await _savepoint(store, run, timestamp) for timestamp in reversed(times)]
    return {"items": [item for item in items if item is not None], "cursor": None, "undecodable": 0}


async def _savepoint(store: AsyncStore, run: str, timestamp: int) -> dict[str, Any] | None:
    try:
        savepoint = await store.savepoints.at(run, timestamp)
    except NoSavepoint:
        return None
    if savepoint.timestamp != timestamp:
        return None
    return {"run": run, "timestamp": savepoint.timestamp, "count": savepoint.count, "bytes": savepoint.bytes}


async def one_of(store: AsyncStore, family: Listed, key: tuple[str, ...]) -> Any:
    """A record by its key. Raises `NotFound`."""
    record: Any
    if family.name == "savepoints":
        record = await _savepoint(store, key[0], number("timestamp", [key[1]]))
    else:
        record = await getattr(store, family.name).find(*key, raw=True)
    if record is None:
        raise NotFound(f"no such record among {family.name}", kind=family.name, id="/".join(key))
    return plain(record)


async def history_of(store: AsyncStore, family: Listed, key: tuple[str, ...], query: dict[str, list[str]]) -> Any:
    """Revisions of a record, newest first."""
    if family.name not in ("instances", "executions", "machines"):
        raise NotFound(f"{family.name} have no history", kind=family.name)
    arguments = read_filters(family._replace(filters={}), query)
    page = await getattr(store, family.name).history(*key, **arguments)
    return {"items": plain(list(page.items)), "cursor": page.cursor, "undecodable": page.undecodable}


async def events_of(store: AsyncStore, family: Listed, key: tuple[str, ...], query: dict[str, list[str]]) -> Any:
    """Events of an execution: those after a number, or the last so many; at most `limit`."""
    if family.name != "executions":
        raise NotFound(f"{family.name} have no events of their own", kind=family.name)
    after = number("after", query.pop("after", ["0"]))
    last = number("last", query.pop("last")) if "last" in query else None
    limit = number("limit", query.pop("limit", ["1000"]))
    if query:
        raise InvalidArgument(f"events have no filter {next(iter(query))!r}; use after, last, limit", what="filters")
    if not 1 <= limit <= 1000:
        raise InvalidArgument(f"limit is {limit}; use 1 to 1000", what="limit", value=limit)
    events = await store.executions.events(key[0], after=after, last=last)
    kept = events[:limit]
    return {"items": plain(list(kept)), "next": kept[-1].seq if len(kept) < len(events) else None}
