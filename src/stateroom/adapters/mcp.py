"""Events of the Model Context Protocol's streamable HTTP transport, so that a client that was cut off goes on."""

from functools import partial
from typing import Any, Self
from urllib.parse import quote, unquote

from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.types import JSONRPCMessage
from pydantic import TypeAdapter

from .faces import Access
from .logs import SLICE, Log
from .names import stored_key
from .snapshots import StoreLike

MESSAGE: TypeAdapter[Any] = TypeAdapter(JSONRPCMessage)
DAY = 86_400.0


class StateroomEventStore(EventStore):
    """The SDK's `EventStore` over a url, a `Store` or an `AsyncStore`: results in the DAG `mcp:SESSION.STREAM/items`.

    A stream that had no event for `ttl` seconds is removed by retention (None: kept). The transport names streams by
    the client's request ids, which other sessions use as well: give each session a store of its own `session`. An
    event's id is unguessable; after one that is not known, nothing is replayed.
    """

    def __init__(self, store: StoreLike = None, *, session: str = "", ttl: float | None = DAY, **options: Any) -> None:
        self._access = Access(store, **options)
        self._session = session
        self._ttl = ttl

    async def store_event(self, stream_id: str, message: Any | None) -> str:
        """Store a message of a stream, or None for a place to go on from; return the event's id."""
        value = None if message is None else message.model_dump(mode="json", by_alias=True, exclude_unset=True)
        head = await self._access.arun(lambda face: self._log(stream_id).append(face, [value], self._ttl))
        return f"{head.size - 1}-{head.mark}-{quote(stream_id, safe='')}"

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        """Send the events of a stream after this one, up to the answer that ends it; return the stream's id.

        None where the event is not known.
        """
        number, mark, quoted = (*last_event_id.split("-", 2), "", "")[:3]
        stream_id = unquote(quoted)
        log = self._log(stream_id)
        head = await self._access.arun(log.head)
        if head is None or head.mark != mark or not number.isascii() or not number.isdecimal():
            return None
        after = int(number) + 1
        if after > head.size:
            return None
        while after < head.size:
            stop = min(after + SLICE, head.size)
            for place, value in await self._access.arun(partial(log.slice, start=after, stop=stop)):
                if value is not None:
                    message = MESSAGE.validate_python(value)
                    await send_callback(EventMessage(message, f"{place}-{mark}-{quoted}"))
                    if "result" in value or "error" in value:
                        return stream_id
            after = stop
            head = await self._access.arun(log.head) or head
        return stream_id

    async def clear(self, stream_id: str) -> None:
        """Remove a stream."""
        await self._access.arun(self._log(stream_id).clear)

    def close(self) -> None:
        """Close what was opened here."""
        self._access.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _log(self, stream_id: str) -> Log:
        return Log(f"mcp:{stored_key(self._session, 100) if self._session else ''}.{stored_key(stream_id, 100)}")
