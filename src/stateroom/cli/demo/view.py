"""The run as people see it: a bar while it goes, a table at its end."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .conductor import Outcome
from .names import MACHINE


class Bar:
    """A progress bar drawn from the feed; without a terminal only what happens is said."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("files"),
            TimeElapsedColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self.task = self.bar.add_task("creating executions", total=None)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def begin(self, run: str, files: int) -> None:
        self.say(f"run {run}: {files} files of Python's standard library")
        self.bar.update(self.task, total=files, description="indexing")

    def progress(self, count: int) -> None:
        self.bar.update(self.task, completed=count)

    def say(self, text: str) -> None:
        if not self.quiet:
            self.console.print(Text(text))


def numbers(outcome: Outcome) -> dict[str, int]:
    """The short table, in order."""
    totals = outcome.tally.totals
    return {
        "files": totals.files,
        "lines": totals.lines,
        "definitions": totals.definitions,
        "kills survived": outcome.kills,
        "lease takeovers": sum(worker.token > 1 for worker in outcome.tally.workers),
        "attempts restarted": len(outcome.tally.restarted),
        "savepoints": outcome.savepoints,
        "executions completed twice": outcome.tally.twice,
        "commits/s": round(outcome.tally.rate()),
    }


def report(console: Console, outcome: Outcome, seconds: float) -> None:
    """The table, and whether it agrees with the plain count."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right", style="bold")
    for name, number in numbers(outcome).items():
        table.add_row(name, f"{number:,}")
    console.print()
    console.print(table)
    console.print()
    if outcome.differences:
        for difference in outcome.differences:
            console.print(Text(difference, "bold red"))
    else:
        console.print(Text(f"equal to a plain count of the same files, in {seconds:.1f} s", "green"))


def signpost(console: Console, where: str, url: str, outcome: Outcome, example: str) -> None:
    """Return where the database is, and which commands to look with."""
    command = f"{program()} --url {shlex.quote(url)}"
    console.print(Text.assemble("\nThe database is ", (where, "bold"), ". Look at it with"))
    for line in (
        f"{command} instance list",
        f"{command} execution list --job {outcome.run}",
        f"{command} execution show {shlex.quote(example)}",
        f"{command} machine show {MACHINE} {outcome.run}",
        f"{command} result list {outcome.run}",
        f"{command} savepoint list {outcome.run}",
        f"{command} feed tail",
    ):
        console.print(Text(f"  {line}", "cyan"), soft_wrap=True)


def program() -> str:
    """The command as it can be typed here: `stateroom` where it is found, else the path of this environment's."""
    script = Path(sys.executable).parent / "stateroom"
    if shutil.which("stateroom"):
        return "stateroom"
    if script.exists():
        return os.path.relpath(script) if script.is_relative_to(Path.cwd()) else str(script)
    return f"{sys.executable} -m stateroom"
