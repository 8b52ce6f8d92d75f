"""Pages from templates: what every page has, and the addresses in it."""

from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

from ... import AsyncStore
from ..errors import HttpError
from ..sessions import Session
from ..tokens import Token
from . import drawing

CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
STATIC = {"board.css": "text/css; charset=utf-8", "board.js": "text/javascript; charset=utf-8"}
PLACES = (
    ("", "Overview"), ("instances", "Instances"), ("executions", "Executions"), ("machines", "Machines"),
    ("results", "Results"), ("savepoints", "Savepoints"), ("feed", "Feed"), ("consumers", "Consumers"),
    ("timers", "Timers"), ("leases", "Leases"), ("retention", "Retention"), ("nodes", "Nodes"),
)  # fmt: skip


class Shown(NamedTuple):
    """A page: its template, its title, and its data, which is also what ``?format=json`` gives."""

    template: str
    title: str
    data: dict[str, Any]
    extra: dict[str, Any] = {}  # noqa: RUF012
    """What the template needs besides."""
    status: int = 200


class Visit(NamedTuple):
    """A request for a page: of what server, by whom, for which namespace, with which query."""

    server: Any
    request: Request
    token: Token
    session: Session | None
    store: AsyncStore
    query: dict[str, list[str]]
    namespace: str | None

    @property
    def base(self) -> str:
        """The path that the application is reached at."""
        return base_of(self.server, self.request)

    @property
    def writes(self) -> bool:
        """Whether this browser may change something."""
        return self.session is not None and self.server.guard.may_write(self.session.token)

    def url(self, *steps: str, **query: Any) -> str:
        """The address of a page: names of a path, each percent-encoded, and a query; the namespace stays."""
        return url_of(self.base, self.namespace, *steps, **query)

    @property
    def path(self) -> str:
        """The path below `base`, as it was sent."""
        raw = (self.request.scope.get("raw_path") or self.request.url.path.encode()).decode("ascii", "strict")
        root = quote(self.request.scope.get("root_path", ""))
        return raw.partition("?")[0].removeprefix(root)

    def rest(self, name: str) -> str:
        """What follows the first name of the path."""
        return self.path.removeprefix(f"/{name}/")

    def one(self, name: str, default: str = "") -> str:
        """Take a parameter out of the query."""
        return self.query.pop(name, [default])[-1]


def base_of(server: Any, request: Request) -> str:
    """The path that the application is reached at."""
    return str(server.prefix or request.scope.get("root_path", ""))


def url_of(base: str, namespace: str | None, *steps: str, **query: Any) -> str:
    """An address under a path."""
    words = [(name, value) for name, value in query.items() if value not in (None, "")]
    if namespace is not None:
        words.append(("namespace", namespace))
    path = base + "/" + "/".join(quote(str(step), safe="") for step in steps if str(step))
    return path + ("?" + urlencode(words) if words else "")


@cache
def static(name: str) -> tuple[bytes, str]:
    """A file of ours and its version."""
    data = files("stateroom.web").joinpath("static", name).read_bytes()
    return data, sha256(data).hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("stateroom.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        sparkline=drawing.sparkline, timeline=drawing.timeline, graph=drawing.graph, state_class=drawing.state_class
    )
    environment.filters["moment"] = lambda text: str(text or "")[:19].replace("T", " ") + " UTC" if text else ""
    environment.filters["size"] = _size
    return environment


def _size(number: Any) -> str:
    if not isinstance(number, int):
        return ""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def render(visit: Visit, shown: Shown) -> Response:
    """A page as an answer."""
    html = _environment().get_template(shown.template).render(
        title=shown.title,
        data=shown.data,
        url=visit.url,
        visit=visit,
        here=visit.base + visit.path,
        json_url=_json_url(visit),
        places=PLACES,
        css=static("board.css")[1],
        js=static("board.js")[1],
        csrf=visit.session.csrf if visit.session else "",
        **shown.extra,
    )  # fmt: skip
    headers = {"cache-control": "no-store", "content-security-policy": CSP}
    return Response(html, shown.status, headers, "text/html; charset=utf-8")


def _json_url(visit: Visit) -> str:
    query = visit.request.url.query
    return "?" + (query + "&" if query else "") + "format=json"


def error_page(server: Any, request: Request, status: int, code: str, message: str) -> Response:
    """An error for people."""
    base = base_of(server, request)
    html = _environment().get_template("error.html").render(
        title=f"{status} {code}", message=message, login=url_of(base, None, "login"), home=base + "/", status=status,
        css_url=f"{url_of(base, None, 'static', 'board.css')}?v={static('board.css')[1]}",
    )  # fmt: skip
    headers = {"cache-control": "no-store", "content-security-policy": CSP}
    return Response(html, status, headers, "text/html; charset=utf-8")


def no_page(what: str) -> HttpError:
    """The error for a page that is not there."""
    return HttpError(404, "not-found", f"there is no page {what[:100]!r}")
