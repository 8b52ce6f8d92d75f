"""Time and time-ordered ids: the one place a test replaces."""

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from .errors import Damaged, InvalidArgument
from .limits import BUSINESS_KEY_BYTES

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
FIRST = (datetime.min.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
LAST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
"""The first and the last microsecond that has a datetime in UTC."""


class Clock(Protocol):
    """The source of time of a store."""

    def now(self) -> datetime:
        """The time of day, aware."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def to_micros(at: datetime, what: str = "time") -> int:
    """Microseconds since 1970.

    Raises `InvalidArgument` for what is no datetime, one without a zone, and one outside the years 1 to 9999 in UTC:
    it could be written, and never be read again.
    """
    if not isinstance(at, datetime):
        raise InvalidArgument(f"{what} must be a datetime, not {type(at).__name__}", what=what, value=at)
    if at.tzinfo is None or at.utcoffset() is None:
        raise InvalidArgument(f"{what} has no time zone; use an aware datetime", what=what, value=at)
    return fitting((at - EPOCH) // _MICROSECOND, what, at)


def fitting(micros: int, what: str, value: Any = None) -> int:
    """`micros` if there is a datetime of it in UTC; else `InvalidArgument`."""
    if not FIRST <= micros <= LAST:
        raise InvalidArgument(f"{what} is outside the years 1 to 9999 in UTC", what=what, value=value)
    return micros


def from_micros(micros: int) -> datetime:
    """The aware UTC datetime of `to_micros`. Raises `Damaged` for a number that `to_micros` never gives."""
    try:
        return EPOCH + timedelta(0, 0, micros)
    except (OverflowError, TypeError) as error:
        raise Damaged("a stored time is outside the years 1 to 9999", kind="time") from error


_lock = threading.Lock()
_last = 0
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: sorts as it counts, no look-alikes


def new_id(business_key: str | None = None) -> str:
    """A fresh id that sorts by the time it was made: 26 characters, or ``"<business_key>/<26 characters>"``.

    48 bits of milliseconds, 20 bits that rise within one millisecond of this process, 62 random bits.
    Raises `InvalidArgument` for a business key that is blank, has a NUL or is over 200 bytes.
    """
    global _last
    if business_key is not None and not isinstance(business_key, str):
        raise InvalidArgument(
            f"business_key must be a str, not {type(business_key).__name__}", what="business_key", value=business_key
        )
    with _lock:
        tick = max(time.time_ns() // 1_000_000 << 20, _last + 1)
        _last = tick
    number = (tick & (1 << 68) - 1) << 62 | int.from_bytes(os.urandom(8), "big") >> 2
    text = "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
    if business_key is None:
        return text
    size = len(business_key.encode("utf-8", "surrogatepass"))
    if not business_key.strip() or "\0" in business_key or size > BUSINESS_KEY_BYTES:
        raise InvalidArgument(
            f"a business key is 1 to {BUSINESS_KEY_BYTES} bytes of UTF-8, not blank, no NUL",
            what="business_key",
            value=business_key[:64],
        )
    return f"{business_key}/{text}"


def _forget_in_child() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
