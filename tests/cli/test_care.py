"""doctor names what cannot be read and touches nothing; stats counts."""

from dataclasses import dataclass

import stateroom
from stateroom import Execution
from stateroom.codec import Codec

from .conftest import Run


@dataclass
class Order:
    amount: int


def test_doctor_finds_nothing_wrong_with_a_sound_store(run: Run) -> None:
    ran = run("doctor")
    assert ran.code == 0
    assert "no problems" in ran.out
    found = run("--json", "doctor").json
    assert found["problems"] == []
    assert found["parts"] == 1


def test_doctor_lists_a_value_of_an_unknown_type_and_the_others_stay_readable(run: Run, url: str) -> None:
    codec = Codec()
    codec.register(Order, name="shop.order")
    with stateroom.open(url, codec=codec) as store:
        store.executions.create(Execution("odd", "job", data=Order(5)))
    ran = run("doctor")
    assert ran.code == 0
    assert "no problems" in ran.out
    assert "undecodable" in ran.out
    assert "odd" in ran.out
    assert "shop.order" in ran.out
    assert run("execution", "show", "order-17/charge").code == 0
    with stateroom.open(url, codec=codec) as store:
        assert store.executions.get("odd").data == Order(5)


def test_stats_counts_by_state(run: Run) -> None:
    found = run("--json", "stats").json
    assert found["executions"] == {"completed": 1, "new": 1, "running": 1}
    assert "executions running" in run("stats").out
