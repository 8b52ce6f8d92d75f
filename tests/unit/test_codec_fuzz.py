"""Mutated bytes, and values made by hypothesis."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stateroom.codec import Codec
from stateroom.testing import fuzz_codec


def test_a_hundred_thousand_mutated_inputs_end_in_a_value_or_damaged() -> None:
    ends = fuzz_codec.run(100_000)
    assert ends["value"] + ends["damaged"] == 100_000
    # Mutations that never get past the first token would show nothing.
    assert ends["value"] > 5_000
    assert ends["raw"] > 2_000


@pytest.mark.torture
@pytest.mark.timeout(3 * 3600)
def test_ten_million_mutated_inputs_end_in_a_value_or_damaged() -> None:
    ends = fuzz_codec.run(10_000_000, seed=2, raw_every=100)
    assert ends["value"] + ends["damaged"] == 10_000_000


def test_an_input_is_repeated_by_its_number() -> None:
    one = fuzz_codec.codec()
    first = dict(fuzz_codec.inputs(3, 1_500, one))
    assert first == dict(fuzz_codec.inputs(3, 1_500, fuzz_codec.codec()))
    assert len(set(first.values())) > 1_400


def test_an_error_of_another_kind_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Codec, data: bytes, *, raw: bool = False) -> Any:
        raise IndexError("boo")

    monkeypatch.setattr(Codec, "decode", broken)
    with pytest.raises(IndexError) as caught:
        fuzz_codec.run(1)
    assert "input 0 of seed 1" in caught.value.__notes__[0]


@dataclasses.dataclass(frozen=True)
class Node:
    left: Any
    right: Any


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**60, max_value=2**70)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes()
    | st.datetimes(timezones=st.timezones())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.fractions()
    | st.complex_numbers(allow_nan=False)
)
HASHABLE = st.recursive(
    LEAVES,
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4) | st.builds(Node, inner, inner),
    max_leaves=8,
)
VALUES = st.recursive(
    LEAVES | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=8), inner, max_size=5)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
        | st.builds(Node, inner, inner)
    ),
    max_leaves=20,
)


def typed(value: Any) -> Any:
    """A form in which equal means equal and of the same types all the way down."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, [typed(item) for item in value]
    if kind is dict:
        return kind, [(typed(key), typed(item)) for key, item in value.items()]
    if kind in (set, frozenset):
        return kind, sorted(map(repr, map(typed, value)))
    if kind is Node:
        return kind, typed(value.left), typed(value.right)
    if kind is float:
        return kind, value, math.copysign(1, value)
    if kind is complex:
        return kind, value, math.copysign(1, value.real), math.copysign(1, value.imag)
    return kind, repr(value)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(VALUES)
def test_whatever_goes_in_comes_out_equal_and_of_the_same_type(value: Any) -> None:
    codec = Codec()
    codec.register(Node, name="node")
    data = codec.encode(value)
    assert typed(codec.decode(data)) == typed(value)
    assert codec.encode(codec.decode(data)) == data
    assert typed(codec.decode(data, raw=True)) == typed(value)
    # As in a record: one more list around it.
    assert typed(codec.decode(codec.encode([1, value, 1.5]))) == typed([1, value, 1.5])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(VALUES)
def test_without_the_type_the_value_is_raw_or_the_same(value: Any) -> None:
    codec = Codec()
    codec.register(Node, name="node")
    data = codec.encode(value)
    assert b"node" in data or typed(Codec().decode(data)) == typed(value)
    Codec().decode(data, raw=True)
