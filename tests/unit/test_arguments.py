"""What a caller may give: each kind of argument, what it is kept as, and what is refused."""

import math
import pickle
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, IntEnum, StrEnum

import numpy
import pytest

from stateroom import arguments
from stateroom.clock import EPOCH, FIRST, LAST, from_micros
from stateroom.errors import Damaged, InvalidArgument
from stateroom.limits import INT64_MAX


class Named(StrEnum):
    GO = "go"


class Mixed(str, Enum):  # noqa: UP042 - its str() is not its value, which is the point
    GO = "go"


class Loud(str):
    def __str__(self) -> str:
        return "loud"


TEXTS = [Named.GO, Mixed.GO, numpy.str_("go"), numpy.array(["go"])[0], Loud("go"), "go"]
WEST, EAST = timezone(timedelta(hours=-5)), timezone(timedelta(hours=5))


@pytest.mark.parametrize("given", TEXTS, ids=lambda value: type(value).__name__)
def test_a_subclass_of_str_is_kept_as_a_plain_one(given):
    checks = [
        arguments.name(given, "id"),
        arguments.optional_name(given, "id"),
        arguments.text(given, "message"),
        arguments.choice(given, "state", {"go"}),
        *arguments.names([given], "ids"),
        *arguments.choices({given}, "states", {"go"}),
    ]
    assert checks == ["go"] * 6
    assert {type(value) for value in checks} == {str}
    assert pickle.dumps(checks[0]) == pickle.dumps("go")


@pytest.mark.parametrize(
    "value", ["", "  ", "\t\n", "a\0b", "x" * 257, "é" * 129, "a\ud800", Loud(""), 5, None, b"a", ["a"], True]
)
def test_what_is_no_name(value):
    with pytest.raises(InvalidArgument, match="who") as caught:
        arguments.name(value, "who")
    assert caught.value.what == "who"


def test_a_name_at_its_limit():
    assert arguments.name("x" * 256, "id") == "x" * 256
    assert arguments.name("é" * 128, "id") == "é" * 128
    with pytest.raises(InvalidArgument):
        arguments.name("é" * 33, "id", 65)
    assert arguments.optional_name(None, "id") is None


class Level(IntEnum):
    LOW = 1


@pytest.mark.parametrize("value", [True, 1.0, "1", None, numpy.float64(1)])
def test_what_is_no_number(value):
    with pytest.raises(InvalidArgument, match="n must be an int"):
        arguments.number(value, "n")


@pytest.mark.parametrize("value", [-1, INT64_MAX + 1, 10**5000, -(10**5000)], ids=["-1", "max", "long", "-long"])
def test_a_number_out_of_bounds_is_named_however_long_it_is(value):
    with pytest.raises(InvalidArgument, match=r"^n is .* use 0 to"):
        arguments.number(value, "n")


def test_a_member_of_an_int_enum_is_kept_as_a_number():
    assert type(arguments.number(Level.LOW, "n", least=1)) is int


@pytest.mark.parametrize("value", [5, 5.0, timedelta(seconds=5)])
def test_a_duration_is_seconds_or_a_timedelta(value):
    assert arguments.seconds(value, "ttl") == 5
    assert arguments.microseconds(value, "ttl") == 5_000_000


def test_a_timedelta_is_kept_to_the_microsecond():
    assert arguments.microseconds(timedelta(days=100_000, microseconds=1), "ttl") == 100_000 * 86_400_000_000 + 1
    assert arguments.microseconds(1e-8, "ttl") == 1
    assert arguments.microseconds(0, "older_than", zero=True) == 0


@pytest.mark.parametrize(
    "value",
    [-1, math.nan, math.inf, -math.inf, True, "5", None, 1e12, 10**5000, timedelta.max, timedelta.min, timedelta(-1)],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_duration(value):
    for check in (arguments.seconds, arguments.microseconds):
        with pytest.raises(InvalidArgument, match=r"^ttl is .*seconds or a timedelta"):
            check(value, "ttl")
    for nothing in (0, 0.0, timedelta(0)):
        with pytest.raises(InvalidArgument, match="more than 0"):
            arguments.seconds(nothing, "ttl", zero=False)


@pytest.mark.parametrize("value", [datetime.max.replace(tzinfo=WEST), datetime.min.replace(tzinfo=EAST)])
def test_a_time_that_has_no_datetime_in_utc(value):
    with pytest.raises(InvalidArgument, match="at is outside the years 1 to 9999 in UTC"):
        arguments.time(value, "at")


@pytest.mark.parametrize("value", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), EPOCH])
def test_the_first_and_the_last_time_come_back(value):
    assert from_micros(arguments.time(value, "at")) == value


@pytest.mark.parametrize("value", [datetime(2026, 1, 1), "2026-01-01", 5, None])
def test_what_is_no_aware_time(value):
    with pytest.raises(InvalidArgument, match=r"^at "):
        arguments.time(value, "at")


def test_a_time_that_a_duration_leads_out_of_the_calendar():
    assert arguments.later(LAST - 1, 1, "ttl") == LAST
    with pytest.raises(InvalidArgument, match="ttl is outside"):
        arguments.later(LAST, 1, "ttl")


@pytest.mark.parametrize("micros", [FIRST - 1, LAST + 1, 1 << 80, "x"])
def test_a_stored_number_that_is_no_time(micros):
    with pytest.raises(Damaged):
        from_micros(micros)


def test_collections():
    assert arguments.collection(iter("ab"), "ids") == ("a", "b")
    for value in ("ab", b"ab", 5, None):
        with pytest.raises(InvalidArgument, match=r"^ids is .*a collection of names"):
            arguments.names(value, "ids")
    with pytest.raises(InvalidArgument, match="metadata must be a mapping, not list"):
        arguments.mapping([], "metadata")
    with pytest.raises(InvalidArgument, match="metadata must be a dict, not list"):
        arguments.instance([], "metadata", dict)


def test_a_choice_names_what_there_is():
    with pytest.raises(InvalidArgument, match="unknown status 'bogus'; one of b, a"):
        arguments.choice("bogus", "status", ("b", "a"))
    with pytest.raises(InvalidArgument, match="unknown status 5; one of a, b"):
        arguments.choice(5, "status", {"b", "a"})
    with pytest.raises(InvalidArgument, match="unknown status_in"):
        arguments.choices(["a", ["b"]], "status_in", {"b", "a"})
