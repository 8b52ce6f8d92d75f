"""Options that several verbs share, and how their words become values."""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

import stateroom

from ..errors import InvalidArgument

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="At most this many.")]
All = Annotated[bool, typer.Option("--all", help="Everything, however many.")]
Prefix = Annotated[str | None, typer.Option("--id-prefix", help="Ids that begin with this.")]
OlderThan = Annotated[str | None, typer.Option("--older-than", help="Unchanged for this long: 90s, 15m, 2h, 30d.")]
After = Annotated[
    str | None, typer.Option(help="Changed after this time: ISO 8601, or an age such as 90s, 15m, 2h, 3d.")
]
Before = Annotated[str | None, typer.Option(help="Changed before this time: ISO 8601, or an age.")]

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def time_of(text: str | None, name: str) -> datetime | None:
    """The aware datetime of an option: ISO 8601 (UTC where it names no zone), or an age; else `InvalidArgument`."""
    if text is None:
        return None
    if (age := _age(text)) is not None:
        return datetime.now(UTC) - age
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument(
            f"{name} {text!r} is neither ISO 8601 nor an age such as 15m or 2h", what=name, value=text
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def duration_of(text: str, name: str) -> timedelta:
    """The duration of an option such as 90s, 15m, 2h or 30d; else `InvalidArgument`."""
    if (age := _age(text)) is None:
        raise InvalidArgument(f"{name} {text!r} is no age such as 90s, 15m, 2h or 30d", what=name, value=text)
    return age


def _age(text: str) -> timedelta | None:
    number, unit = text[:-1], text[-1:]
    if unit not in UNITS or not number.isdecimal() or len(number) > 9:
        return None
    try:
        age = timedelta(**{UNITS[unit]: int(number)})
        earliest = datetime.now(UTC) - age
    except OverflowError:  # more years than there are
        return None
    return age if earliest.year > 0 else None


def position_of(text: str) -> str:
    """The position an option names: `beginning`, `latest`, or a token."""
    return {"beginning": stateroom.BEGINNING, "latest": stateroom.LATEST}.get(text.lower(), text)


def label_of(text: str | None) -> tuple[str, str] | None:
    """`key=value` as a pair. `InvalidArgument` otherwise."""
    if text is None:
        return None
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise InvalidArgument(f"a label is written key=value, not {text!r}", what="label", value=text)
    return key, value


def given(**filters: Any) -> dict[str, Any]:
    """The filters that were given; one that was not must not reach the query, where None would mean a value."""
    return {name: value for name, value in filters.items() if value is not None and value != []}


def before_of(text: str | None) -> datetime | None:
    """The time before which a record of --older-than was last changed."""
    return None if text is None else datetime.now(UTC) - duration_of(text, "--older-than")


def json_of(text: str | None, name: str) -> Any:
    """The value that an option holds as JSON; None where it was not given."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"{name} is no JSON: {error}", what=name, value=text) from error
