"""The table of what is kept: each row is a promise of docs/reference/values.md, which is made from it."""

import dataclasses
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from fractions import Fraction
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path, PurePosixPath, PureWindowsPath
from threading import Lock
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import numpy as np
import pydantic
import pytest

from stateroom.codec import Codec, ErrorRecord
from stateroom.errors import InvalidArgument

nan = float("nan")
inf = float("inf")


class Unknown:
    pass


class Sorted(OrderedDict[str, int]):
    pass


class Color(Enum):
    RED = "red"
    BLUE = (1, 2)


class Level(IntEnum):
    LOW = 1


class Mode(StrEnum):
    FAST = "fast"


class Right(Flag):
    READ = 1
    WRITE = 2


class Bits(IntFlag):
    A = 1
    B = 2


@dataclasses.dataclass
class Order:
    number: int
    lines: list[Any] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int


@attrs.frozen
class Address:
    street: str


class Item(msgspec.Struct, frozen=True):
    name: str
    price: Decimal


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str
    tags: set[str] = set()
    _secret: int = pydantic.PrivateAttr(default=1)


class Pair(NamedTuple):
    left: Any
    right: Any = None


class Money:
    def __init__(self, amount: Decimal) -> None:
        self.amount = amount

    def __eq__(self, other: object) -> bool:
        return type(other) is Money and other.amount == self.amount

    def __hash__(self) -> int:
        return hash(self.amount)


class Text(str):
    __slots__ = ()


Loose = namedtuple("Loose", "a")


def codec() -> Codec:
    made = Codec()
    for kind in (Color, Level, Mode, Right, Bits, Order, Point, Address, Item, Model, Pair):
        made.register(kind, name=kind.__name__.lower())
    made.register(Money, name="money", version=1, encode=lambda money: money.amount, decode=Money)
    return made


