"""Every SQL string of the engine but the tables themselves (`schema.py`) and what is a cluster's (`citus.py`).

Each one names one part in every table it touches, and decides nothing by time, chance, sequence or session: the same
strings run on one server, behind a transaction pooler and on Citus. One look is the exception: at the versions of all
parts, for who waits for any of them.

A few keys are written out one by one, more of them go as one array: the planner takes an array parameter for ten keys,
finds that planning for the one it really gets is cheaper, and would then plan at every call.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_INT4, _INT8 = struct.Struct("!i"), struct.Struct("!q")
_ARRAY = struct.Struct("!iiiii")
_BYTEA, _BIGINT, _SMALLINT, _INTEGER = 17, 20, 21, 23


class Statement(NamedTuple):
    """One statement with its values in PostgreSQL's binary format."""

    sql: bytes
    values: Sequence[bytes | None] = ()


BEGIN = Statement(b"BEGIN ISOLATION LEVEL READ COMMITTED")
COMMIT = Statement(b"COMMIT")
ROLLBACK = Statement(b"ROLLBACK")
SNAPSHOT = Statement(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
NOT_FLUSHED = Statement(b"SET LOCAL synchronous_commit = off")

_COUNTER = """CASE WHEN length({0}) > 8 THEN NULL WHEN length({0}) = 0 THEN 0::bigint
 ELSE ('x' || lpad(encode({0}, 'hex'), 16, CASE WHEN get_byte({0}, 0) > 127 THEN 'f' ELSE '0' END))::bit(64)::bigint
 END"""

ADD = (
    f"int8send(nullif({_COUNTER.format('r.value')} + {_COUNTER.format('excluded.value')},"
    " (-9223372036854775808)::bigint))"
)
"""A counter's row ``r`` plus the amount that is being inserted; NULL where the sum is no counter."""

TEMPLATES = {
    "meta": "SELECT key, value FROM {s}.rows WHERE part = $1::int4",
    "read": "SELECT key, value, version FROM {s}.rows WHERE part = $1::int4 AND key = ANY({keys})",
    "read_with_part": (
        "SELECT key, value, version FROM {s}.rows WHERE part = $1::int4 AND key = ANY({keys})"
        " UNION ALL SELECT ''::bytea, ''::bytea, version FROM {s}.parts WHERE part = $1::int4"
    ),
    "part": "SELECT ''::bytea, ''::bytea, version FROM {s}.parts WHERE part = $1::int4",
    "scan": (
        "SELECT key, value, version FROM {s}.rows WHERE part = $1::int4 AND key >= $2::bytea AND key < $3::bytea"
        " ORDER BY key LIMIT $4::bigint"
    ),
    "scan_back": (
        "SELECT key, value, version FROM {s}.rows WHERE part = $1::int4 AND key >= $2::bytea AND key < $3::bytea"
        " ORDER BY key DESC LIMIT $4::bigint"
    ),
    # Takes the part: whoever commits to it next waits here until this transaction has ended.
    "take": ("UPDATE {s}.parts SET version = version + 1, writer = $2::bigint WHERE part = $1::int4 RETURNING version"),
    # Gives the part back as it was if one expectation fails, and says which. The writes that follow find no part of
    # this writer then and do nothing, so that the whole commit is one round trip and a conflict is no error.
    "check": (
        "UPDATE {s}.parts AS p SET version = p.version - 1, writer = 0 FROM ("
        "SELECT e.key, e.version AS expected, coalesce(r.version, 0) AS actual"
        " FROM unnest({keys}, {versions}) AS e (key, version)"
        " LEFT JOIN {s}.rows AS r ON r.part = $1::int4 AND r.key = e.key"
        " WHERE e.version <> coalesce(r.version, 0) ORDER BY e.key LIMIT 1"
        ") AS bad WHERE p.part = $1::int4 AND p.writer = $2::bigint RETURNING bad.key, bad.expected, bad.actual"
    ),
    "clear": (
        "DELETE FROM {s}.rows WHERE part = $1::int4 AND key >= $3::bytea AND key < $4::bytea"
        " AND EXISTS (SELECT FROM {s}.parts AS p WHERE p.part = $1::int4 AND p.writer = $2::bigint)"
    ),
    "remove": (
        "DELETE FROM {s}.rows WHERE part = $1::int4 AND key = ANY({keys})"
        " AND EXISTS (SELECT FROM {s}.parts AS p WHERE p.part = $1::int4 AND p.writer = $2::bigint)"
    ),
    # An index is that of an appended row, whose key ends with this commit's version and the index; -1 is a plain row.
    # $6 are the keys of counters, their values what is added; where the sum is no counter it is NULL, which its column
    # refuses, and so the commit.
    "put": (
        "INSERT INTO {s}.rows AS r (part, key, value, version)"
        " SELECT p.part, CASE WHEN n.index < 0 THEN n.key ELSE n.key || int8send(p.version) || int2send(n.index) END,"
        " n.value, p.version"
        " FROM {s}.parts AS p, unnest($3::bytea[], $4::bytea[], $5::smallint[]) AS n (key, value, index)"
        " WHERE p.part = $1::int4 AND p.writer = $2::bigint"
        " ON CONFLICT (part, key) DO UPDATE SET version = excluded.version, value ="
        " CASE WHEN excluded.key = ANY($6::bytea[])"
        f" THEN {ADD} ELSE excluded.value END"
    ),
    "notify": "SELECT pg_notify($1::text, $2::text)",
}
VERSIONS = "SELECT part, version FROM {s}.parts WHERE part >= 0"
DISTRIBUTED_SIZE = "SELECT citus_total_relation_size('{s}.rows') + citus_total_relation_size('{s}.parts')"
SIZE = "SELECT pg_total_relation_size('{s}.rows') + pg_total_relation_size('{s}.parts')"
"""Name to SQL; ``{s}`` is the quoted schema. $1 is the part, $2 the writer where something is written."""

_BEFORE_KEYS = {"read": 1, "read_with_part": 1, "check": 2, "remove": 2}
"""Name to the number of values before the keys."""
_WRITTEN_OUT = 8


def render(name: str, schema: str, keys: int = 0) -> str:
    """The SQL for so many keys; 0 for an array of them."""
    before = _BEFORE_KEYS.get(name, 0)
    if not keys:
        lists = {"keys": f"${before + 1}::bytea[]", "versions": f"${before + 2}::bigint[]"}
    else:
        lists = {
            "keys": _list("bytea", range(before + 1, before + 1 + keys)),
            "versions": _list("bigint", range(before + 1 + keys, before + 1 + 2 * keys)),
        }
    return TEMPLATES[name].format(s=f'"{schema}"', **lists)


def _list(kind: str, numbers: Iterable[int]) -> str:
    return f"ARRAY[{', '.join(f'${number}::{kind}' for number in numbers)}]"


def every(schema: str) -> Iterator[str]:
    """All that can be sent, for tests."""
    for name in TEMPLATES:
        yield render(name, schema)
        if name in _BEFORE_KEYS:
            yield from (render(name, schema, keys) for keys in range(1, _WRITTEN_OUT + 1))


class Statements:
    """The strings for one schema, and how their values are written."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self._text = {name: render(name, schema).encode() for name in TEMPLATES}
        self._keyed = {
            name: [render(name, schema, keys).encode() for keys in range(_WRITTEN_OUT + 1)] for name in _BEFORE_KEYS
        }

    def _with_keys(
        self, name: str, before: tuple[bytes, ...], keys: Sequence[bytes], versions: Sequence[int] = ()
    ) -> Statement:
        if len(keys) <= _WRITTEN_OUT:
            return Statement(self._keyed[name][len(keys)], (*before, *keys, *map(int8, versions)))
        arrays = (byteas(keys), bigints(versions)) if versions else (byteas(keys),)
        return Statement(self._keyed[name][0], (*before, *arrays))

    def meta(self) -> Statement:
        """Read the facts about the whole database."""
        return Statement(self._text["meta"], (int4(META_PART),))

    def read(self, part: int, keys: Sequence[bytes]) -> Statement:
        """The rows under `keys`, in no order; the key b"" gives the part itself, from the same snapshot."""
        if b"" not in keys:
            return self._with_keys("read", (int4(part),), keys)
        if len(keys) == 1:
            return Statement(self._text["part"], (int4(part),))
        return self._with_keys("read_with_part", (int4(part),), keys)

    def scan(self, part: int, start: bytes, stop: bytes, limit: int, reverse: bool) -> Statement:
        """At most `limit` rows of a part, in key order."""
        return Statement(self._text["scan_back" if reverse else "scan"], (int4(part), start, stop, int8(limit)))

    def take(self, part: int, writer: bytes) -> Statement:
        return Statement(self._text["take"], (int4(part), writer))

    def check(self, part: int, writer: bytes, keys: Sequence[bytes], versions: Sequence[int]) -> Statement:
        return self._with_keys("check", (int4(part), writer), keys, versions)

    def clear(self, part: int, writer: bytes, start: bytes, stop: bytes) -> Statement:
        return Statement(self._text["clear"], (int4(part), writer, start, stop))

    def remove(self, part: int, writer: bytes, keys: Sequence[bytes]) -> Statement:
        return self._with_keys("remove", (int4(part), writer), keys)

    def put(
        self,
        part: int,
        writer: bytes,
        rows: Sequence[tuple[bytes, bytes, int]],
        counters: Sequence[bytes],
    ) -> Statement:
        """Write (key, value, index) rows; `counters` are those of their keys whose value is an amount to add."""
        keys, values, indexes = zip(*rows, strict=True)
        arrays = (byteas(keys), byteas(values), smallints(indexes), byteas(counters))
        return Statement(self._text["put"], (int4(part), writer, *arrays))

    def versions(self) -> Statement:
        """The versions of all parts."""
        return Statement(VERSIONS.format(s=f'"{self.schema}"').encode())

    def size(self, *, distributed: bool) -> Statement:
        """The bytes of both tables with their indexes."""
        return Statement((DISTRIBUTED_SIZE if distributed else SIZE).format(s=f'"{self.schema}"').encode())

    def notify(self, payload: str, channel: str = "") -> Statement:
        """A hint to whoever listens; a transaction of its own."""
        return Statement(self._text["notify"], ((channel or self.channel).encode(), payload.encode()))

    @property
    def channel(self) -> str:
        """The name of what to listen to."""
        return f"stateroom:{self.schema}"

    def listen(self, channel: str = "") -> Statement:
        return Statement(f'LISTEN "{channel or self.channel}"'.encode())


META_PART = -1
"""Not a part of the engine: holds what is known about the whole database."""

int4 = _INT4.pack
int8 = _INT8.pack


def byteas(items: Sequence[bytes]) -> bytes:
    """A bytea[]."""
    size = _INT4.pack
    return _array(_BYTEA, len(items)) + b"".join([part for item in items for part in (size(len(item)), item)])


def bigints(numbers: Sequence[int]) -> bytes:
    """A bigint[]."""
    return _array(_BIGINT, len(numbers)) + struct.pack("!" + "iq" * len(numbers), *[x for n in numbers for x in (8, n)])


def smallints(numbers: Sequence[int]) -> bytes:
    """A smallint[]."""
    return _array(_SMALLINT, len(numbers)) + struct.pack(
        "!" + "ih" * len(numbers), *[x for n in numbers for x in (2, n)]
    )


def integers(numbers: Sequence[int]) -> bytes:
    """An integer[]."""
    return _array(_INTEGER, len(numbers)) + struct.pack(
        "!" + "ii" * len(numbers), *[x for n in numbers for x in (4, n)]
    )


def read_array(value: bytes | None) -> dict[int, bytes]:
    """The elements of a one-dimensional array by their index, without those that are NULL."""
    if value is None or _INT4.unpack_from(value)[0] == 0:
        return {}
    length, first = struct.unpack_from("!ii", value, 12)
    elements: dict[int, bytes] = {}
    at = 20
    for index in range(first, first + length):
        (size,) = _INT4.unpack_from(value, at)
        at += 4
        if size >= 0:
            elements[index] = value[at : at + size]
            at += size
    return elements


def _array(kind: int, length: int) -> bytes:
    return _ARRAY.pack(1, 0, kind, length, 1) if length else struct.pack("!iii", 0, 0, kind)
