"""Who may read and who may change: bearer tokens, compared in constant time."""

import hmac
import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ..errors import InvalidArgument

LEAST_BYTES = 32


class Token(NamedTuple):
    """A token: its secret of at least 32 bytes, whether it may change anything, and the namespaces it may see."""

    secret: str
    write: bool = False
    namespaces: frozenset[str] | None = None
    """None: all of them."""
    name: str = ""
    """Who it stands for: written into the `operator` changes that it makes."""

    def __repr__(self) -> str:
        return f"Token(name={self.name!r}, write={self.write}, namespaces={self.namespaces})"


Tokens = Iterable[Token | str] | Mapping[str, str] | None


class Keyring:
    """Tokens by the digest of their secret, so that comparing takes the same time for any secret."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = [(_digest(token.secret), token) for token in _tokens(tokens)]

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def find(self, secret: str) -> Token | None:
        """The token with a secret; every one is compared, whichever it is."""
        asked, match = _digest(secret), None
        for digest, token in self._tokens:
            if hmac.compare_digest(asked, digest):
                match = token
        return match


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _tokens(tokens: Tokens) -> list[Token]:
    if tokens is None:
        return []
    if isinstance(tokens, Mapping):
        given = [Token(str(secret), _may_write(kind)) for secret, kind in tokens.items()]
    elif isinstance(tokens, str | bytes):
        raise InvalidArgument("tokens is one text; give a collection of tokens", what="tokens")
    else:
        given = [token if isinstance(token, Token) else Token(str(token)) for token in tokens]
    for token in given:
        if not isinstance(token.secret, str) or len(token.secret.encode()) < LEAST_BYTES:
            raise InvalidArgument(
                f"a token has fewer than {LEAST_BYTES} bytes; make one with"
                ' python -c "import secrets; print(secrets.token_urlsafe(32))"',
                what="tokens",
            )
    return given


def _may_write(kind: str) -> bool:
    if kind not in ("read", "write"):
        raise InvalidArgument(f"a token is of kind {kind!r}; one of read, write", what="tokens")
    return kind == "write"


def read_tokens(path: "str | os.PathLike[str]") -> list[Token]:
    """The tokens in a file: a line each, ``SECRET [read|write] [name=WHO] [namespaces=A,B]``; # begins a comment.

    Raises `InvalidArgument` for a line that is none, and for a file that others may read.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        mode = file.stat().st_mode
    except OSError as error:
        raise InvalidArgument(f"the token file cannot be read: {error.strerror}", what="token_file") from error
    if os.name == "posix" and mode & 0o077:
        raise InvalidArgument("the token file may be read by others; chmod 600 it", what="token_file")
    tokens = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            tokens.append(_read_line(words, number))
    if not tokens:
        raise InvalidArgument("the token file has no token in it", what="token_file")
    _tokens(tokens)
    return tokens


def _read_line(words: list[str], number: int) -> Token:
    token = Token(words[0])
    for word in words[1:]:
        key, _, value = word.partition("=")
        if word in ("read", "write"):
            token = token._replace(write=word == "write")
        elif key == "name" and value:
            token = token._replace(name=value)
        elif key == "namespaces" and value:
            token = token._replace(namespaces=frozenset(value.split(",")))
        else:
            raise InvalidArgument(
                f"line {number} of the token file has {key!r}; use read, write, name=..., namespaces=...",
                what="token_file",
            )
    return token
