"""A sorted set of keys in blocks, so that a million of them can be kept in order without moving them all."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

BLOCK = 1024
"""Keys of a block when it is made; it is split at twice that. Moving 2,048 pointers costs under a microsecond."""


class OrderedKeys:
    """Distinct keys in byte order. `add` and `discard` of what is there or not there already change nothing."""

    __slots__ = ("_blocks", "_firsts")

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        ordered = sorted(keys)
        self._blocks = [ordered[at : at + BLOCK] for at in range(0, len(ordered), BLOCK)] or [[]]
        # A block's entry here is a lower bound of its keys; the first is b"", so that every key has a block.
        self._firsts = [b"", *(block[0] for block in self._blocks[1:])]

    def add(self, key: bytes) -> None:
        number = bisect_right(self._firsts, key) - 1
        block = self._blocks[number]
        at = bisect_left(block, key)
        if at < len(block) and block[at] == key:
            return
        block.insert(at, key)
        if len(block) > 2 * BLOCK:
            # Appended keys only ever grow the last block: leaving the left half full keeps the list short.
            at = 2 * BLOCK - 1 if number == len(self._blocks) - 1 and block[-1] == key else BLOCK
            self._blocks[number : number + 1] = [block[:at], block[at:]]
            self._firsts.insert(number + 1, block[at])

    def discard(self, key: bytes) -> None:
        number = bisect_right(self._firsts, key) - 1
        block = self._blocks[number]
        at = bisect_left(block, key)
        if at == len(block) or block[at] != key:
            return
        del block[at]
        if not block and number:
            del self._blocks[number], self._firsts[number]

    def between(self, start: bytes, stop: bytes, limit: int, *, reverse: bool = False) -> list[bytes]:
        """At most `limit` keys with ``start <= key < stop``, from the low end or, when `reverse`, from the high end."""
        if start >= stop or limit < 1:
            return []
        result: list[bytes] = []
        low = bisect_right(self._firsts, start) - 1
        high = bisect_left(self._firsts, stop, low + 1) - 1
        for number in range(high, low - 1, -1) if reverse else range(low, high + 1):
            block = self._blocks[number]
            begin = bisect_left(block, start) if number == low else 0
            end = bisect_left(block, stop) if number == high else len(block)
            if reverse:
                result.extend(reversed(block[max(begin, end - limit + len(result)) : end]))
            else:
                result.extend(block[begin : min(end, begin + limit - len(result))])
            if len(result) == limit:
                break
        return result

    def __len__(self) -> int:
        return sum(map(len, self._blocks))
