"""Hints that a part has moved on: waiters of this process, of others through NOTIFY, and polling as the ground truth.

A hint is sent after the commit and outside it, at most every 20 ms: inside, NOTIFY would take a lock of the whole
database in every commit. One thread per engine listens and polls for threads and event loops alike, and only while
somebody waits. Whether hints arrive is tried: a listener behind a transaction pooler hears nothing, and one on another
node of a cluster not all. As long as they do, polling is rare, whatever the number of parts.
"""

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.pq.abc import PGconn

from stateroom.errors import Closed, StoreError

from ..interrupts import Lock
from .carriers import Blocking, Carrier, Signal, finish
from .statements import Statement
from .wire import Connection, RoundTrip

FIRST_POLL, LAST_POLL = 0.01, 0.1
HEARING_POLL = 5.0
"""Seconds between polls while hints arrive."""
HINT_SECONDS = 1.0
"""A commit that polling found is announced within this, or else hints do not arrive from everywhere."""
DOUBT_SECONDS = 60.0
"""So long after a hint that did not come, polls are frequent."""
HINT_EVERY = 0.02
LINGER = 1.0
RETRY_SECONDS = 5.0
LOOK_SECONDS = 1.0

_BLOCKING = Blocking()


class Board:
    """The newest known version of each part, and who waits for which."""

    def __init__(self) -> None:
        self.versions: dict[int, int] = {}
        self.waiting: Counter[int | None] = Counter()

    def moved(self, versions: Mapping[int, int]) -> list[int]:
        """Note newer versions; return the parts that have news."""
        news = [part for part, version in versions.items() if version > self.versions.get(part, -1)]
        for part in news:
            self.versions[part] = versions[part]
        return news

    def past(self, part: int | None, version: int, parts: int) -> bool:
        """Return whether what a waiter waits for has come."""
        if part is None:
            return len(self.versions) == parts and sum(self.versions.values()) > version
        return self.versions.get(part, -1) > version

    def polled(self, parts: int) -> list[int]:
        """Return the parts to poll."""
        return list(range(parts)) if self.waiting[None] else sorted(part for part in +self.waiting if part is not None)


def parse_hint(payload: str) -> dict[int, int]:
    """Return the versions in a hint; an empty dict for what is not ours."""
    try:
        return {int(part): int(version) for part, _, version in (item.partition(":") for item in payload.split())}
    except ValueError:
        return {}


class Source:
    """The questions of the notifier to its engine; each is awaited with the carrier of who asks."""

    def __init__(
        self,
        versions: Callable[[Carrier, Sequence[int]], Coroutine[Any, Any, dict[int, int]]],
        send: Callable[[Carrier, dict[int, int]], Coroutine[Any, Any, None]],
        ping: Callable[[Carrier, str], Coroutine[Any, Any, None]],
        connect: Callable[[Carrier], Coroutine[Any, Any, Connection]],
        listen: Callable[[str], Statement],
    ) -> None:
        self.versions, self.send, self.ping, self.connect, self.listen = versions, send, ping, connect, listen


class _Waiter:
    """A call of `wait`."""

    __slots__ = ("failed", "part", "parts", "signal", "version")

    def __init__(self, part: int | None, version: int, parts: int, signal: Signal) -> None:
        self.part, self.version, self.parts, self.signal = part, version, parts, signal
        self.failed: StoreError | None = None


