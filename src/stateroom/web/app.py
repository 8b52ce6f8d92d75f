"""The application: routes, and what every request goes through."""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route

from .. import AsyncStore, Store, __version__
from ..errors import InvalidArgument, StoreError
from . import board, feed, house, metrics, records
from .actions import ACTIONS, act, read_order, run_retention
from .errors import HttpError, error_response, json_response
from .families import FAMILIES, read_key
from .guard import HEADERS, Guard
from .openapi import document
from .pulse import Pulse
from .reading import body_of, query_of
from .tokens import Keyring, Token, Tokens

log = logging.getLogger("stateroom.web")

STREAMS = 2000
"""Clients that follow the feed at once."""

Answer = Callable[["Server", Request, Token], Awaitable[Response]]


class Server:
    """One store, and what answers for it."""

    def __init__(self, store: AsyncStore, guard: Guard, prefix: str) -> None:
        self.store = store
        self.guard = guard
        self.prefix = prefix
        self.served = metrics.Served()
        self.pulse = Pulse(store)
        self._namespace: str | None = None

    async def space(self, token: Token, query: dict[str, list[str]]) -> AsyncStore:
        """The store of the namespace that a request names. Raises `HttpError` where its token may not see it."""
        if self._namespace is None:
            self._namespace = (await self.store.stats()).namespace
        here = self._namespace
        name = query.pop("namespace", [here])[-1]
        if token.namespaces is not None and name not in token.namespaces:
            raise HttpError(403, "forbidden", f"this token may not see namespace {name[:64]!r}")
        return self.store if name == here else self.store.namespace(name)

    async def answer(self, request: Request, answer: Answer) -> Response:
        """Check, answer, count; whatever goes wrong becomes an answer too."""
        try:
            response = await answer(self, request, self.guard.admit(request))
        except (HttpError, StoreError) as error:
            response = error_response(error)
        except (UnicodeError, ClientDisconnect) as error:
            response = error_response(InvalidArgument(f"the request cannot be read: {error}", what="request"))
        except Exception as error:
            log.exception("%s %s failed", request.method, request.url.path)
            response = error_response(error)
        self.served.count(request.method, response.status_code)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response


def _path(request: Request, name: str) -> str:
    """Return what follows a family in the path, as it was sent: a slash that is percent-encoded belongs to a name."""
    raw = (request.scope.get("raw_path") or request.url.path.encode()).decode("ascii", "strict").partition("?")[0]
    return raw.partition(f"/api/v1/{name}/")[2]


async def _list(server: Server, request: Request, token: Token) -> Response:
    query = query_of(request)
    store = await server.space(token, query)
    family = FAMILIES[request.path_params["family"]]
    return json_response(await records.page_of(store, family, query))


async def _record(server: Server, request: Request, token: Token) -> Response:
    query = query_of(request)
    store = await server.space(token, query)
    family = FAMILIES[request.path_params["family"]]
    path = _path(request, family.name)
    start, _, last = path.rpartition("/")
    if last == "history" and len(start.split("/")) >= len(family.key) and start:
        return json_response(await records.history_of(store, family, read_key(family, start), query))
    if last == "events" and family.name == "executions" and start:
        return json_response(await records.events_of(store, family, read_key(family, start), query))
    if query:
        raise InvalidArgument(f"a record has no filter {next(iter(query))[:100]!r}", what="filters")
    return json_response(await records.one_of(store, family, read_key(family, path)))


async def _view(server: Server, request: Request, token: Token) -> Response:
    query = query_of(request)
    store = await server.space(token, query)
    return json_response(await house.VIEWS[request.path_params["view"]](store, query))


async def _feed(server: Server, request: Request, token: Token) -> Response:
    query = query_of(request)
    store = await server.space(token, query)
    if "text/event-stream" not in request.headers.get("accept", ""):
        return json_response(await feed.page_of(store, query))
    if server.served.streams >= STREAMS:
        raise HttpError(503, "unavailable", f"{STREAMS} clients follow the feed already", retry_after="5")
    events = await feed.stream_of(store, query, request.headers.get("last-event-id"))

    async def counted() -> AsyncIterator[bytes]:
        server.served.streams += 1
        try:
            async for event in events:
                yield event
        finally:
            server.served.streams -= 1

    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(counted(), media_type="text/event-stream", headers=headers)


async def _body(request: Request) -> Any:
    """The JSON of a request; None for an empty one."""
    data = await body_of(request)
    try:
        return json.loads(data) if data.strip() else None
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("the body is not JSON", what="body") from error


