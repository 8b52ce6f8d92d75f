"""The folder of a database: its url, what says that it is ours, and who has it open.

In it: ``stateroom.json`` (format and parts), ``data`` (RocksDB's files), ``pid`` (who writes), and ``moments`` (hard
links to files, while a copy is made).
"""

import contextlib
import json
import os
import re
import shutil
from typing import NamedTuple
from urllib.parse import parse_qsl

from ...errors import Damaged, InvalidArgument, NotFound, UnsupportedFormat
from ..sqlite.location import mounts, refuse_network
from ..sqlite.locking import alone, flush_folder
from .reading import MAX_PARTS

__all__ = ["FORMAT", "Folder", "Settings", "parse"]

FORMAT = 1
"""Rises when an older version could not read the folder any more."""

PATIENCE = 30.0
"""Seconds to wait for another process that is making a database in the same folder."""

_SECRET = re.compile(r"(:)[^:/@]*@")
_MEBIBYTES = {"cache": (8, 1 << 20), "buffer": (1, 4096)}


class Settings(NamedTuple):
    """What a url may choose, in MiB: memory for blocks that were read, and for changes before they become a file."""

    cache: int = 64
    buffer: int = 32


def parse(url: str) -> tuple[str, Settings]:
    """The absolute folder and the settings of ``rocksdb:///relative`` or ``rocksdb:////absolute?cache=256``."""
    head, mark, query = url.partition("?")
    if not head.startswith("rocksdb:///"):
        raise _bad(url, "write rocksdb:///relative/folder or rocksdb:////absolute/folder")
    path = os.path.expanduser(head.removeprefix("rocksdb:///"))
    if not path or "\0" in path or "#" in path:
        raise _bad(url, "it names no folder")
    chosen: dict[str, int] = {}
    for name, text in parse_qsl(query, keep_blank_values=True, strict_parsing=False) if mark else ():
        if name not in _MEBIBYTES:
            raise _bad(url, f"the options are {' and '.join(_MEBIBYTES)} (MiB), not {name!r}")
        low, high = _MEBIBYTES[name]
        if not text.isascii() or not text.isdigit() or not low <= int(text[:12]) <= high:
            raise _bad(url, f"{name} is {text!r}; {low} to {high} MiB")
        chosen[name] = int(text)
    return os.path.realpath(path), Settings(**chosen)


class Folder:
    """One database on the disk."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.data = os.path.join(path, "data")
        self._card = os.path.join(path, "stateroom.json")
        self._pid = os.path.join(path, "pid")
        self.moments = os.path.join(path, "moments")

    def prepare(self, *, create: bool, parts: int | None) -> tuple[int, bool, bool]:
        """Check the folder or make it; gives its parts, if RocksDB may make files there, and if tails may be missing.

        The last: it was last written with durability "normal", so that power loss may have taken the end of a log, and
        left what came after it.
        """
        if parts is not None and not 1 <= parts < MAX_PARTS:
            raise InvalidArgument(f"parts is {parts}; 1 to {MAX_PARTS - 1}", what="parts", value=parts)
        above = os.path.dirname(self.path)
        if os.path.lexists(self.path) and not os.path.isdir(self.path):
            raise _refused(self.path, "it is a file; name a folder")
        if not os.path.isdir(above):
            raise _refused(self.path, f"there is no folder {above}; make it first")
        if not create and not os.path.lexists(self._card):
            raise NotFound(f"there is no database at {self.path}; create=True makes one", kind="database", id=self.path)
        refuse_network(self.path, mounts)
        with alone(self.path, PATIENCE):
            try:
                if not os.path.lexists(self._card):
                    self._make(1 if parts is None else parts)
                card = self.read_card()
            except OSError as error:
                raise _refused(self.path, f"this user may not read and write it ({error.strerror})") from error
        number = int(card["parts"])
        if parts is not None and parts != number:
            raise InvalidArgument(
                f"{self.path} was made with {number} parts, not {parts}; leave `parts` out", what="parts", value=parts
            )
        return number, not card["made"], card["durability"] != "full"

    def read_card(self) -> dict[str, int | str | bool]:
        """What ``stateroom.json`` says. Raises `Damaged`, `UnsupportedFormat`, `NotFound`."""
        try:
            with open(self._card, encoding="utf-8") as file:
                card = json.load(file)
            number, parts = card["format"], card["parts"]
            sound = isinstance(number, int) and isinstance(parts, int) and 1 <= parts < MAX_PARTS
            sound = sound and isinstance(card["made"], bool) and card["durability"] in ("full", "normal")
        except FileNotFoundError as error:
            raise NotFound(f"there is no database at {self.path}", kind="database", id=self.path) from error
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{self._card} is damaged; restore a backup", kind="database", id=self.path) from error
        if isinstance(number, int) and number > FORMAT:
            raise UnsupportedFormat(
                f"{self.path} has format {number}, this version reads up to {FORMAT}; use a newer version of Stateroom",
                found=number,
                supported=FORMAT,
            )
        if not sound:
            raise Damaged(f"{self._card} is damaged; restore a backup", kind="database", id=self.path)
        return dict(card)

    def opened(self, parts: int, durability: str) -> None:
        """Note who writes here, and how; only he who has RocksDB's lock may."""
        card = self.read_card()
        if not card["made"] or card["durability"] != durability:
            self._write_card(parts, durability, made=True)
        with open(self._pid, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        shutil.rmtree(self.moments, ignore_errors=True)

    def writer(self) -> int | None:
        """The process that wrote its number here last."""
        with contextlib.suppress(OSError, ValueError), open(self._pid, encoding="ascii") as file:
            return int(file.read(20))
        return None

    def size(self) -> int:
        """Bytes on the disk."""
        total = 0
        for name in os.listdir(self.data):
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(self.data, name)).st_size
        return total

    def _make(self, parts: int) -> None:
        if os.path.isdir(self.path) and os.listdir(self.path):
            raise _refused(self.path, "it is a folder of something else; name an empty or a new one")
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        self._write_card(parts, "full", made=False)
        flush_folder(os.path.dirname(self.path))

    def _write_card(self, parts: int, durability: str, *, made: bool) -> None:
        card = {"format": FORMAT, "parts": parts, "durability": durability, "made": made}
        partial = f"{self._card}.partial"
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(card, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._card)
        flush_folder(self.path)


def _refused(path: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"cannot open {path}: {why}", what="url", value=path)


def _bad(url: str, why: str) -> InvalidArgument:
    shown = _SECRET.sub(r"\1...@", url)
    return InvalidArgument(f"cannot open {shown!r}: {why}", what="url", value=shown)
