"""The contract of the feed as tests that anybody may run over a store of their own; see ``docs/design/feed.md``.

::

    from stateroom.testing import feed_suite


    class TestMine(feed_suite(open_store)):
        pass
"""

from typing import Any

from .family_harness import StoreFactory
from .feed_cases import Promises
from .feed_races import Races
from .harness import fixed


class FeedSuite(Promises, Races):
    """All tests of the contract, still without a store."""

    __test__ = False


def feed_suite(factory: StoreFactory) -> type[FeedSuite]:
    """A class of pytest tests to derive from, for the stores that `factory` opens."""
    members: dict[str, Any] = {"factory": fixed(factory), "__test__": True}
    return type("Suite", (FeedSuite,), members)
