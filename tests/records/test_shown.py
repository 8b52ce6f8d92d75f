"""Records and pages in programs: changed into others, as JSON, in web frameworks, and as they are printed."""

import dataclasses
import json
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from ipaddress import ip_address
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import NamedTuple
from uuid import UUID

import attrs
import msgspec
import numpy as np
import pydantic
import pytest

import stateroom
from stateroom import (
    OMITTED,
    Change,
    Changes,
    Context,
    Event,
    Execution,
    HistoryEntry,
    Instance,
    Lease,
    Page,
    Policy,
    Result,
    Snapshot,
    Timer,
    codec,
    to_json,
)
from stateroom.codec import Raw
from stateroom.errors import Undecodable

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


class Color(Enum):
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: int


@dataclasses.dataclass
class Point:
    x: int
    y: object = None


@attrs.frozen
class Street:
    name: str


class Item(msgspec.Struct):
    price: Decimal


class Model(pydantic.BaseModel):
    at: datetime


class Money:
    def __init__(self, cents):
        self.cents = cents


codec.Codec().register(Money, name="money", encode=lambda money: {"cents": money.cents}, decode=Money)

JSON = [
    (None, None), (True, True), (7, 7), (1 << 90, 1 << 90), (1.5, 1.5), ("ż\n", "ż\n"),
    (float("nan"), "nan"), (float("-inf"), "-inf"), (b"\0\xff", "AP8="), (bytearray(b"a"), "YQ=="),
    (AT, "2026-03-01T12:30:00+00:00"), (date(2026, 3, 1), "2026-03-01"), (time(1, 2), "01:02:00"), (timedelta(minutes=1), 60.0),
    (Decimal("1.50"), "1.50"), (Fraction(1, 3), "1/3"), (1j, "1j"), (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (PurePosixPath("/a"), "/a"), (ip_address("::1"), "::1"), (range(3), "range(0, 3)"), (Color.RED, "red"),
    ((1, [2]), [1, [2]]), ({"b", "a"}, ["a", "b"]), (frozenset({2, 1}), [1, 2]), (deque([1]), [1]),
    ({1: "a", (2, 3): "b"}, {"1": "a", "[2, 3]": "b"}), ({1: "a", "1": "b"}, [[1, "a"], ["1", "b"]]),
    (OrderedDict(a=1), {"a": 1}), (defaultdict(int, a=1), {"a": 1}), (Counter("aa"), {"a": 2}), (SimpleNamespace(a=(1,)), {"a": [1]}),
    (Pair(1, 2), {"left": 1, "right": 2}), (Point(1, Point(2)), {"x": 1, "y": {"x": 2, "y": None}}), (Street("a"), {"name": "a"}),
    (Item(Decimal(1)), {"price": "1"}), (Model(at=AT), {"at": "2026-03-01T12:30:00+00:00"}), (Money(5), {"cents": 5}),
    (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]), (np.float32(0.5), 0.5), (np.int8(3), 3), (np.str_("a"), "a"),
    (OMITTED, "omitted"), (Raw("order", 2, {"n": (1,)}), {"$type": "order", "$version": 2, "data": {"n": [1]}}),
    (Undecodable("no", path="$.a"), {"code": "undecodable", "message": "no", "fields": {"path": "$.a"}}),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), JSON, ids=[type(value).__name__ for value, _ in JSON])
def test_everything_that_can_be_stored_has_a_json(value, expected):
    assert json.loads(to_json(value)) == expected
    assert json.loads(to_json({"a": [value]})) == {"a": [expected]}
    record = Execution("e", "j", data=value)
    assert record.to_dict()["data"] == expected
    assert json.loads(json.dumps(record.to_dict())) == record.to_dict()


