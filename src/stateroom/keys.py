"""Keys whose byte order is the order of what they were made from; names; parts.

A key is ``namespace NUL tag path``, the tag one or two letters (what, whose) from the table below. Names hold no NUL,
so a NUL ends each of them and a key sorts as the tuple of its names does: UTF-8 sorts as the text's code points.
``docs/design/keys.md`` lists every key of every family.
"""

from enum import Enum
from typing import NamedTuple
from zlib import crc32

from . import arguments
from .errors import Damaged
from .limits import NAME_BYTES, NAMESPACE_BYTES

RECORD, INDEX, COUNTER = b"R", b"X", b"C"
"""Tags of a record family's rows: the first letter says what the row is, the second whose."""

FEED, FLOOR = b"F", b"G"
EVENTS, HEADS = b"E", b"H"
ACTIVE = b"A"
LEASE_TOKEN, LEASE_UNTIL, LEASE_MARK = b"LT", b"LU", b"LM"
ONCE = b"O"
SWEEP = b"S"
RUN = b"N"
OBJECTS = b"B"
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


class Owner(Enum):
    """The place in a key, after its tag, of the string that decides the part."""

    FIRST = "the first name"
    SECOND = "the second name"
    AFTER_NUMBER = "the first name after a number"
    RECORD = "the key of a record, after the letter of its kind"
    ENDED = "the key of a record, after the letter of its kind and a number"
    RANGE = "in another key, whose start this one names"


class OnCopy(Enum):
    """The treatment of a row by a copy into another database."""

    AS_IS = "to the part of its owner, as it is"
    EVERY_PART = "to every part, as it is"
    REBUILT = "written anew from what it belongs to"


class RowKind(NamedTuple):
    """One kind of row: what `check`, `copy`, `rekey` and the references of large values know of it."""

    name: str
    owner: Owner | str | None = None
    """Where its owner stands; a str: the root of all of them; None: it belongs to its part."""
    value_at: int | None = None
    """At which byte of the unsealed row the wrapper of a value of any size begins, if it has one."""
    encrypted: bool = False
    """Whether the whole unsealed row is one encrypted piece."""
    on_copy: OnCopy = OnCopy.AS_IS
    auditor: str = ""
    """The module of the package whose ``audit(reader, part)`` looks at these rows, where no record's kind does."""


ROWS: dict[bytes, RowKind] = {
    RECORD: RowKind("record", Owner.RECORD, on_copy=OnCopy.REBUILT),
    INDEX: RowKind("index row", on_copy=OnCopy.REBUILT),
    COUNTER: RowKind("counter", on_copy=OnCopy.REBUILT),
    FEED: RowKind("change", on_copy=OnCopy.REBUILT),
    FLOOR: RowKind("pruning floor", on_copy=OnCopy.REBUILT),
    OBJECTS: RowKind("object of a large value", on_copy=OnCopy.REBUILT),
    EVENTS: RowKind("event", Owner.RECORD, value_at=0),
    HEADS: RowKind("number of events", Owner.RECORD),
    SWEEP: RowKind("range to be emptied", Owner.RANGE),
    ENDED: RowKind("end by time", Owner.ENDED, auditor="retention.records"),
    ENDED_SINCE: RowKind("end of a record", Owner.RECORD),
    ACTIVE: RowKind("active instance", Owner.FIRST),
    LEASE_TOKEN: RowKind("token of a lease", Owner.FIRST),
    LEASE_UNTIL: RowKind("end of a lease", Owner.FIRST),
    LEASE_MARK: RowKind("highest token of leases that are gone", on_copy=OnCopy.REBUILT),
    ONCE: RowKind("idempotency key", Owner.FIRST, value_at=0),
    ONCE_AT: RowKind("time of an idempotency key", Owner.AFTER_NUMBER),
    RUN: RowKind("savepoint run", Owner.FIRST),
    DEFINITION: RowKind(
        "machine definition", encrypted=True, on_copy=OnCopy.EVERY_PART, auditor="families.machines.rules"
    ),
    MACHINE_HISTORY: RowKind("past snapshot", Owner.SECOND, value_at=0),
    MACHINE_FAILURE: RowKind("failure", Owner.SECOND, value_at=0),
    TIMER: RowKind("timer", Owner.FIRST, value_at=48, auditor="families.timers.record"),
    TIMER_DUE: RowKind("timer by time", Owner.AFTER_NUMBER),
    RESULT_EXPIRY: RowKind("result by expiry", Owner.AFTER_NUMBER),
    RESULT_WRITES: RowKind("writes of a DAG", Owner.FIRST),
    RESULT_CLAIM: RowKind("claim of a computation", Owner.FIRST),
    LOCATION: RowKind("location", Owner.FIRST, encrypted=True, auditor="families.locations.record"),
    LOCATION_BY_NODE: RowKind("location by node", Owner.SECOND),
    LOCATION_WRITES: RowKind("changes of locations", Owner.FIRST),
    LOCATION_COUNT: RowKind("number of locations", Owner.FIRST),
    GENERATION: RowKind("generation of a DAG", Owner.FIRST),
    SETTLED: RowKind("generation of a node's values", Owner.FIRST),
    ADVANCES: RowKind("generations so far", on_copy=OnCopy.REBUILT),
    NODE: RowKind("node", NODE_ROOT, encrypted=True),
    POLICY: RowKind("policy", POLICY_ROOT, auditor="retention.policy"),
    RETENTION_PLACE: RowKind("place of a retention run", POLICY_ROOT),
    CHECKPOINT: RowKind("checkpoint", Owner.FIRST, on_copy=OnCopy.REBUILT, auditor="watch.checkpoints"),
    DEAD_LETTER: RowKind("dead letter", Owner.FIRST, encrypted=True),
    RETRY: RowKind("retries of dead letters", Owner.FIRST),
}
"""Every kind of row by its tag; ``docs/design/keys.md`` says what is in each."""

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
    """Return what `path` was given; `shape` says which steps are numbers. Raises `Damaged` for other bytes."""
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
    """Return the root of an id, which decides its part: all up to its first ``/``."""
    cut = id.find("/")
    return id if cut < 0 else id[:cut]


def part_of(prefix: bytes, root: str, parts: int) -> int:
    """The part of a root in the namespace whose prefix this is."""
    return crc32(root.encode(), crc32(prefix)) % parts if parts > 1 else 0


check_number = arguments.number


def row_tag(suffix: bytes) -> bytes | None:
    """The tag that a key begins with after its namespace; None for one that this version does not know."""
    for size in (2, 1):
        if suffix[:size] in ROWS:
            return suffix[:size]
    return None
