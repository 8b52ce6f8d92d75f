"""The load in a process of its own, and what it has acknowledged so far."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from engines.sqlite_helpers import environment

LOAD = Path(__file__).with_name("load.py")


class Ledger:
    """Starts the load; a context manager that kills it. What it printed is read from a pipe."""

    def __init__(
        self, url: Path, *, durability: str = "full", face: str = "threads", writers: int = 4, pages: int = 1000
    ) -> None:
        self.writers = writers
        self.acknowledged: set[tuple[int, int]] = set()
        command = [sys.executable, "-W", "error", str(LOAD), str(url), durability, face, str(writers), str(pages)]
        self._program = subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def more(self, count: int) -> None:
        """Return when so many more units were acknowledged."""
        assert self._program.stdout is not None
        for _ in range(count):
            line = self._program.stdout.readline()
            assert line, f"the load ended by itself: {self._errors()}"
            self._note(line)

    @contextmanager
    def halted(self) -> Iterator[None]:
        """It stands still meanwhile, wherever it is: what is looked at does not grow faster than it is looked at."""
        self._program.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._program.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and note what it had still acknowledged before."""
        self._program.kill()
        assert self._program.stdout is not None
        for line in self._program.stdout:
            if line.endswith("\n"):
                self._note(line)
        self._program.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.kill()
        self._program.wait()
        for pipe in (self._program.stdout, self._program.stderr):
            if pipe is not None:
                pipe.close()

    def _note(self, line: str) -> None:
        writer, number = line.split()
        self.acknowledged.add((int(writer), int(number)))

    def _errors(self) -> str:
        assert self._program.stderr is not None
        return f"{self._program.stderr.read()} (exit code {self._program.wait()})"