class CommitNotifier:
    """Waits on behalf of the threads and tasks of one engine."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._closed = False
        self.reset()

    def reset(self) -> None:
        """Begin anew; also in a forked child, where no thread of the parent runs."""
        self._board = Board()
        self._waiters: list[_Waiter] = []
        self.lock = Lock()
        self._changed = threading.Condition(self.lock)
        self._watcher: threading.Thread | None = None
        self._sender: threading.Thread | None = None
        self._fresh: set[int] = set()
        """Parts whose version on the board is as good as a look at the server: hints arrive, and it was looked."""
        self._dirty: dict[int, int] = {}
        self._stop = threading.Event()

    def committed(self, part: int, version: int) -> None:
        """Wake this engine's own waiters now, and the other processes soon: a commit of it has returned."""
        with self.lock:
            self._dirty[part] = version
            if self._watcher is not None and self._board.moved({part: version}):
                self._wake()
            if self._closed:
                return
            if self._sender is not None and self._sender.is_alive():
                self._changed.notify_all()
                return
            self._sender = threading.Thread(target=self._send_hints, name="stateroom-hints", daemon=True)
            self._sender.start()

    async def wait(self, carrier: Carrier, part: int | None, version: int, timeout: float, parts: int) -> bool:
        """Return True when the part (None: the sum of all) is past `version`, False when `timeout` is over.

        Raises `Closed`, `Unavailable`.
        """
        end = time.monotonic() + timeout
        waiter = _Waiter(part, version, parts, carrier.signal())
        try:
            if not self._is_fresh(waiter):
                self._note(await self._source.versions(carrier, range(parts) if part is None else [part]))
            self._enter(waiter)
            while not self._past(waiter):
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._ensure_watch(parts)
                await waiter.signal.wait(min(left, LOOK_SECONDS))
            return True
        finally:
            self._leave(waiter)

    def _is_fresh(self, waiter: _Waiter) -> bool:
        with self.lock:
            if self._closed:
                raise Closed("the store is closed")
            return len(self._fresh) == waiter.parts if waiter.part is None else waiter.part in self._fresh

    def _enter(self, waiter: _Waiter) -> None:
        with self.lock:
            self._waiters.append(waiter)
            self._board.waiting[waiter.part] += 1
            self._changed.notify_all()

    def _leave(self, waiter: _Waiter) -> None:
        with self.lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self._board.waiting = Counter(each.part for each in self._waiters)

    def _past(self, waiter: _Waiter) -> bool:
        with self.lock:
            if self._closed:
                raise Closed("the store is closed")
            if waiter.failed is not None:
                raise waiter.failed
            return self._board.past(waiter.part, waiter.version, waiter.parts)

    def _ensure_watch(self, parts: int) -> None:
        with self.lock:
            if self._closed or (self._watcher is not None and self._watcher.is_alive()):
                return
            self._watcher = threading.Thread(target=self._watch, args=(parts,), name="stateroom-watch", daemon=True)
            self._watcher.start()

    def close(self) -> None:
        """Wake everybody; the threads end by themselves."""
        with self.lock:
            self._closed = True
            self._stop.set()
            for waiter in self._waiters:
                waiter.signal.set()
            self._changed.notify_all()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if self._board.past(waiter.part, waiter.version, waiter.parts):
                waiter.signal.set()

    def _send_hints(self) -> None:
        while True:
            with self.lock:
                if not self._dirty:
                    self._changed.wait_for(lambda: self._closed or bool(self._dirty), LINGER)
                dirty, self._dirty = self._dirty, {}
                if not dirty or self._closed:
                    self._sender = None
                    return
            # Only a hint: whoever waits polls as well, and the next commit reports what is wrong with the server.
            with contextlib.suppress(StoreError):
                finish(self._source.send(_BLOCKING, dirty))
            self._stop.wait(HINT_EVERY)

    def _watch(self, parts: int) -> None:
        listener = Listener(self._source)
        try:
            self._poll_and_listen(listener, parts)
        except StoreError as error:
            with self.lock:
                self._watcher = None
                for waiter in self._waiters:
                    waiter.failed = error
                    waiter.signal.set()
        finally:
            with self.lock:
                self._fresh.clear()
            listener.close()

    def _poll_and_listen(self, listener: "Listener", parts: int) -> None:
        poll_at, pause, heard = 0.0, FIRST_POLL, False
        while polled := self._polled(parts):
            listener.open()
            now = time.monotonic()
            hears = listener.hears(now)
            if now >= poll_at or hears != heard:  # what was said before it heard is known only by looking
                heard = hears
                news = self._note(finish(self._source.versions(_BLOCKING, polled)), hears=hears)
                listener.expect({part: self._board.versions[part] for part in news}, now)
                if news:
                    pause = FIRST_POLL
                elif hears and not listener.expected:
                    pause = HEARING_POLL
                else:
                    pause = min(2 * pause, LAST_POLL)
                poll_at = now + pause
            self._note(listener.poll(poll_at - now, self._stop))

    def _polled(self, parts: int) -> list[int]:
        """Return the parts to poll; linger for a next waiter, then return none: time to end."""
        with self.lock:
            if not self._board.waiting:
                self._changed.wait_for(lambda: self._closed or bool(self._board.waiting), LINGER)
            if self._closed or not self._board.waiting:
                self._watcher = None
                return []
            return self._board.polled(parts)

    def _note(self, versions: Mapping[int, int], *, hears: bool | None = None) -> list[int]:
        """Write versions on the board and wake who waited for them; return the parts that have news.

        `hears`: whether hints arrive, where that was tried before these versions were looked at.
        """
        with self.lock:
            if hears is False:
                self._fresh.clear()
            elif hears or self._fresh:
                self._fresh.update(versions)
            news = self._board.moved(versions)
            if news:
                self._wake()
            return news


