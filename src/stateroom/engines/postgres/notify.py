"""Hints that a part has moved on: waiters of this process, of others through NOTIFY, and polling as the ground truth.

A hint is sent after the commit and outside it, at most every 20 ms: inside, NOTIFY would take a lock of the whole
database in every commit. One thread per engine listens and polls, and only while somebody waits.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

import psycopg
from psycopg.pq.abc import PGconn

from stateroom.errors import Closed, StoreError

from .pool import BlockingLink
from .statements import Statement
from .wire import Trip

FIRST_POLL, LAST_POLL = 0.01, 0.1
HINT_EVERY = 0.02
LINGER = 1.0
DEAF_SECONDS = 5.0


class Board:
    """The newest known version of each part, and who waits for which."""

    def __init__(self) -> None:
        self.versions: dict[int, int] = {}
        self.waiting: Counter[int | None] = Counter()

    def moved(self, versions: Mapping[int, int]) -> bool:
        """Note newer versions; True if anything is news."""
        news = False
        for part, version in versions.items():
            if version > self.versions.get(part, -1):
                self.versions[part] = version
                news = True
        return news

    def past(self, part: int | None, version: int, parts: int) -> bool:
        """Whether what a waiter waits for has come."""
        if part is None:
            return len(self.versions) == parts and sum(self.versions.values()) > version
        return self.versions.get(part, -1) > version

    def wanted(self, parts: int) -> list[int]:
        """The parts to poll."""
        return list(range(parts)) if self.waiting[None] else sorted(part for part in +self.waiting if part is not None)


def parse_hint(payload: str) -> dict[int, int]:
    """The versions in a hint; an empty dict for what is not ours."""
    try:
        return {int(part): int(version) for part, _, version in (item.partition(":") for item in payload.split())}
    except ValueError:
        return {}


class Watcher:
    """Waits on behalf of the threads of one engine."""

    def __init__(
        self,
        poll: Callable[[list[int]], dict[int, int]],
        send: Callable[[dict[int, int]], None],
        connect: Callable[[], BlockingLink],
        listen: Statement,
    ) -> None:
        self._poll, self._send, self._connect, self._listen = poll, send, connect, listen
        self.reset()

    def reset(self) -> None:
        """Begin anew; also in a forked child, where no thread of the parent runs."""
        self._board = Board()
        self._news = threading.Condition(threading.Lock())
        self._failed: StoreError | None = None
        self._watching = self._sending = self._closed = False
        self._dirty: dict[int, int] = {}
        self._stop = threading.Event()

    def committed(self, part: int, version: int) -> None:
        """A commit of this engine has returned: wake its own waiters now, and the other processes soon."""
        with self._news:
            self._dirty[part] = version
            if self._board.waiting and self._board.moved({part: version}):
                self._news.notify_all()
            if self._sending or self._closed:
                return
            self._sending = True
        threading.Thread(target=self._send_hints, name="stateroom-hints", daemon=True).start()

    def wait(self, part: int | None, version: int, timeout: float, parts: int) -> None:
        """Return when the part (None: the sum of all) is past `version`, or in time. Raises `Closed`, `Unavailable`."""
        end = time.monotonic() + timeout
        self._note(self._poll(list(range(parts)) if part is None else [part]))
        with self._news:
            self._board.waiting[part] += 1
            self._failed = None
            try:
                while not self._board.past(part, version, parts) and (left := end - time.monotonic()) > 0:
                    if self._closed:
                        raise Closed("the store is closed")
                    if self._failed is not None:
                        raise self._failed
                    self._ensure_watch(parts)
                    self._news.wait(left)
            finally:
                self._board.waiting[part] -= 1
                self._board.waiting = +self._board.waiting

    def _ensure_watch(self, parts: int) -> None:
        if not self._watching:
            self._watching = True
            threading.Thread(target=self._watch, args=(parts,), name="stateroom-watch", daemon=True).start()
        self._news.notify_all()

    def close(self) -> None:
        """Wake everybody; the threads end by themselves."""
        with self._news:
            self._closed = True
            self._stop.set()
            self._news.notify_all()

    def _send_hints(self) -> None:
        while True:
            with self._news:
                dirty, self._dirty = self._dirty, {}
                if not dirty or self._closed:
                    self._sending = False
                    return
            # Only a hint: whoever waits polls as well, and the next commit reports what is wrong with the server.
            with contextlib.suppress(StoreError):
                self._send(dirty)
            self._stop.wait(HINT_EVERY)

    def _watch(self, parts: int) -> None:
        ear, pause = Ear(self._connect, self._listen), FIRST_POLL
        try:
            while wanted := self._wanted(parts):
                ear.open()
                pause = FIRST_POLL if self._note(self._poll(wanted)) else min(2 * pause, LAST_POLL)
                self._note(ear.hear(pause, self._stop))
        except StoreError as error:
            with self._news:
                self._watching, self._failed = False, error
                self._news.notify_all()
        finally:
            ear.close()

    def _wanted(self, parts: int) -> list[int]:
        """The parts to poll; lingers for a next waiter, then gives none: time to end."""
        with self._news:
            if not self._board.waiting:
                self._news.wait_for(lambda: self._closed or bool(self._board.waiting), LINGER)
            if self._closed or not self._board.waiting:
                self._watching = False
                return []
            return self._board.wanted(parts)

    def _note(self, versions: Mapping[int, int]) -> bool:
        with self._news:
            news = self._board.moved(versions)
            if news:
                self._news.notify_all()
            return news


class Ear:
    """The one connection that listens. Without it (a pooler, another server) everything still comes by polling."""

    def __init__(self, connect: Callable[[], BlockingLink], listen: Statement) -> None:
        self._connect, self._listen = connect, listen
        self._link: BlockingLink | None = None
        self._retry_at = 0.0

    def open(self) -> None:
        """Listen, if that is possible; what fails is tried again after a while."""
        if self._link is not None or time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + DEAF_SECONDS
        try:
            link = self._connect()
        except (StoreError, OSError):
            return  # polling goes on, and reports a server that is away
        trip, listening = Trip([self._listen]), False
        try:
            link.connection.wait(trip.talk(link.pgconn, None))
            listening = trip.failure() is None
        except psycopg.Error:
            return
        finally:
            if not listening:
                link.finish()
        self._link = link if listening else None

    def hear(self, seconds: float, stop: threading.Event) -> dict[int, int]:
        """What was said within `seconds`, at once when something is."""
        if self._link is None:
            stop.wait(seconds)
            return {}
        try:
            self._link.readable(seconds)
            return collect(self._link.pgconn)
        except psycopg.Error:
            self.close()
            return {}

    def close(self) -> None:
        """Hang up."""
        if self._link is not None:
            self._link.finish()
            self._link = None


def collect(pgconn: PGconn) -> dict[int, int]:
    """The hints that have arrived. Raises `psycopg.OperationalError` on a lost connection."""
    pgconn.consume_input()
    heard: dict[int, int] = {}
    while (note := pgconn.notifies()) is not None:
        heard.update(parse_hint(note.extra.decode(errors="replace")))
    return heard
