"""The promises of the families, as tests that anybody may run over a store of their own.

::

    from stateroom.testing import family_suite


    class TestMine(family_suite(open_store)):
        pass

The cases carry ids: HEP of Hephaestus' workflow storage, BAC of Bacalhau's execution store; so that who comes from
there finds what they relied on, and what is better here.
"""

from typing import Any

from .execution_cases import Creating, Listing, Reporting, Updating
from .family_harness import StoreFactory
from .harness import fixed
from .instance_cases import Contexts, Fields, Running, Storage
from .unique_cases import Cancelling, Uniqueness


class FamilySuite(Storage, Running, Fields, Contexts, Uniqueness, Cancelling, Creating, Updating, Listing, Reporting):
    """All cases, still without a store."""

    __test__ = False


def family_suite(factory: StoreFactory) -> type[FamilySuite]:
    """A class of pytest tests to derive from, for the stores that `factory` opens."""
    members: dict[str, Any] = {"factory": fixed(factory), "__test__": True}
    return type("Suite", (FamilySuite,), members)
