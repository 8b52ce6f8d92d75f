"""Mutated bytes into the codec: whatever is stored, decoding ends in a value or `Damaged`, in bounded memory and time.

``python -m stateroom.testing.fuzz_codec --count 10_000_000`` runs it for long. Every input follows from ``--seed`` and
its number, so that a failure is repeated with ``--only``.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from time import perf_counter, thread_time
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from stateroom.codec import Codec, ErrorRecord, Raw
from stateroom.errors import Damaged

SLOWEST = 2.0
"""Seconds of processor time that one input may take."""

# First bytes of tokens, lengths that lie, and the numbers of the extensions.
_TELLING = bytes(
    [*range(0xC0, 0xE0), 0, 1, 0x7F, 0x80, 0x81, 0x8F, 0x90, 0x91, 0x9F, 0xA1, 0xBF, 0xE0, 0xFF, *range(24)]
)


class Point(NamedTuple):
    """A registered type to be mutated."""

    x: Any
    y: Any = 0


def codec() -> Codec:
    """A codec with a registered type that has been upgraded once."""
    codec_of_points = Codec()
    codec_of_points.register(Point, name="point", version=2, upgrade={1: lambda state: {"x": state}})
    return codec_of_points


def seeds(codec: Codec) -> list[bytes]:
    """Valid encodings of every kind of value."""
    values: list[Any] = [
        [1, 5, 1_700_000_000_000_000, "order-17", "running", {"amount": 5, "rate": 1.5}, None, True, ["a", b"b"]],
        (1, (2, [3, {4}]), frozenset({"a", ("b",)})),
        {1: "a", (2, 3): {"x": [1.5]}, b"k": None, UUID(int=7): 2**70, None: {True: False}},
        [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Paris"))],
        [date(2024, 1, 1), time(1, 2, 3), timedelta(1, 2, 3), UTC, Decimal("1.10"), UUID(int=1), 1 + 2j],
        [Fraction(1, 3), PurePosixPath("/a/b"), bytearray(b"abc"), range(3, 9, 2), -(2**80)],
        Point((1, Point("a", [Point(2)])), {"k": Point(3, 4)}),
        ErrorRecord(
            type="E", module="m", message="x", notes=("n",), cause=ErrorRecord(type="F", module="m", message="y")
        ),
        [[[[[[[[[[((((((((((1,),),),),),),),),),)]]]]]]]]]],
        ["text " * 30, b"\xc4" * 40, list(range(40)), {f"key {at}": at for at in range(20)}],
    ]
    try:
        import numpy
    except ImportError:
        pass
    else:
        values.append([numpy.arange(6.0).reshape(2, 3), numpy.float32(1.5), numpy.array(["a", "bc"])])
    return [codec.encode(value) for value in values]


def mutate(chance: random.Random, valid: list[bytes]) -> bytes:
    """One of `valid`, changed in one to six places."""
    data = bytearray(chance.choice(valid))
    for _ in range(1 + int(chance.random() ** 3 * 6)):
        kind = chance.randrange(7)
        at = chance.randrange(len(data) + 1)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = chance.choice(_TELLING)
        elif kind == 2:
            data[at:at] = bytes((chance.choice(_TELLING),)) * chance.choice((1, 1, 2, 4, 1500))
        elif kind == 3:
            del data[at : at + chance.choice((1, 2, 8))]
        elif kind == 4:
            donor = chance.choice(valid)
            start = chance.randrange(len(donor))
            data[at:at] = donor[start : start + chance.randrange(64)]
        elif kind == 5:
            # An extension's own head over a copy of what is there: the nesting that plain mutation never finds.
            inner = bytes(data[:40_000])
            data = bytearray(b"\xc9" + len(inner).to_bytes(4, "big") + bytes((chance.randrange(23),)) + inner)
        else:
            data[at : at + 4] = chance.getrandbits(32).to_bytes(4, "big")
    return bytes(data[:50_000])


def inputs(seed: int, count: int, codec: Codec) -> Iterator[tuple[int, bytes]]:
    """Numbered inputs; the first thousand of a block follow from the seed and the block."""
    valid = seeds(codec)
    for block in range(0, count, 1000):
        chance = random.Random(seed * 1_000_003 + block)
        for number in range(block, min(count, block + 1000)):
            yield number, mutate(chance, valid)


def run(count: int, *, seed: int = 1, raw_every: int = 10) -> dict[str, int]:
    """Decode `count` mutated inputs; how many ended in which way. Raises whatever is not a value or `Damaged`."""
    subject = codec()
    ends = {"value": 0, "damaged": 0, "raw": 0}
    for number, data in inputs(seed, count, subject):
        start = thread_time()
        try:
            value = subject.decode(data)
        except Damaged:
            ends["damaged"] += 1
            if number % raw_every == 0:
                ends["raw"] += _raw(subject, data)
        except BaseException as error:
            error.add_note(f"input {number} of seed {seed}: {data[:400].hex()}")
            raise
        else:
            ends["value"] += 1
            del value
        if thread_time() - start > SLOWEST:
            raise AssertionError(f"input {number} of seed {seed} took over {SLOWEST} s: {data[:400].hex()}")
    return ends


def _raw(codec: Codec, data: bytes) -> bool:
    """Say whether the envelope can be read. Raises whatever is not `Damaged`."""
    try:
        return isinstance(codec.decode(data, raw=True), Raw | list | dict | tuple | set | frozenset)
    except Damaged:
        return False


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, default=None, help="print the input of this number instead")
    arguments = parser.parse_args()
    if arguments.only is not None:
        for number, data in inputs(arguments.seed, arguments.only + 1, codec()):
            if number == arguments.only:
                sys.stdout.write(data.hex() + "\n")
        return
    start = perf_counter()
    ends = run(arguments.count, seed=arguments.seed)
    peak = _peak()
    sys.stdout.write(f"{arguments.count} inputs in {perf_counter() - start:.0f} s, peak {peak} MiB: {ends}\n")


def _peak() -> int:
    """Resident memory of this process at its highest, in MiB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    main()
