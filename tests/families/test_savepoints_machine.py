"""Savepoints against dicts, on every engine and face."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from kit.blob_store import shrink
from kit.model_machine import InPlace, Place
from stateroom.errors import InvalidArgument, NoSavepoint
from stateroom.families.savepoints import chunks, writing

ids = st.integers(0, 60).map(lambda number: f"e{number}")
states = st.one_of(st.integers(0, 3), st.sampled_from(["", "x" * 90, "y" * 700, b"z" * 2000]))
entities = st.dictionaries(ids, states, max_size=40)
times = st.integers(0, 12)


class SavepointsAsDicts(InPlace):
    def __init__(self, place):
        super().__init__(place)
        self.patch = pytest.MonkeyPatch()
        shrink(self.patch)
        for name, value in {"TARGET_BYTES": 300, "FORCED_BYTES": 900, "PAGE": 3, "DIRECT_BYTES": 2500}.items():
            self.patch.setattr(chunks, name, value)
        self.patch.setattr(chunks, "CHUNK_BYTES", 1024)
        self.patch.setattr(writing, "LAYERS", 3)
        self.run.init("r")
        self.model = {}

    @property
    def run(self):
        return self.store.savepoints

    def teardown(self):
        try:
            self.run.delete_run("r")
            engine, prefix = self.place.raw, self.namespace.encode() + b"\0"
            for part in range(engine.parts):
                assert engine.scan(part, prefix + b"B", prefix + b"C", limit=9) == []
            super().teardown()
        finally:
            self.patch.undo()

    @rule(at=times, given=entities)
    def save(self, at, given):
        self.run.save("r", at, given.items())
        self.model[at] = given

    @rule(later=st.integers(-1, 2), changed=entities, removed=st.sets(ids, max_size=6))
    def update(self, later, changed, removed):
        if not self.model:
            with pytest.raises(NoSavepoint):
                self.run.update("r", 5, changed=changed)
            return
        at = max(self.model) + later
        if at < max(self.model) or changed.keys() & removed:
            with pytest.raises(InvalidArgument):
                self.run.update("r", max(at, 0) if changed.keys() & removed else at, changed=changed, removed=removed)
            return
        base = self.model[max(self.model)]
        self.model[at] = {id: state for id, state in {**base, **changed}.items() if id not in removed}
        assert self.run.update("r", at, changed=changed, removed=removed).count == len(self.model[at])

    @rule(n=st.integers(1, 4))
    def keep(self, n):
        gone = sorted(self.model)[:-n]
        assert self.run.keep("r", n) == len(gone)
        for at in gone:
            del self.model[at]

    @precondition(lambda self: self.model)
    @rule(at=times, ours=entities, theirs=entities)
    def another_client_saves_now(self, at, ours, theirs):
        self.beside(lambda other: other.savepoints.save("r", at, theirs)).savepoints.save("r", at, ours)
        self.model[at] = ours

    @rule(id=ids, at=times)
    def look(self, id, at):
        before = [one for one in self.model if one <= at]
        if before:
            found = self.run.at("r", at)
            assert found.timestamp == max(before)
            if id in self.model[max(before)]:
                assert found.get(id) == self.model[max(before)][id]
            else:
                with pytest.raises(LookupError):
                    found.get(id)

    @invariant()
    def agrees(self):
        assert self.run.list("r") == tuple(sorted(self.model))
        for at, given in self.model.items():
            found = self.run.at("r", at)
            assert found.count == len(given)
            assert list(found.entities()) == sorted(given.items())
        assert self.store.check() == []


@pytest.mark.older
def test_savepoints_are_as_dicts(database):
    Place(database).run(SavepointsAsDicts, 12, 4, 5, steps=14)


@pytest.mark.older
@pytest.mark.torture
def test_savepoints_are_as_dicts_for_long(database):
    Place(database).run_for_long(SavepointsAsDicts)
