"""What a ``postgresql://`` url says: our options are taken out, everything else goes to libpq untouched."""

import re
from typing import NamedTuple
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from stateroom.errors import InvalidArgument

SCHEMA = "stateroom"
CONNECTIONS = 10
CONNECT_SECONDS = "10"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}\Z")


class Target(NamedTuple):
    """Where a database is and how it is used."""

    conninfo: str
    """For libpq, our own options taken out."""
    listen: str
    """For the one connection that listens; the same as `conninfo` unless ``?listen=`` names another."""
    schema: str
    connections: int
    """At most this many connections at a time."""
    where: str
    """``host:port/database`` for messages; never a password."""


def parse(url: str) -> Target:
    """The target of a url.

    Ours: ``schema`` (default "stateroom"), ``connections`` (default 10) and ``listen``, a percent-encoded url or DSN
    that reaches the server itself where the url goes through a transaction pooler.
    Raises `InvalidArgument` for what libpq does not know or a schema name that is not a plain identifier.
    """
    base, _, query = url.partition("?")
    ours: dict[str, str] = {}
    rest: list[str] = []
    for item in filter(None, query.split("&")):
        name, _, value = item.partition("=")
        if name in ("schema", "connections", "listen"):
            ours[name] = unquote(value)
        else:
            rest.append(item)
    known = _conninfo(base + ("?" + "&".join(rest) if rest else ""))
    schema = ours.get("schema", SCHEMA)
    if not _NAME.match(schema):
        raise InvalidArgument(
            "a schema name is 1 to 48 letters, digits and underscores, and starts with no digit",
            what="schema",
            value=schema,
        )
    conninfo = make_conninfo("", **known)
    listen = make_conninfo("", **_conninfo(ours["listen"])) if "listen" in ours else conninfo
    return Target(conninfo, listen, schema, _connections(ours.get("connections")), _where(known))


def _conninfo(dsn: str) -> dict[str, str]:
    try:
        known = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    except psycopg.ProgrammingError as error:
        # The error's own text may quote the password.
        raise InvalidArgument(
            "this is not a PostgreSQL url that libpq understands: check its options and percent-encoding",
            what="url",
        ) from _without_secret(error, dsn)
    known.setdefault("connect_timeout", CONNECT_SECONDS)
    known.setdefault("fallback_application_name", "stateroom")
    return known


def _without_secret(error: Exception, dsn: str) -> Exception | None:
    return None if re.search(r"://[^/@]*:[^/@]*@|password", dsn, re.IGNORECASE) else error


def _connections(text: str | None) -> int:
    if text is None:
        return CONNECTIONS
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise InvalidArgument("connections is a number from 1 to 1000", what="connections", value=text)
    return int(text)


def _where(known: dict[str, str]) -> str:
    hosts = known.get("host") or known.get("hostaddr") or "localhost"
    ports = (known.get("port") or "5432").split(",")
    names = hosts.split(",")
    each = [f"{name}:{ports[index] if len(ports) == len(names) else ports[0]}" for index, name in enumerate(names)]
    return f"{','.join(each)}/{known.get('dbname') or known.get('user') or ''}"