class Listener:
    """The one connection that listens. Without it (a pooler, another server) everything still comes by polling."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._connection: Connection | None = None
        self._retry_at = self._trust_at = 0.0
        self._channel = f"stateroom:ping:{os.urandom(8).hex()}"
        self._answered = False
        self._hinted: dict[int, int] = {}
        self.expected: dict[int, tuple[int, float]] = {}
        """Parts to a version that polling saw first, and until when its hint must have come."""

    def hears(self, now: float) -> bool:
        """Return whether hints arrive: it heard itself, and every commit that polling found was announced as well."""
        return self._answered and self._connection is not None and now >= self._trust_at

    def open(self) -> None:
        """Listen, if that is possible, and say something to oneself; what fails is tried again after a while."""
        if self._connection is not None or time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + RETRY_SECONDS
        self._answered = False
        try:
            connection = finish(self._source.connect(_BLOCKING))
        except (StoreError, OSError):
            return  # polling goes on, and reports a server that is away
        trip = RoundTrip([self._source.listen(""), self._source.listen(self._channel)])
        try:
            finish(_BLOCKING.carry(connection, trip, None))
            if trip.failure() is not None:
                return
            finish(self._source.ping(_BLOCKING, self._channel))
        except (psycopg.Error, StoreError):
            return
        self._connection = connection

    def expect(self, versions: Mapping[int, int], now: float) -> None:
        """Note versions that polling saw; a hint of each is to come, if hints come from everywhere."""
        if self.hears(now):
            for part, version in versions.items():
                if self._hinted.get(part, -1) < version:
                    self.expected.setdefault(part, (version, now + HINT_SECONDS))

    def poll(self, seconds: float, stop: threading.Event) -> dict[int, int]:
        """Return what was said within `seconds`, at once when something is."""
        seconds = max(0.0, min(seconds, HINT_SECONDS))
        if self._connection is None:
            stop.wait(seconds)
            return {}
        try:
            self._connection.readable(seconds)
            hints, answered = collect(self._connection.pgconn, self._channel)
        except psycopg.Error:
            self.close()
            return {}
        self._answered |= answered
        for part, version in hints.items():
            self._hinted[part] = max(version, self._hinted.get(part, -1))
        self._check_expected()
        return hints

    def _check_expected(self) -> None:
        now = time.monotonic()
        for part, (version, until) in list(self.expected.items()):
            if self._hinted.get(part, -1) >= version:
                del self.expected[part]
            elif now >= until:  # said on another node, or the connection is dead without a word
                self.close()
                self._retry_at, self._trust_at = now, now + DOUBT_SECONDS
                return

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.finish()
        self._connection, self._answered = None, False
        self.expected.clear()


def collect(pgconn: PGconn, channel: str) -> tuple[dict[int, int], bool]:
    """Return the hints that have arrived, and whether something came on `channel`.

    Raises `psycopg.OperationalError` on a lost connection.
    """
    pgconn.consume_input()
    hints: dict[int, int] = {}
    answered = False
    while (note := pgconn.notifies()) is not None:
        answered |= note.relname.decode(errors="replace") == channel
        for part, version in parse_hint(note.extra.decode(errors="replace")).items():
            hints[part] = max(version, hints.get(part, -1))
    return hints, answered
