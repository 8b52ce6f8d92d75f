"""Asking other nodes: a few kept connections to each, driven from threads, with a limit on everything that comes back.

The standard library's client: it follows no redirect, unpacks nothing, and reads as much as it is told to.
"""

import asyncio
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from . import protocol, signing
from .protocol import BODY_BYTES, PIECE_BYTES, Address
from .secret import Secret

R = TypeVar("R")

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 10.0
"""How long a node that is answering may send nothing."""

PIECE_SECONDS = 20.0
"""How long one piece of a value may take to come, however steadily it drips."""

PER_NODE = 4
"""Connections to one node at a time."""

_THREADS = 16


class Unreachable(Exception):
    """A node that gave no answer to believe; the text says why, for people."""


class Reply(NamedTuple):
    """A short answer, proven."""

    status: int
    fields: dict[str, Any]

    @property
    def code(self) -> str:
        """The word for what happened."""
        return str(self.fields.get("code", ""))

    @property
    def message(self) -> str:
        """The sentence for people."""
        return str(self.fields.get("message", "")) or self.code


class _Connection:
    """One connection to a node, used by one request at a time."""

    def __init__(self, address: Address, context: ssl.SSLContext | None) -> None:
        self.address = address
        self.used = False
        if address.scheme == "https":
            self.http: http.client.HTTPConnection = http.client.HTTPSConnection(
                address.host, address.port, timeout=CONNECT_SECONDS, context=context
            )
        else:
            self.http = http.client.HTTPConnection(address.host, address.port, timeout=CONNECT_SECONDS)

    def ask(self, method: str, target: str, headers: dict[str, str], body: bytes) -> http.client.HTTPResponse:
        if self.http.sock is None:
            self.http.connect()
            opened: Any = self.http.sock
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.settimeout(IDLE_SECONDS)
        self.http.request(method, target, body=body or None, headers=headers)
        return self.http.getresponse()

    def abort(self) -> None:
        """End what a thread is doing with it, from any other."""
        opened = self.http.sock
        if opened is not None:
            with suppress(OSError):  # it is gone already
                opened.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.http.close()


class Value:
    """A value that a node is sending: read in pieces, never more than was promised."""

    def __init__(
        self, client: "Client", connection: _Connection, response: http.client.HTTPResponse, remaining: int
    ) -> None:
        self._client = client
        self._connection = connection
        self._response = response
        self.left = remaining

    async def read(self, size: int = PIECE_BYTES) -> bytes:
        """The next bytes, at most `size`; b"" when all have come. Raises `Unreachable`."""
        if not self.left:
            return b""
        piece = await self._client.aside(self._connection, self._read, min(size, self.left))
        if not piece:
            raise Unreachable(f"the connection ended {self.left} bytes too early")
        self.left -= len(piece)
        return piece

    def _read(self, size: int) -> bytes:
        buffer = bytearray(size)
        view, filled = memoryview(buffer), 0
        deadline = time.monotonic() + PIECE_SECONDS
        while filled < size:
            if time.monotonic() > deadline:
                raise Unreachable(f"it sent less than {size} bytes within {PIECE_SECONDS:g} s")
            count = self._response.readinto(view[filled:])
            if not count:
                break
            filled += count
        return bytes(view[:filled]) if filled < size else bytes(buffer)

    async def close(self) -> None:
        """Give the connection back where all was read, else end it."""
        if self.left:
            self._connection.abort()
        self._client.give_back(self._connection, complete=not self.left)


