"""A family is a record and one entry: what every family has, a new one has without touching another file."""

from datetime import timedelta

import pytest

import stateroom
from stateroom import Policy, keys
from stateroom.core.operation import Family, operation, reading
from stateroom.database.views import views
from stateroom.records.kind import KINDS, Aging, Index, Kind, Record, register
from stateroom.records.pages import fingerprint
from stateroom.records.query import Query
from stateroom.records.reading import load
from stateroom.records.saving import save


class Boat(Record, frozen=True):
    id: str
    harbour: str = ""


class BoatKind(Kind[Boat]):
    name, letter, fields, summary = "boats", b"z", ("id", "harbour"), b"h"
    texts = frozenset({"harbour"})
    indexes = (Index(b"h", lambda boat: (keys.path(boat.harbour),)),)
    aging = Aging(group_steps=1)

    def path(self, record):
        return (record.id,)

    def pack(self, record):
        return [record.id, record.harbour]

    def unpack(self, fields, revision, created_at, updated_at):
        return Boat(*fields, revision=revision, created_at=created_at, updated_at=updated_at)

    def counters(self, record):
        return (b"h" + keys.path(record.harbour),)


class Boats(Family):
    @operation
    async def moor(self, tx, id: str, harbour: str) -> Boat:
        before = await load(tx, KINDS["boats"], (id,))
        return (await save(tx, KINDS["boats"], before, Boat(id, harbour))).record

    @reading
    async def query(self, tx, *, harbour: str, limit: int = 100, cursor: str | None = None):
        kind = KINDS["boats"]
        query = Query(kind, tx, fingerprint("boats", harbour), lambda boat: boat.harbour == harbour)
        query.prefixes = [kind.index_prefix(tx.scope, kind.indexes[0], keys.path(harbour))]
        return await query.page(limit, cursor)


@pytest.fixture(autouse=True)
def _registered():
    register(BoatKind())
    yield
    del KINDS["boats"]


def test_a_new_family_has_what_every_family_has(tmp_path):
    with stateroom.open(tmp_path / "a.db") as store:
        boats = Boats(store._face)
        for number in range(5):
            boats.moor(f"b{number}", "kiel" if number % 2 else "bremen")
        assert boats.moor("b0", "kiel").revision == 2
        assert [boat.id for boat in boats.query(harbour="kiel")] == ["b0", "b1", "b3"]
        assert [(c.op, c.id) for c in store.feed.read(families=["boats"]).items][-1] == ("update", "b0")
        assert store.stats().records["boats"] == {"bremen": 2, "kiel": 3}
        assert store.check() == []
        stateroom.copy(store.url, str(tmp_path / "b.db"))
        store.retention.set(Policy("boats", older_than=timedelta(microseconds=1)))
        store.retention.run()
        assert [boat.id for boat in boats.query(harbour="kiel")] == []
        assert store.check() == []
    with stateroom.open(tmp_path / "b.db", create=False) as copied:
        assert Boats(copied._face).query(harbour="bremen").items[0].id == "b2"
        assert copied.check() == []
    assert "boats" in {view.name for view in views()}
