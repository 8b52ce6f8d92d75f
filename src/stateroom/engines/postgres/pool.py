"""A bounded set of connections, made when they are needed. Nothing about a session outlives a call.

One pool serves threads and any number of event loops. How many connections there are is the number of those that are
alive, so that a call which was interrupted anywhere, even between taking one and using it, gives it back by ending.
"""

import os
import threading
import time
import weakref
from collections import deque

import psycopg

from stateroom.errors import Closed, Unavailable

from ..interrupts import Lock
from .carriers import LOOK_SECONDS, Carrier, Signal
from .dsn import Target
from .faults import cannot_connect
from .wire import Connection

ACQUIRE_SECONDS = 30.0
IDLE_SECONDS = 600.0
"""After so long without use a connection is closed."""

REAP_SECONDS = 30.0
_LEAST_CONNECT_SECONDS = 2


async def connect(
    carrier: Carrier, conninfo: str, where: str, *, prepare: bool = False, deadline: float | None = None
) -> Connection:
    """Return a fresh connection. Raises `Unavailable` or `InvalidArgument`."""
    left = None if deadline is None else max(_LEAST_CONNECT_SECONDS, int(deadline - time.monotonic()))
    try:
        return Connection(await carrier.connect(conninfo, left), prepare=prepare)
    except psycopg.Error as error:
        interrupt = _interrupt_in(error)
        if interrupt is not None:
            raise interrupt from None
        raise cannot_connect(error, where) from error


def _interrupt_in(error: psycopg.Error) -> BaseException | None:
    """Return what a signal's handler raised in the middle of the driver, which then took it for an error of its own."""
    inner = error.__context__
    while inner is not None:
        if not isinstance(inner, psycopg.Error | OSError | ValueError | TypeError):
            return inner
        inner = inner.__context__
    return None


class _Slot:
    """The right to make one connection."""

    __slots__ = ("__weakref__",)


class _Waiter:
    """A call that waits for a connection, or for the right to make one."""

    __slots__ = ("__weakref__", "given", "signal")

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self.given: Connection | _Slot | None = None


