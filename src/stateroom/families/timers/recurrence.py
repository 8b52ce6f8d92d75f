"""When a recurring timer is due again: every so long, or by a cron expression in a time zone."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from ... import arguments
from ...clock import EPOCH, LAST, from_micros
from ...errors import InvalidArgument

_TRIES = 1000
"""Times of a cron expression to look at for one that is later: an hour that a clock repeats has at most so many."""


class Recurrence(NamedTuple):
    """The part of a timer's row that says when it is due again."""

    every: int | None
    """Microseconds from one time to the next."""
    cron: str | None
    zone: str

    def after(self, at: int, now: int) -> int | None:
        """The next time after `now` and after `at`, in microseconds; None: there is none before the year 10000."""
        later = max(at, now)
        if self.every is not None:
            upcoming = at + self.every * ((later - at) // self.every + 1)
            return upcoming if upcoming <= LAST else None
        return self._after(from_micros(later))

    def _after(self, later: datetime) -> int | None:
        step = _times(self.cron or "", ZoneInfo(self.zone), later)
        for _ in range(_TRIES):
            upcoming = step()
            if upcoming is None:
                return None
            # Where a clock is set back an hour comes twice, and the expression may name its first passing again.
            if upcoming > later:
                return (upcoming - EPOCH) // timedelta(microseconds=1)
        return None


def check(every: Any, cron: Any, tz: Any) -> Recurrence | None:
    """How a timer recurs as it is kept; None: it does not. Raises `InvalidArgument`."""
    zone = _check_zone(tz)
    if every is not None and cron is not None:
        raise InvalidArgument("give every= or cron=, not both", what="every", value=every)
    if every is not None:
        return Recurrence(arguments.microseconds(every, "every"), None, "UTC")
    if cron is None:
        return None
    expression = arguments.name(cron, "cron")
    recurrence = Recurrence(None, " ".join(expression.split()), zone)
    if recurrence._after(datetime(2024, 1, 1, tzinfo=UTC)) is None:  # a leap year
        raise InvalidArgument(f"cron {expression!r} names no time that ever comes", what="cron", value=expression)
    return recurrence


def _check_zone(tz: Any) -> str:
    name = arguments.name(tz, "tz")
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError) as error:
        raise InvalidArgument(
            f"tz {name!r} is no time zone; use a name such as 'UTC' or 'Europe/Berlin'", what="tz", value=name
        ) from error
    return name


def _times(expression: str, zone: ZoneInfo, later: datetime) -> Callable[[], datetime | None]:
    """A function that gives the times of an expression one after another, in UTC; None at the end."""
    try:
        from cronsim import CronSim, CronSimError
    except ImportError as error:
        raise InvalidArgument(
            'timers with cron= need the package cronsim: pip install "stateroom[cron]"', what="cron", value=expression
        ) from error
    try:
        times = CronSim(expression, later.astimezone(zone))
    except (CronSimError, ValueError, OverflowError) as error:
        raise InvalidArgument(
            f"cron is {expression!r}: {error}; use five fields, such as '0 9 * * MON-FRI'",
            what="cron",
            value=expression,
        ) from error

    def step() -> datetime | None:
        try:
            return next(times).astimezone(UTC)
        except (StopIteration, CronSimError, OverflowError, ValueError):  # it looks fifty years ahead
            return None

    return step
