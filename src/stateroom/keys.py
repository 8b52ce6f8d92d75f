"""Keys whose byte order is the order of what they were made from; names; parts.

A key is ``namespace NUL tag path``, the tag two letters (what, whose) from the tables below. Names hold no NUL, so a
NUL ends each of them and a key sorts as the tuple of its names does: UTF-8 sorts as the text's code points.
``docs/design/keys.md`` lists every key of every family.
"""

from zlib import crc32

from . import arguments
from .errors import Damaged
from .limits import NAME_BYTES, NAMESPACE_BYTES

RECORD, INDEX, COUNTER = b"R", b"X", b"C"
"""What a row is: the first letter of its tag; the second is the family's."""

FEED = b"F"
EVENTS = b"E"
HEADS = b"H"
ACTIVE = b"A"
LEASE_TOKEN, LEASE_UNTIL = b"LT", b"LU"
ONCE = b"O"
SWEEP = b"S"
RUN = b"N"
CHUNK, CHUNK_COUNT, UPLOAD = b"BC", b"BN", b"BU"
DEFINITION, POLICY = b"D", b"P"
POLICY_ROOT = "retention"
"""Policies, and the lease of the one that applies them, live in the part of this root."""
CHECKPOINT = b"W"
DEAD_LETTER, RETRY = b"QL", b"QR"
MACHINE_HISTORY, MACHINE_FAILURE = b"MH", b"MF"
TIMER, TIMER_DUE = b"TT", b"TD"
RESULT_EXPIRY, RESULT_WRITES, RESULT_CLAIM = b"VX", b"VW", b"VC"
LOCATION, LOCATION_BY_NODE, LOCATION_WRITES, LOCATION_COUNT = b"KL", b"KN", b"KW", b"KC"
GENERATION, SETTLED, ADVANCES = b"KG", b"KS", b"KA"
NODE = b"KM"
NODE_ROOT = "nodes"
"""Nodes and their leases live in the part of this root."""

ENDED, ENDED_SINCE, ONCE_AT = b"YE", b"YS", b"YO"
"""Times: of records rewritten after they had ended (by time, and of each), of idempotency keys."""
RETENTION_PLACE = b"YP"

END = b"\xff"
"""After every path that starts alike: no UTF-8 and no tag has this byte."""


def name(value: str, what: str, limit: int = NAME_BYTES) -> bytes:
    """The UTF-8 of a name. Raises `InvalidArgument` unless it is 1 to `limit` bytes, has no NUL, is not blank."""
    return arguments.name(value, what, limit).encode()


def namespace(value: str) -> bytes:
    """The prefix of every key of a namespace. Raises `InvalidArgument` for a name that is not allowed."""
    return name(value, "namespace", NAMESPACE_BYTES) + b"\0"


def path(*steps: str | int) -> bytes:
    """Names, each ended by a NUL, and numbers as 8 bytes."""
    if len(steps) == 1 and isinstance(only := steps[0], str):  # most keys are one id
        return only.encode() + b"\0"
    return b"".join(step.encode() + b"\0" if isinstance(step, str) else number(step) for step in steps)


def parse(tail: bytes, shape: tuple[type, ...]) -> tuple[str | int, ...]:
    """What `path` was given; `shape` says which steps are numbers. Raises `Damaged` for other bytes."""
    steps: list[str | int] = []
    at = 0
    try:
        for kind in shape:
            if kind is int:
                steps.append(int.from_bytes(tail[at : at + 8], "big"))
                at += 8
            else:
                end = tail.index(b"\0", at)
                steps.append(tail[at:end].decode())
                at = end + 1
    except ValueError as error:
        raise Damaged("a key cannot be read", key=tail) from error
    return tuple(steps)


def number(value: int) -> bytes:
    """8 bytes that sort as the number does, which is not negative."""
    return value.to_bytes(8, "big")


def root(id: str) -> str:
    """What of an id decides its part: all up to its first ``/``."""
    cut = id.find("/")
    return id if cut < 0 else id[:cut]


def part_of(prefix: bytes, root: str, parts: int) -> int:
    """The part of a root in the namespace whose prefix this is."""
    return crc32(root.encode(), crc32(prefix)) % parts if parts > 1 else 0


check_number = arguments.number
