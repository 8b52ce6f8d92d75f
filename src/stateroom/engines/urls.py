"""From a url to an engine: a path, or a scheme that this package or an installed one brings."""

import os
import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from ..errors import InvalidArgument

DEFAULT = "stateroom.db"
ENVIRONMENT = "STATEROOM_URL"
_BUILT_IN = {
    "memory": "stateroom.engines.memory",
    "sqlite": "stateroom.engines.sqlite",
    "postgresql": "stateroom.engines.postgres",
    "postgres": "stateroom.engines.postgres",
    "rocksdb": "stateroom.engines.rocksdb",
}
_DRIVERS = ("postgres", "postgresql+psycopg", "postgres+psycopg")
"""What other libraries write for the one driver there is."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")

Connect = Callable[..., Any]


def resolve(url: "str | os.PathLike[str] | None") -> str:
    """The url that is meant: None is $STATEROOM_URL, else ``stateroom.db`` in the current folder."""
    if url is None:
        return _plain(os.environ.get(ENVIRONMENT) or DEFAULT)
    try:
        text = os.fspath(url)
        os.fsencode(text)
    except (TypeError, UnicodeEncodeError) as error:
        raise InvalidArgument(f"url is {url!a}; use a path or a url", what="url", value=url) from error
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise InvalidArgument(f"url is {url!r}; use a path or a url", what="url", value=url)
    return _plain(text)


def _plain(text: str) -> str:
    """A url with its home folder and its driver taken out. Raises `InvalidArgument` for the bare name of a scheme."""
    if text.isidentifier() and (text.lower() in _BUILT_IN or text.lower() in _installed()):
        example = {"memory": "memory:", "sqlite": "sqlite:///runs.db"}.get(text.lower(), f"{text.lower()}://...")
        raise InvalidArgument(
            f"{text!r} is the name of a scheme; write {example!r}, or './{text}' for a file of that name",
            what="url",
            value=text,
        )
    head, colon, tail = text.partition("://")
    if colon and head.lower() in _DRIVERS:
        return f"postgresql://{tail}"
    if text.startswith("sqlite:///~"):
        return "sqlite:///" + os.path.expanduser(text.removeprefix("sqlite:///"))
    return os.path.expanduser(text) if text.startswith("~") else text


def _installed() -> set[str]:
    return {point.name for point in entry_points(group="stateroom.engines")}


def scheme(url: str) -> str:
    """The scheme of a url; a bare path is "sqlite". One letter before the colon is a drive, not a scheme."""
    match = _SCHEME.match(url)
    if match is None or os.sep in match.group(1):
        return "sqlite"
    return match.group(1).lower()


def connect(url: str) -> Connect:
    """Return what opens an engine for a url. Raises `InvalidArgument` that lists the known schemes."""
    return _find(url, "connect", "stateroom.engines")


def connect_async(url: str) -> Connect | None:
    """Return what opens a native asyncio engine for a url; None where there is none."""
    name = scheme(url)
    if name in _BUILT_IN:
        opener: Connect | None = getattr(import_module(_BUILT_IN[name]), "connect_async", None)
        return opener
    for point in entry_points(group="stateroom.async_engines"):
        if point.name == name:
            loaded: Connect = point.load()
            return loaded
    return None


def _find(url: str, name: str, group: str) -> Connect:
    prefix = scheme(url)
    if prefix in _BUILT_IN:
        built_in: Connect = getattr(import_module(_BUILT_IN[prefix]), name)
        return built_in
    schemes = set(_BUILT_IN)
    for point in entry_points(group=group):
        if point.name == prefix:
            loaded: Connect = point.load()
            return loaded
        schemes.add(point.name)
    raise InvalidArgument(
        f"unknown scheme {prefix!r}; known are a path and {', '.join(f'{item}:' for item in sorted(schemes))}",
        what="url",
        value=prefix,
    )
