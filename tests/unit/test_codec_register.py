"""Types registered by name: moving, upgrading, and what happens to a record whose type is gone."""

import dataclasses
from decimal import Decimal
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from stateroom import codec as public
from stateroom.codec import Codec, Raw
from stateroom.errors import AlreadyExists, InvalidArgument, Undecodable


@dataclasses.dataclass
class Order:
    number: int
    total: Decimal = Decimal(0)


def stored(**fields: Any) -> bytes:
    """An order of version 1, as an older program wrote it."""
    made = dataclasses.make_dataclass("Order", fields)
    old = Codec()
    old.register(made, name="order", version=1)
    return old.encode({"orders": [made(**fields)]})


def test_a_registered_name_moves_to_another_class_and_module() -> None:
    one = Codec()
    one.register(Order, name="order")
    assert one.decode(stored(number=5, total=Decimal(2))) == {"orders": [Order(5, Decimal(2))]}


def test_register_is_a_decorator_too() -> None:
    one = Codec()

    @one.register(name="point", version=2, upgrade={1: lambda state: state})
    @dataclasses.dataclass
    class Point:
        x: int

    assert one.decode(one.encode((Point(1),))) == (Point(1),)
    assert Point(2).x == 2


def test_the_package_registers_with_the_default_codec() -> None:
    @public.register(name="tests.only-here", version=1)
    @dataclasses.dataclass
    class Here:
        x: int

    assert public.default.decode(public.default.encode(Here(1))) == Here(1)
    with pytest.raises(InvalidArgument):
        Codec().encode(Here(1))


def test_old_versions_are_upgraded_step_by_step() -> None:
    calls: list[tuple[int, Any]] = []

    def from_1(state: Any) -> Any:
        calls.append((1, dict(state)))
        return {"number": int(state["no"])}

    def from_2(state: Any) -> Any:
        calls.append((2, dict(state)))
        return {**state, "total": Decimal(7)}

    one = Codec()
    one.register(Order, name="order", version=3, upgrade={1: from_1, 2: from_2})
    data = stored(no="12")
    assert one.decode(data) == {"orders": [Order(12, Decimal(7))]}
    assert calls == [(1, {"no": "12"}), (2, {"number": 12})]
    assert one.decode(one.encode(Order(1))) == Order(1)
    assert len(calls) == 2


def test_a_new_field_with_a_default_needs_no_new_version() -> None:
    one = Codec()
    one.register(Order, name="order")
    assert one.decode(stored(number=5)) == {"orders": [Order(5, Decimal(0))]}


@pytest.mark.parametrize(
    ("register", "says"),
    [
        (None, "no type is registered"),
        ({"version": 2}, "no upgrade from version 1 to 2"),
        ({"version": 3, "upgrade": {1: lambda state: state}}, "no upgrade from version 2 to 3"),
        ({"version": 2, "upgrade": {1: lambda state: 1 / 0}}, "ZeroDivisionError"),
        ({"version": 2, "upgrade": {1: lambda state: 7}}, "not a dict"),
        ({"version": 1}, "no field 'colour'"),
        ({"version": 2, "upgrade": {1: lambda state: {}}}, "'number'"),
    ],
)
def test_what_cannot_be_rebuilt_says_where_and_why_and_raw_reads_it(register: Any, says: str) -> None:
    one = Codec()
    if register:
        one.register(Order, name="order", **register)
    data = stored(number=5, colour="red")
    with pytest.raises(Undecodable) as caught:
        one.decode(data)
    assert (caught.value.path, caught.value.tag) == ("$.orders[0]", "order")
    assert says in str(caught.value)
    raw = one.decode(data, raw=True)["orders"][0]
    assert (type(raw), raw.name, raw.version, raw.data) == (Raw, "order", 1, {"number": 5, "colour": "red"})
    assert says in raw.reason


def test_a_newer_version_than_this_program_knows_is_undecodable() -> None:
    new, old = Codec(), Codec()
    new.register(Order, name="order", version=5)
    old.register(Order, name="order", version=2)
    with pytest.raises(Undecodable, match="version 5; this program knows versions up to 2"):
        old.decode(new.encode(Order(1)))


def test_raw_keeps_what_can_be_rebuilt_around_and_inside() -> None:
    @dataclasses.dataclass
    class Box:
        inside: Any

    full, less = Codec(), Codec()
    full.register(Order, name="order")
    full.register(Box, name="box")
    less.register(Box, name="box")
    data = full.encode((1, Box([Order(2)]), {(1, 2): Order(3)}))
    back = less.decode(data, raw=True)
    assert back[0] == 1
    assert back[1].inside[0].data == {"number": 2, "total": Decimal(0)}
    assert back[2][1, 2].name == "order"
    other = Codec().decode(data, raw=True)
    assert (other[1].name, other[1].data["inside"][0].name) == ("box", "order")
    with pytest.raises(Undecodable) as caught:
        less.decode(data)
    assert (caught.value.path, caught.value.tag) == ("$[1].inside[0]", "order")


