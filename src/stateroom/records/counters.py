"""Guards of absent counters, for whoever relies on one."""

from .. import keys
from ..core.namespace import Scope


def swept_key(scope: Scope) -> bytes:
    """A row of each part that is written whenever counters at 0 are removed.

    Who expects a counter to be absent would else not notice that it was there and went again meanwhile.
    """
    return scope.key(keys.FLOOR, b"c")
