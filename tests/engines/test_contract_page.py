"""docs/design/engine.md and the suite say the same: each sentence has its tests, each test its sentence."""

import re
from pathlib import Path

import pytest

from stateroom.testing import async_engine_suite, engine_suite

PAGE = Path(__file__).parents[2] / "docs" / "design" / "engine.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not beside the tests")


def sentences():
    """Number to the text of each numbered sentence."""
    found = re.findall(r"^- \*\*(\d+\.\d+)\*\* (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == len(dict(found)), "a number is used twice"
    return dict(found)


def known():
    suites = engine_suite(lambda: None), async_engine_suite(lambda: None)
    return {name for suite in suites for name in dir(suite) if name.startswith("test_")}


def named(text):
    return set(re.findall(r"`(test_\w+)`", text))


def test_each_sentence_names_tests_there_are():
    assert len(sentences()) > 40
    for number, text in sentences().items():
        assert named(text), f"sentence {number} names no test"
        assert named(text) <= known(), f"sentence {number} names a test there is not"


def test_each_test_stands_beside_a_sentence():
    assert known() <= set().union(*map(named, sentences().values()))


def test_the_numbers_have_no_gap():
    numbers = [tuple(map(int, number.split("."))) for number in sentences()]
    for chapter in range(1, numbers[-1][0] + 1):
        inside = [second for first, second in numbers if first == chapter]
        assert inside == list(range(1, len(inside) + 1))