def test_raw_of_a_key_that_cannot_be_hashed_is_still_readable() -> None:
    @dataclasses.dataclass(frozen=True)
    class Key:
        parts: Any

    one = Codec()
    one.register(Key, name="key")
    data = one.encode({Key((1, 2)): "x"})
    back = Codec().decode(data, raw=True)
    assert back.name == "mapping"
    assert back.data[0].name == "key"
    assert back.data[1] == "x"


def test_a_name_or_type_is_registered_once() -> None:
    one = Codec()
    one.register(Order, name="order")
    with pytest.raises(AlreadyExists, match="order"):
        one.register(Order, name="other")
    with pytest.raises(AlreadyExists, match="test_codec_register"):
        one.register(dataclasses.make_dataclass("X", ["a"]), name="order")
    assert one.decode(one.encode(Order(1))) == Order(1)


class Plain:
    pass


class Sub(dict[str, int]):
    pass


class Trouble(Exception):
    pass


@pytest.mark.parametrize("kind", [Plain, Sub, Trouble, "Order", None, 5])
def test_a_type_that_cannot_be_taken_apart_is_refused(kind: Any) -> None:
    with pytest.raises(InvalidArgument):
        Codec().register(name="x")(kind)


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": ""},
        {"name": "  "},
        {"name": "x" * 129},
        {"name": 5},
        {"version": 0},
        {"version": "1"},
        {"version": True},
        {"version": 2, "upgrade": {2: lambda state: state}},
        {"version": 2, "upgrade": {0: lambda state: state}},
        {"version": 2, "upgrade": {1: 5}},
        {"encode": lambda value: value},
        {"decode": lambda value: value},
    ],
)
def test_bad_registrations_are_refused_and_change_nothing(arguments: dict[str, Any]) -> None:
    one = Codec()
    with pytest.raises(InvalidArgument):
        one.register(Order, **{"name": "order", **arguments})
    one.register(Order, name="order")


def test_subclasses_of_a_registered_type_are_not_taken_for_it() -> None:
    class Special(Order):
        pass

    one = Codec()
    one.register(Order, name="order")
    with pytest.raises(InvalidArgument, match=r"\$\[0\]"):
        one.encode([Special(1)])


def test_subclasses_of_built_in_types_are_kept_with_two_functions() -> None:
    one = Codec()
    one.register(Sub, name="sub", encode=dict, decode=Sub)
    back = one.decode(one.encode([Sub(a=1)]))
    assert (type(back[0]), back[0]) == (Sub, {"a": 1})


def test_constructors_do_not_run_again() -> None:
    made = []

    @dataclasses.dataclass
    class Counted:
        x: int
        doubled: int = dataclasses.field(init=False)

        def __post_init__(self) -> None:
            made.append(self)
            self.doubled = 2 * self.x

    class Shifted(msgspec.Struct):
        x: int

        def __post_init__(self) -> None:
            self.x += 1

    @attrs.define
    class Derived:
        x: int
        _y: int = attrs.field(init=False, default=3)

    class Strict(pydantic.BaseModel):
        x: int = pydantic.Field(alias="the x")

        @pydantic.field_validator("x")
        @classmethod
        def never_twice(cls, value: int) -> int:
            made.append(value)
            return value

    one = Codec()
    for kind in (Counted, Shifted, Derived, Strict):
        one.register(kind, name=kind.__name__)
    counted, shifted, derived, strict = Counted(2), Shifted(1), Derived(1), Strict.model_validate({"the x": 4})
    counted.doubled = 9
    before = len(made)
    assert one.decode(one.encode([counted, shifted, derived, strict])) == [counted, shifted, derived, strict]
    assert len(made) == before


def test_a_type_that_fails_to_be_taken_apart_is_refused_with_its_path() -> None:
    one = Codec()
    one.register(Plain, name="plain", encode=lambda value: value.nothing, decode=lambda state: Plain())
    with pytest.raises(InvalidArgument) as caught:
        one.encode({"a": [Plain()]})
    assert caught.value.path == "$.a[0]"
    assert "nothing" in str(caught.value)


def test_a_registered_type_that_holds_what_is_refused_names_the_field() -> None:
    one = Codec()
    one.register(Order, name="order")
    with pytest.raises(InvalidArgument) as caught:
        one.encode([Order(1, total=print)])  # type: ignore[arg-type]
    assert caught.value.path == "$[0].total"
