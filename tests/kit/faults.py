"""An operation that is made to fail at each of its calls of the engine, one after another."""

from datetime import UTC, datetime

from kit.model_machine import Place
from stateroom import Store, codec
from stateroom.engines.wrap import Faulty
from stateroom.errors import OutcomeUnknown, StoreError


class Fixed:
    """A clock that stands still, so that what is done twice comes out equal."""

    def now(self):
        return datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def monotonic(self):
        return 0.0


def over(engine, clock=None):
    return Store(engine, "memory:", namespace="n", codec=codec.default, clock=clock or Fixed())


def at_every_call(database, setup, act, view):
    """Let `act(store)` fail at its first call of the engine, its second, ... until it passes.

    After each failure `view(store)` must be what it was, or, where the commit's answer was lost, what `act` makes of
    it; and the store must hold together. Gives how many calls `act` makes.
    """
    place = Place(database)
    whole = place.open(place.namespace())
    setup(whole)
    before = view(whole)
    act(whole)
    after = view(whole)
    assert before != after, "the operation must change what is looked at"
    for lost in (False, True):
        number = 0
        while True:
            number += 1
            namespace = place.namespace()
            store = place.open(namespace)
            setup(store)
            faulty = Faulty(place.raw, number, once=True, lost=lost)
            try:
                act(place.over(faulty, namespace))
            except OutcomeUnknown:
                assert lost
                assert view(store) == after
            except StoreError:
                assert view(store) == before
            else:
                assert view(store) == after
                if faulty.count < number:
                    break
            assert store.check() == []
        assert number > 2, "nothing was made to fail"
    return number - 1
