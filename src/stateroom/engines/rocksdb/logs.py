"""What is wrong with a write-ahead log: a tail that a crash has torn, or damage before records that are whole.

RocksDB tells the two apart only in part: tolerant of torn tails it also drops whole records behind a damaged length.
So a log is opened without any tolerance, and looked at here when that is refused. A log is blocks of 32 KiB; a record
is a checksum (CRC32C, masked, of type and payload), a length (2 bytes) and a type, all little-endian, and its payload.
"""

import os
from collections.abc import Iterator

__all__ = ["is_torn_tail"]

_BLOCK = 32768
_HEADER = 7
_TYPES = range(1, 5)
"""Whole, first, middle and last piece of a batch."""


def is_torn_tail(folder: str) -> bool:
    """Whether the first damage in the logs of `folder` has nothing whole behind it: what a crash leaves."""
    logs = sorted(name for name in os.listdir(folder) if name.endswith(".log"))
    damaged = False
    for name in logs:
        with open(os.path.join(folder, name), "rb") as file:
            content = file.read()
        end = 0 if damaged else _sound(content)
        if end == len(content):
            continue
        damaged = True
        if any(_whole_records(content, end)):
            return False
    return True


def _sound(content: bytes) -> int:
    """Where the first record begins that is not whole; the length of `content` where all are."""
    place = 0
    while place < len(content):
        room = _BLOCK - place % _BLOCK
        if room < _HEADER:  # filled with zeros
            place += room
            continue
        length = _record(content, place)
        if length is None:
            return len(content) if not content[place:].strip(b"\0") else place
        place += length
    return len(content)


def _whole_records(content: bytes, start: int) -> Iterator[int]:
    """Places behind `start` where a whole record begins, wherever that may be."""
    for place in range(start + 1, len(content) - _HEADER):
        if content[place + 6] in _TYPES and _record(content, place) is not None:
            yield place


def _record(content: bytes, place: int) -> int | None:
    """Bytes of the whole record at `place`, None where there is none."""
    header = content[place : place + _HEADER]
    if len(header) < _HEADER or header[6] not in _TYPES:
        return None
    length = int.from_bytes(header[4:6], "little")
    if place % _BLOCK + _HEADER + length > _BLOCK or place + _HEADER + length > len(content):
        return None
    checksum = int.from_bytes(header[:4], "little")
    return _HEADER + length if checksum == _masked(_crc32c(content[place + 6 : place + _HEADER + length])) else None


def _masked(checksum: int) -> int:
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def _crc32c(content: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in content:
        value = _TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF
