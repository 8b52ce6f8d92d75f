"""The reading of a ``postgresql://`` url: our options are taken out, everything else goes to libpq untouched.

No error of this module shows any part of the url but names of options: what stands elsewhere may be a password that
was not percent-encoded, cut at any place.
"""

import math
import re
from typing import NamedTuple
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from stateroom.errors import InvalidArgument

SCHEMA = "stateroom"
CONNECTIONS = 10
CONNECT_SECONDS = "10"
_OURS = ("schema", "connections", "listen", "operation_timeout")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}\Z")
_OPTION = re.compile(r"[a-z_]{1,32}\Z")
_PORTS = re.compile(r"[0-9]*(,[0-9]*)*\Z")
_ENCODE = "percent-encode what stands in the name, the password and the database (@ is %40, / is %2F, : is %3A)"


class Target(NamedTuple):
    """The place of a database, and how it is used."""

    conninfo: str
    """For libpq, our own options taken out."""
    listen: str
    """For the one connection that listens; the same as `conninfo` unless ``?listen=`` names another."""
    schema: str
    connections: int
    """At most this many connections at a time."""
    where: str
    """``host:port/database`` for messages; never a password."""
    seconds: float | None
    """After so long without an answer an operation is given up; None: never."""


def parse(url: str) -> Target:
    """Return the target of a url.

    Ours: ``schema`` (default "stateroom"), ``connections`` (default 10), ``operation_timeout`` (seconds; none) and
    ``listen``, a percent-encoded url or DSN that reaches the server itself where the url goes through a transaction
    pooler. Raises `InvalidArgument` for what libpq does not know or a schema name that is not a plain identifier.
    """
    base, _, query = url.partition("?")
    ours: dict[str, str] = {}
    others: list[str] = []
    for item in filter(None, query.split("&")):
        name, _, value = item.partition("=")
        if name in _OURS:
            ours[name] = unquote(value)
        else:
            others.append(item)
    options = _conninfo(base + ("?" + "&".join(others) if others else ""))
    schema = ours.get("schema", SCHEMA)
    if not _NAME.match(schema):
        raise InvalidArgument(
            "a schema name is 1 to 48 letters, digits and underscores, and starts with no digit",
            what="schema",
            value=_shown(schema),
        )
    conninfo = make_conninfo("", **options)
    listen = make_conninfo("", **_conninfo(ours["listen"])) if "listen" in ours else conninfo
    connections, seconds = _connections(ours.get("connections")), _seconds(ours.get("operation_timeout"))
    return Target(conninfo, listen, schema, connections, _where(options), seconds)


def _conninfo(dsn: str) -> dict[str, str]:
    base, _, query = dsn.partition("?")
    name, separator, place = base.partition("://")
    if separator and (place.count("@") > 1 or "@" in place.partition("/")[2]):
        raise InvalidArgument(f"this url has an @ too many: {_ENCODE}", what="url")
    try:
        options = {option: str(value) for option, value in conninfo_to_dict(dsn).items() if value is not None}
    except psycopg.ProgrammingError:
        raise InvalidArgument(_refusal(name, separator, query), what="url") from None
    if not _PORTS.match(options.get("port", "")) or "@" in options.get("host", ""):
        raise InvalidArgument(f"the port of this url is no number: {_ENCODE}", what="url")
    options.setdefault("connect_timeout", CONNECT_SECONDS)
    options.setdefault("fallback_application_name", "stateroom")
    return options


def _refusal(name: str, separator: str, query: str) -> str:
    """Return why libpq does not take a url, from what can be no secret: its own text quotes the url."""
    if not separator and name.startswith(("postgres:", "postgresql:")):
        return "this url lacks the // after postgresql: write postgresql://user@host/database"
    options = [item.partition("=")[0] for item in query.split("&")]
    strange = [option for option in options if _OPTION.match(option) and option not in _known_options()]
    if strange and all("=" in item for item in query.split("&")):
        return f"libpq does not know the option {strange[0]!r} of this url"
    return f"this is not a PostgreSQL url that libpq understands: check its options, and {_ENCODE}"


def _known_options() -> set[str]:
    return {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}


def _connections(text: str | None) -> int:
    if text is None:
        return CONNECTIONS
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise InvalidArgument("connections is a number from 1 to 1000", what="connections", value=_shown(text))
    return int(text)


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 86_400:
        raise InvalidArgument(
            "operation_timeout is a number of seconds, more than 0 and at most 86400",
            what="operation_timeout",
            value=_shown(text),
        )
    return seconds


def _shown(value: str) -> str | None:
    """Return a value for an error; None where it may be the rest of a password with a ``?`` in it."""
    return None if "@" in value else value


def _where(options: dict[str, str]) -> str:
    hosts = options.get("host") or options.get("hostaddr") or "localhost"
    ports = (options.get("port") or "5432").split(",")
    names = hosts.split(",")
    each = [f"{name}:{ports[index] if len(ports) == len(names) else ports[0]}" for index, name in enumerate(names)]
    return f"{','.join(each)}/{options.get('dbname') or options.get('user') or ''}"
