"""The check that encoded plain data holds no bytes: it keeps a bytearray from coming back as bytes.

ormsgpack writes a bytearray or a memoryview as if it were bytes, without asking. Walking each value to look for them
would take several times as long as encoding it, so the encoded bytes are searched for the header of a byte string
first. Nearly every such byte belongs to a number, and that can be shown from its surroundings alone.
"""

import re
from typing import Final

_WINDOW: Final = 64
_MANY: Final = 24
# No header of these numbers, containers or texts starts here: after nine of them in a row, no number is open (the
# longest takes eight bytes after its header), so what follows is the start of a token or the inside of a text.
_CALM = re.compile(rb"(?s:.*)[\x00-\xc0\xc2\xc3\xe0-\xff]{9}")
# Tokens that are no byte string and no extension. Texts need no counting: what may stand in UTF-8 is passed over here
# byte by byte, and a header that could be read as the first byte of a character is only taken where no second one
# follows.
_TOKENS = re.compile(
    rb"(?s:[\x00-\xc0\xc2\xc3\xe0-\xff]*+(?:"
    rb"[\xcb\xcf\xd3][^\x80-\xbf].{7}|[\xcc\xd0\xd9].|[\xcd\xd1\xda\xdc\xde][^\x80-\xbf].|"
    rb"[\xca\xce\xd2\xdb\xdd\xdf][^\x80-\xbf].{3}))*+"
)


def may_hold_bytes(data: bytes) -> bool:
    """False where no part of `data`, plain MessagePack without extensions, is a byte string."""
    size = len(data)
    return (
        _may(data, b"\xc4", 1, size)
        or (size > 0x100 and _may(data, b"\xc5", 2, size))
        or (size > 0x10000 and _may(data, b"\xc6", 4, size))
    )


def _may(data: bytes, header: bytes, width: int, size: int) -> bool:
    at = data.find(header)
    count = 0
    while at >= 0:
        content = at + 1 + width
        if content + int.from_bytes(data[at + 1 : content], "big") <= size and not _in_number(data, at):
            return True
        count += 1
        if count > _MANY:
            return True
        at = data.find(header, at + 1)
    return False


def _in_number(data: bytes, at: int) -> bool:
    """Say whether the byte at `at` is shown to be no header, by reading on from a place where none is open."""
    start = max(0, at - _WINDOW)
    calm = _CALM.match(data, start, at)
    if calm is not None:
        start = calm.end()
    elif start:
        return False
    tokens = _TOKENS.match(data, start, at + 9)
    return tokens is not None and tokens.end() > at
