"""A node's socket and what connects to it: uvicorn's HTTP, on the loop that is there, without its signal handlers.

Whoever connects gets little: a request must come whole within seconds, and what is sent must be taken.
"""

import asyncio
import socket
import ssl
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from ..errors import InvalidArgument, Unavailable
from .log import SILENT
from .protocol import Address

HEAD_SECONDS = 10.0
"""How long a request's first line and headers may take to come."""

STALL_SECONDS = 30.0
"""How long whoever gets an answer may take nothing of it."""

HANDSHAKE_SECONDS = 10.0
IDLE_SECONDS = 60
"""How long a connection stays open between requests."""

CONNECTIONS = 512
"""Connections at a time; further ones are closed at once."""

_HEAD_BYTES = 16 << 10
_GRACE_SECONDS = 2.0


class _Guarded(H11Protocol):
    """Uvicorn's HTTP/1.1 with limits on time and number."""

    _stalled: asyncio.TimerHandle | None = None
    _late: asyncio.TimerHandle | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.logger = self.access_logger = SILENT
        self.access_log = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect_head()
        else:
            self._cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        if self._stalled is not None:
            self._stalled.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _expect_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _cancel(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def bind(address: Address) -> socket.socket:
    """A socket that listens. Raises `InvalidArgument` for no host, `Unavailable` for a port that is taken."""
    try:
        family, _, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise InvalidArgument(f"listen: {address.host!r} is no address of this machine", what="listen") from error
    # The protocol is named, for asyncio sends small packets at once only where it is.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(where)
    except OSError as error:
        opened.close()
        raise Unavailable(f"cannot listen on {address.host}:{address.port}: {error.strerror}") from error
    opened.setblocking(False)
    return opened


class Listener:
    """Serves an application on a bound socket until it is stopped."""

    def __init__(self, app: Any, bound: socket.socket, context: ssl.SSLContext | None) -> None:
        config = Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", http=_Guarded, proxy_headers=False,
            server_header=False, date_header=False, timeout_keep_alive=IDLE_SECONDS,
            h11_max_incomplete_event_size=_HEAD_BYTES, interface="asgi3",
        )  # fmt: skip
        config.load()
        self._config = config
        self._state = ServerState()
        self._socket = bound
        self._context = context
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept connections on the running loop."""
        handshake = None if self._context is None else HANDSHAKE_SECONDS
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol,
            sock=self._socket,
            ssl=self._context,
            backlog=CONNECTIONS,
            ssl_handshake_timeout=handshake,
        )

    def _protocol(self) -> asyncio.Protocol:
        return _Guarded(config=self._config, server_state=self._state, app_state={})

    async def stop(self) -> None:
        """Accept nothing more, let what is being answered end within seconds, and close every connection."""
        if self._server is None:
            self._socket.close()
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        tasks = set(self._state.tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_GRACE_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=_GRACE_SECONDS)
        for connection in list(self._state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        self._server = None
