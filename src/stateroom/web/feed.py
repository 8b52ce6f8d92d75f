"""The feed: pages of changes, and server-sent events that resume where a client stopped."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from .. import BEGINNING, LATEST, AsyncStore
from ..errors import Compacted, InvalidArgument, StoreError
from .errors import status_of
from .families import number
from .jsonable import encode, plain

WAIT_SECONDS = 15.0
"""A silent stream says that it is alive this often."""

_NAMES = {"BEGINNING": BEGINNING, "LATEST": LATEST, "": BEGINNING}


def _position(text: str) -> str:
    return _NAMES.get(text, _NAMES.get(text.upper(), text))


def _filters(query: dict[str, list[str]]) -> dict[str, Any]:
    """The filters of `feed.read`. Raises `InvalidArgument` for one that is unknown."""
    filters: dict[str, Any] = {}
    for name, values in query.items():
        if name not in ("families", "ops", "ids"):
            raise InvalidArgument(
                f"the feed has no filter {name[:100]!r}; use after, families, ops, ids, limit, wait", what=name
            )
        filters[name] = [item for value in values for item in value.split(",") if item]
    return filters


async def page_of(store: AsyncStore, query: dict[str, list[str]]) -> dict[str, Any]:
    """Changes after a position: ``items`` and ``next``, where to go on."""
    after = _position(query.pop("after", [""])[-1])
    limit = number("limit", query.pop("limit", ["100"]))
    wait = min(30.0, float(number("wait", query.pop("wait", ["0"]))))
    changes = await store.feed.read(after, limit=limit, wait=wait, **_filters(query))
    return {"items": [plain(change) for change in changes.items], "next": changes.next}


async def stream_of(store: AsyncStore, query: dict[str, list[str]], last_id: str | None) -> AsyncIterator[bytes]:
    """Changes as server-sent events, for ever; each has its position as id, so that a client goes on after it."""
    after = _position(last_id if last_id is not None else query.pop("after", ["LATEST"])[-1])
    query.pop("after", None)
    filters = _filters(query)
    if after == LATEST:
        after = await store.feed.latest()
    await store.feed.read(after, limit=1, **filters)  # what is wrong with the request is said before it begins
    return _events(store, after, filters)


async def _events(store: AsyncStore, after: str, filters: dict[str, Any]) -> AsyncIterator[bytes]:
    yield b"retry: 1000\nid: " + after.encode() + b"\n\n"
    while True:
        try:
            changes = await store.feed.read(after, limit=100, wait=WAIT_SECONDS, **filters)
        except StoreError as error:
            body = {"code": error.code, "message": error.message, "status": status_of(error)}
            yield b"event: error\ndata: " + encode(body) + b"\n\n"
            if isinstance(error, Compacted) or not error.retry:
                return
            await asyncio.sleep(1)
            continue
        for change in changes.items:
            yield b"id: " + change.position.encode() + b"\nevent: change\ndata: " + encode(change) + b"\n\n"
        if changes.next != after:
            after = changes.next
            yield b"id: " + after.encode() + b"\n\n"
        elif not changes.items:
            yield b": alive\n\n"