class Pool:
    """At most `target.connections` connections, the last used first; who waits longest is served first."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.prepare = True
        """True while sessions are ours; turned off when they turn out to be a pooler's."""
        self.release_number = 0
        """Of the server that was connected to last: 180003."""
        self._kept: list[list[Connection]] = []
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self._idle: list[Connection] = []
        self._alive: weakref.WeakSet[Connection | _Slot] = weakref.WeakSet()
        self._waiters: deque[weakref.ref[_Waiter]] = deque()
        self.lock = Lock()
        self._watched = False
        self._process = os.getpid()

    async def acquire(self, carrier: Carrier, deadline: float | None = None) -> Connection:
        """Return a connection for one call. Raises `Closed`, or `Unavailable` when none gets free or can be made."""
        while True:
            taken = self._take(carrier)
            if isinstance(taken, _Waiter):
                taken = await self._wait(taken, deadline)
            if isinstance(taken, _Slot):
                return await self._make(taken, carrier, deadline)
            if not taken.readable():
                return taken
            self.drop(taken)

    def _take(self, carrier: Carrier) -> "Connection | _Slot | _Waiter":
        with self.lock:
            while self._waiters and self._waiters[0]() is None:
                self._waiters.popleft()
            free = self._free() if not self._waiters else None
            if free is not None:
                return free
            waiter = _Waiter(carrier.signal())
            self._waiters.append(weakref.ref(waiter))
            return waiter

    def _free(self) -> "Connection | _Slot | None":
        """Return an unused connection or the right to make one, with the lock held. Raises `Closed`."""
        idle = self._idle
        if self._closed:
            raise Closed("the store is closed")
        if idle:
            return idle.pop()  # where a signal's handler has closed the pool since, it cannot be used, and is dropped
        if len(self._alive) >= self._target.connections:
            return None
        slot = _Slot()
        self._alive.add(slot)
        return slot

    async def _wait(self, waiter: _Waiter, deadline: float | None) -> "Connection | _Slot":
        end = time.monotonic() + ACQUIRE_SECONDS
        end = end if deadline is None else min(end, deadline)
        try:
            while (left := end - time.monotonic()) > 0:
                await waiter.signal.wait(min(left, LOOK_SECONDS))
                with self.lock:
                    free = waiter.given if waiter.given is not None else self._free()
                    waiter.given = None
                if free is not None:
                    return free
        finally:
            self._leave(waiter)
        raise Unavailable(
            f"{self._target.where}: all {self._target.connections} connections were busy for {ACQUIRE_SECONDS:.0f} s"
            " or the url's operation_timeout; raise ?connections= or make fewer calls at a time"
        )

    def _leave(self, waiter: _Waiter) -> None:
        with self.lock:
            for place, reference in enumerate(self._waiters):
                if reference() is waiter:
                    del self._waiters[place]
                    break
            given, waiter.given = waiter.given, None
        if isinstance(given, Connection):
            self.release(given)
        elif given is not None:
            self._give_up(given)

    async def _make(self, slot: _Slot, carrier: Carrier, deadline: float | None) -> Connection:
        try:
            connection = await connect(
                carrier, self._target.conninfo, self._target.where, prepare=self.prepare, deadline=deadline
            )
        except BaseException:
            self._give_up(slot)
            raise
        with self.lock:
            self._alive.discard(slot)
            self._alive.add(connection)
            self.release_number = connection.pgconn.server_version
        return connection

    def release(self, connection: Connection) -> None:
        """Give an unhurt connection back."""
        connection.idle_since = time.monotonic()
        with self.lock:
            if not self._closed and self._process == os.getpid():
                if not self._waiters or not self._pass_on(connection):
                    self._idle.append(connection)
                    if not self._watched:
                        self._watched = True
                        reaper.watch(self)
                return
        self.drop(connection)

    def drop(self, connection: Connection) -> None:
        """Give up a connection that is of no more use."""
        connection.finish()
        self._give_up(connection)

    def _give_up(self, lost: "Connection | _Slot") -> None:
        with self.lock:
            self._alive.discard(lost)
            if self._waiters and len(self._alive) < self._target.connections:
                slot = _Slot()  # lives on with the waiter that gets it
                self._alive.add(slot)
                self._pass_on(slot)

    def _pass_on(self, free: "Connection | _Slot") -> bool:
        """Hand over what is free to who waits longest, with the lock held; False where nobody waits."""
        while self._waiters:
            waiter = self._waiters.popleft()()
            if waiter is None:
                continue
            waiter.given = free
            if waiter.signal.set():
                return True
            waiter.given = None  # its event loop has ended
        return False

    def close_idle(self, now: float) -> bool:
        """Close what was not used for long; return whether anything unused is left."""
        with self.lock:
            unused = [each for each in self._idle if now - each.idle_since >= IDLE_SECONDS]
            self._idle = self._idle[len(unused) :]  # the last used come last
            for each in unused:
                self._alive.discard(each)
            self._watched = bool(self._idle)
        for each in unused:
            each.finish()
        return self._watched

    def close(self) -> None:
        """Close what is unused; what is in use is closed as it comes back."""
        with self.lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for each in idle:
                self._alive.discard(each)
            for reference in self._waiters:
                waiter = reference()
                if waiter is not None:
                    waiter.signal.set()
        for each in idle:
            each.finish()

    def forget(self) -> None:
        """In a forked child: keep the parent's connections, unclosed and unused, and begin with none.

        Closing one would say goodbye to the server in the parent's name.
        """
        self._kept.append(self._idle)
        self._reset()


class _Reaper:
    """One thread for all pools of the process, only while a connection is unused: it closes what is so for long."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.lock = Lock()
        self._pools: weakref.WeakSet[Pool] = weakref.WeakSet()
        self._running = False
        self._stop = threading.Event()

    def watch(self, pool: Pool) -> None:
        """See to it that what is unused in a pool is closed in time."""
        with self.lock:
            self._pools.add(pool)
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._run, name="stateroom-idle", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._stop.wait(REAP_SECONDS)
            with self.lock:
                pools, self._pools = list(self._pools), weakref.WeakSet()
            left = [pool for pool in pools if pool.close_idle(time.monotonic())]
            with self.lock:
                self._pools.update(left)
                if not self._pools:
                    self._running = False
                    return
            del pools, left


reaper = _Reaper()
