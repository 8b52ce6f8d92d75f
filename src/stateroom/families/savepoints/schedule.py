"""When savepoints are due: at the multiples of an interval.

The next one is strictly later, so at a multiple itself it is the one after; the previous one may be the time itself.
"""

from typing import Any

import msgspec

from ... import arguments


class Schedule(msgspec.Struct, frozen=True):
    """The multiples of `every_ms` milliseconds (1 or more); None: never.

    Raises `InvalidArgument`, as its methods do for times that are no int or negative.
    """

    every_ms: int | None

    def __post_init__(self) -> None:
        if self.every_ms is not None:
            arguments.number(self.every_ms, "every_ms", least=1)

    def next(self, t: int) -> int | None:
        """The first multiple after `t`; None without an interval."""
        t = arguments.number(t, "t")
        return None if self.every_ms is None else (t // self.every_ms + 1) * self.every_ms

    def previous(self, t: int) -> int | None:
        """The last multiple not after `t`; None without an interval."""
        t = arguments.number(t, "t")
        return None if self.every_ms is None else t // self.every_ms * self.every_ms

    def between(self, after: int, upto: int) -> range:
        """The multiples after `after` up to and with `upto`; empty without an interval."""
        after = arguments.number(after, "after")
        upto = arguments.number(upto, "upto")
        if self.every_ms is None:
            return range(0)
        return range((after // self.every_ms + 1) * self.every_ms, upto + 1, self.every_ms)


def as_schedule(value: Any) -> Schedule:
    """A `Schedule` from what a caller gave: one, an interval in milliseconds, or None."""
    return value if isinstance(value, Schedule) else Schedule(value)
