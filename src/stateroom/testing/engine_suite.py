"""The contract of engines as tests that anybody may run over an engine of their own.

::

    from stateroom.testing import engine_suite


    class TestMine(engine_suite(make_engine)):
        pass

`make_engine` gives a fresh, empty engine at each call; see `stateroom.testing.Factory` for what else it may offer.
Every sentence of ``docs/design/engine.md`` names its tests here.
"""

from typing import Any

from .async_engine import AsyncExtras, BlockingFactory
from .bounds import Limits
from .commits import Commits, Contents, Expectations
from .harness import Factory, fixed
from .living import Closing, Gathers, Submits, Waiting
from .model import Random
from .reading import Reads, Scans


class EngineSuite(Commits, Contents, Expectations, Reads, Scans, Limits, Waiting, Closing, Submits, Gathers, Random):
    """All tests of the contract, still without an engine."""

    __test__ = False


def engine_suite(factory: Factory) -> type[EngineSuite]:
    """A class of pytest tests to derive from: the contract, for the blocking engines that `factory` makes."""
    return type("Suite", (EngineSuite,), {"factory": fixed(factory), "__test__": True})


def async_engine_suite(factory: Any) -> type[EngineSuite]:
    """The same for the asynchronous engines that `factory` makes; its functions may be coroutine functions.

    Each engine is made, used and closed in an event loop of its own, in a thread; the tests call it from others.
    """
    return type("Suite", (EngineSuite, AsyncExtras), {"factory": BlockingFactory(factory), "__test__": True})
