"""What is exported comes back equal on any engine, is read by others, and is verified."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest

import stateroom
from stateroom import Context, Event, Execution, Instance
from stateroom.codec import Codec, Raw
from stateroom.errors import AlreadyExists, Damaged, InvalidArgument, NotFound

AT = datetime(2026, 5, 1, tzinfo=UTC)


@dataclasses.dataclass
class Order:
    n: int


def knowing():
    one = Codec()
    one.register(Order, name="order", version=2)
    return one


def fill(store, order):
    store.machines.define("m", {"s": {"go": "t"}, "t": {"go": "s"}}, initial="s")
    store.instances.start(Instance("r/i", "w", business_key="r", context=Context({"o": order}), labels={"a": "b"}))
    store.instances.put(store.instances.get("r/i", raw=True).replace(status="completed"))
    store.executions.create(
        Execution("r/e", "j", data=order), events=[Event("a", "t", {"o": order}), Event("b", at=AT)]
    )
    store.executions.update("r/e", state="running", events=[Event("c")])
    store.executions.update("r/e", state="completed", result=b"x" * 100_000)
    for event, state in ((None, "s"), ("go", "t"), ("go", "s")):
        store.machines.save("m", "r", state, (order, state), event=event)
    store.machines.fail("m", "r", ValueError("no"), info={"o": order})
    store.results.put("r", "small", order, producer="p", inputs=(1, 2))
    store.results.put("r", "large", "y" * 300_000, inputs="z" * 100_000)
    store.results.put("r", "bytes", b"b" * 100_000, ttl=timedelta(days=400_000 // 365))
    store.savepoints.init("r", start=5, schedule=10)
    store.savepoints.save("r", 10, {"a": order, "b": (1,)})
    store.savepoints.update("r", 20, changed={"c": 3}, removed=["b"])
    store.timers.set("r", AT, {"o": order})
    store.timers.set("r/again", AT, "p", every=timedelta(hours=1))


def everything(store):
    """All that must be equal."""
    savepoints = [(at, dict(store.savepoints.at("r", at).to_dict())) for at in store.savepoints.list("r")]
    return [
        list(store.instances.scan()), list(store.executions.scan()), store.executions.events("r/e"),
        list(store.machines.scan()), store.machines.history("m", "r").items, store.machines.last_error("m", "r", raw=True),
        [store.results.find("r", id, raw=True) for id in store.results.ids("r")], savepoints,
        store.timers.get("r", raw=True), store.timers.get("r/again"),
    ]  # fmt: skip


@pytest.fixture(params=["jsonl", "parquet"])
def form(request):
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    return request.param


def test_what_is_exported_comes_back_equal(database, tmp_path, form):
    path = str(tmp_path / "x")
    store = database.open(codec=knowing())
    database.codec = knowing()
    fill(store, Order(4))
    count = store.export(path, form)
    assert count == 12
    with stateroom.open(str(tmp_path / "other.db"), codec=knowing(), clock=database.clock) as other:
        assert other.import_(path) == count
        assert everything(other) == everything(store)
        assert other.machines.definition("m").transitions == store.machines.definition("m").transitions
        assert other.check() == []
        assert other.import_(path) == 0  # what is there is left alone, so an interrupted import is run again
        assert everything(other) == everything(store)


def test_a_process_that_knows_no_types_moves_them_unharmed(tmp_path, form, clock):
    first, second = str(tmp_path / "a.db"), str(tmp_path / "b.db")
    with stateroom.open(first, codec=knowing(), clock=clock) as store:
        fill(store, Order(4))
        expected = everything(store)
    with (
        stateroom.open(first, codec=Codec(), clock=clock) as source,
        stateroom.open(second, codec=Codec(), clock=clock) as target,
    ):
        source.export(tmp_path / "x", form)
        target.import_(tmp_path / "x")
        assert target.executions.get("r/e", raw=True).data == Raw("order", 2, {"n": 4})
    with stateroom.open(second, codec=knowing(), clock=clock) as store:
        assert everything(store) == expected
        assert store.check() == []


def test_some_families_alone(store, tmp_path, form, clock):
    store.executions.create(Execution("e", "j"))
    store.instances.put(Instance("i", "w"))
    assert store.export(tmp_path / "x", form, families=["executions"]) == 1
    with stateroom.open("memory:", clock=clock) as other:
        assert other.import_(tmp_path / "x", families=["instances"]) == 0
        assert other.import_(tmp_path / "x") == 1
        assert other.executions.get("e") == store.executions.get("e")
    for bad in ("executions", ["execution"], 5):
        with pytest.raises(InvalidArgument):
            store.export(tmp_path / "y", form, families=bad)
    with pytest.raises(InvalidArgument):
        store.export(tmp_path / "y", "csv")
    assert not (tmp_path / "y").exists()


def test_a_record_that_is_another_is_not_overwritten(store, tmp_path, form):
    store.executions.create(Execution("e", "j"))
    store.export(tmp_path / "x", form)
    store.executions.update("e", message="changed")
    with pytest.raises(AlreadyExists, match="'e' is there"):
        store.import_(tmp_path / "x")
    assert store.executions.get("e").message == "changed"


@pytest.mark.parametrize("harm", ["cut", "flip", "line", "empty", "other"])
def test_a_damaged_file_changes_nothing(tmp_path, form, harm):
    path = tmp_path / "x"
    with stateroom.open("memory:") as store:
        for number in range(20):
            store.executions.create(Execution(f"e{number}", "j", data="d" * 200))
        store.export(path, form)
    content = path.read_bytes()
    if harm == "cut":
        content = content[: len(content) * 2 // 3]
    elif harm == "flip":
        at = content.index(b"sha256") - 40 if form == "jsonl" else len(content) // 2
        content = content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]
    elif harm == "line" and form == "jsonl":
        lines = content.splitlines(keepends=True)
        content = b"".join(lines[:3] + lines[4:])
    else:
        content = {"empty": b"", "other": b"PAR1nonsense", "line": b"PAR1"}[harm]
    path.write_bytes(content)
    with stateroom.open("memory:") as store:
        with pytest.raises(Damaged):
            store.import_(path)
        assert store.executions.query().items == ()


def test_paths_that_are_none(store, tmp_path):
    (tmp_path / "there").write_text("somebody's")
    for path in (tmp_path / "there", tmp_path / "missing" / "x", "", 5):
        with pytest.raises(InvalidArgument):
            store.export(path)
    assert (tmp_path / "there").read_text() == "somebody's"
    with pytest.raises(NotFound):
        store.import_(tmp_path / "none")
    assert sorted(each.name for each in tmp_path.iterdir() if not each.name.startswith("store")) == ["there"]


def test_json_lines_are_read_by_anybody(store, tmp_path):
    store.executions.create(Execution("e", "j", data={"at": AT}))
    store.export(tmp_path / "x.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert lines[0]["stateroom"] == "export"
    assert lines[1]["record"]["data"] == {"at": "2026-05-01T00:00:00+00:00"}
    assert lines[-1]["items"] == 1


@pytest.mark.parametrize("reader", ["pandas", "polars", "duckdb"])
def test_parquet_is_read_by_others(tmp_path, reader):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    module = pytest.importorskip(reader, reason=f"{reader} is not installed")
    path = str(tmp_path / "x.parquet")
    with stateroom.open("memory:") as store:
        for number in range(3):
            store.executions.create(Execution(f"e{number}", "j", data={"n": number}))
        store.executions.update("e1", state="running")
        store.export(path, "parquet")
    if reader == "duckdb":
        query = f"select id from '{path}' where family = 'executions' and status = 'running' and revision = 2"
        assert module.sql(query).fetchall() == [("e1",)]
        return
    frame = module.read_parquet(path)
    assert list(frame["id"]) == ["e0", "e1", "e2"]
    assert list(frame["status"]) == ["new", "running", "new"]
    assert json.loads(frame["record"][2])["data"] == {"n": 2}


def test_a_plain_sqlite_file_has_typed_and_indexed_tables(store, tmp_path):
    import sqlite3

    fill(store, 4)
    count = store.export(tmp_path / "out.db", "sqlite")
    tables = sqlite3.connect(tmp_path / "out.db")
    try:
        assert count == 12
        assert tables.execute("pragma integrity_check").fetchone() == ("ok",)
        assert tables.execute("select state, typeof(revision) from executions").fetchall() == [("completed", "integer")]
        assert tables.execute("select message from execution_events order by seq").fetchall() == [
            ("a",),
            ("b",),
            ("c",),
        ]
        assert tables.execute("select entity from savepoints where timestamp = 20 order by 1").fetchall() == [
            ("a",),
            ("c",),
        ]
        assert tables.execute("select json_extract(labels, '$.a') from instances").fetchall() == [("b",)]
        indexes = {name for (name,) in tables.execute("select name from sqlite_master where type = 'index'")}
        assert {"executions_job_id", "instances_status", "execution_events_execution_id", "results_dag"} <= indexes
    finally:
        tables.close()
    with pytest.raises(Damaged):
        store.import_(tmp_path / "out.db")
