"""Problems that `check` reports."""

from .. import keys
from ..codec.shown import Shown
from ..core.namespace import Reader
from ..engine import Row


class Problem(Shown, frozen=True):
    """Something that does not hold. `code` is stable; `message` says what, where and what to do."""

    code: str
    message: str
    family: str = ""
    id: str = ""
    part: int = 0


_RUN = 1000


async def rows_of(reader: Reader, part: int, start: bytes, stop: bytes | None = None) -> list[Row]:
    """All rows under a prefix, or of a range, in one part."""
    stop = start + keys.END if stop is None else stop
    result: list[Row] = []
    while True:
        rows = await reader.in_part(part).scan_committed(start, stop, limit=_RUN)
        result += rows
        if len(rows) < _RUN:
            return result
        start = rows[-1].key + b"\0"
