"""Proof of requests and answers: an HMAC over all that matters in them, a time, and a nonce.

A request names the node it is meant for, so that none can be played back to another. An answer names the request's
nonce, so that none can be given again.
"""

import base64
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from hashlib import sha256

from .secret import Secret

WINDOW_SECONDS = 30
"""How far a request's time may be from the clock of the node that gets it."""

NONCES = 200_000
"""Nonces that a node remembers: those of a minute. Only who has the secret can add one."""

AUTHORIZATION, PROOF = "stateroom-authorization", "stateroom-proof"
_VERSION = "stateroom-1"
NO_BODY = sha256(b"").hexdigest()


class Unauthorized(Exception):
    """A request that is not believed; `reason` is one word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _text(name: str) -> str:
    """A name of any characters, as header fields can carry it."""
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _message(*parts: str) -> bytes:
    return "\n".join((_VERSION, *parts)).encode("utf-8", "surrogateescape")


class Request:
    """The signed part of a request."""

    def __init__(self, method: str, target: str, node: str, range_: str = "", body: bytes = b"") -> None:
        self.method = method
        self.target = target
        self.node = node
        self.range = range_
        self.body_digest = sha256(body).hexdigest() if body else NO_BODY

    def message(self, at: str, nonce: str, sender: str) -> bytes:
        return _message(self.method, self.target, _text(self.node), sender, at, nonce, self.range, self.body_digest)


def sign(secret: Secret, request: Request, sender: str, now: float) -> tuple[str, str]:
    """The header that proves a request, and its nonce."""
    at, nonce, origin = str(round(now * 1000)), os.urandom(16).hex(), _text(sender)
    mac = secret.mac(request.message(at, nonce, origin))
    return f"time={at}, nonce={nonce}, from={origin}, mac={mac}", nonce


class Verifier:
    """Believes requests of who has the secret: each once, and only while it is young."""

    def __init__(self, secret: Secret, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._clock = clock
        self._seen: set[str] = set()
        self._order: deque[tuple[float, str]] = deque()

    def verify(self, header: str, request: Request) -> str:
        """The nonce of a request that is believed. Raises `Unauthorized`."""
        fields = parse(header)
        at, nonce, sender, mac = (fields.get(name, "") for name in ("time", "nonce", "from", "mac"))
        if not header:
            raise Unauthorized("unsigned", "the request is not signed")
        if not (at.isascii() and at.isdigit() and len(at) <= 15 and len(nonce) == 32 and sender and len(mac) == 64):
            raise Unauthorized("unsigned", "the request's signature cannot be read")
        if not self._secret.agrees(request.message(at, nonce, sender), mac):
            raise Unauthorized("signature", "the request was not signed with this node's secret, or not for this node")
        now = self._clock()
        away = int(at) / 1000 - now
        if abs(away) > WINDOW_SECONDS:
            raise Unauthorized(
                "clock", f"the request's time is {away:+.0f} s from this node's clock; {WINDOW_SECONDS} s are allowed"
            )
        self._remember(nonce, int(at) / 1000 + WINDOW_SECONDS, now)
        return nonce

    def _remember(self, nonce: str, until: float, now: float) -> None:
        while self._order and self._order[0][0] < now:
            self._seen.discard(self._order.popleft()[1])
        if nonce in self._seen:
            raise Unauthorized("replayed", "the request was seen before")
        if len(self._seen) >= NONCES:
            raise Unauthorized("busy", "too many requests within a minute")
        self._seen.add(nonce)
        # Kept until no clock in the window would take it; what was signed late stands behind what was signed early.
        self._order.append((max(until, now + 2 * WINDOW_SECONDS), nonce))


def parse(header: str) -> Mapping[str, str]:
    """The fields of a signature."""
    fields: dict[str, str] = {}
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        fields[name] = value
    return fields


def prove(secret: Secret, nonce: str, status: int, about: str, body: bytes = b"") -> str:
    """Return what proves an answer; `about`: for a value which bytes of how many, else nothing."""
    return secret.mac(_answer(nonce, status, about, body))


def proven(secret: Secret, proof: str, nonce: str, status: int, about: str, body: bytes = b"") -> bool:
    """Say whether an answer is one to the request of this nonce, from a node that has the secret."""
    return secret.agrees(_answer(nonce, status, about, body), proof)


def _answer(nonce: str, status: int, about: str, body: bytes) -> bytes:
    return _message("answer", nonce, str(status), about, sha256(body).hexdigest())
