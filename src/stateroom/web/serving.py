"""Serve the application over HTTP: on which address, for whom, within which bounds, until it is told to end."""

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import uvicorn

from .. import AsyncStore
from ..errors import InvalidArgument, Unavailable
from .app import app
from .tokens import Token, read_tokens

CONNECTIONS = 4000
"""Connections at once, those that follow the feed among them; further ones are answered with 503."""

HEAD_BYTES = 32 << 10
"""A request's line and headers."""

END_SECONDS = 3
"""How long requests may take to end after the server was told to."""


class Settings(NamedTuple):
    """How to serve. Made by `read_settings`, which refuses what is not safe."""

    host: str
    port: int
    tokens: list[Token]
    read_only: bool
    prefix: str
    tls_cert: str | None
    tls_key: str | None
    behind_proxy: bool


def read_settings(
    listen: str = "127.0.0.1:8700",
    *,
    read_only: bool = False,
    token_file: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    behind_proxy: bool = False,
    prefix: str = "",
) -> Settings:
    """The settings in what was typed. Raises `InvalidArgument` for an address that others reach without tokens and TLS,
    for a proxy without tokens, and for what cannot be read.
    """
    host, port = _address(listen)
    if bool(tls_cert) != bool(tls_key):
        raise InvalidArgument("TLS needs both --tls-cert and --tls-key", what="tls")
    for path in (tls_cert, tls_key):
        if path is not None and not os.access(path, os.R_OK):
            raise InvalidArgument(f"{path} cannot be read", what="tls")
    if not _is_loopback(host):
        if token_file is None:
            raise InvalidArgument(f"other machines reach {host}: give --token-file", what="token_file")
        if not tls_cert and not behind_proxy:
            raise InvalidArgument(
                f"other machines reach {host}: give --tls-cert and --tls-key, or --behind-proxy where a proxy has TLS",
                what="tls",
            )
    if behind_proxy and token_file is None:
        raise InvalidArgument(
            "behind a proxy every client looks like this machine: give --token-file", what="token_file"
        )
    if prefix and (
        not prefix.startswith("/") or prefix != prefix.strip() or "//" in prefix or set(prefix) & set("?#%")
    ):
        raise InvalidArgument(f"the prefix is {prefix!r}; use a path like /state", what="prefix")
    tokens = [] if token_file is None else read_tokens(token_file)
    return Settings(host, port, tokens, read_only, prefix.rstrip("/"), tls_cert, tls_key, behind_proxy)


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidArgument(f"listen is {listen!r}; use HOST:PORT, like 127.0.0.1:8700", what="listen")
    return host, int(port)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


class Serving(uvicorn.Server):
    """A server that ends at SIGINT and SIGTERM with what is in flight answered, as a success."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals that end a program while the server runs, and give them back after."""
        if sys.platform == "win32":
            with super().capture_signals():
                yield
            return
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


async def serve(store: AsyncStore, settings: Settings, started: Callable[[str], None]) -> None:
    """Serve a store until a signal comes. `started` is called with the server's address once it listens.

    Raises `Unavailable` where the address cannot be listened on.
    """
    names = frozenset() if _is_loopback(settings.host) else frozenset({settings.host})
    application = app(
        store,
        tokens=settings.tokens or None,
        read_only=settings.read_only,
        prefix=settings.prefix,
        hosts=names,
        trust_local=not settings.behind_proxy,
    )
    config = uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=settings.behind_proxy,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=END_SECONDS,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    listening = _listen(settings.host, settings.port)
    try:
        port = listening.getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        scheme = "https" if settings.tls_cert else "http"
        server = Serving(config)
        config.load()
        application.state.pulse.begin()
        started(f"{scheme}://{host}:{port}{settings.prefix}/")
        await server.serve(sockets=[listening])
    finally:
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(512)
    except OSError as error:
        listening.close()
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listening
