"""Where the pages are, and what every request for one goes through."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from ...errors import InvalidArgument, StoreError
from ..errors import HttpError, error_response, json_response, status_of
from ..families import FAMILIES
from ..guard import HEADERS
from ..reading import body_of, query_of
from ..sessions import COOKIE
from ..tokens import Token
from . import acting, records, views
from .render import STATIC, Shown, Visit, error_page, no_page, render, static

log = logging.getLogger("stateroom.web")

Page = Callable[[Visit], Awaitable[Shown]]
Form = Callable[[Visit, dict[str, str]], Awaitable[Shown | Response]]

PAGES: dict[str, Page] = {
    "/": views.overview,
    "/feed": views.feed_page,
    "/consumers": views.consumers,
    "/timers": views.timers,
    "/leases": views.leases,
    "/retention": views.retention,
    "/nodes": views.nodes,
    "/search": views.search,
    "/runs/{key:path}": records.run,
    "/dags/{key:path}": records.dag,
    "/definitions/{key:path}": records.definition,
    "/bulk/{key:path}": acting.ask_for_all,
}
FORMS: dict[str, Form] = {"/act/{key:path}": acting.act_on_one, "/bulk/{key:path}": acting.act_on_all}


def _listed(name: str) -> Page:
    return lambda visit: records.listed(visit, name)


def _record(name: str) -> Page:
    return lambda visit: records.record(visit, name)


def routes_of(server: Any) -> list[BaseRoute]:
    """The routes of the board."""
    pages = dict(PAGES)
    for name in FAMILIES:
        pages |= {f"/{name}": _listed(name), f"/{name}/{{key:path}}": _record(name)}
    return [
        Route("/static/{name}", _static),
        Route("/login", _guarded(server, _login_page)),
        Route("/login", _guarded(server, _log_in), methods=["POST"]),
        Route("/logout", _guarded(server, _log_out), methods=["POST"]),
        *(Route(path, _form(server, form), methods=["POST"]) for path, form in FORMS.items()),
        *(Route(path, _page(server, page)) for path, page in pages.items()),
    ]


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        return error_response(no_page(name))
    headers = {**HEADERS, "cache-control": "public, max-age=3600", "content-type": STATIC[name]}
    return Response(static(name)[0], headers=headers)


Handler = Callable[[Any, Request], Awaitable[Response]]


def _guarded(server: Any, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler whose errors become pages, or JSON for programs."""

    async def serve(request: Request) -> Response:
        try:
            response = await handler(server, request)
        except (HttpError, StoreError, UnicodeError, ClientDisconnect) as error:
            response = _error(server, request, error)
        except Exception as error:
            log.exception("%s %s failed", request.method, request.url.path)
            response = _error(server, request, error)
        server.served.count(request.method, response.status_code)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return serve


def _error(server: Any, request: Request, error: Exception) -> Response:
    if isinstance(error, UnicodeError | ClientDisconnect):
        error = InvalidArgument(f"the request cannot be read: {error}", what="request")
    if "text/html" not in request.headers.get("accept", "") or "format=json" in request.url.query:
        return error_response(error)
    if isinstance(error, HttpError):
        return error_page(server, request, error.status, error.code, str(error))
    if isinstance(error, StoreError):
        return error_page(server, request, status_of(error), error.code, error.message)
    return error_page(server, request, 500, "error", "the server failed; its log says why")


async def _visit(server: Any, request: Request) -> Visit:
    token = server.guard.admit(request)
    query = {name: values for name, values in query_of(request).items() if any(values)}
    namespace = query["namespace"][-1] if "namespace" in query else None
    store = await server.space(token, query)
    session = server.guard.sessions.find(request.cookies.get(COOKIE, ""))
    return Visit(server, request, token, session, store, query, namespace)


def _page(server: Any, page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def show(server: Any, request: Request) -> Response:
        visit = await _visit(server, request)
        as_json = visit.one("format") == "json"
        shown = await page(visit)
        return json_response(shown.data) if as_json else render(visit, shown)

    return _guarded(server, show)


async def _form_of(request: Request) -> dict[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind != "application/x-www-form-urlencoded":
        raise HttpError(415, "wrong-type", "send a form")
    text = (await body_of(request)).decode("utf-8", "strict")
    return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=100, errors="strict"))


def _form(server: Any, form: Form) -> Callable[[Request], Awaitable[Response]]:
    async def send(server: Any, request: Request) -> Response:
        visit = await _visit(server, request)
        answer = await form(visit, await _form_of(request))
        return answer if isinstance(answer, Response) else render(visit, answer)

    return _guarded(server, send)


async def _login_page(server: Any, request: Request) -> Response:
    """Ask for a token; this page is for those who have shown none."""
    server.guard.admit_form(request)
    session = server.guard.sessions.find(request.cookies.get(COOKIE, ""))
    token = session.token if session else Token("")
    visit = Visit(server, request, token, session, server.store, query_of(request), None)
    return render(visit, await views.login(visit))


async def _log_in(server: Any, request: Request) -> Response:
    """Begin a session for a token; the cookie is no secret of the store's, and no script can read it."""
    server.guard.admit_form(request)
    token = server.guard.find((await _form_of(request)).get("token", "").strip())
    session = server.guard.sessions.begin(token)
    base = server.prefix or request.scope.get("root_path", "")
    response = RedirectResponse(base + "/", 303)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, session.id, path=base or "/", httponly=True, samesite="strict", secure=secure)
    return response


async def _log_out(server: Any, request: Request) -> Response:
    server.guard.admit_form(request)
    id = request.cookies.get(COOKIE, "")
    session = server.guard.sessions.find(id)
    if session is not None:
        session.check((await _form_of(request)).get("csrf", ""))
        server.guard.sessions.end(id)
    base = server.prefix or request.scope.get("root_path", "")
    response = RedirectResponse(base + "/", 303)
    response.delete_cookie(COOKIE, path=base or "/")
    return response
