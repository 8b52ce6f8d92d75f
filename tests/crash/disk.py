"""The file system of `powerloss` in a process of its own, mounted for the time of a test."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from engines.sqlite_helpers import PATIENCE, environment

PROGRAM = Path(__file__).with_name("powerloss.py")


def missing() -> str | None:
    """Why nothing can be mounted here, in one line; None when it can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "needs a FUSE device, /dev/fuse"
    if shutil.which("fusermount3") is None:
        return "needs fusermount3 (Debian: apt-get install fuse3)"
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError, AttributeError) as error:
        return f"needs mfusepy and libfuse3: {error}"
    return None


class Disk:
    """A context manager; `path` is its root. Skips the test where nothing can be mounted."""

    def __init__(self, place: Path) -> None:
        reason = missing()
        if reason:
            pytest.skip(reason)
        self.path = place / "disk"
        self.path.mkdir()
        self._errors = place / "disk.log"
        with self._errors.open("wb") as errors:
            command = [sys.executable, str(PROGRAM), str(self.path)]
            self._program = subprocess.Popen(
                command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )

    def __enter__(self) -> Self:
        assert self._program.stdout is not None
        if self._program.stdout.readline() != b"mounted\n":
            self.__exit__()
            told = self._errors.read_text().strip()
            if "permitted" not in told and "ermission denied" not in told:
                raise AssertionError(f"the file system did not start: {told}")
            pytest.skip(f"cannot mount here: {told.splitlines()[0]}")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        try:
            self._program.stdin.close()  # it unmounts and ends
            self._program.wait(PATIENCE)
        finally:
            subprocess.run(["fusermount3", "-u", "-z", str(self.path)], check=False, stderr=subprocess.DEVNULL)
            self._program.kill()
            self._program.wait()
            self._program.stdout.close()

    def cut(self, target: Path, seed: int | None = None) -> Path:
        """Write into `target` what the disk holds after a power cut now; see `powerloss` for `seed`."""
        os.setxattr(self.path, "user.cut", f"{'' if seed is None else seed}:{target}".encode())
        return target

    def capacity(self, size: int) -> None:
        """How many bytes fit; 0: any number."""
        os.setxattr(self.path, "user.capacity", str(size).encode())

    def used(self) -> int:
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def folder(self, name: str, *, content: Path | None = None) -> Path:
        """A new folder, flushed; with the files of another, as on a disk when the power is back."""
        target = self.path / name
        target.mkdir()
        for file in content.iterdir() if content else ():
            shutil.copyfile(file, target / file.name)
        for each in (*target.iterdir(), target, self.path):
            handle = os.open(each, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        return target
