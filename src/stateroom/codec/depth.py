"""How deep values may nest, and the checks that hold it without slowing plain data down.

ormsgpack recurses on the C stack and takes about 560 bytes a level; each value that is an extension (a tuple, a set, a
registered object) starts a new count there. So that no value and no stored bytes can overflow the stack of a thread,
the extensions are counted here, and deep among them their lists and dicts are too.
"""

EXTENSIONS = 100
"""Tuples, sets, dicts with other than plain keys and registered objects inside each other."""

PLAIN = 250
"""Lists and dicts inside each other, between two of those. The encoder itself refuses more than 255."""

FREE = 8
"""Down to this many extensions, `PLAIN` holds; below, `DEEP` does."""

DEEP = 16
"""Lists and dicts inside each other, between two extensions that are nested deeper than `FREE`."""

_UNCHECKED = 4
# An extension's own list around its members, and what the encoder allows beyond PLAIN.
_SLACK = 6
_NOT_CONTAINERS = bytes(byte for byte in range(256) if not (0x80 <= byte <= 0x9F or 0xDC <= byte <= 0xDF))
# Bytes that follow the first one of a token, by that one: fixed sizes, or how many bytes the length takes.
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8} | {
    0xD4 + power: 1 + (1 << power) for power in range(5)
}
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSION = {0xC7: 1, 0xC8: 2, 0xC9: 4}


def limit(depth: int) -> int:
    """Lists and dicts allowed inside each other under `depth` extensions."""
    return PLAIN if depth <= FREE else DEEP


def bytes_fit(data: bytes, depth: int) -> bool:
    """Say whether the lists and dicts in stored bytes, down to the next extensions, nest no deeper than allowed
    there.
    """
    if depth < _UNCHECKED:
        return True
    most = limit(depth)
    if len(data) <= most or len(data.translate(None, _NOT_CONTAINERS)) <= most:
        return True
    return _deepest(data, most + _SLACK + 1) <= most + _SLACK


def _deepest(data: bytes, enough: int) -> int:
    """Levels of arrays and maps in well-formed MessagePack; extensions are not entered. Stops at `enough`."""
    open_items: list[int] = []
    deepest = at = 0
    end = len(data)
    while at < end:
        byte = data[at]
        at += 1
        inside = 0
        if 0x80 <= byte <= 0x8F:
            inside = (byte & 15) * 2
        elif 0x90 <= byte <= 0x9F:
            inside = byte & 15
        elif 0xA0 <= byte <= 0xBF:
            at += byte & 31
        elif 0xDC <= byte <= 0xDF:
            size = 2 if byte & 1 == 0 else 4
            inside = int.from_bytes(data[at : at + size], "big") * (2 if byte >= 0xDE else 1)
            at += size
        elif byte in _FIXED:
            at += _FIXED[byte]
        elif byte in _SIZED:
            size = _SIZED[byte]
            at += size + int.from_bytes(data[at : at + size], "big")
        elif byte in _EXTENSION:
            size = _EXTENSION[byte]
            at += size + 1 + int.from_bytes(data[at : at + size], "big")
        if inside:
            open_items.append(inside)
            deepest = max(deepest, len(open_items))
            if deepest >= enough:
                return deepest
            continue
        while open_items:
            open_items[-1] -= 1
            if open_items[-1]:
                break
            open_items.pop()
        else:
            return deepest
    return deepest
