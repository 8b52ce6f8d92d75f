"""Encryption at rest: AES-256-GCM, keys with ids, rotation.

An encrypted value is ``C1 01``, the length and text of the key id, a random nonce of 12 bytes, and the ciphertext with
its tag of 16 bytes. The head and `bound` are authenticated with it. ``C1`` begins no MessagePack; plain data that does
begin with it (a chunk of somebody's bytes) gets ``C1 00`` put before it, so that the two are never confused.
"""

import base64
import binascii
import json
import os
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any, Self

from ..errors import AlreadyExists, Damaged, InvalidArgument, Undecodable, UnsupportedFormat

KEY_BYTES = 32
ID_BYTES = 64
_MARK, _PLAIN, _ENCRYPTED = b"\xc1", b"\xc1\x00", b"\xc1\x01"
_NONCE = 12
_TAG = 16
_NAMING = "naming"


class KeyRing:
    """The keys of a store: several to read with, one to write with, and one that names contents.

    `keys` maps an id (which is stored in clear with each value) to 32 bytes, or is a function from an id to them,
    called once per id: a key management service. `current` is the id that new values are written under. `naming` keys
    the digests of contents; keep it when keys are rotated, or equal contents are stored again. With ``plain=False``
    data that was written without encryption is refused instead of read.

    Raises `InvalidArgument` when a key is not 32 bytes, the current one is missing, or `cryptography` is not installed.
    """

    def __init__(
        self, keys: Mapping[str, bytes] | Callable[[str], bytes], *, current: str, naming: bytes, plain: bool = True
    ) -> None:
        self.current = _key_id(current)
        self.plain = plain
        self._naming = _key(naming, _NAMING)
        self._fetch: Callable[[str], bytes] | None = keys if callable(keys) else None
        self._keys: dict[str, Any] = {}
        self._lock = Lock()
        cipher = _aesgcm()
        if not callable(keys):
            self._keys = {_key_id(name): cipher(_key(key, name)) for name, key in keys.items()}
        self.cipher(current)

    def __repr__(self) -> str:
        return f"KeyRing(current={self.current!r}, ids={sorted(self._keys)})"

    def __reduce__(self) -> Any:
        raise TypeError("a KeyRing is not pickled: keys do not leave the process that way")

    @property
    def naming(self) -> bytes:
        """The key of content digests."""
        return self._naming

    def cipher(self, name: str) -> Any:
        """The cipher under a key id. Raises `Undecodable` naming the id that is missing."""
        cipher = self._keys.get(name)
        if cipher is not None:
            return cipher
        if self._fetch is not None:
            with self._lock:
                if name not in self._keys:
                    self._keys[name] = _aesgcm()(_key(self._ask(name), name))
                return self._keys[name]
        if name == self.current:
            raise InvalidArgument(f"the key ring has no key {name!r}, which is to be the current one", what="current")
        raise Undecodable(f"the key {name!r} that this was encrypted with is not in the key ring", tag=name)

    def _ask(self, name: str) -> bytes:
        assert self._fetch is not None
        try:
            return self._fetch(name)
        except LookupError as error:
            raise Undecodable(f"the key {name!r} that this was encrypted with is not to be had", tag=name) from error

    @classmethod
    def from_text(cls, text: str, *, source: str = "text", plain: bool = True) -> Self:
        """Keys from JSON: ``{"current": "2026", "keys": {"2026": "<base64>"}, "naming": "<base64>"}``."""
        try:
            document = json.loads(text)
            keys = {name: base64.b64decode(key, validate=True) for name, key in document["keys"].items()}
            naming = base64.b64decode(document["naming"], validate=True)
            current = document["current"]
        except (ValueError, LookupError, TypeError, AttributeError, binascii.Error) as error:
            # Chaining would show the text, and with it the keys, in a traceback.
            raise InvalidArgument(
                f"{source} holds no key ring ({type(error).__name__}): "
                'it is JSON with "current", "keys" (id to base64) and "naming"',
                what="key_ring",
            ) from None
        return cls(keys, current=current, naming=naming, plain=plain)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, plain: bool = True) -> Self:
        """Keys from a file that `generate` made, or one like it."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"the key ring {os.fspath(path)} cannot be read: {error}", what="key_ring") from error
        return cls.from_text(text, source=os.fspath(path), plain=plain)

    @classmethod
    def from_env(cls, name: str = "STATEROOM_KEY_RING", *, plain: bool = True) -> Self:
        """Keys from an environment variable that holds the same JSON, or the path of a file that does."""
        text = os.environ.get(name, "").strip()
        if not text:
            raise InvalidArgument(f"${name} is not set", what="key_ring", value=name)
        if not text.startswith("{"):
            return cls.from_file(text, plain=plain)
        return cls.from_text(text, source=f"${name}", plain=plain)

    @staticmethod
    def generate(path: str | os.PathLike[str], name: str = "1") -> None:
        """Make a file with one new key under the id `name`, readable by its owner alone.

        Raises `AlreadyExists` when there is a file: keys are never overwritten.
        """
        document = {"current": _key_id(name), "keys": {name: _new_key()}, "naming": _new_key()}
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise AlreadyExists(f"{os.fspath(path)} is there already", kind="key ring", id=os.fspath(path)) from error
        _write(handle, document)

    @staticmethod
    def rotate(path: str | os.PathLike[str], name: str) -> None:
        """Add a new key to a file and make it the current one; the others stay, to read what was written under them."""
        KeyRing.from_file(path)
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        if _key_id(name) in document["keys"]:
            raise AlreadyExists(f"{os.fspath(path)} has a key {name!r}", kind="key", id=name)
        document["keys"][name] = _new_key()
        document["current"] = name
        temporary = f"{os.fspath(path)}.new"
        # Whole or not at all: a half-written key ring would lose every value.
        _write(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), document)
        Path(temporary).replace(path)


def _new_key() -> str:
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def _write(handle: int, content: Any) -> None:
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _key_id(name: Any) -> str:
    if not isinstance(name, str) or not 1 <= len(name.encode(errors="replace")) <= ID_BYTES or not name.isprintable():
        raise InvalidArgument(f"a key id is a printable text of 1 to {ID_BYTES} bytes", what="key id", value=name)
    return name


def _key(key: Any, name: str) -> bytes:
    if not isinstance(key, bytes | bytearray) or len(key) != KEY_BYTES:
        raise InvalidArgument(f"the key {name!r} is not {KEY_BYTES} bytes", what="key_ring")
    return bytes(key)


def _aesgcm() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise InvalidArgument(
            "encryption needs the package cryptography: pip install 'stateroom[crypto]'", what="key_ring"
        ) from error
    return AESGCM


def protect(ring: KeyRing | None, bound: bytes, data: bytes) -> bytes:
    """`data` encrypted under the current key; without a ring, as it is."""
    if ring is None:
        return _PLAIN + data if data[:1] == _MARK else data
    name = ring.current.encode()
    head = _ENCRYPTED + bytes((len(name),)) + name
    nonce = os.urandom(_NONCE)
    return head + nonce + ring.cipher(ring.current).encrypt(nonce, data, head + bound)  # type: ignore[no-any-return]


def reveal(ring: KeyRing | None, bound: bytes, data: bytes) -> bytes:
    """Return what `protect` was given."""
    if data[:1] != _MARK or data[:2] == _PLAIN:
        if ring is not None and not ring.plain:
            raise Damaged("this value was stored in clear, and the key ring refuses that")
        return data[2:] if data[:2] == _PLAIN else data
    name, start = _name(data)
    if ring is None:
        raise Undecodable(f"this is encrypted with the key {name!r}; open the store with key_ring=", tag=name)
    nonce, secret = data[start : start + _NONCE], data[start + _NONCE :]
    if len(secret) < _TAG:
        raise Damaged("an encrypted value is too short to be one")
    cipher = ring.cipher(name)
    try:
        return cipher.decrypt(nonce, secret, data[:start] + bound)  # type: ignore[no-any-return]
    except _invalid_tag() as error:
        raise Damaged(
            f"an encrypted value does not open with the key {name!r}: it was changed, it belongs elsewhere, "
            "or this is another key under the same id"
        ) from error


def _invalid_tag() -> type[Exception]:
    from cryptography.exceptions import InvalidTag

    return InvalidTag


def _name(data: bytes) -> tuple[str, int]:
    """The key id in the head, and where the nonce starts."""
    if data[:2] != _ENCRYPTED:
        number = data[1] if len(data) > 1 else None
        raise UnsupportedFormat(
            f"an encrypted value of format {number}; this version reads 1", found=number, supported=1
        )
    size = data[2] if len(data) > 2 else 0
    text = data[3 : 3 + size]
    if len(text) != size or not 1 <= size <= ID_BYTES:
        raise Damaged("the head of an encrypted value is broken")
    try:
        return text.decode(), 3 + size
    except UnicodeDecodeError as error:
        raise Damaged("the head of an encrypted value is broken") from error


def needs_rekey(ring: KeyRing | None, data: bytes) -> bool:
    """Say whether `protect` would now write it under another key, or in clear."""
    if data[:2] != _ENCRYPTED:
        return ring is not None
    return ring is None or _name(data)[0] != ring.current


def digest(ring: KeyRing | None, data: bytes) -> bytes:
    """BLAKE2b of 32 bytes, keyed with the naming key where there is one."""
    return blake2b(data, digest_size=32, key=ring.naming if ring else b"").digest()
