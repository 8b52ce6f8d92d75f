"""An engine that keeps everything in this process and forgets it at exit; also the model others are compared with."""

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import TypeVar

from ..engine import Batch, Engine, Row, read_counter, stamped, validate, write_counter
from ..errors import Closed, Conflict, InvalidArgument, NotFound
from .interrupts import Lock
from .ordered import OrderedKeys

T = TypeVar("T")
_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
_UNSORTED = 1024
"""Keys that may come or go before they are sorted in although nobody scans; bounds what removed ones still hold."""


def connect(
    url: str,
    *,
    durability: str = "full",
    create: bool = True,
    parts: int | None = None,
    read_only: bool = False,  # noqa: ARG001 - what refuses to write stands over the engine
) -> Engine:
    """A fresh, empty engine; `url` is ``"memory:"``.

    `durability` is checked, and it and `read_only` mean nothing here. Raises `InvalidArgument` for anything else, and
    `NotFound` for ``create=False``, since there is never a database to find.
    """
    if url != "memory:":
        raise InvalidArgument(f"{url!r} is not a memory url; the only one is 'memory:'", what="url", value=url)
    if durability not in ("full", "normal"):
        raise InvalidArgument(f"durability {durability!r}; 'full' or 'normal'", what="durability", value=durability)
    if parts is not None and parts < 1:
        raise InvalidArgument(f"{parts} parts; at least 1", what="parts", value=parts)
    if not create:
        raise NotFound("a 'memory:' store is always new; leave create=False away", kind="database", id=url)
    return MemoryEngine(parts or 1)