RECORDS = [
    Instance("i", "w", context=Context({"a": b"x"}), history=(HistoryEntry("s", "done", AT),), labels={"a": "b"}),
    Execution("e", "j"),
    Snapshot("m", "n", "s", {"amount": 5}),
    Result("d", "r", (1, 2)),
    Timer("t", AT, nonce=b"internal"),
    Lease("k", "me", 1, AT),
    Event("m", at=AT),
    Policy("instances", older_than=timedelta(days=1)),
    Change("p", "b", "create", "executions", "e", ("e",), Execution("e", "j"), None, (Event("m"),), AT),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_every_record_is_json_and_short_in_print(record):
    made = record.to_dict()
    assert json.loads(to_json(record)) == made == json.loads(json.dumps(made)) == dict(record)
    assert "nonce" not in made
    assert "internal" not in repr(record)
    assert repr(record).startswith(type(record).__name__ + "(")
    assert "None" not in repr(record)


def test_a_record_says_what_it_is_and_no_more():
    assert repr(Execution("e", "j")) == "Execution(id='e', job_id='j')"
    assert repr(Instance("i", "w", status="running", updated_at=AT)) == (
        "Instance(id='i', workflow='w', status='running', updated_at=2026-03-01T12:30:00+00:00)"
    )
    assert repr(Page((Execution("e", "j"),), "c")) == "Page(items=(Execution(id='e', job_id='j'),), cursor='c')"


def test_replace_changes_some_fields_of_a_copy(store):
    before = store.executions.create(Execution("e", "j", message="a"))
    after = before.replace(message="b", details={"x": 1})
    assert (after.message, after.details, after.revision, before.message) == ("b", {"x": 1}, 1, "a")
    run = store.instances.put(Instance("i", "w"))
    assert store.instances.put(run.replace(status="running"), expected_revision=run.revision).status == "running"
    with pytest.raises(TypeError):
        before.replace(massage="b")


def test_pages_are_indexed_and_json(store):
    for number in range(5):
        store.executions.create(Execution(f"r/{number}", "j"))
    page = store.executions.query(job_id="j", limit=4)
    assert (page[0].id, page[-1].id, len(page[1:3])) == ("r/0", "r/3", 2)
    with pytest.raises(IndexError):
        page[4]
    made = page.to_dict()
    assert [item["id"] for item in made["items"]] == ["r/0", "r/1", "r/2", "r/3"]
    assert made["cursor"] == page.cursor
    assert json.loads(to_json(page)) == made
    assert json.loads(to_json(list(page)))[0] == page[0].to_dict()
    change = store.feed.read().items[0]
    assert json.loads(to_json(change))["record"]["id"] == change.id


def test_a_web_program_returns_records_and_pages(store):
    fastapi = pytest.importorskip("fastapi", reason="FastAPI is not installed")
    testclient = pytest.importorskip("fastapi.testclient", reason="httpx is not installed")
    if not isinstance(store, stateroom.Store):
        pytest.skip("the routes below are plain functions")
    app = fastapi.FastAPI()
    store.executions.create(Execution("e", "j", data={"at": AT, "raw": b"\0"}))
    store.machines.save("m", "n", "s", Decimal("1.5"))

    @app.get("/bare/{id}")
    def bare(id: str):
        return store.executions.get(id)

    @app.get("/typed/{id}")
    def typed(id: str) -> Execution:
        return store.executions.get(id)

    @app.get("/maybe/{id}", response_model=Execution | None)
    def maybe(id: str):
        return store.executions.find(id)

    @app.get("/page")
    def page() -> Page[Execution]:
        return store.executions.query()

    @app.get("/barepage")
    def barepage():
        return store.machines.query()

    @app.get("/list")
    def listed() -> list[Snapshot]:
        return list(store.machines.scan())

    @app.get("/changes")
    def changes() -> Changes:
        return store.feed.read()

    client = testclient.TestClient(app)
    expected = store.executions.get("e").to_dict()
    assert client.get("/bare/e").json() == expected
    assert client.get("/typed/e").json() == expected
    assert client.get("/maybe/e").json() == expected
    assert client.get("/maybe/none").json() is None
    assert client.get("/page").json() == store.executions.query().to_dict()
    assert client.get("/barepage").json() == store.machines.query().to_dict()
    assert client.get("/list").json() == [store.machines.load("m", "n").to_dict()]
    assert client.get("/changes").json() == store.feed.read().to_dict()
    schema = client.get("/openapi.json").json()
    answer = schema["paths"]["/page"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert "job_id" in json.dumps(schema)
    assert answer


class Answer(pydantic.BaseModel):
    record: Execution
    page: Page[Snapshot]


def test_a_model_may_have_records_in_it():
    answer = Answer(record=Execution("e", "j"), page=Page((Snapshot("m", "n", "s", 1),)))
    assert json.loads(answer.model_dump_json())["page"]["items"][0]["machine"] == "m"
    assert Answer.model_json_schema()["properties"]
    with pytest.raises(pydantic.ValidationError):
        Answer(record="e", page=Page())
