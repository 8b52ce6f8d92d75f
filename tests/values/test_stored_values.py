"""Values through a store: types that are gone, encryption, and what of it can be read in the file."""

import base64
import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import stateroom
from stateroom import Context, Event, Execution, Instance
from stateroom.codec import Codec, KeyRing, Raw
from stateroom.errors import Damaged, InvalidArgument, Undecodable


@dataclasses.dataclass
class Order:
    number: int


def known(version: int = 1, **upgrade: Any) -> Codec:
    codec = Codec()
    codec.register(Order, name="order", version=version, upgrade=upgrade.get("upgrade"))
    return codec


def instance(id: str, value: Any) -> Instance:
    return Instance(id, "flow", context=Context(initial={"order": value}, steps={}))


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "runs.db")
    with stateroom.open(path, codec=known()) as store:
        store.instances.put(instance("a", 1))
        store.instances.put(instance("b", Order(7)))
        store.instances.put(instance("c", 3))
    return path


def test_a_type_that_is_gone_hides_its_record_alone(path: str) -> None:
    with stateroom.open(path, codec=Codec()) as store:
        with pytest.raises(Undecodable) as caught:
            store.instances.get("b")
        error = caught.value
        assert (error.kind, error.id, error.tag) == ("instances", "b", "order")
        assert error.path.startswith("$.context")
        assert error.path in str(error)
        page = store.instances.query()
        assert [one.id for one in page] == ["a", "b", "c"]
        assert page.undecodable == 0
        assert page[1].context.initial == {"order": Raw("order", 1, {"number": 7})}
        assert [one.id for one in store.instances.scan()] == ["a", "b", "c"]
        assert [problem.code for problem in store.check()].count("undecodable") >= 1
        changes = store.feed.read().items
        assert [change.id for change in changes] == ["a", "b", "c"]
        store.instances.put(instance("d", 4))
    with stateroom.open(path, codec=known()) as store:
        assert store.instances.get("b").context.initial == {"order": Order(7)}
        assert store.check() == []


def test_reading_upgrades_and_writes_nothing_back(path: str) -> None:
    before = Path(path).read_bytes()
    with stateroom.open(path, codec=known(2, upgrade={1: lambda state: {"number": state["number"] + 1}})) as store:
        assert store.instances.get("b").context.initial == {"order": Order(8)}
        assert store.instances.query().undecodable == 0
    assert Path(path).read_bytes() == before
    with stateroom.open(path, codec=known()) as store:
        assert store.instances.get("b").context.initial == {"order": Order(7)}


def test_a_refused_value_names_its_field_and_changes_nothing(path: str) -> None:
    with stateroom.open(path, codec=known()) as store:
        with pytest.raises(InvalidArgument) as caught:
            store.instances.put(instance("a", [0, {"x": print}]))
        assert caught.value.path.endswith(".order[1].x")
        assert store.instances.get("a").revision == 1


OLD, NEW, NAMING = b"o" * 32, b"n" * 32, b"d" * 32
SECRET = "kept from whoever reads the file"


def ring(current: str = "old", **keys: bytes) -> KeyRing:
    return KeyRing(keys or {"old": OLD}, current=current, naming=NAMING)


def write_everywhere(store: stateroom.Store) -> None:
    """The secret in every place of the API that takes a value."""
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    made = store.instances.put(
        Instance("id-1", "flow", context=Context(initial={"a": SECRET}, steps={}), metadata={"b": [SECRET]})
    )
    store.instances.put(made, expected_revision=1)
    store.executions.create(
        Execution("id-2/e", "id-2", details={"c": SECRET}, data=SECRET, message=SECRET),
        events=[Event(SECRET, details={"d": SECRET})],
    )
    store.executions.update(
        "id-2/e", state="bid_accepted", result=(SECRET,), events=[Event("x", details={"e": SECRET})]
    )
    store.executions.add_events("id-2/e", Event(SECRET, details={"f": SECRET}))
    store.machines.save("door", "id-3", "open", {"g": SECRET}, event="push", event_payload=SECRET)
    store.machines.fail("door", "id-3", ValueError(SECRET), info={"h": SECRET})
    store.timers.set("id-4", moment, {"i": SECRET})
    store.feed.emit("note", {"j": SECRET}, "id-5")
    store.transact(lambda tx: SECRET, once="id-6")
    store.executions.delete("id-2/e")


def file_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


def test_no_value_can_be_read_in_an_encrypted_file(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "secret").mkdir()
    with stateroom.open(str(tmp_path / "plain" / "runs.db")) as store:
        write_everywhere(store)
    with stateroom.open(str(tmp_path / "secret" / "runs.db"), key_ring=ring()) as store:
        write_everywhere(store)
        assert store.instances.get("id-1").metadata == {"b": [SECRET]}
        assert store.check() == []
    # The plain file shows that the test would see it.
    assert file_bytes(tmp_path / "plain").count(SECRET.encode()) > 8
    assert SECRET.encode() not in file_bytes(tmp_path / "secret")
    assert base64.b64encode(OLD) not in file_bytes(tmp_path / "secret")
    # What the guide says is not hidden: names, and what is indexed.
    for clear in (b"id-1", b"flow", b"door", b"open"):
        assert clear in file_bytes(tmp_path / "secret")


def test_a_wrong_key_says_so_and_the_right_one_reads_on(tmp_path: Path) -> None:
    path = str(tmp_path / "runs.db")
    with stateroom.open(path, key_ring=ring()) as store:
        store.instances.put(instance("a", 1))
    with stateroom.open(path, key_ring=ring("new", new=NEW)) as store:
        with pytest.raises(Undecodable, match="'old'"):
            store.instances.get("a")
        store.instances.put(instance("b", 2))
    with stateroom.open(path) as store, pytest.raises(Undecodable, match="key_ring"):
        store.instances.get("a")
    with stateroom.open(path, key_ring=ring(old=NEW)) as store, pytest.raises(Damaged, match="another key"):
        store.instances.get("a")
    with stateroom.open(path, key_ring=ring("new", new=NEW, old=OLD)) as store:
        assert [one.id for one in store.instances.query()] == ["a", "b"]
        assert store.check() == []
