"""The families that the API shows: how each is listed, keyed and filtered."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import unquote

from ..errors import InvalidArgument, NotFound

Read = Callable[[str, list[str]], Any]


def _text(_: str, values: list[str]) -> str:
    return values[-1]


def _texts(_: str, values: list[str]) -> tuple[str, ...]:
    return tuple(item for value in values for item in value.split(",") if item)


def number(name: str, values: list[str]) -> int:
    """A whole number. Raises `InvalidArgument`."""
    try:
        return int(values[-1])
    except ValueError as error:
        raise InvalidArgument(f"{name} is {values[-1][:100]!r}; use a whole number", what=name) from error


def moment(name: str, values: list[str]) -> datetime:
    """A time with its zone. Raises `InvalidArgument`."""
    try:
        at = datetime.fromisoformat(values[-1].replace(" ", "+"))
    except ValueError as error:
        raise InvalidArgument(
            f"{name} is {values[-1][:100]!r}; use a time like 2026-01-31T12:00:00Z", what=name
        ) from error
    if at.tzinfo is None:
        raise InvalidArgument(f"{name} says no zone; end it with Z or an offset", what=name)
    return at


def _label(name: str, values: list[str]) -> tuple[str, str]:
    key, colon, value = values[-1].partition("=")
    if not colon:
        raise InvalidArgument(f"{name} is {values[-1][:100]!r}; use KEY=VALUE", what=name)
    return key, value


class Listed(NamedTuple):
    """A family: the names of its key and of its filters, and how each filter is read."""

    name: str
    key: tuple[str, ...]
    filters: Mapping[str, Read]


_CHANGED: dict[str, Read] = {"updated_after": moment, "updated_before": moment}

FAMILIES: dict[str, Listed] = {
    family.name: family
    for family in (
        Listed(
            "instances",
            ("id",),
            {
                "id": _text, "id_prefix": _text, "status": _text, "status_in": _texts, "workflow": _text,
                "workflow_prefix": _text, "workflow_version": number, "business_key": _text, "label": _label,
                "order": _text, **_CHANGED,
            },
        ),
        Listed(
            "executions",
            ("id",),
            {
                "id_prefix": _text, "job_id": _text, "state": _text, "state_in": _texts, "node_id": _text,
                "updated_before": moment,
            },
        ),
        Listed("machines", ("machine", "name"), {"id_prefix": _text, "machine": _text, "state": _text}),
        Listed("results", ("dag", "id"), {"id_prefix": _text, "dag": _text}),
        Listed("savepoints", ("run", "timestamp"), {"id_prefix": _text, "run": _text}),
    )
}  # fmt: skip


def read_filters(family: Listed, query: Mapping[str, list[str]]) -> dict[str, Any]:
    """The arguments of a family's `query` from a request's. Raises `InvalidArgument` for one that is unknown."""
    arguments: dict[str, Any] = {}
    for name, values in query.items():
        if name == "limit":
            arguments[name] = number(name, values)
        elif name == "cursor":
            arguments[name] = values[-1]
        elif name in family.filters:
            arguments[name] = family.filters[name](name, values)
        else:
            allowed = ", ".join((*family.filters, "limit", "cursor"))
            raise InvalidArgument(f"{family.name} have no filter {name[:100]!r}; use {allowed}", what=name)
    return arguments


def read_key(family: Listed, path: str) -> tuple[str, ...]:
    """The names of a key from the path of a request, each percent-encoded; the last may have slashes in it.

    Raises `NotFound` where there are too few.
    """
    steps = path.split("/", len(family.key) - 1)
    if len(steps) != len(family.key) or not all(steps):
        raise NotFound(f"{family.name} have keys of {'/'.join(family.key)}", kind=family.name, id=unquote(path))
    return tuple(unquote(step, errors="strict") for step in steps)