async def _action(server: Server, request: Request, token: Token) -> Response:
    server.guard.admit_write(request, token)
    if "authorization" not in request.headers:
        # A cookie alone is what a browser sends for any page; the board's forms bring more.
        raise HttpError(403, "forbidden", "send the token in the Authorization header")
    query = query_of(request)
    store = await server.space(token, query)
    family = request.path_params["family"]
    start, _, action = _path(request, family).rpartition("/")
    if family == "retention" and action == "run":
        order = read_order(action, family, (), token, await _body(request))
        return json_response(await run_retention(store, order))
    if (family, action) not in ACTIONS:
        raise HttpError(404, "not-found", f"{family[:50]} have no action {action[:50]!r}")
    names, _ = ACTIONS[family, action]
    key = tuple(unquote(step, errors="strict") for step in start.split("/", names - 1))
    order = read_order(action, family, key, token, await _body(request))
    return json_response(await act(store, order))


async def _openapi(server: Server, request: Request, _: Token) -> Response:
    return json_response(document(__version__, server.prefix or request.scope.get("root_path", "")))


async def _metrics(server: Server, _request: Request, _token: Token) -> Response:
    text = await metrics.text_of(server.store, server.served)
    return Response(text, 200, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _healthz(_: Request) -> Response:
    return json_response({"status": "ok"})


def _readiness(server: Server) -> Callable[[Request], Awaitable[Response]]:
    async def readyz(_: Request) -> Response:
        try:
            await server.store.ping()
        except StoreError as error:
            return error_response(error)
        return json_response({"status": "ready"})

    return readyz


def app(
    store: Store | AsyncStore,
    *,
    tokens: Tokens = None,
    read_only: bool = True,
    prefix: str = "",
    hosts: frozenset[str] = frozenset(),
    trust_local: bool = True,
) -> Starlette:
    """An ASGI app over a store, to be served or mounted in an app of your own; it does not close the store.

    `tokens`: secrets of 32 bytes or more, or `Token`; without any only this machine may read. `read_only`: nothing can
    be changed, whatever the token. `prefix`: the path that a proxy puts before it. `hosts`: names it answers for
    beside loopback and addresses, where no token is given. `trust_local`: clients on this machine read without a
    token; not behind a proxy, where everybody looks like one. Raises `InvalidArgument`.
    """
    if not isinstance(store, Store | AsyncStore):
        raise InvalidArgument(f"store is a {type(store).__name__}; give a Store or an AsyncStore", what="store")
    inner = store if isinstance(store, AsyncStore) else AsyncStore.over(store)
    guard = Guard(Keyring(tokens), read_only=read_only, hosts=hosts, trust_local=trust_local)
    server = Server(inner, guard, prefix.rstrip("/"))

    def endpoint(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            return await server.answer(request, answer)

        return serve

    async def missing(_server: Server, request: Request, _token: Token) -> Response:
        raise HttpError(404, "not-found", f"nothing is at {request.url.path[:200]}; /openapi.json says what there is")

    routes: list[BaseRoute] = [
        *(Route(f"/api/v1/{name}", endpoint(_named(_list, "family", name))) for name in FAMILIES),
        Route("/api/v1/feed", endpoint(_feed)),
        *(Route(f"/api/v1/{name}", endpoint(_named(_view, "view", name))) for name in house.VIEWS),
        Route("/api/v1/{family}/{key:path}", endpoint(_action), methods=["POST"]),
        *(Route(f"/api/v1/{name}/{{key:path}}", endpoint(_named(_record, "family", name))) for name in FAMILIES),
        Route("/openapi.json", endpoint(_openapi)),
        Route("/metrics", endpoint(_metrics)),
        Route("/healthz", _healthz),
        Route("/readyz", _readiness(server)),
        *board.routes_of(server),
        Route("/{path:path}", endpoint(missing), methods=["GET", "POST", "PUT", "DELETE", "PATCH"]),
    ]
    # A proxy may pass the prefix on or take it away.
    application = Starlette(routes=[Mount(server.prefix, routes=routes), *routes] if server.prefix else routes)
    application.state.pulse = server.pulse
    return application


def _named(answer: Answer, parameter: str, value: str) -> Answer:
    async def named(server: Server, request: Request, token: Token) -> Response:
        request.path_params[parameter] = value
        return await answer(server, request, token)

    return named
