"""Tables that fit: ids are never cut, and columns that matter less give way to them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len, chop_cells
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

GAP = 2
FOLDED = 16
"""The least width of a column that is folded: an id of 48 characters is three lines."""
CUT = 12
"""The least width of a column that is cut."""


class Column(NamedTuple):
    """A column of a table: its title, how its cell is made of a record, and how it is shown."""

    title: str
    cell: Callable[[Any], object]
    align: JustifyMethod = "left"
    fold: bool = False
    """Ids are folded and never cut, so that they can be copied."""
    drop: int = 0
    """Columns of the highest number go first where there is no room; an id never goes."""


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> tuple[Table, list[str]]:
    """The table in `width` cells, and the titles of the columns that had no room."""
    used = [number for number in range(len(columns)) if any(row[number] for row in rows)]
    natural = {
        number: max(cell_len(columns[number].title), *(cell_len(row[number].plain) for row in rows)) for number in used
    }
    least = {number: _least(columns[number], natural[number]) for number in used}
    dropped: list[int] = []
    while _total(least, used) > width:
        candidates = [number for number in used if not columns[number].fold]
        if not candidates:
            break
        worst = max(candidates, key=lambda number: (columns[number].drop, number))
        used.remove(worst)
        dropped.append(worst)
    while _total(least, used) > width and any(least[number] > 1 for number in used):
        widest = max(used, key=lambda number: least[number])
        least[widest] -= 1
    widths = _shared(columns, used, least, natural, width)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for number in used:
        column = columns[number]
        table.add_column(column.title, justify=column.align, overflow="ellipsis", no_wrap=True, width=widths[number])
    for row in rows:
        table.add_row(*(fold(row[number], widths[number]) if columns[number].fold else row[number] for number in used))
    return table, [columns[number].title for number in sorted(dropped)]


def fold(text: Text, width: int) -> Text:
    """The text over as many lines as it takes, broken at exactly `width` cells, so that nothing of it is lost."""
    if cell_len(text.plain) <= width:
        return text
    return Text("\n".join(chop_cells(text.plain, max(width, 1))), text.style)


def _least(column: Column, natural: int) -> int:
    if column.align == "right":
        return natural
    return min(natural, FOLDED if column.fold else max(CUT, len(column.title)))


def _total(widths: dict[int, int], used: Sequence[int]) -> int:
    return sum(widths[number] for number in used) + GAP * max(len(used) - 1, 0) + (GAP if used else 0)


def _shared(
    columns: Sequence[Column], used: Sequence[int], least: dict[int, int], natural: dict[int, int], width: int
) -> dict[int, int]:
    """Give what room is left to ids first, then from left to right."""
    widths = {number: least[number] for number in used}
    room = width - _total(widths, used)
    for number in sorted(used, key=lambda number: (not columns[number].fold, number)):
        more = max(min(natural[number] - widths[number], room), 0)
        widths[number] += more
        room -= more
    return widths
