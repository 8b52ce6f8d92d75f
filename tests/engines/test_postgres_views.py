"""People who ask in SQL see what the store says."""

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
import pytest

import stateroom
from stateroom import Context, Event, Execution, Instance
from stateroom.testing.postgres import postgres_url  # noqa: F401


@pytest.fixture
def store(postgres_url: str) -> Iterator[stateroom.Store]:  # noqa: F811
    with stateroom.open(postgres_url) as opened:
        opened.dsn = postgres_url  # type: ignore[attr-defined]
        yield opened


def ask(store: Any, query: str) -> list[dict[str, Any]]:
    url, _, options = store.dsn.partition("?")
    schema = options.removeprefix("schema=") or "stateroom"
    with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as connection:
        return connection.execute(query.replace("stateroom.", f'"{schema}".')).fetchall()


def test_executions_show_ids_states_revisions_times_and_values(store: stateroom.Store) -> None:
    made = store.executions.create(Execution("order-17/a", "job", node_id="n"), events=[Event("hi")])
    data = {"a": [1, -1, 2**40, -(2**40), 2**63], "b": {"c": None, "d": True, "e": "é"}, "f": (1.5, -0.1, 2.5e-7)}
    changed = store.executions.update("order-17/a", state="running", data=data)
    (row,) = ask(store, "SELECT * FROM stateroom.executions")
    assert (row["namespace"], row["id"], row["job_id"], row["state"]) == ("default", "order-17/a", "job", "running")
    assert row["revision"] == 2
    assert row["created_at"] == made.created_at
    assert row["updated_at"] == changed.updated_at
    assert row["data"] == {**data, "f": [1.5, -0.1, 2.5e-7]}
    assert row["result"] is None


@pytest.mark.parametrize(
    "value",
    [0, 127, 128, 255, 256, 65535, 65536, 2**32, 2**64 - 1, -1, -32, -33, -128, -129, -32769, -(2**63), 0.1, -2.5e-300,
     5e-324, "", "x" * 31, "x" * 32, "x" * 300, "x" * 70000, [], list(range(20)), {str(n): n for n in range(20)}],
)  # fmt: skip
def test_every_width_of_number_text_and_container_is_read(store: stateroom.Store, value: Any) -> None:
    store.executions.create(Execution("a", "j", data=value))
    (row,) = ask(store, "SELECT data FROM stateroom.executions")
    if isinstance(value, str) and len(value) > 60_000:
        assert row["data"] in (value, None)  # kept in chunks
    else:
        assert row["data"] == value


def test_values_without_a_json_form_show_as_what_they_are(store: stateroom.Store) -> None:
    value = {"nan": math.nan, "inf": math.inf, "bytes": b"\x01", "nul": "a\0b", "at": datetime(2026, 1, 2), 1: "one"}
    store.executions.create(Execution("a", "j", data=value))
    (row,) = ask(store, "SELECT data FROM stateroom.executions")
    shown = row["data"]
    assert shown is not None
    text = str(shown)
    assert "NaN" in text
    assert "Infinity" in text
    assert "2026-01-02" in text
    assert "610062" in text


def test_instances_have_their_own_columns_and_namespaces(store: stateroom.Store) -> None:
    store.instances.start(Instance("k/1", "wf", business_key="k", context=Context({"a": 1}), labels={"x": "y"}))
    store.namespace("other").instances.put(Instance("z", "wf2", status="completed"))
    rows = {row["namespace"]: row for row in ask(store, "SELECT * FROM stateroom.instances")}
    assert rows["default"]["status"] == "pending"
    assert rows["default"]["context_initial"] == {"a": 1}
    assert rows["default"]["labels"] == {"x": "y"}
    assert rows["other"]["workflow"] == "wf2"


def test_a_second_open_finds_the_views_and_leaves_them(store: stateroom.Store) -> None:
    with stateroom.open(store.dsn) as again:  # type: ignore[attr-defined]
        again.executions.create(Execution("b", "j"))
    assert [row["id"] for row in ask(store, "SELECT id FROM stateroom.executions")] == ["b"]
