"""Sessions of the OpenAI Agents SDK: the items of a conversation."""

import json
from typing import Any, Self

from agents.memory import SessionSettings
from agents.memory.session_settings import resolve_session_limit

from .faces import Access
from .logs import Log
from .names import stored_key
from .snapshots import StoreLike


class StateroomSession:
    """The SDK's `Session` over a url, a `Store` or an `AsyncStore`: results in the DAG `session:ID/items`.

    What several writers add at once is all kept, each call's items side by side.
    """

    def __init__(
        self,
        session_id: str,
        store: StoreLike = None,
        *,
        session_settings: SessionSettings | None = None,
        **options: Any,
    ) -> None:
        self.session_id = session_id
        self.session_settings = session_settings or SessionSettings()
        self._log = Log("session:" + stored_key(session_id, 200))
        self._access = Access(store, **options)

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """Return the items, oldest first; with a limit (or the settings') the last so many; below 0 all."""
        most = resolve_session_limit(limit, self.session_settings)
        if most is not None and most < 0:
            most = None
        return await self._access.arun(lambda face: self._log.last(face, most))

    async def add_items(self, items: list[Any]) -> None:
        """Add items, up to 1,000 in one commit. What JSON cannot say raises TypeError, and nothing is added."""
        values = [json.loads(json.dumps(item)) for item in items]
        if values:
            await self._access.arun(lambda face: self._log.append(face, values))

    async def pop_item(self) -> Any | None:
        """Remove the last item and return it; None where there is none."""
        return await self._access.arun(self._log.pop)

    async def clear_session(self) -> None:
        """Remove all items; nothing is left of the session."""
        await self._access.arun(self._log.clear)

    def close(self) -> None:
        """Close what was opened here."""
        self._access.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
