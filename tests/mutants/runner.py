"""Apply one-line defects to a copy of the package, one at a time, and see whether the tests notice.

Each defect names the few tests that must fail with it. A pattern that does not match exactly once is an error: the line
has moved on, and the defect must be written anew. The work tree is never touched.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "stateroom"
SHARE = 3
"""Defects that one run of the whole suite tries; the next day others are due."""

SECONDS = 400
"""Tests that take longer than this with a defect have been held up by it: that counts as noticed."""

KILLED, SURVIVED, NOT_RUN, BROKEN = "killed", "SURVIVED", "not run", "BROKEN"

FAST = "not postgresql and not sqlite and not async"
"""The blocking face on memory: what most defects are noticed by."""


class Mutant(NamedTuple):
    """A defect of one line, and the tests that must notice it."""

    title: str
    file: str
    """Inside the package."""
    old: str
    """Text that is in the file exactly once."""
    new: str
    tests: str
    """Files, in `tests`."""
    only: str = FAST
    """Pytest's expression for which of their tests."""
    equivalent: str = ""
    """Why nobody can notice it; then it is not tried."""
    unproven: str = ""
    """Why it is not known yet that its tests notice it; then it has no turn in the daily share."""

    @property
    def path(self) -> Path:
        return PACKAGE / self.file

    def applied(self, file: Path | None = None) -> str:
        """The file, or a copy of it, with the defect. Raises `ValueError` where the pattern is not there exactly once."""
        text = (file or self.path).read_text(encoding="utf-8")
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.title}: the pattern is {count} times in {self.file}; write it anew:\n{self.old}")
        return text.replace(self.old, self.new)


@contextmanager
def copied_package(folder: Path) -> Iterator[Path]:
    """A copy of `src`, compiled files too, whose times are those of the originals."""
    copy = folder / "src"
    shutil.copytree(ROOT / "src", copy)
    try:
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def run_tests(source: Path, tests: str, only: str) -> tuple[int, str]:
    """Exit code and output of some tests against a copy of the package."""
    command = [
        sys.executable, "-m", "pytest", "-n", "0", "-x", "-p", "no:cacheprovider", "--no-header",
        "--timeout", "60", "-o", f"pythonpath={source} {ROOT / 'tests'}", *tests.split(),
    ]  # fmt: skip
    if only:
        command += ["-k", only]
    variables = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=ROOT / "tests", env=variables, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as late:
        return 1, f"held up for {SECONDS} s: {late}"
    return done.returncode, done.stdout + done.stderr


def verdict(code: int, output: str) -> str:
    """Say what an exit code of pytest means for a defect."""
    if code == 1:
        return KILLED
    if code == 0:
        return SURVIVED if re.search(r"\b\d+ passed", output) else NOT_RUN
    return BROKEN


def try_mutant(source: Path, mutant: Mutant) -> tuple[str, str]:
    """Whether the tests notice a defect, and what they said."""
    target = source / "stateroom" / mutant.file
    whole, times = target.read_bytes(), target.stat()
    target.write_text(mutant.applied(target), encoding="utf-8")
    try:
        code, output = run_tests(source, mutant.tests, mutant.only)
    finally:
        target.write_bytes(whole)
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))  # its compiled file fits again
    return verdict(code, output), output


def share_of(mutants: Sequence[Mutant], day: int, size: int) -> list[Mutant]:
    """Those whose turn it is: all of them come within so many days."""
    chances = [mutant for mutant in mutants if not mutant.equivalent and not mutant.unproven]
    return [chances[(day * size + step) % len(chances)] for step in range(min(size, len(chances)))]


def share_of_today(mutants: Sequence[Mutant]) -> list[Mutant]:
    """As many as $STATEROOM_MUTANTS_SHARE says, by the day of the year."""
    size = int(os.environ.get("STATEROOM_MUTANTS_SHARE", SHARE))
    return share_of(mutants, date.today().timetuple().tm_yday, size)


def main(mutants: Sequence[Mutant], words: Sequence[str], folder: Path) -> int:
    """Try all of them, or those whose titles or files contain one of some words; gives the exit code."""
    chosen = [one for one in mutants if not words or any(word in f"{one.file} {one.title}" for word in words)]
    counts = dict.fromkeys((KILLED, SURVIVED, NOT_RUN, BROKEN, "equivalent"), 0)
    with copied_package(folder) as source:
        sound: dict[tuple[str, str], int] = {}
        for mutant in chosen:
            if mutant.equivalent:
                result, output = "equivalent", ""
            else:
                result, output = try_mutant(source, mutant)
            selection = mutant.tests, mutant.only
            if result == KILLED and selection not in sound:  # else the tests prove nothing
                sound[selection], said = run_tests(source, *selection)
                output = said if sound[selection] else output
            if result == KILLED and sound[selection]:
                result = BROKEN
            counts[result] += 1
            print(f"{result:10} {mutant.file}: {mutant.title}", flush=True)
            if result == BROKEN:
                print("\n".join(output.splitlines()[-15:]), flush=True)
    print(", ".join(f"{count} {result}" for result, count in counts.items() if count))
    return 1 if counts[SURVIVED] or counts[BROKEN] else 0
