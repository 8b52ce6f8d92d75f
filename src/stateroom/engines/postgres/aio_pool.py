"""A bounded set of asyncio connections, made when they are needed; `pool.py` for an event loop."""

import asyncio
from typing import Any

import psycopg

from stateroom.errors import Closed, Unavailable

from .dsn import Target
from .faults import cannot_connect
from .pool import ACQUIRE_SECONDS
from .wire import Link

AsyncLink = Link[psycopg.AsyncConnection[Any]]


async def connect(conninfo: str, where: str, *, prepare: bool = False) -> AsyncLink:
    """A fresh connection. Raises `Unavailable` or `InvalidArgument`."""
    try:
        connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
    except psycopg.Error as error:
        raise cannot_connect(error, where) from error
    return Link(connection, prepare=prepare)


class AsyncPool:
    """At most `target.connections` connections, the last used first. Used from one event loop."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.prepare = True
        self._kept: list[list[AsyncLink]] = []
        self._reset()

    def _reset(self) -> None:
        self._idle: list[AsyncLink] = []
        self._turns = asyncio.Semaphore(self._target.connections)
        self._closed = False

    async def acquire(self) -> AsyncLink:
        """A connection for one call. Raises `Closed`, or `Unavailable` when none gets free or can be made."""
        if self._closed:
            raise Closed("the store is closed")
        if self._turns.locked():
            await self._wait_for_turn()
        else:
            await self._turns.acquire()
        try:
            if self._closed:
                raise Closed("the store is closed")
            while self._idle:
                link = self._idle.pop()
                if not link.readable():
                    return link
                link.finish()
            return await connect(self._target.conninfo, self._target.where, prepare=self.prepare)
        except BaseException:
            self._turns.release()
            raise

    async def _wait_for_turn(self) -> None:
        try:
            async with asyncio.timeout(ACQUIRE_SECONDS):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Unavailable(
                f"{self._target.where}: all {self._target.connections} connections were busy for"
                f" {ACQUIRE_SECONDS:.0f} s; raise ?connections= or use fewer tasks"
            ) from error

    def release(self, link: AsyncLink) -> None:
        """Give an unhurt connection back."""
        if self._closed:
            self.drop(link)
            return
        self._idle.append(link)
        self._turns.release()

    def drop(self, link: AsyncLink) -> None:
        """Give up a connection that is of no more use."""
        link.finish()
        self._turns.release()

    async def close(self) -> None:
        """Close what is unused; what is in use is closed as it comes back."""
        self._closed = True
        idle, self._idle = self._idle, []
        for link in idle:
            link.finish()

    def forget(self) -> None:
        """In a forked child: keep the parent's connections, unclosed and unused, and begin with none."""
        closed = self._closed
        self._kept.append(self._idle)
        self._reset()
        self._closed = closed
