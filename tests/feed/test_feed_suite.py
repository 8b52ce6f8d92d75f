"""The published contract of the feed, on every engine; and its page says the same, sentence by sentence."""

import re
from pathlib import Path

import pytest

from families.test_suite import Embedded, OnOlder, OnServer, Server, needs_rocksdict
from stateroom.testing import feed_suite

PAGE = Path(__file__).parents[2] / "docs" / "design" / "feed.md"


class TestMemory(feed_suite(Embedded())):
    pass


class TestMemoryAsync(feed_suite(Embedded(asynchronous=True))):
    pass


class TestSqlite(feed_suite(Embedded(file=True))):
    pass


class TestSqliteAsync(feed_suite(Embedded(file=True, asynchronous=True))):
    pass


@needs_rocksdict
class TestRocksdb(feed_suite(Embedded(file=True, scheme="rocksdb:///"))):
    pass


@needs_rocksdict
class TestRocksdbAsync(feed_suite(Embedded(file=True, scheme="rocksdb:///", asynchronous=True))):
    pass


class TestPostgresql(OnServer, feed_suite(Server())):
    pass


class TestPostgresqlAsync(OnServer, feed_suite(Server(asynchronous=True))):
    pass


class TestPostgresql16(OnOlder, feed_suite(Server())):
    pass


class TestPostgresql16Async(OnOlder, feed_suite(Server(asynchronous=True))):
    pass


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not beside the tests")
def test_each_sentence_names_its_tests_and_each_test_stands_beside_a_sentence():
    sentences = re.findall(r"^- \*\*(\d+\.\d+)\*\* (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    known = {name for name in dir(feed_suite(lambda: None)) if name.startswith("test_")}
    named = {number: set(re.findall(r"`(test_\w+)`", text)) for number, text in sentences}
    assert len(sentences) == len(named) > 10
    assert all(named.values())
    assert set().union(*named.values()) == known
