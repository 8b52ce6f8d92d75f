"""The contracts of this package as tests: for engines of your own, and for whatever stands on them. Needs pytest."""

import pytest

# So that a failing assert shows its values; must come before the modules are imported.
pytest.register_assert_rewrite(
    *(f"{__name__}.{name}" for name in ("harness", "commits", "reading", "bounds", "living", "model", "async_engine")),
    *(f"{__name__}.{name}" for name in ("family_harness", "instance_cases", "unique_cases", "execution_cases")),
    *(f"{__name__}.{name}" for name in ("feed_cases", "feed_races", "adapters")),
)

from .engine_suite import async_engine_suite, engine_suite  # noqa: E402
from .family_harness import StoreFactory  # noqa: E402
from .family_suite import family_suite  # noqa: E402
from .feed_suite import feed_suite  # noqa: E402
from .harness import Factory  # noqa: E402

__all__ = ["Factory", "StoreFactory", "async_engine_suite", "engine_suite", "family_suite", "feed_suite"]