class Client:
    """Sends signed requests; made and used on one event loop."""

    def __init__(self, name: str, secret: Secret, clock: Callable[[], float], context: ssl.SSLContext | None) -> None:
        self._name = name
        self._secret = secret
        self._clock = clock
        self._context = context
        self._idle: dict[Address, list[_Connection]] = {}
        self._limits: dict[Address, asyncio.Semaphore] = {}
        self._threads = ThreadPoolExecutor(_THREADS, "stateroom-node")
        self._open: set[_Connection] = set()

    async def short(
        self, node: str, address: Address, method: str, target: str, fields: dict[str, Any] | None = None
    ) -> Reply:
        """Ask something whose answer is short. Raises `Unreachable`."""
        connection, response, nonce = await self._exchange(node, address, method, target, fields, 0)
        try:
            return await self._reply(connection, response, nonce)
        finally:
            self.give_back(connection, complete=response.isclosed())

    async def value(
        self, node: str, address: Address, target: str, start: int, size: int, digest: str, form: str
    ) -> "Value | Reply":
        """Ask for a value's bytes from `start` on; a `Reply` says why there are none. Raises `Unreachable`."""
        connection, response, nonce = await self._exchange(node, address, "GET", target, None, start)
        in_use = False
        try:
            if response.status not in (200, 206):
                return await self._reply(connection, response, nonce)
            about = protocol.about_value(start, size, digest, form)
            if not signing.proven(self._secret, response.headers.get(signing.PROOF, ""), nonce, response.status, about):
                raise Unreachable("the answer does not prove that it has this node's secret")
            if response.status != (206 if start else 200) or response.length != size - start or response.chunked:
                raise Unreachable(f"the answer has {response.length} bytes, not {size - start}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise Unreachable("the answer is packed, which no node does")
            in_use = True
            return Value(self, connection, response, size - start)
        finally:
            if not in_use:
                self.give_back(connection, complete=response.isclosed())

    async def _exchange(
        self, node: str, address: Address, method: str, target: str, fields: dict[str, Any] | None, start: int
    ) -> tuple[_Connection, http.client.HTTPResponse, str]:
        body = b"" if fields is None else json.dumps(fields).encode()
        limit = self._limits.setdefault(address, asyncio.Semaphore(PER_NODE))
        await limit.acquire()
        connection = None
        try:
            while True:
                connection = self._take(address)
                reused = connection.used
                try:
                    return await self._once(connection, node, method, target, body, start)
                except (http.client.RemoteDisconnected, ConnectionError) as error:
                    self._drop(connection)
                    if not reused:
                        raise Unreachable(_said(error)) from error
                    # The node closed a connection that was kept: another one tells whether it is there.
                except (OSError, http.client.HTTPException) as error:
                    self._drop(connection)
                    raise Unreachable(_said(error)) from error
        except BaseException:
            if connection is not None:
                self._drop(connection)
            limit.release()
            raise

    async def _once(
        self, connection: _Connection, node: str, method: str, target: str, body: bytes, start: int
    ) -> tuple[_Connection, http.client.HTTPResponse, str]:
        ranged = f"bytes={start}-" if start else ""
        request = signing.Request(method, target, node, ranged, body)
        header, nonce = signing.sign(self._secret, request, self._name, self._clock())
        headers = {signing.AUTHORIZATION: header, "accept-encoding": "identity", "user-agent": "stateroom-node"}
        if ranged:
            headers["range"] = ranged
        response = await self.aside(connection, connection.ask, method, target, headers, body)
        connection.used = True
        return connection, response, nonce

    async def _reply(self, connection: _Connection, response: http.client.HTTPResponse, nonce: str) -> Reply:
        content = await self.aside(connection, response.read, BODY_BYTES)
        if response.status in (401, 408, 413):  # said to whom it may not concern, so it proves nothing
            raise Unreachable(f"it refused the request ({response.status}{_reason(content)})")
        proof = response.headers.get(signing.PROOF, "")
        if not signing.proven(self._secret, proof, nonce, response.status, "", content):
            raise Unreachable(f"it answered {response.status} without proof that it has this node's secret")
        fields = json.loads(content)
        return Reply(response.status, fields)

    async def aside(self, connection: _Connection, call: Callable[..., R], *arguments: Any) -> R:
        """Make a call that blocks on a connection in a thread; where the caller is cancelled the connection ends."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, partial(call, *arguments))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            connection.abort()
            future.add_done_callback(_ignore)
            raise
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, http.client.RemoteDisconnected | ConnectionError):
                raise
            raise Unreachable(_said(error)) from error

    def _take(self, address: Address) -> _Connection:
        idle = self._idle.get(address)
        connection = idle.pop() if idle else _Connection(address, self._context)
        self._open.add(connection)
        return connection

    def give_back(self, connection: _Connection, *, complete: bool) -> None:
        """End the use of a connection; `complete`: nothing of its answer is left, so that it can be used again."""
        if connection not in self._open:
            return
        if complete:
            self._open.discard(connection)
            self._idle.setdefault(connection.address, []).append(connection)
        else:
            self._drop(connection)
        self._limits[connection.address].release()

    def _drop(self, connection: _Connection) -> None:
        self._open.discard(connection)
        connection.abort()
        with suppress(RuntimeError):  # the client is closed, and the connection with it
            self._threads.submit(connection.close)

    def close(self) -> None:
        """Close every connection."""
        for connection in (*self._open, *(link for idle in self._idle.values() for link in idle)):
            connection.abort()
            connection.close()
        self._open.clear()
        self._idle.clear()
        self._threads.shutdown(wait=False)


def _ignore(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()


def _said(error: BaseException) -> str:
    """Return what a network error says, for people."""
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens at its address"
    if isinstance(error, TimeoutError):
        return f"no answer within {IDLE_SECONDS:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, http.client.RemoteDisconnected | ConnectionError):
        return "the connection ended before it answered"
    return str(error)[:200] or type(error).__name__


def _reason(content: bytes) -> str:
    try:
        message = str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return ""
    return f": {message[:200]}" if message.isprintable() else ""


def value_target(dag: str, id: str, digest: str, generation: int, *, known: bool) -> str:
    """The target of a value; `known`: the generation is what was known before the shared store was away."""
    return protocol.target(protocol.VALUE, dag=dag, id=id, digest=digest, generation=generation, known=int(known))