class _Part:
    """One part's rows. Only the holder of the engine's lock changes them."""

    __slots__ = ("order", "rows", "ticket", "unsorted", "writes")

    def __init__(self) -> None:
        # A removed key keeps None until it is sorted out, and b"" holds the part's version: so one `dict.update`
        # is the whole commit, and one `dict.get` the whole read.
        self.rows: dict[bytes, Row | None] = {b"": Row(b"", b"", 0)}
        self.order: OrderedKeys | None = None
        self.unsorted: set[bytes] = set()
        self.ticket: list[dict[bytes, Row | None]] = []
        self.writes = 0

    @property
    def version(self) -> int:
        row = self.rows[b""]
        return row.version if row else 0

    def sort(self) -> OrderedKeys:
        """The keys in order. Interrupted half-way (Ctrl-C) it can simply be run again."""
        order, rows, writes, sorted_out = self.order, self.rows, self.writes, set[bytes]()
        if order is None or (len(self.unsorted) > _UNSORTED and len(self.unsorted) > len(order) // 4):
            for key in [key for key, row in rows.items() if row is None]:
                del rows[key]
            self.order = order = OrderedKeys(key for key in rows if key)
        else:
            for key in tuple(self.unsorted):
                if rows.get(key) is None:
                    order.discard(key)
                    rows.pop(key, None)
                else:
                    order.add(key)
        if self.writes == writes:  # else a signal's handler has written meanwhile: its keys are still to be sorted
            self.unsorted = sorted_out
        return order

    def scan(self, start: bytes, stop: bytes, limit: int, reverse: bool) -> list[Row]:
        rows = map(self.rows.get, self.sort().between(start, stop, limit, reverse=reverse))
        return [row for row in rows if row is not None]

    def check(self, part: int, batch: Batch) -> None:
        for key, expected in batch.expect.items():
            row = self.rows.get(key)
            actual = row.version if row else 0
            if actual != expected:
                raise Conflict(
                    f"key {key!r} of part {part} is at version {actual}, not {expected}; read it again and retry",
                    key=key,
                    expected=expected,
                    actual=actual,
                )

    def changes(self, batch: Batch, version: int) -> dict[bytes, Row | None]:
        """Return what `batch` makes of the rows it touches; raises before anything is changed."""
        changes: dict[bytes, Row | None] = {}
        for start, stop in batch.clear:
            changes.update(dict.fromkeys(self.sort().between(start, stop, sys.maxsize)))
        for key, value in batch.write.items():
            changes[key] = None if value is None else Row(key, value, version)
        for key, amount in batch.add.items():
            row = changes[key] if key in changes else self.rows.get(key)
            changes[key] = Row(key, write_counter(read_counter(row and row.value) + amount), version)
        for index, (prefix, value) in enumerate(batch.append):
            key = stamped(prefix, version, index)
            changes[key] = Row(key, value, version)
        return changes

    def commit(self, part: int, batch: Batch) -> int:
        """The version that `batch` makes; raises before anything is changed."""
        while True:
            changes: dict[bytes, Row | None] = {}
            self.ticket.clear()
            self.ticket = ticket = [changes]
            self.check(part, batch)
            version = self.version + 1
            changes.update(self.changes(batch, version))
            if self.apply(changes, version, ticket):
                return version
            # A signal's handler has committed in the middle of this, so what was checked may not hold any more.

    def apply(
        self, changes: dict[bytes, Row | None], version: int, ticket: list[dict[bytes, Row | None]] | None = None
    ) -> bool:
        """Change the rows in one step; False where somebody else has taken the ticket away meanwhile."""
        rows = self.rows
        moved = [key for key, row in changes.items() if (row is None) is not (rows.get(key) is None)]
        if len(self.unsorted) + len(moved) > _UNSORTED and self.unsorted:
            self.sort()
        for key in [key for key, row in changes.items() if row is None and key not in rows]:
            del changes[key]
        changes[b""] = Row(b"", b"", version)
        # Before the rows, so that an interrupt between the two leaves a key to sort that has not moved: harmless.
        self.unsorted.update(moved)
        self.writes += 1
        # Looking at the ticket and changing the rows is one call in C: no signal is handled in between.
        update: Callable[[dict[bytes, Row | None]], object] = rows.update
        return bool([*map(update, [changes] if ticket is None else ticket)])


class _ByPart(dict[int, T]):
    closed = False

    def __missing__(self, part: int) -> T:
        if self.closed:
            raise Closed("the engine is closed; connect again")
        raise InvalidArgument(f"there is no part {part!r}; 0 to {len(self) - 1}", what="part", value=part)


class MemoryEngine:
    """Dicts and sorted keys per part, behind one lock that readers of keys need not take."""

    blocks = False
    """An event loop commits in place: another thread would take longer to reach than the commit takes."""

    def __init__(self, parts: int = 1) -> None:
        self.parts = parts
        self._parts = _ByPart((part, _Part()) for part in range(parts))
        self._get = _ByPart((part, state.rows.get) for part, state in self._parts.items())
        self._renew_lock()
        _engines.add(self)

    def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        get = self._get[part]
        # No lock: under the GIL a `dict.get`, and a `list(map(dict.get, ...))`, run in C without letting another
        # thread in (hashing and comparing bytes calls no Python code), and so does the `dict.update` that is a
        # commit. Hence a read sees all of a commit or nothing of it, for one key and for many.
        if _GIL:
            return [get(keys[0])] if len(keys) == 1 else list(map(get, keys))
        with self._lock:
            return list(map(get, keys))

    def scan(self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False) -> list[Row]:
        if limit < 0:
            raise InvalidArgument(f"a limit of {limit} rows; at least 0", what="limit", value=limit)
        runs = self._locked(lambda: [state.scan(start, stop, limit, reverse) for state in self._chosen(part)])
        if len(runs) == 1:
            return runs[0]
        return list(islice(merge(*runs, key=itemgetter(0), reverse=reverse), limit))

    @contextmanager
    def snapshot(self) -> "Iterator[MemoryEngine]":
        """The database as of one moment: an engine of its own, which shares the rows."""
        still = MemoryEngine(self.parts)
        copies = self._locked(lambda: [dict(self._parts[part].rows) for part in range(self.parts)])
        for part, rows in enumerate(copies):
            still._parts[part].rows.update(rows)
        try:
            yield still
        finally:
            still.close()

    def commit(self, part: int, batch: Batch, /) -> int:
        validate(batch)
        nested = self._lock.owned
        try:
            with self._lock:
                if nested:
                    self._distrust_order()
                version = self._parts[part].commit(part, batch)
                if self._waiting:
                    self._wake()
        except BaseException:
            self._lock.give_back(nested=nested)
            raise
        return version

    def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        nested, me = self._lock.owned, object()
        try:
            self._waiting.add(me)  # before the first look: whoever commits after it sees somebody waiting
            with self._lock:
                self._changed.wait_for(
                    lambda: sum(state.version for state in self._chosen(part)) > version,
                    min(max(timeout, 0), threading.TIMEOUT_MAX),
                )
        finally:
            self._lock.give_back(nested=nested)
            self._waiting.discard(me)

    def close(self) -> None:
        self._locked(self._empty)

    def _empty(self) -> None:
        self._parts.closed = self._get.closed = True
        self._get.clear()
        self._parts.clear()
        self._wake()

    def _locked(self, run: Callable[[], T]) -> T:
        """Return what `run` gives under the lock, which nobody keeps who is interrupted."""
        nested = self._lock.owned
        try:
            with self._lock:
                if nested:
                    self._distrust_order()
                return run()
        except BaseException:
            self._lock.give_back(nested=nested)
            raise

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _chosen(self, part: int | None) -> list[_Part]:
        if part is None and not self._parts.closed:
            return list(self._parts.values())
        return [self._parts[part if part is not None else 0]]

    def _start_in_child(self) -> None:
        # A thread that is not here any more may have held the lock, and may have been half-way through sorting.
        self._renew_lock()
        self._distrust_order()

    def _renew_lock(self) -> None:
        # One that a signal's handler may take again. It is entered itself, not by way of the Condition, whose
        # `__enter__` is Python code: an exception in there would leave it locked for ever.
        self._lock = Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: set[object] = set()

    def _distrust_order(self) -> None:
        """Sort anew next time: a frame further out, or a thread that is not here any more, is half-way through it."""
        for state in self._parts.values():
            state.order = None


_engines: "weakref.WeakSet[MemoryEngine]" = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine._start_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
