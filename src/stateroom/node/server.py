"""The requests that a node answers: give a value, say what it holds, clear a DAG. Nothing without a signature."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ..errors import InvalidArgument, StoreError
from . import protocol, signing
from .log import log
from .protocol import BODY_BYTES, PIECE_BYTES
from .secret import Secret

BODY_SECONDS = 10
"""How long a request's body may take to come."""

_RANGE = re.compile(r"bytes=(\d{1,18})-")


class Offered(NamedTuple):
    """A value that a node gives."""

    result: Any
    form: str
    file: Any


class Holder(Protocol):
    """The one who answers, on behalf of a node."""

    async def offer(self, dag: str, id: str, digest: str, generation: int, known: bool) -> Offered: ...
    async def announce(self, dag: str, id: str) -> None: ...
    async def clear_at(self, dag: str, generation: int) -> int: ...
    def about(self) -> dict[str, Any]: ...


class Refusal(Exception):
    """Why a request is not served: a word of `protocol`, and a sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


Answer = Callable[["Server", Request, str, dict[str, str], dict[str, Any]], Awaitable[Response]]


class Server:
    """One ASGI application over one node."""

    def __init__(self, holder: Holder, name: str, secret: Secret) -> None:
        self.holder = holder
        self._name = name
        self.secret = secret
        self._verifier = signing.Verifier(secret)
        self.app = Starlette(
            routes=[
                Route(protocol.VALUE, self._handler(_value), methods=["GET"]),
                Route(protocol.ANNOUNCE, self._handler(_announce), methods=["POST"]),
                Route(protocol.CLEAR, self._handler(_clear), methods=["POST"]),
                Route(protocol.STATUS, self._handler(_status), methods=["GET"]),
            ]
        )

    def _handler(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            try:
                nonce, body = await self._believed(request)
            except signing.Unauthorized as error:
                log.warning("node %r refused a request (%s)", self._name, error.reason)
                return _json(401, {"code": error.reason, "message": str(error)}, {"connection": "close"})
            except Refusal as error:
                return _json(error.status, {"code": error.code, "message": str(error)}, {"connection": "close"})
            try:
                parameters, fields = _parameters(request), json.loads(body) if body else {}
                return await answer(self, request, nonce, parameters, fields)
            except Refusal as error:
                return self.said(nonce, error.status, error.code, str(error))
            except (InvalidArgument, ValueError, KeyError, TypeError) as error:
                return self.said(nonce, 422, "invalid-argument", str(error))
            except StoreError as error:
                return self.said(nonce, 503, protocol.UNAVAILABLE, error.message)

        return handle

    async def _believed(self, request: Request) -> tuple[str, bytes]:
        """The nonce and body of a request that is signed. Raises `Unauthorized`, `Refusal`."""
        body = await _body(request)
        raw: bytes = request.scope["raw_path"]
        query: bytes = request.scope["query_string"]
        target = (raw + b"?" + query if query else raw).decode("ascii", "surrogateescape")
        header = request.headers.get(signing.AUTHORIZATION, "")
        signed = signing.Request(request.method, target, self._name, request.headers.get("range", ""), body)
        return self._verifier.verify(header, signed), body

    def said(self, nonce: str, status: int, code: str, message: str = "", **fields: Any) -> Response:
        """A short answer, proven."""
        content = json.dumps({"code": code, "message": message[:500], **fields}).encode()
        proof = signing.prove(self.secret, nonce, status, "", content)
        headers = {"content-type": "application/json", signing.PROOF: proof}
        return Response(content, status, headers)


async def _value(server: Server, request: Request, nonce: str, named: dict[str, str], _: dict[str, Any]) -> Response:
    generation, known = int(named["generation"]), named["known"] == "1"
    offered = await server.holder.offer(named["dag"], named["id"], named["digest"], generation, known)
    size, start = offered.result.size, _start(request.headers.get("range"), offered.result.size)
    file, form = offered.file, offered.form
    if start:
        await file.seek(start)
    first = await file.read(PIECE_BYTES)  # what cannot be read is said before anything is promised
    status = 206 if start else 200
    about = protocol.about_value(start, size, offered.result.digest, form)
    headers = {
        "content-length": str(size - start),
        "content-type": "application/octet-stream",
        "stateroom-form": form,
        signing.PROOF: signing.prove(server.secret, nonce, status, about),
    }
    if start:
        headers["content-range"] = f"bytes {start}-{size - 1}/{size}"
    if len(first) == size - start:
        return Response(first, status, headers)
    return StreamingResponse(_pieces(file, first), status, headers)


async def _pieces(file: Any, first: bytes) -> AsyncIterator[bytes]:
    yield first
    while True:
        try:
            piece = await file.read(PIECE_BYTES)
        except StoreError as error:
            log.warning("a value that was being sent cannot be read on: %s", error.message)
            raise ClientDisconnect from error
        if not piece:
            return
        yield piece


async def _announce(server: Server, _: Request, nonce: str, named: dict[str, str], __: dict[str, Any]) -> Response:
    await server.holder.announce(named["dag"], named["id"])
    return server.said(nonce, 200, protocol.HERE)


async def _clear(server: Server, _: Request, nonce: str, named: dict[str, str], fields: dict[str, Any]) -> Response:
    removed = await server.holder.clear_at(named["dag"], int(fields["generation"]))
    return server.said(nonce, 200, "cleared", removed=removed)


async def _status(server: Server, _: Request, nonce: str, __: dict[str, str], ___: dict[str, Any]) -> Response:
    return server.said(nonce, 200, protocol.HERE, **server.holder.about())


async def _body(request: Request) -> bytes:
    """A request's body, which is small. Raises `Refusal`."""
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > BODY_BYTES:
        raise Refusal(413, "too-large", f"a request's body has at most {BODY_BYTES} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > BODY_BYTES:
                    raise Refusal(413, "too-large", f"a request's body has at most {BODY_BYTES} bytes")
    except (TimeoutError, ClientDisconnect) as error:
        raise Refusal(408, "too-slow", f"a request's body must come within {BODY_SECONDS} s") from error
    return bytes(body)


def _parameters(request: Request) -> dict[str, str]:
    text = request.scope["query_string"].decode("ascii")
    pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=8)
    named = dict(pairs)
    if len(named) != len(pairs):
        raise ValueError("a parameter is given twice")
    return named


def _start(header: str | None, size: int) -> int:
    if not header:
        return 0
    parsed = _RANGE.fullmatch(header)
    if parsed is None or int(parsed[1]) >= size:
        raise Refusal(416, "range", f"ask for bytes=N- with N under {size}")
    return int(parsed[1])


def _json(status: int, fields: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(json.dumps(fields), status, {"content-type": "application/json", **headers})
