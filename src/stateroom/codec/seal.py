"""A checksum around every stored value, bound to where it is stored."""

from zlib import crc32

from ..errors import Damaged, UnsupportedFormat

FORMAT = 1
SEAL_BYTES = 5
"""What `seal` puts before the payload."""
_HEAD = SEAL_BYTES


def seal(key: bytes, payload: bytes) -> bytes:
    """`payload` behind a format byte and a CRC-32 over `key` and itself, so that a row read elsewhere fails too."""
    return b"\x01" + crc32(payload, crc32(key)).to_bytes(4, "big") + payload


def unseal(key: bytes, stored: bytes) -> bytes:
    """Return what `seal` was given. Raises `Damaged` when a bit differs, `UnsupportedFormat` for a newer format."""
    if len(stored) < _HEAD:
        raise Damaged(f"a row of {len(stored)} bytes is too short to be one", key=key)
    payload = stored[_HEAD:]
    if stored[0] != FORMAT:
        raise UnsupportedFormat(
            f"a row of format {stored[0]}; this version reads {FORMAT}", found=stored[0], supported=FORMAT
        )
    if crc32(payload, crc32(key)) != int.from_bytes(stored[1:_HEAD], "big"):
        raise Damaged("a row fails its checksum; restore it from a backup", key=key)
    return payload
