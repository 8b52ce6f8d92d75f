"""What `help` and documentation tools see of a family's methods."""

import inspect
import pydoc

import pytest

from stateroom import Instance
from stateroom.families.executions.family import Executions
from stateroom.families.instances.family import Instances
from stateroom.families.leases.family import Leases
from stateroom.families.timers.family import Timers

METHODS = [
    (family, name)
    for family in (Instances, Executions, Leases, Timers)
    for name in vars(family)
    if not name.startswith("_")
]


@pytest.mark.parametrize(("family", "name"), METHODS, ids=lambda part: getattr(part, "__name__", part))
def test_every_method_shows_its_signature(store_of, family, name):
    shown = inspect.signature(getattr(family, name))
    assert next(iter(shown.parameters)) == "self"
    assert "tx" not in shown.parameters
    bound = inspect.signature(getattr(store_of(family), name))
    assert list(shown.parameters.values())[1:] == list(bound.parameters.values())


@pytest.fixture
def store_of():
    import stateroom

    with stateroom.open("memory:") as store:
        yield lambda family: getattr(store, family.__name__.lower())


def test_help_prints_them_as_methods():
    text = pydoc.render_doc(Instances, renderer=pydoc.plaintext)
    assert "object at 0x" not in text
    assert "query(\n" in text or "query(self, *, id: " in text
    assert "updated_before" in text
    assert "Insert or replace an instance whole." in text


def test_a_method_of_the_class_is_a_function(store_of):
    instances = store_of(Instances)
    made = Instances.put(instances, Instance("a", "wf"))
    assert Instances.get(instances, "a") == made
