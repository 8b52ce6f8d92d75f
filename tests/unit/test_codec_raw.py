"""Values that cannot be rebuilt here: shown, written back as they were, and no slower to read; and content hashes."""

import dataclasses
import sys
from collections import OrderedDict, defaultdict
from datetime import datetime
from typing import Any
from unittest import mock

import numpy as np
import pydantic
import pytest

from stateroom.codec import Codec, Raw, default, show
from stateroom.errors import InvalidArgument, Undecodable


@dataclasses.dataclass
class Order:
    n: int
    more: Any = None


class Tags(pydantic.RootModel[list[str]]):
    pass


class Options(pydantic.BaseModel):
    options: dict[str, int]
    level: int = 1


def knowing() -> Codec:
    one = Codec()
    one.register(Order, name="order", version=3)
    one.register(Tags, name="tags")
    one.register(Options, name="options")
    return one


VALUES: list[Any] = [
    Order(4),
    [Order(1, {"a": (Order(2),)}), {"x": Order(3)}],
    {(1, "a"): Order(5)},
    defaultdict(Order, a=Order(1)),
    (Order(1, OrderedDict(a={1: b"\xc4"})),),
    Tags(["a"]),
]


@pytest.mark.parametrize("value", VALUES)
def test_what_is_not_known_here_is_written_back_as_what_it_was(value: Any) -> None:
    data = knowing().encode(value)
    stranger = Codec()
    shown = stranger.decode(data, raw=True)
    with pytest.raises(Undecodable):
        stranger.decode(data)
    assert stranger.encode(shown) == data
    assert stranger.encode([shown, 1]) == knowing().encode([value, 1])
    assert knowing().decode(stranger.encode(shown)) == value


def test_a_value_of_an_older_version_is_not_changed_by_writing_it_back() -> None:
    old, newer = Codec(), Codec()
    old.register(Order, name="order")
    newer.register(Order, name="child")
    data = old.encode({"a": Order(1)})
    assert newer.encode(newer.decode(data, raw=True)) == data


def test_what_stands_for_a_value_says_what_it_is() -> None:
    shown = Codec().decode(knowing().encode([Order(4, [Order(5)])]), raw=True)[0]
    assert shown == Raw("order", 3, {"n": 4, "more": [Raw("order", 3, {"n": 5, "more": None})]})
    assert "register it" in shown.reason
    assert str(shown) == "order{n: 4, more: [order{n: 5, more: None}]}"
    assert show({"a": Raw("order", 1, {"n": 4}), "b": [1, "x"]}) == "{a: order{n: 4}, b: [1, x]}"
    assert str(Raw("array", 0, b"abc")) == "array{3 bytes}"
    assert str(Raw("mode", 1, "FAST")) == "mode{FAST}"
    assert repr(Raw("order", 1, {"n": 4})) == "Raw(name='order', version=1, data={'n': 4})"
    assert shown != Raw("order", 3, {"n": 4})
    assert shown != "order"


def test_one_that_is_made_is_read_as_an_object_by_who_knows_the_type() -> None:
    data = Codec().encode({"a": Raw("order", 3, {"n": 4})})
    assert knowing().decode(data) == {"a": Order(4)}
    with pytest.raises(InvalidArgument) as refused:
        Codec().encode([Raw("order", 3, {"n": object()})])
    assert refused.value.path == "$[0].n"


def test_what_another_library_made_is_written_back_where_that_is_missing() -> None:
    data = default.encode({"a": np.arange(3)})
    with mock.patch.dict(sys.modules, {"numpy": None}):
        shown = Codec().decode(data, raw=True)
        assert shown["a"].name == "array"
        assert Codec().encode(shown) == data


def test_a_list_with_unknown_objects_takes_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a list of records costs beside the objects themselves: one pass of the decoder, and no search for paths."""
    stranger = Codec()
    data = knowing().encode([[Order(n), {"x": (n,)}] for n in range(1000)])
    monkeypatch.setattr(stranger._unpacker, "explain", None)
    monkeypatch.setattr(stranger._unpacker, "bounded", None)
    assert stranger.decode(data, raw=True)[999] == [Raw("order", 3, {"n": 999, "more": None}), {"x": (999,)}]


@pytest.mark.parametrize(
    "kind",
    [str, dict, bool, int, type(None), datetime, tuple, memoryview, np.ndarray, np.float64, Raw, ValueError, object],
)
def test_a_type_that_is_kept_as_it_is_cannot_be_registered(kind: Any) -> None:
    one = Codec()
    with pytest.raises(InvalidArgument, match="cannot be registered") as refused:
        one.register(kind, name="mine", encode=str, decode=str)
    assert refused.value.what == "type"
    one.register(Order, name="mine")  # the name is still free
    assert one.decode(one.encode(datetime(2026, 1, 1))) == datetime(2026, 1, 1)


def test_what_is_refused_says_how_to_register_it() -> None:
    with pytest.raises(InvalidArgument, match=r"stateroom\.codec\.register\(Order, name="):
        Codec().encode(Order(1))


def test_root_models_come_back() -> None:
    one = knowing()
    back = one.decode(one.encode([Tags(["a"]), Tags([])]))
    assert back == [Tags(["a"]), Tags([])]
    assert back[0].model_dump() == ["a"]


A, B = {"x": 1, "y": {"z": 2, "w": 3}}, {"y": {"w": 3, "z": 2}, "x": 1}
EQUAL: list[tuple[Any, Any]] = [
    (A, B),
    (Order(1, A), Order(1, B)),
    ([(Order(1, [A]),)], [(Order(1, [B]),)]),
    (Options(options={"a": 1, "b": 2}), Options(options={"b": 2, "a": 1}, level=1)),
    (defaultdict(int, A), defaultdict(int, B)),
    (np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(6).reshape(2, 3)),
    ([Order(1, np.asfortranarray(np.eye(3)))], [Order(1, np.eye(3).copy("C"))]),
    (np.arange(10)[::2], np.arange(10)[::2].copy()),
    ({"a", "b", (1, frozenset("xyz"))}, {(1, frozenset("zyx")), "b", "a"}),
]
DIFFERENT: list[tuple[Any, Any]] = [
    (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)),
    (Order(1, A), Order(2, A)),
    (Order(1, A), {"n": 1, "more": A}),
    ([1, 2], (1, 2)),
    ([[1], [2]], [[1, 2]]),
    ([["a"], "b"], [["a", "b"]]),
    ({"a": 1}, [("a", 1)]),
    ({1}, frozenset({1})),
    (np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2)),
    (np.arange(2), np.arange(2.0)),
    (defaultdict(int, A), A),
    (defaultdict(int, A), defaultdict(str, A)),
    (1, "1"),
    (b"1", "1"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_values_have_one_content(one: Any, other: Any) -> None:
    assert knowing().content_hash(one) == knowing().content_hash(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_values_that_differ_have_different_contents(one: Any, other: Any) -> None:
    assert knowing().content_hash(one) != knowing().content_hash(other)


def test_what_has_no_content_to_hash_is_an_invalid_argument() -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    for value in (loop, deep, {"a": (loop,)}, Order(1, deep), object(), [1, {2: object()}]):
        with pytest.raises(InvalidArgument):
            knowing().content_hash(value)