PARIS = ZoneInfo("Europe/Paris")
TABLE: list[tuple[str, str, list[Any]]] = [
    ("None", "", [None]),
    ("bool", "", [True, False]),
    ("int", "of any size", [0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1, 10**400, -(10**400)]),
    (
        "float",
        "with NaN, infinities and signed zeros",
        [0.0, -0.0, 1.5, nan, inf, -inf, 5e-324, 1.7976931348623157e308],
    ),
    ("str", "Unicode text; no lone surrogates", ["", "a", "żółć \U0001f600", "x" * 70_000, "a\0b", "\u0410\u04c4"]),
    ("bytes", "", [b"", b"\xc1\x00\xff", b"x" * 70_000]),
    ("bytearray", "", [bytearray(), bytearray(b"ab"), bytearray(70_000)]),
    ("list", "", [[], [1, [2, [3]]], [None, True, 1.0, "a"], [bytearray(b"a"), b"a"]]),
    ("tuple", "", [(), (1, (2, [3])), ((),), ([(1,)],)]),
    ("set", "", [set(), {1, "a", (1, 2)}, {b"a", None, 1.5}, {frozenset({1})}]),
    ("frozenset", "", [frozenset(), frozenset({1, 2}), frozenset({"b", "a"})]),
    (
        "dict",
        "keys of every kind that can be hashed; the order of insertion is kept",
        [
            {},
            {"b": 1, "a": 2},
            {"a b": {"c": [1]}},
            {1: "a", 2.5: "b", None: "c", False: "d", b"e": "f"},
            {(1, "a"): 1, (): 2, frozenset({1}): 3},
            {2**64: 1, -(2**70): 2},
            {datetime(2024, 1, 1): 1, date(2024, 1, 1): 2, UUID(int=1): 3, Color.RED: 4, Level.LOW: 5, Mode.FAST: 6},
            {Point(1, 2): {Point(3, 4): {1: {"a": 1}}}, "x": {1: 2}},
            {nan: 1, Decimal(1): 2, PurePosixPath("/a"): 3},
        ],
    ),
    (
        "datetime",
        "naive stays naive; fixed offsets with their names, ZoneInfo, fold and microseconds are kept",
        [
            datetime(2024, 2, 29, 1, 2, 3, 456789),
            datetime.min,
            datetime.max,
            datetime(2024, 1, 1, tzinfo=UTC),
            datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
            datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1, seconds=7, microseconds=5))),
            datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "CE;T")),
            datetime(2024, 10, 27, 2, 30, tzinfo=PARIS),
            datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=PARIS),
            datetime(2024, 10, 27, 2, 30, fold=1),
        ],
    ),
    ("date", "", [date(2024, 2, 29), date.min, date.max]),
    ("time", "", [time(1, 2, 3, 4), time(1, tzinfo=UTC), time(2, 30, fold=1), time(2, tzinfo=PARIS)]),
    ("timedelta", "", [timedelta(0), timedelta(-1, 5, 7), timedelta.max, timedelta.min]),
    ("timezone, ZoneInfo", "IANA names", [UTC, timezone(timedelta(hours=2), "X"), PARIS]),
    (
        "Decimal",
        "with its exponent; NaN, sNaN and infinities",
        [
            *map(Decimal, ("1.10", "-0", "1E+999", "NaN", "sNaN", "-Infinity")),
            Decimal("1" * 200),
        ],
    ),
    ("UUID", "", [UUID(int=0), UUID("12345678-1234-5678-1234-567812345678")]),
    ("complex", "", [1 + 2j, complex(-0.0, inf)]),
    ("Fraction", "", [Fraction(1, 3), Fraction(-(10**50), 7)]),
    ("range", "", [range(3), range(10, -5, -2), range(2**70)]),
    (
        "PurePath, Path",
        "a path of the other family of systems only as a pure path",
        [PurePosixPath("/a/b"), PureWindowsPath("C:\\a"), Path("x/y"), Path()],
    ),
    ("Enum, IntEnum, StrEnum", "registered; by the name of the member", [Color.RED, Color.BLUE, Level.LOW, Mode.FAST]),
    ("Flag, IntFlag", "registered; by value", [Right.READ, Right.READ | Right.WRITE, Right(0), Bits.A | Bits.B]),
    ("dataclass", "registered; frozen and slots too", [Order(1), Order(2, [Order(3), (1,)]), Point(1, 2)]),
    ("attrs class", "registered", [Address("Main St")]),
    ("msgspec Struct", "registered", [Item("a", Decimal("1.10"))]),
    (
        "pydantic model",
        "registered; which fields were set, extra and private ones are kept",
        [Model(name="a"), Model(name="b", tags={"x"}, more=(1, 2))],
    ),
    ("named tuple", "registered", [Pair(1, [2]), Pair("a")]),
    ("any other class", "registered with `encode=` and `decode=`", [Money(Decimal("5.00"))]),
    (
        "ErrorRecord",
        "what a stored exception becomes",
        [ErrorRecord(type="E", module="m", message="x", cause=ErrorRecord(type="F", module="m", message=""))],
    ),
    (
        "NumPy array",
        "where NumPy is installed; any shape and plain dtype, C or Fortran order; no `object`, no fields",
        [
            np.arange(6, dtype="<i4").reshape(2, 3),
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            np.array(5),
            np.zeros((0, 3)),
            np.array(["a", "bcd"]),
            np.array([b"a", b"bcd"]),
            np.array([True, False]),
            np.array([1 + 2j]),
            np.array(["2024-01-01", "NaT"], dtype="datetime64[us]"),
            np.array([1, 2], dtype=">i8"),
            np.arange(10)[::3],
            np.array([nan, -0.0], dtype="f4"),
        ],
    ),
    (
        "`collections.OrderedDict`, `Counter`",
        "with its order",
        [OrderedDict(b=1, a=2), OrderedDict(), OrderedDict({1: [2], (3,): 4}), Counter("hello"), Counter(a=0, b=-1)],
    ),
    (
        "`collections.defaultdict`",
        "its factory by name: a built-in type, or a registered one",
        [
            defaultdict(int, a=1),
            defaultdict(list, {(1, 2): [3]}),
            defaultdict(None, a=1),
            defaultdict(Order),
            defaultdict(OrderedDict),
        ],
    ),
    ("`collections.deque`", "with its `maxlen`", [deque([1, [2]]), deque("abc", 2), deque(maxlen=0), deque([(1,)], 5)]),
    (
        "`ipaddress`: addresses, networks, interfaces",
        "",
        [
            ip_address("192.0.2.1"),
            ip_address("2001:db8::1"),
            ip_address("fe80::1%eth0"),
            ip_network("192.0.2.0/24"),
            ip_network("2001:db8::/32"),
            ip_interface("192.0.2.1/24"),
            ip_interface("2001:db8::1/64"),
        ],
    ),
    (
        "`types.SimpleNamespace`",
        "",
        [SimpleNamespace(), SimpleNamespace(a=1, b=[SimpleNamespace(c=(1,))])],
    ),
    (
        "NumPy scalar",
        "where NumPy is installed",
        [
            np.float64(1.5),
            np.float32(nan),
            np.int8(-1),
            np.bool_(True),
            np.str_("a\0"),
            np.bytes_(b"b\0"),
            np.datetime64("2024-01-01"),
            np.complex64(1j),
            np.longdouble(1) / 3,
        ],
    ),
]

