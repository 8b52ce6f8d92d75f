"""A store for the time that a FastAPI or Starlette application runs."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.requests import HTTPConnection

import stateroom
from stateroom import AsyncStore, Store
from stateroom.errors import InvalidArgument

__all__ = ["get_store", "lifespan"]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def lifespan(
    store: "str | os.PathLike[str] | Store | AsyncStore | None" = None,
    *,
    inner: Lifespan | None = None,
    **options: Any,
) -> Lifespan:
    """Make the `lifespan` of an application that opens a store at its start and closes it at its end.

    `store` is a url, opened with the `options` of `stateroom.open_async`, or a store that is open, which stays its
    owner's. The `AsyncStore` is `app.state.store` and `request.state.store`, and what `Depends(get_store)` gives.
    `inner` is a lifespan of the application's own; it runs while the store is open, and what it yields is kept.
    """
    if store is not None and not isinstance(store, str | os.PathLike | Store | AsyncStore):
        raise InvalidArgument(
            f"give a url, a Store or an AsyncStore, not {type(store).__name__}", what="store", value=store
        )

    @asynccontextmanager
    async def run(app: Any) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            if isinstance(store, AsyncStore):
                opened = store
            elif isinstance(store, Store):
                opened = AsyncStore.over(store)
            else:
                opened = await stack.enter_async_context(stateroom.open_async(store, **options))
            app.state.store = opened
            stack.callback(delattr, app.state, "store")
            state: dict[str, Any] = {"store": opened}
            if inner is not None:
                state.update(await stack.enter_async_context(inner(app)) or {})
            yield state

    return run


def get_store(connection: HTTPConnection) -> AsyncStore:
    """Return the application's store: a dependency, for requests and web sockets."""
    store = getattr(connection.app.state, "store", None)
    if not isinstance(store, AsyncStore):
        raise InvalidArgument("this application has no store; give it lifespan=lifespan(url)", what="lifespan")
    return store
