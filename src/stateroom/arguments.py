"""Every check of what a caller gives: names, texts, numbers, seconds, times, collections, statuses.

Each function gives the value as it is kept and raises `InvalidArgument` that says which argument it was, what it is and
what to give instead. Subclasses of ``str`` (members of a StrEnum, NumPy's strings) are accepted where a text is meant,
and kept as plain ``str``: a record reads alike in a process that lacks their class.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from . import clock
from .errors import InvalidArgument
from .limits import INT64_MAX, NAME_BYTES

T = TypeVar("T")

WAIT_SECONDS = 1e9
"""The longest time anybody waits for; a thread's clock takes no more than nine times this."""

TTL_SECONDS = 1e10
"""The longest time something lasts: some three hundred years."""


def name(value: Any, what: str, limit: int = NAME_BYTES) -> str:
    """An id or another name: 1 to `limit` bytes of UTF-8, no NUL, not blank."""
    if value.__class__ is not str:
        value = text(value, what)
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{what} is not valid Unicode: {error.reason}", what=what, value=ascii(value)) from error
    if not 0 < size <= limit or "\0" in value or not value.strip():
        raise InvalidArgument(
            f"{what} is {value.encode()[:64]!r} of {size} bytes; use 1 to {limit} bytes of UTF-8, not blank, no NUL",
            what=what,
            value=value[:64],
        )
    return value  # type: ignore[no-any-return]


def optional_name(value: Any, what: str, limit: int = NAME_BYTES) -> str | None:
    """As `name`, or None."""
    return None if value is None else name(value, what, limit)


def prefix(value: Any, what: str) -> str:
    """The text that names begin with: at most 256 bytes of UTF-8, no NUL; the empty one begins all."""
    checked = text(value, what)
    if checked == "" or checked.isspace():  # a name may begin with a blank
        return checked
    return name(checked, what)


def names(values: Any, what: str) -> tuple[str, ...]:
    """A collection of names, in its order."""
    return tuple([name(value, what) for value in collection(values, what, "names")])


def text(value: Any, what: str) -> str:
    """Any text, the empty one too."""
    if value.__class__ is str:
        return value
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} must be a str, not {type(value).__name__}", what=what, value=value)
    # A subclass may have a text of its own for str(); this gives the characters it is made of.
    return str.__str__(value)


def choice(value: Any, what: str, allowed: Collection[str]) -> str:
    """One of some words, such as a status."""
    if value.__class__ is not str and isinstance(value, str):
        value = str.__str__(value)
    if not isinstance(value, str) or value not in allowed:
        names = ", ".join(allowed if isinstance(allowed, tuple | list | Mapping) else sorted(allowed))
        raise InvalidArgument(f"unknown {what} {value!r}; one of {names}", what=what, value=value)
    return value


def choices(values: Any, what: str, allowed: Collection[str], noun: str = "states") -> frozenset[str]:
    """A collection of such words."""
    return frozenset([choice(value, what, allowed) for value in collection(values, what, noun)])


def collection(values: Any, what: str, noun: str = "items") -> tuple[Any, ...]:
    """The items of an iterable that is no text."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidArgument(f"{what} is {values!r:.100}; give a collection of {noun}", what=what, value=values)
    return tuple(values)


def mapping(value: Any, what: str) -> Mapping[Any, Any]:
    """Any mapping, as it is."""
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{what} must be a mapping, not {type(value).__name__}", what=what, value=value)
    return value


def instance(value: Any, what: str, kind: type[T]) -> T:
    """An object of a class, as it is."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise InvalidArgument(
            f"{what} must be {article} {kind.__name__}, not {type(value).__name__}", what=what, value=value
        )
    return value


def number(value: Any, what: str, *, least: int = 0, most: int = INT64_MAX) -> int:
    """An int from `least` to `most`; a member of an IntEnum is kept as the plain number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{what} must be an int, not {type(value).__name__}", what=what, value=value)
    if not least <= value <= most:
        label = value if abs(value) < 1 << 128 else f"a number of {value.bit_length()} bits"
        raise InvalidArgument(f"{what} is {label}; use {least} to {most}", what=what, value=value)
    return int(value)


def seconds(value: Any, what: str, *, zero: bool = True, most: float = WAIT_SECONDS) -> float:
    """A duration as seconds, given as a number or a timedelta: 0 or more (`zero` False: more than 0), under `most`."""
    length = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(length, bool) or not isinstance(length, int | float) or not (0 if zero else 1e-9) <= length < most:
        least = "0 or more" if zero else "more than 0"
        raise InvalidArgument(
            f"{what} is {_short(value)}; use seconds or a timedelta, {least} and under {most:.0e} s",
            what=what,
            value=value,
        )
    return length


def microseconds(value: Any, what: str, *, zero: bool = False, most: float = TTL_SECONDS) -> int:
    """As `seconds`, in whole microseconds and at least 1 (`zero`: at least 0)."""
    if isinstance(value, timedelta):  # exactly: a float has no room for years of microseconds
        seconds(value, what, zero=zero, most=most)
        return value // timedelta(microseconds=1)
    return max(0 if zero else 1, round(seconds(value, what, zero=zero, most=most) * 1_000_000))


def time(value: Any, what: str) -> int:
    """An aware time of the years 1 to 9999 in UTC, as microseconds since 1970."""
    return clock.to_micros(value, what)


def optional_time(value: datetime | None, what: str) -> int | None:
    """As `time`, or None."""
    return None if value is None else clock.to_micros(value, what)


def later(now: int, length: int, what: str) -> int:
    """The microsecond that is `length` microseconds after `now`."""
    return clock.fitting(now + length, what)


def _short(value: Any) -> str:
    try:
        result = repr(value)
    except ValueError:  # an int of more digits than Python prints
        result = "a very long int"
    return result if len(result) <= 100 else f"{result[:97]}..."
