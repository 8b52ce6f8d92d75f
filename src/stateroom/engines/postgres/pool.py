"""A bounded set of connections, made when they are needed. Nothing about a session outlives a call."""

import os
import threading
import time
from typing import Any

import psycopg

from stateroom.errors import Closed, Unavailable

from .dsn import Target
from .faults import cannot_connect
from .wire import Link

BlockingLink = Link[psycopg.Connection[Any]]
ACQUIRE_SECONDS = 30.0


def connect(conninfo: str, where: str, *, prepare: bool = False) -> BlockingLink:
    """A fresh connection. Raises `Unavailable` or `InvalidArgument`."""
    try:
        connection = psycopg.connect(conninfo, autocommit=True)
    except psycopg.Error as error:
        raise cannot_connect(error, where) from error
    return Link(connection, prepare=prepare)


class Pool:
    """At most `target.connections` connections, the last used first."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.prepare = True
        """Whether sessions are ours; turned off when they turn out to be a pooler's."""
        self._kept: list[list[BlockingLink]] = []
        self._reset()

    def _reset(self) -> None:
        self._idle: list[BlockingLink] = []
        self._open = 0
        self._closed = False
        self._free = threading.Condition(threading.Lock())
        self._process = os.getpid()

    def acquire(self) -> BlockingLink:
        """A connection for one call. Raises `Closed`, or `Unavailable` when none gets free or can be made."""
        while True:
            found = self._take()
            if found is None:
                break
            if not found.readable():
                return found
            self.drop(found)
        try:
            return connect(self._target.conninfo, self._target.where, prepare=self.prepare)
        except BaseException:
            self._forget_one()
            raise

    def _take(self) -> BlockingLink | None:
        """An unused connection, or None with the right to make one."""
        with self._free:
            if not self._idle and self._open >= self._target.connections and not self._closed:
                self._wait_for_one()
            if self._closed:
                raise Closed("the store is closed")
            if self._idle:
                return self._idle.pop()
            self._open += 1
            return None

    def _wait_for_one(self) -> None:
        end = time.monotonic() + ACQUIRE_SECONDS
        while not self._idle and self._open >= self._target.connections and not self._closed:
            if not self._free.wait(end - time.monotonic()):
                raise Unavailable(
                    f"{self._target.where}: all {self._target.connections} connections were busy for"
                    f" {ACQUIRE_SECONDS:.0f} s; raise ?connections= or use fewer threads"
                )

    def release(self, link: BlockingLink) -> None:
        """Give an unhurt connection back."""
        with self._free:
            if not self._closed and self._process == os.getpid():
                self._idle.append(link)
                self._free.notify()
                return
        self.drop(link)

    def drop(self, link: BlockingLink) -> None:
        """Give up a connection that is of no more use."""
        link.finish()
        self._forget_one()

    def _forget_one(self) -> None:
        with self._free:
            self._open -= 1
            self._free.notify()

    def close(self) -> None:
        """Close what is unused; what is in use is closed as it comes back."""
        with self._free:
            self._closed = True
            idle, self._idle = self._idle, []
            self._open -= len(idle)
            self._free.notify_all()
        for link in idle:
            link.finish()

    def forget(self) -> None:
        """In a forked child: keep the parent's connections, unclosed and unused, and begin with none.

        Closing one would say goodbye to the server in the parent's name.
        """
        closed = self._closed
        self._kept.append(self._idle)
        self._reset()
        self._closed = closed