REFUSED: list[tuple[str, Any]] = [
    ("functions", len),
    ("functions", lambda: None),
    ("classes", int),
    ("open files", sys.stdout),
    ("locks", Lock()),
    ("generators", (x for x in ())),
    ("memoryview", memoryview(b"a")),
    ("unregistered classes", Unknown()),
    ("unregistered subclasses of built-in types", Text("a")),
    ("a defaultdict whose factory is a function", defaultdict(lambda: 0)),
    ("subclasses of the containers above", Sorted(a=1)),
    ("unregistered named tuples", Loose(1)),
    ("text with a lone surrogate", "a\ud800"),
    ("NumPy `object` arrays, record arrays and masked arrays", np.array([None])),
    ("NumPy `object` arrays, record arrays and masked arrays", np.zeros(1, dtype=[("a", "i4")])),
    ("NumPy `object` arrays, record arrays and masked arrays", np.ma.masked_array([1], [0])),
    ("Ellipsis and NotImplemented", ...),
    ("Ellipsis and NotImplemented", NotImplemented),
]


def same(left: Any, right: Any) -> bool:
    """Equal and of the same type all the way down; NaN equals NaN, -0.0 differs from 0.0, order of keys counts."""
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray | np.generic):
        return (
            left.dtype == right.dtype
            and left.shape == right.shape
            and left.tobytes() == right.tobytes()
            and (left.flags.f_contiguous == right.flags.f_contiguous or not right.flags.forc)
        )
    if isinstance(left, float):
        return left.hex() == right.hex() if left == left else right != right
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, defaultdict) and left.default_factory is not right.default_factory:
        return False
    if isinstance(left, deque):
        return bool(left.maxlen == right.maxlen and same(list(left), list(right)))
    if isinstance(left, SimpleNamespace):
        return same(vars(left), vars(right))
    if isinstance(left, dict):
        return len(left) == len(right) and all(map(same, left.items(), right.items()))
    if isinstance(left, set | frozenset):
        return sorted(map(key_text, left)) == sorted(map(key_text, right))
    if isinstance(left, Decimal):
        return left.as_tuple() == right.as_tuple()
    if isinstance(left, datetime | time):
        return (left.replace(tzinfo=None), left.fold, left.tzinfo) == (
            right.replace(tzinfo=None),
            right.fold,
            right.tzinfo,
        ) and left.tzname() == right.tzname()
    if isinstance(left, pydantic.BaseModel):
        return left == right and left.model_fields_set == right.model_fields_set
    return bool(left == right)


def key_text(value: Any) -> str:
    if isinstance(value, set | frozenset):
        return f"{type(value)}{sorted(map(key_text, value))}"
    return f"{type(value)}{value!r}"


ROWS = [pytest.param(value, id=f"{name}-{at}") for name, _, values in TABLE for at, value in enumerate(values)]


@pytest.mark.parametrize("value", ROWS)
def test_each_row_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    one = codec()
    back = one.decode(one.encode(value))
    assert same(back, value), (back, value)


@pytest.mark.parametrize("value", ROWS)
def test_each_row_comes_back_from_inside_every_container(value: Any) -> None:
    one = codec()
    around = [
        value,
        (value, [value]),
        {"a": value, 1: value, (1,): (value,)},
        Order(1, [value]),
        Pair(value, {2: value}),
    ]
    back = one.decode(one.encode(around))
    assert same(back[:3], around[:3]), (back, around)
    assert same(back[3].lines, around[3].lines)
    assert same(tuple(back[4]), tuple(around[4]))


@pytest.mark.parametrize("value", ROWS)
def test_each_row_that_can_be_hashed_is_a_key_and_a_member(value: Any) -> None:
    try:
        hash(value)
    except TypeError:
        return
    one = codec()
    around = [{value: value}, {value}, frozenset({value, "other"}), {"a": {value: 1}}]
    back = one.decode(one.encode(around))
    assert same(back[0], around[0])
    assert [type(member) for member in back[1]] == [type(value)]
    assert all(same(member, value) for member in back[1])
    assert len(back[2]) == 2
    assert same(back[3], around[3])


@pytest.mark.parametrize(("name", "value"), [pytest.param(*row, id=f"{row[0]}-{at}") for at, row in enumerate(REFUSED)])
def test_what_is_not_kept_is_refused_with_its_path_and_type(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        codec().encode({"a": [0, 1, (2, {"b": value})]})
    assert caught.value.path == "$.a[2][1].b"
    assert caught.value.what == "value"
    assert "$.a[2][1].b" in str(caught.value)
    kind = type(value).__name__
    assert kind in str(caught.value) or "dtype" in str(caught.value)


def test_the_page_of_types_is_what_this_table_says() -> None:
    tool = Path(__file__).parents[2] / "tools" / "values_page.py"
    if not tool.exists():
        pytest.skip("the tools are not beside the tests (an installed wheel)")
    subprocess.run([sys.executable, str(tool), "--check"], check=True)
