"""The checksum around each row: no flipped bit is read as a value."""

import random

import pytest

from stateroom.codec import Codec, seal, unseal
from stateroom.errors import Damaged, UnsupportedFormat

KEY = b"\x01default\x00order-17"


@pytest.mark.parametrize(
    "payload", [b"", b"\x00", b"\xff" * 7, Codec().encode([1, 5, 1.5, "order-17", {"a": (1,)}]), bytes(600)]
)
def test_every_flipped_bit_is_damage(payload: bytes) -> None:
    stored = seal(KEY, payload)
    assert unseal(KEY, stored) == payload
    for bit in range(len(stored) * 8):
        changed = bytearray(stored)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged) as caught:
            unseal(KEY, bytes(changed))
        assert isinstance(caught.value, UnsupportedFormat) == (bit < 8)


@pytest.mark.parametrize("length", range(1, 33))
def test_every_burst_of_up_to_32_bits_is_damage(length: int) -> None:
    stored = seal(KEY, b"some payload of a row")
    chance = random.Random(length)
    for _ in range(200):
        start = chance.randrange(8, len(stored) * 8 - length)
        burst = (1 | (1 << (length - 1)) | chance.getrandbits(length)) << start
        changed = (int.from_bytes(stored, "little") ^ burst).to_bytes(len(stored), "little")
        with pytest.raises(Damaged):
            unseal(KEY, changed)


def test_a_row_under_another_key_is_damage() -> None:
    stored = seal(KEY, b"payload")
    for at in range(len(KEY)):
        other = bytearray(KEY)
        other[at] ^= 4
        with pytest.raises(Damaged):
            unseal(bytes(other), stored)


@pytest.mark.parametrize("cut", range(1, 13))
def test_a_cut_row_is_damage(cut: int) -> None:
    stored = seal(KEY, b"payload")
    with pytest.raises(Damaged):
        unseal(KEY, stored[:-cut])


def test_a_newer_format_is_named() -> None:
    with pytest.raises(UnsupportedFormat) as caught:
        unseal(KEY, b"\x02" + seal(KEY, b"payload")[1:])
    assert (caught.value.found, caught.value.supported) == (2, 1)
