"""The kinds of value that need a word of their own in the stored bytes.

Everything MessagePack has a kind for (None, bool, int of 64 bits, float, str, bytes, list, dict with plain keys) is
stored as that. The rest is an extension with one of these numbers. They are part of the format: a number is never given
a second meaning.
"""

from typing import Final

TUPLE: Final = 1
SET: Final = 2
FROZENSET: Final = 3
DATETIME: Final = 4
DATE: Final = 5
TIME: Final = 6
TIMEDELTA: Final = 7
DECIMAL: Final = 8
UUID: Final = 9
COMPLEX: Final = 10
FRACTION: Final = 11
INTEGER: Final = 12
PATH: Final = 13
MAPPING: Final = 14
BYTEARRAY: Final = 15
RANGE: Final = 16
TIMEZONE: Final = 17
ARRAY: Final = 18
ARRAY_SCALAR: Final = 19
NAMED: Final = 20
ERROR: Final = 21
ORDERED: Final = 22
DEFAULTDICT: Final = 23
COUNTER: Final = 24
DEQUE: Final = 25
ADDRESS: Final = 26
NAMESPACE: Final = 27

NAMES: Final = {
    TUPLE: "tuple",
    SET: "set",
    FROZENSET: "frozenset",
    DATETIME: "datetime",
    DATE: "date",
    TIME: "time",
    TIMEDELTA: "timedelta",
    DECIMAL: "decimal",
    UUID: "uuid",
    COMPLEX: "complex",
    FRACTION: "fraction",
    INTEGER: "integer",
    PATH: "path",
    MAPPING: "mapping",
    BYTEARRAY: "bytearray",
    RANGE: "range",
    TIMEZONE: "timezone",
    ARRAY: "array",
    ARRAY_SCALAR: "array scalar",
    NAMED: "registered",
    ERROR: "error",
    ORDERED: "ordered dict",
    DEFAULTDICT: "defaultdict",
    COUNTER: "counter",
    DEQUE: "deque",
    ADDRESS: "address",
    NAMESPACE: "namespace",
}
"""What `Undecodable.tag` says; for a registered type it says the type's registered name instead."""
