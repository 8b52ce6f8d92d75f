"""The secret that the nodes of one store share: read once, and never shown."""

import hmac
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument

LEAST_BYTES = 32


class Secret:
    """A key for message authentication; its bytes appear in no repr, error or log."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "<Secret>"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled")

    def mac(self, message: bytes) -> str:
        """The HMAC-SHA256 of a message, in hexadecimal."""
        return hmac.new(self._key, message, sha256).hexdigest()

    def agrees(self, message: bytes, mac: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self.mac(message).encode(), mac.encode("utf-8", "replace"))


def read_secret(source: Any) -> "Secret | InvalidArgument":
    """A secret from bytes, ``"env:NAME"`` or ``"file:PATH"``; or what is wrong with it.

    The error is given back and not raised, so that no frame of a traceback holds the bytes.
    """
    if isinstance(source, Secret):
        return source
    where = "secret"
    if isinstance(source, str):
        kind, _, name = source.partition(":")
        if kind == "env" and name:
            where = f"the secret in ${name}"
            source = os.environ.get(name, "").encode()
        elif kind == "file" and name:
            where = f"the secret in {name}"
            try:
                source = Path(name).expanduser().read_bytes().strip()
            except OSError as error:
                return InvalidArgument(f"{where} cannot be read: {error.strerror}", what="secret")
        else:
            return InvalidArgument('a secret is bytes, "env:NAME" or "file:PATH", not other text', what="secret")
    if not isinstance(source, bytes | bytearray):
        kind = type(source).__name__
        return InvalidArgument(f'a secret is bytes, "env:NAME" or "file:PATH", not a {kind}', what="secret")
    if len(source) < LEAST_BYTES:
        return InvalidArgument(
            f"{where} has {len(source)} bytes; use {LEAST_BYTES} or more random ones, the same on every node",
            what="secret",
        )
    return Secret(bytes(source))
