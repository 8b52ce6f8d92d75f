"""Exceptions as data."""

from typing import Any

import pytest

from stateroom.codec import Codec, ErrorRecord, describe
from stateroom.codec.failure import DEPTH, MEMBERS, NOTES, TEXT


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def caught(action: Any) -> BaseException:
    with pytest.raises(BaseException) as info:
        action()
    return info.value


def fail() -> None:
    try:
        int("x")
    except ValueError as error:
        error.add_note("while reading the order")
        raise LookupError("no order") from error


def test_type_message_traceback_notes_and_cause_are_kept() -> None:
    record = Codec().decode(Codec().encode({"error": caught(fail)}))["error"]
    assert type(record) is ErrorRecord
    assert (record.type, record.module, record.message) == ("LookupError", "builtins", "no order")
    assert "in fail" in record.traceback
    assert "raise LookupError" in record.traceback
    assert record.cause.type == "ValueError"
    assert record.cause.notes == ("while reading the order",)
    assert "int(" in record.cause.traceback
    assert record.cause.cause is None
    assert str(record) == "LookupError: no order"
    assert record == describe(caught(fail)) or record.traceback


def test_an_exception_is_never_rebuilt() -> None:
    made = []

    class Loud(Exception):
        def __init__(self, text: str) -> None:
            made.append(text)
            super().__init__(text)

    data = Codec().encode(Loud("x"))
    assert made == ["x"]
    record = Codec().decode(data)
    assert made == ["x"]
    assert record.type.endswith("Loud")
    assert Codec().decode(Codec().encode(record)) == record


def test_the_context_counts_unless_it_is_suppressed() -> None:
    def shown() -> None:
        try:
            raise KeyError("a")
        except KeyError:
            raise TypeError("b")  # noqa: B904

    def hidden() -> None:
        try:
            raise KeyError("a")
        except KeyError:
            raise TypeError("b") from None

    cause = describe(caught(shown)).cause
    assert cause is not None
    assert cause.type == "KeyError"
    assert describe(caught(hidden)).cause is None


def test_groups_keep_their_members() -> None:
    record = describe(ExceptionGroup("several", [ValueError("a"), ExceptionGroup("more", [KeyError("b")])]))
    assert [member.type for member in record.group] == ["ValueError", "ExceptionGroup"]
    assert record.group[1].group[0].message == "'b'"
    many = describe(ExceptionGroup("many", [ValueError(str(at)) for at in range(100)]))
    assert len(many.group) == MEMBERS


def test_depth_and_size_are_bounded() -> None:
    error: BaseException = ValueError("x" * 100_000)
    error.__notes__ = ["n" * 100_000] * 100  # type: ignore[attr-defined]
    for _ in range(50):
        outer = ValueError("y" * 100_000)
        outer.__cause__ = error
        error = outer
    record: ErrorRecord | None = describe(error)
    depth = 0
    while record is not None:
        assert len(record.message) <= TEXT + 2
        assert len(record.notes) <= NOTES
        depth += 1
        record = record.cause
    assert depth == DEPTH


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    record = describe(first)
    assert record.cause is not None
    assert record.cause.cause is None


def test_whatever_the_exception_does_it_is_described() -> None:
    assert "RuntimeError" in describe(Odd()).message
    assert describe(ValueError("a\ud800b")).message == "a\\ud800b"
    odd = ValueError("a")
    odd.__notes__ = 5  # type: ignore[attr-defined]
    assert describe(odd).notes == ()
    odd.__notes__ = [5, Odd()]  # type: ignore[attr-defined]
    assert describe(odd).notes[0] == "5"
    assert Codec().decode(Codec().encode([Odd(), ValueError("\ud800")]))[1].message == "\\ud800"


def test_a_registered_exception_type_is_kept_as_itself() -> None:
    class Known(Exception):
        pass

    codec = Codec()
    codec.register(Known, name="known", encode=lambda error: list(error.args), decode=lambda state: Known(*state))
    assert type(codec.decode(codec.encode(Known("x", 5)))) is Known
    assert type(codec.decode(codec.encode(KeyError("x")))) is ErrorRecord
