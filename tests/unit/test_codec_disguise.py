"""The check that finds bytes in encoded data must never miss one: it is compared with a full walk, over hostile numbers."""

import random
import struct
from typing import Any

import ormsgpack
import pytest

from stateroom.codec import Codec
from stateroom.codec.disguise import may_hold_bytes

HEADERS = [*range(0xC0, 0xE0), 0x00, 0x01, 0x41, 0x81, 0x91, 0xA1, 0xBF, 0xFF]


def hostile(chance: random.Random) -> bytes:
    return bytes(chance.choice(HEADERS) for _ in range(8))


def number(chance: random.Random) -> Any:
    raw = hostile(chance)
    kind = chance.randrange(4)
    if kind == 0:
        return struct.unpack(">d", raw)[0]
    if kind == 1:
        return struct.unpack(">Q", raw)[0]
    if kind == 2:
        return struct.unpack(">q", raw)[0]
    return int.from_bytes(raw[: chance.randrange(1, 5)], "big")


def text(chance: random.Random) -> str:
    if chance.random() < 0.1:
        return "x" * chance.choice([0xC4, 0xC5, 0xCB, 0xCF, 0xD9, 0xDC, 0xC4CB % 4000])
    return "".join(chr(chance.randrange(0x20, 0x7FF)) for _ in range(chance.randrange(14)))


def value(chance: random.Random, level: int = 0) -> Any:
    kind = chance.randrange(8 if level < 4 else 5)
    if kind < 3:
        return number(chance)
    if kind == 3:
        return text(chance)
    if kind == 4:
        return chance.choice([None, True, 0, -1, 127, "plain text of some length"])
    if kind == 5:
        return {text(chance): value(chance, level + 1) for _ in range(chance.randrange(5))}
    return [value(chance, level + 1) for _ in range(chance.choice([1, 2, 9 if level < 2 else 3]))]


def planted(inside: Any, chance: random.Random, bytes_like: Any) -> Any:
    """`inside` with `bytes_like` somewhere in it."""
    if type(inside) is list and inside:
        at = chance.randrange(len(inside))
        return [*inside[:at], planted(inside[at], chance, bytes_like), *inside[at + chance.randrange(2) :]]
    if type(inside) is dict and inside:
        key = chance.choice(list(inside))
        return {**inside, key: planted(inside[key], chance, bytes_like)}
    return bytes_like


@pytest.mark.parametrize("seed", range(8))
def test_no_bytes_are_ever_missed(seed: int) -> None:
    chance = random.Random(seed)
    ruled_out = 0
    for _ in range(500):
        plain = [value(chance), value(chance)]
        size = chance.choice([0, 1, 2, 0x41, 0xC4, 0xCB, 255, 256, 700])
        content = bytes(chance.choice(HEADERS) for _ in range(size))
        holding = planted(plain, chance, content)
        assert may_hold_bytes(ormsgpack.packb(holding)), holding
        data = ormsgpack.packb(plain)
        ruled_out += 0xC4 in data and not may_hold_bytes(data)
    # The check earns its keep only if it often says no where the byte is there.
    assert ruled_out > 20


@pytest.mark.parametrize("seed", range(4))
def test_bytearrays_among_hostile_numbers_come_back_as_such(seed: int) -> None:
    chance = random.Random(100 + seed)
    codec = Codec()
    for _ in range(200):
        holding = planted([value(chance), value(chance)], chance, bytearray(hostile(chance)))
        assert repr(codec.decode(codec.encode(holding))) == repr(holding)


def test_byte_strings_of_every_header_are_seen() -> None:
    for size in (0, 255, 256, 0xFFFF, 0x10000, 0x20000):
        assert may_hold_bytes(ormsgpack.packb([1.5, b"x" * size, 2.5]))
        assert not may_hold_bytes(ormsgpack.packb([1.5, "x" * size, 2.5]))


@pytest.mark.parametrize("odd", [bytearray(b"x"), b"x", "x", None, True, 2**63, -1.5, [1.5], {}, 2**70, (1,)])
@pytest.mark.parametrize("at", [0, 5_000, 9_999])
def test_one_odd_item_in_a_long_list_of_numbers_comes_back_as_it_is(odd: Any, at: int) -> None:
    numbers: list[Any] = [1.1 * number for number in range(10_000)]
    numbers[at] = odd
    codec = Codec()
    for around in (numbers, [1, 5, "id", numbers], {"a": [numbers, {"b": numbers}]}):
        assert repr(codec.decode(codec.encode(around))) == repr(around)
