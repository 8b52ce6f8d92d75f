"""How nodes talk: HTTP/1.1 requests, their addresses, and the answers by name."""

import ipaddress
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from ..errors import InvalidArgument

VALUE, ANNOUNCE, CLEAR, STATUS = "/v1/value", "/v1/announce", "/v1/clear", "/v1/status"

PIECE_BYTES = 256 << 10
"""Values travel in pieces of a stored chunk's size."""

BODY_BYTES = 16 << 10
"""The body of a request, and of an answer that is no value."""

HERE, NOT_HERE, OTHER_VALUE, OTHER_GENERATION, DAMAGED, UNAVAILABLE, SUPERSEDED = (
    "here", "not-here", "other-value", "other-generation", "damaged", "unavailable", "superseded",
)  # fmt: skip

IS_NOT_HERE = "it does not hold it"


class Address(NamedTuple):
    """The address of a node."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_address(text: str, what: str, *, scheme: str | None = None) -> Address:
    """``HOST:PORT`` or ``http(s)://HOST:PORT`` as an address. Raises `InvalidArgument`."""
    try:
        parts = urlsplit(text if "://" in text else f"{scheme or 'http'}://{text}")
        host, port = parts.hostname, parts.port
    except (ValueError, TypeError, AttributeError):
        host = port = parts = None
    if parts is None or not host or port is None or parts.scheme not in ("http", "https") or parts.path.strip("/"):
        raise InvalidArgument(
            f"{what} is {text!r:.100}; use HOST:PORT" + ("" if scheme else " or http(s)://HOST:PORT"),
            what=what,
            value=text,
        )
    return Address(parts.scheme, host, port)


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine by name or number."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def target(path: str, **parameters: Any) -> str:
    """A path with its parameters, every one escaped."""
    return f"{path}?{urlencode(parameters)}" if parameters else path


def about_value(start: int, size: int, digest: str, form: str) -> str:
    """Return what the proof of an answer with a value says besides its status."""
    return f"{start}/{size}/{digest}/{form}"
