"""What a record's row holds is compared with the key under which it stands."""

import pytest

import stateroom
from stateroom import Execution
from stateroom.errors import Damaged
from stateroom.families.executions.record import EXECUTIONS
from stateroom.records.layout import decode_body, encode_body


@pytest.fixture
def scope():
    with stateroom.open("memory:") as store:
        yield store._scope


def test_the_body_of_another_record_is_damage(scope):
    body = encode_body(scope, EXECUTIONS, Execution("a", "job"), 3, 1, 2)
    record, created, updated = decode_body(scope, EXECUTIONS, ("a",), body)
    assert (record.id, record.revision, created, updated) == ("a", 3, 1, 2)
    with pytest.raises(Damaged, match="executions") as caught:
        decode_body(scope, EXECUTIONS, ("b",), body)
    assert caught.value.fields["kind"] == "executions"


@pytest.mark.parametrize("times", [(-1, 2), (1, -1)])
def test_a_time_before_1970_is_damage(scope, times):
    body = encode_body(scope, EXECUTIONS, Execution("a", "job"), 1, *times)
    with pytest.raises(Damaged):
        decode_body(scope, EXECUTIONS, ("a",), body)
