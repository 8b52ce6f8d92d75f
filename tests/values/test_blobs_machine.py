"""Boxes of large values against a dict, whatever fails, on every blocking engine."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from kit.blob_store import HOURS, Boxes, block, shrink
from kit.model_machine import Place
from stateroom.engines.wrap import Faulty
from stateroom.errors import StoreError
from stateroom.values import objects

POOL = [block(seed, 1024) for seed in range(4)]


class BoxesAsADict(RuleBasedStateMachine):
    names = Bundle("names")

    def __init__(self, place):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        shrink(self.patch)
        self.patch.setattr(objects, "FREED_OBJECTS", 8)
        self.clock, self.engine, self.namespace = place.clock, place.raw, place.namespace()
        self.boxes = Boxes(self.engine, self.clock, namespace=self.namespace)
        self.model = {}

    def teardown(self):
        for name in self.model:
            self.boxes.delete(name)
        self.clock.advance(HOURS)
        self.boxes.expire()
        assert self.boxes.rows(b"B") == []
        self.patch.undo()

    data = st.tuples(st.lists(st.integers(0, 3), max_size=30), st.sampled_from([b"", b"x", b"y" * 700])).map(
        lambda drawn: b"".join(POOL[one] for one in drawn[0]) + drawn[1]
    )

    @rule(target=names, name=st.sampled_from("abcd"), data=data)
    def put(self, name, data):
        self.boxes.put(name, data)
        self.model[name] = data
        return name

    @rule(name=st.sampled_from("abcd"), data=data, size=st.integers(1, 3000))
    def stream(self, name, data, size):
        self.boxes.put_stream(name, (data[at : at + size] for at in range(0, len(data), size)))
        self.model[name] = data

    @rule(name=consumes(names))
    def delete(self, name):
        self.boxes.delete(name)
        self.model.pop(name, None)

    @rule(name=st.sampled_from("abcd"), data=data)
    def give_up(self, name, data):
        with pytest.raises(KeyError):
            self.boxes.put(name, data, fail=KeyError())

    @rule(name=st.sampled_from("abcd"), data=data, number=st.integers(1, 12), lost=st.booleans())
    def fail(self, name, data, number, lost):
        try:
            Boxes(Faulty(self.engine, number, lost=lost), self.clock, namespace=self.namespace).put(name, data)
        except StoreError:
            found = self.boxes.get(name)
            assert found in (data, self.model.get(name))
            if found is not None:
                self.model[name] = found
        else:
            self.model[name] = data

    @rule(seconds=st.sampled_from([60, HOURS]), most=st.sampled_from([3, 1_000_000]))
    def expire(self, seconds, most):
        self.clock.advance(seconds)
        self.boxes.expire(most)

    @invariant()
    def agrees(self):
        assert {name: self.boxes.get(name) for name in self.model} == self.model
        assert [one for one in self.boxes.problems() if one.code != "upload-expired"] == []


BLOCKING = pytest.mark.parametrize("database", ["memory", "sqlite", "postgresql", "postgresql-16"], indirect=True)


@BLOCKING
def test_boxes_are_as_a_dict(database):
    Place(database).run(BoxesAsADict, 15, 5, 5, steps=12)


@BLOCKING
@pytest.mark.torture
def test_boxes_are_as_a_dict_for_long(database):
    Place(database).run_for_long(BoxesAsADict)
