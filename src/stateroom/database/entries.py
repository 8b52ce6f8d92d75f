"""The feed's entries: each can be read, and what the last of a record says of it is so."""

from collections.abc import Iterator
from typing import Any

from ..engine import Row
from ..errors import Damaged, Undecodable
from ..feed.changes import events_of, record_of
from ..feed.feed import place_in
from ..keys import path as key_path
from ..records.audit import Problem
from ..records.entry import Entry, decode, feed_prefix
from ..records.kind import KINDS
from ..records.layout import pointer_of
from .rows import RUN, SHARE, Look

Path = tuple[Any, ...]
Place = tuple[int, int]


async def audit_feed(look: Look) -> list[Problem]:
    """Problems of a part's feed."""
    problems: list[Problem] = []
    async for rows in look.runs("the feed", feed_prefix(look.scope)):
        for row in rows:
            try:
                entry = decode(look.scope, row.value)
            except Damaged as error:
                at = place_in(row.key)
                text = f"the feed's entry {at}: {error.message}"
                problems.append(Problem("damaged", text, "feed", str(at), look.part))
                continue
            look.refer(entry.wrappers)
            problems += await _undecodable(look, entry)
    return problems + await _absent_records(look)


async def _undecodable(look: Look, entry: Entry) -> list[Problem]:
    """Return what was emitted, or given as events, and cannot be rebuilt here; records are looked at where they
    stand.
    """
    try:
        if entry.family not in KINDS:
            await record_of(look.reader, entry)
        await events_of(look.reader, entry)
    except Undecodable as error:
        text = f"{entry.op} {entry.family} {entry.id!r} of the feed: {error.message}"
        return [Problem("undecodable", text, entry.family, entry.id, look.part)]
    except Damaged as error:
        text = f"{entry.op} {entry.family} {entry.id!r} of the feed: {error.message}"
        return [Problem("damaged", text, entry.family, entry.id, look.part)]
    return []


class _TooMany(Exception):
    """More must be held at once than may be."""


async def _absent_records(look: Look) -> list[Problem]:
    """Records whose last entry says that they are there, and that are not, or are older."""
    shares = 1
    while True:
        try:
            return [problem for share in range(shares) for problem in await _absent_of(look, share, shares)]
        except _TooMany:
            shares *= 4


async def _absent_of(look: Look, share: int, shares: int) -> list[Problem]:
    """Look at the records of one share. The feed is read to its end, so a deletion after a look at a record is seen."""
    absent = _Absent()
    async for rows in look.runs("records of the feed", feed_prefix(look.scope)):
        entries = [(entry, at) for entry, at in _readable(look, rows) if entry.family in KINDS]
        chosen = [
            (entry, at)
            for entry, at in entries
            if entry.op != "delete" and (shares == 1 or hash((entry.family, entry.path)) % shares == share)
        ]
        behind = await _behind(look, chosen)
        for entry, at in entries:
            if entry.op == "delete":
                absent.forget(entry.family, entry.path)
            elif at in behind:
                absent.keep(entry.family, entry.path, at, differs=behind[at])
        if absent.count > SHARE:
            raise _TooMany
    floor = await look.floor()
    problems = []
    for family, path, at, differs in absent.each():
        if at > floor:
            code, text = "record-missing", f"the feed says {path} is there, and it is not"
            if differs:
                code, text = "feed-differs", f"the feed's last entry for {path} is not its record"
            problems.append(Problem(code, text, family, "/".join(map(str, path)), look.part))
    return problems


def _readable(look: Look, rows: list[Row]) -> Iterator[tuple[Entry, Place]]:
    for row in rows:
        try:
            yield decode(look.scope, row.value), place_in(row.key)
        except Damaged:
            continue


async def _behind(look: Look, entries: list[tuple[Entry, Place]]) -> dict[Place, bool]:
    """Find which of some entries have no record (False), or one as it was before them (True)."""
    keys_by_name = {
        (entry.family, entry.path): KINDS[entry.family].prefix(look.scope) + key_path(*entry.path)
        for entry, _ in entries
    }
    rows: dict[tuple[str, Path], Row | None] = {}
    names = list(keys_by_name)
    for start in range(0, len(names), RUN):
        batch = names[start : start + RUN]
        answers = await look.reader.in_part(look.part).peek([keys_by_name[name] for name in batch])
        rows.update(zip(batch, answers, strict=True))
    behind: dict[Place, bool] = {}
    for entry, at in entries:
        row = rows[entry.family, entry.path]
        try:
            if row is None or pointer_of(row) < at:
                behind[at] = row is not None
        except Damaged:  # it is reported where it stands
            continue
    return behind


class _Absent:
    """Records that an entry says are there, by the first step of their key, until a later one says that they went."""

    def __init__(self) -> None:
        self.count = 0
        self._paths: dict[tuple[str, Any], dict[Path, tuple[Place, bool]]] = {}

    def keep(self, family: str, path: Path, at: Place, *, differs: bool) -> None:
        paths = self._paths.setdefault((family, path[0]), {})
        self.count += path not in paths
        paths[path] = at, differs

    def forget(self, family: str, path: Path) -> None:
        """Take back a record, or all whose key begins like this one."""
        paths = self._paths.get((family, path[0]), {})
        if len(path) == len(KINDS[family].shape):
            self.count -= paths.pop(path, None) is not None
            return
        for longer in [longer for longer in paths if longer[: len(path)] == path]:
            del paths[longer]
            self.count -= 1

    def each(self) -> Iterator[tuple[str, Path, Place, bool]]:
        for (family, _), paths in self._paths.items():
            for path, (at, differs) in paths.items():
                yield family, path, at, differs
