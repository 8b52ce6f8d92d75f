"""Output: aligned tables with relative times for people, JSON for programs, errors as one line."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from rich.console import Console, JustifyMethod, OverflowMethod
from rich.table import Table
from rich.text import Text

from ..errors import StoreError
from .values import brief, plain

STYLES = {
    "completed": "green",
    "running": "cyan",
    "publishing": "cyan",
    "bid_accepted": "cyan",
    "waiting": "yellow",
    "pending": "yellow",
    "new": "yellow",
    "failed": "red",
    "cancelled": "magenta",
    "delete": "red",
    "create": "green",
}
WIDE = 10_000  # without a terminal nothing is cut: the reader is a program or a file


class Column(NamedTuple):
    """A column of a table: its title, how its cell is made of a record, and how it is shown."""

    title: str
    cell: Callable[[Any], object]
    align: JustifyMethod = "left"
    fold: bool = False
    """Ids are folded and never cut, so that they can be copied."""


class Output:
    """Prints to people as tables, or as JSON."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = _console(sys.stdout)
        self.errors = _console(sys.stderr)

    def json(self, value: object) -> None:
        """One JSON document on one line where it is part of a stream, indented on a terminal."""
        indent = 2 if sys.stdout.isatty() else None
        sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, indent=indent) + "\n")

    def line(self, value: object) -> None:
        """One JSON document on exactly one line, written out at once."""
        sys.stdout.write(json.dumps(plain(value), ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def say(self, text: str, style: str = "") -> None:
        """A sentence for people."""
        self.console.print(Text(text, style))

    def note(self, text: str) -> None:
        """A remark that is no part of the result."""
        self.errors.print(Text(text, "dim"))

    def records(self, columns: Sequence[Column], found: Iterable[Any], *, limit: int | None, empty: str) -> None:
        """A list: a table, or a JSON array of whole records. Says where more were left out."""
        rows = iter(found)
        items = list(rows if limit is None else islice(rows, limit))
        if self.as_json:
            self.json(items)
        elif items:
            self.table(columns, items)
        else:
            self.note(empty)
        if limit is not None and len(items) == limit and next(rows, None) is not None:
            self.note(f"the first {limit}; --limit N or --all shows more")

    def table(self, columns: Sequence[Column], items: Iterable[Any]) -> None:
        """Aligned columns, no lines; columns that are empty throughout are left out."""
        rows = [[cell(column.cell(item)) for column in columns] for item in items]
        used = [number for number in range(len(columns)) if any(row[number] for row in rows)]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for column in (columns[number] for number in used):
            overflow: OverflowMethod = "fold" if column.fold else "ellipsis"
            table.add_column(column.title, justify=column.align, overflow=overflow, no_wrap=not column.fold)
        for row in rows:
            table.add_row(*(row[number] for number in used))
        self.console.print(table)

    def record(self, record: Any, *, without: Sequence[str] = ()) -> None:
        """One record: what it says first, then its revision and times."""
        last = ("revision", "created_at", "updated_at")
        own = [name for name in record.__struct_fields__ if name not in last and name not in without]
        self.fields({name.replace("_", " "): getattr(record, name) for name in (*own, *last) if hasattr(record, name)})

    def fields(self, pairs: Mapping[str, object]) -> None:
        """One record, a field a line; what is empty is left out."""
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in pairs.items():
            if value is None or (isinstance(value, str | Sequence | Mapping | frozenset) and not value):
                continue
            table.add_row(name, moment(value) if isinstance(value, datetime) else cell(value, cut=False))
        self.console.print(table)

    def change(self, at: datetime, op: str, family: str, id: str, state: object, words: str) -> None:
        """One change of the feed on a line of its own, in columns of fixed width."""
        line = Text.assemble(clock(at), "  ", (f"{op:<6}", STYLES.get(op, "")), f"  {family:<16}  {id:<40}  ")
        line.append(cell(state))
        if words:
            line.append(f"  {words}", "dim")
        self.console.print(line, overflow="ellipsis", no_wrap=True)

    def deleted(self, what: str) -> None:
        """A deletion that happened."""
        if self.as_json:
            self.json({"deleted": what})
        else:
            self.say(f"deleted {what}")

    def failure(self, error: StoreError) -> None:
        """A refused call."""
        self.error(error.code, error.message, error.fields)

    def error(self, code: str, message: str, fields: Mapping[str, object] | None = None) -> None:
        """One line on stderr: `code: message`, or JSON with what else is known."""
        line = " ".join(message.split())
        if self.as_json:
            document = {"error": {"code": code, "message": line, **plain(dict(fields or {}))}}
            sys.stderr.write(json.dumps(document, ensure_ascii=False) + "\n")
        else:
            self.errors.print(Text.assemble((f"{code}: ", "bold red"), line), soft_wrap=True)


def _console(stream: Any) -> Console:
    terminal = stream.isatty()
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=None if terminal else WIDE)


def cell(value: object, *, cut: bool = True) -> Text:
    """A value as it stands in a table."""
    if isinstance(value, Text):
        return value
    if isinstance(value, datetime):
        return Text(ago(value), "dim")
    text = value if isinstance(value, str) else brief(value, 80 if cut else 4000)
    return Text(text, STYLES.get(text, ""))


def ago(when: datetime | None, now: datetime | None = None) -> str:
    """How long ago, in the largest fitting unit: `12 s ago`, `in 3 min`."""
    if when is None:
        return ""
    seconds = ((now or datetime.now(UTC)) - when).total_seconds()
    amount = abs(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if amount >= size:
            return f"{int(amount / size)} {unit} ago" if seconds > 0 else f"in {int(amount / size)} {unit}"
    return "now"


def moment(when: datetime) -> Text:
    """A time in full, with how long ago that is."""
    return Text.assemble(when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC", (f"  {ago(when)}", "dim"))


def clock(when: datetime | None) -> Text:
    """The time of day, for things that follow each other closely; with the date where that is not today."""
    if when is None:
        return Text()
    local = when.astimezone()
    today = local.date() == datetime.now(UTC).astimezone().date()
    return Text(local.strftime("%H:%M:%S.%f" if today else "%Y-%m-%d %H:%M:%S.%f")[:-3], "dim")
