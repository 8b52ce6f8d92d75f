"""Everything that is checked before a request reaches a store: who asks, from where, how often and how much."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import Request

from .errors import HttpError
from .sessions import COOKIE, Sessions
from .tokens import Keyring, Token

BODY_BYTES = 64 << 10
"""A request's body; actions are small."""

ADDRESS_BYTES = 8 << 10
"""A request's path and query."""

RATE, BURST = 50.0, 200.0
"""Requests a second of one client, and how many at once."""

CLIENTS = 10_000
"""Clients whose rate is remembered."""

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}

_LOCAL = Token("", write=False, name="local")


class Rates:
    """A bucket of requests for each client, filled at `RATE`; the clients seen last are kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Take one request from a client's bucket. Raises `HttpError` 429 where it is empty."""
        now = self._clock()
        left, at = self._buckets.pop(client, (BURST, now))
        left = min(BURST, left + (now - at) * RATE)
        self._buckets[client] = (left - 1 if left >= 1 else left, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        if left < 1:
            raise HttpError(429, "too-many-requests", "too many requests; wait a second", retry_after="1")


class Guard:
    """Lets a request through, and says as whom."""

    def __init__(
        self, keyring: Keyring, *, read_only: bool, hosts: frozenset[str] = frozenset(), trust_local: bool = True
    ) -> None:
        self._trust_local = trust_local
        self._keyring = keyring
        self._read_only = read_only
        self._hosts = hosts
        self._rates = Rates()
        self.sessions = Sessions()

    def admit(self, request: Request) -> Token:
        """The token a request comes with. Raises `HttpError`."""
        client = self._admit_size(request)
        token = self._token(request)
        if token is not None:
            return token
        near = self._trust_local and _is_loopback(client)
        if self._keyring and not near:
            raise HttpError(401, "unauthenticated", "a token is needed", www_authenticate="Bearer")
        if not near:
            raise HttpError(401, "unauthenticated", "only this machine may read without a token")
        self._check_host(request, client)
        return _LOCAL

    def admit_write(self, request: Request, token: Token) -> None:
        """Check that a token may change something. Raises `HttpError`."""
        if self._read_only:
            raise HttpError(403, "read-only", "this server only reads; start it with a token that may write")
        if not token.write:
            raise HttpError(403, "forbidden", "this token may only read")
        site = request.headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin"):
            raise HttpError(403, "forbidden", "a page of another site cannot change anything here")

    def admit_form(self, request: Request) -> None:
        """Check a form of somebody who need not be known yet. Raises `HttpError`."""
        self._admit_size(request)
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise HttpError(403, "forbidden", "a page of another site cannot send forms here")

    def find(self, secret: str) -> Token:
        """The token with a secret. Raises `HttpError` where there is none."""
        token = self._keyring.find(secret)
        if token is None:
            raise HttpError(401, "unauthenticated", "this token is not known here")
        return token

    def may_write(self, token: Token) -> bool:
        """Whether a token may change something here."""
        return token.write and not self._read_only

    def _admit_size(self, request: Request) -> str:
        """Check the sizes of a request and how many its client sends; gives the client's address."""
        if len(request.scope.get("raw_path") or b"") + len(request.scope["query_string"]) > ADDRESS_BYTES:
            raise HttpError(414, "too-long", f"the address has more than {ADDRESS_BYTES} bytes")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_BYTES:
            raise HttpError(413, "too-large", f"the body may have {BODY_BYTES} bytes")
        client = request.client.host if request.client else ""
        self._rates.take(client)
        return client

    def _token(self, request: Request) -> Token | None:
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        if not kind:
            session = self.sessions.find(request.cookies.get(COOKIE, ""))
            return None if session is None else session.token
        token = self._keyring.find(secret.strip()) if kind.lower() == "bearer" else None
        if token is None:
            raise HttpError(401, "unauthenticated", "this token is not known here", www_authenticate="Bearer")
        return token

    def _check_host(self, request: Request, client: str) -> None:
        """Refuse a name that somebody's DNS points at this machine, so that a page of theirs cannot read here."""
        host = request.headers.get("host", "").rpartition("@")[2]
        name = host[: host.index("]") + 1] if host.startswith("[") else host.partition(":")[0]
        if name in self._hosts or "." not in name.strip(".") or not client:
            return
        if not _is_address(name.strip("[]")):
            raise HttpError(421, "wrong-host", f"this server does not answer for {name[:100]!r}; use localhost")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    """Say whether a client is on this machine: a loopback address, or no address at all (a socket file, a test)."""
    return ipaddress.ip_address(host).is_loopback if _is_address(host) else True
