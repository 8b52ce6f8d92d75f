"""Output: aligned tables with relative times for people, JSON for programs, errors as one line."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import StoreError
from .safe import safe, safe_json
from .tables import Column, fitted
from .values import brief, plain
from .wording import reworded

__all__ = ["Column", "Output", "ago", "cell", "clock"]

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


class At(NamedTuple):
    """A moment that is shown in full, with its zone."""

    when: datetime


def clock(when: datetime | None) -> At | None:
    """A time in full, for things that follow each other closely."""
    return None if when is None else At(when)


class Output:
    """Prints to people as tables, or as JSON. Times are in one zone: UTC, or that of this machine if `local`."""

    def __init__(self, as_json: bool, local: bool = False) -> None:
        self.as_json = as_json
        self.local = local
        self.unopened = 0
        """Records that a list left out, because nothing of them could be read."""
        self.console = _console(sys.stdout)
        self.errors = _console(sys.stderr)

    def json(self, value: object) -> None:
        """One JSON document on one line where it is part of a stream, indented on a terminal."""
        sys.stdout.write(_dumped(value, sys.stdout, 2 if sys.stdout.isatty() else None) + "\n")

    def line(self, value: object) -> None:
        """One JSON document on exactly one line, written out at once."""
        sys.stdout.write(_dumped(value, sys.stdout) + "\n")
        sys.stdout.flush()

    def say(self, text: str, style: str = "") -> None:
        """A sentence for people; it stays one line, however it is called what it speaks of."""
        self.console.print(Text(safe(text), style), soft_wrap=True)

    def title(self, text: str, style: str = "bold") -> None:
        """An empty line, and what follows."""
        self.console.print()
        if text:
            self.say(text, style)

    def note(self, text: str) -> None:
        """A remark that is no part of the result."""
        self.errors.print(Text(safe(text), "dim"), soft_wrap=True)

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
        """Aligned columns, no lines; columns that are empty throughout are left out, ids are never cut."""
        rows = [[self.cell(column.cell(item), whole=column.fold) for column in columns] for item in items]
        if not rows:
            return
        table, dropped = fitted(columns, rows, self.console.width)
        self.console.print(table)
        if dropped:
            self.note(f"too narrow for {', '.join(dropped)}: widen the terminal, or see --json")

    def record(self, record: Any, *, without: Sequence[str] = ()) -> None:
        """One record: what it says first, then its revision and times."""
        last = ("revision", "created_at", "updated_at")
        own = [name for name in shown_fields(record) if name not in last and name not in without]
        self.fields({name.replace("_", " "): getattr(record, name) for name in (*own, *last) if hasattr(record, name)})

    def fields(self, pairs: Mapping[str, object]) -> None:
        """One record, a field a line; what is empty is left out."""
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in pairs.items():
            if value is None or (isinstance(value, str | Sequence | Mapping | frozenset) and not value):
                continue
            table.add_row(
                safe(str(name)), self.moment(value) if isinstance(value, datetime) else self.cell(value, cut=False)
            )
        self.console.print(table)

    def cell(self, value: object, *, cut: bool = True, whole: bool = False) -> Text:
        """A value as it stands in a table; `whole` for what is folded there and never cut."""
        if isinstance(value, At):
            return Text(self.at(value.when), "dim")
        return cell(value, cut=cut, whole=whole)

    def at(self, when: datetime) -> str:
        """A time in full, to the millisecond, with its zone."""
        there = when.astimezone() if self.local else when.astimezone(UTC)
        return f"{there:%Y-%m-%d %H:%M:%S}.{there.microsecond // 1000:03} {there:%Z}"

    def moment(self, when: datetime) -> Text:
        """A time in full, with how long ago that is."""
        return Text.assemble(self.at(when), (f"  {ago(when)}", "dim"))

    def change(self, at: datetime, op: str, family: str, id: str, state: object, words: str) -> None:
        """One change of the feed on a line of its own, in columns of fixed width; an id is never cut."""
        line = Text.assemble((self.at(at), "dim"), "  ", (f"{op:<6}", STYLES.get(op, "")))
        line.append(f"  {safe(family):<16}  {safe(id):<40}  ")
        line.append(cell(state))
        if words:
            line.append(f"  {safe(words)}", "dim")
        self.console.print(line, soft_wrap=True)

    def deleted(self, what: str) -> None:
        """A deletion that happened."""
        if self.as_json:
            self.json({"deleted": what})
        else:
            self.say(f"deleted {what}")

    def failure(self, error: StoreError) -> None:
        """A refused call, in the words of the command line."""
        self.error(error.code, reworded(error.message), error.fields)

    def error(self, code: str, message: str, fields: Mapping[str, object] | None = None) -> None:
        """One line on stderr: `code: message`, or JSON with what else is known."""
        line = " ".join(message.split())
        if self.as_json:
            document = {"error": {"code": code, "message": line, **plain(dict(fields or {}))}}
            sys.stderr.write(_dumped(document, sys.stderr) + "\n")
        else:
            self.errors.print(Text.assemble((f"{code}: ", "bold red"), safe(line)), soft_wrap=True)


def shown_fields(record: Any) -> list[str]:
    """The fields of a record that somebody looks at: none of its internals."""
    internal: frozenset[str] = getattr(record, "_internal", frozenset())
    return [name for name in record.__struct_fields__ if name not in internal]


def _dumped(value: object, stream: Any, indent: int | None = None) -> str:
    """JSON that the stream can write, without characters that steer a terminal."""
    shown = plain(value)
    text = json.dumps(shown, ensure_ascii=False, indent=indent)
    try:
        text.encode(
            stream.encoding or "utf-8", "surrogatepass" if (stream.encoding or "").startswith("utf") else "strict"
        )
    except (UnicodeError, LookupError):
        text = json.dumps(shown, indent=indent)
    return safe_json(text)


def _console(stream: Any) -> Console:
    terminal = stream.isatty()
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=None if terminal else WIDE)


def cell(value: object, *, cut: bool = True, whole: bool = False) -> Text:
    """A value as it stands in a table."""
    if isinstance(value, Text):
        return value
    if isinstance(value, datetime):
        return Text(ago(value), "dim")
    text = (
        safe(value)
        if isinstance(value, str) and (whole or not cut)
        else brief(value, 80 if cut and not whole else 4000)
    )
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
