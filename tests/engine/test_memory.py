"""The memory engine, beyond what every engine is asked."""

import pytest

from holdfast.engine import Batch
from holdfast.engines.memory import connect
from holdfast.errors import InvalidArgument, NotFound


def test_each_connect_is_a_fresh_store():
    one, other = connect("memory:"), connect("memory:")
    one.commit(0, Batch(write={b"a": b"1"}))
    assert other.read(0, [b"a"]) == [None]


@pytest.mark.parametrize("arguments", [{"durability": "none"}, {"parts": 0}])
def test_what_it_does_not_know_is_refused(arguments):
    with pytest.raises(InvalidArgument):
        connect("memory:", **arguments)


def test_another_url_is_refused():
    with pytest.raises(InvalidArgument):
        connect("memory:name")


def test_there_is_never_a_store_to_find():
    with pytest.raises(NotFound):
        connect("memory:", create=False)


def test_many_keys_stay_in_order_when_blocks_split_and_empty():
    engine = connect("memory:")
    keys = [(number * 7919 % 20011).to_bytes(4, "big") for number in range(20011)]
    for at in range(0, len(keys), 500):
        engine.commit(0, Batch(write=dict.fromkeys(keys[at : at + 500], b"")))
        engine.scan(0, b"", b"\xff", limit=1)
    assert [row.key for row in engine.scan(0, b"", b"\xff", limit=30000)] == sorted(keys)
    engine.commit(0, Batch(clear=[(keys[0], (15000).to_bytes(4, "big"))]))
    assert [row.key for row in engine.scan(0, b"", b"\xff", limit=30000)] == sorted(keys)[15000:]
