"""A cache in a store, shaped like diskcache's: `Cache` for plain code, `AsyncCache` for event loops. It needs no extra.

Entries are results, so that the feed and the command line see them, and what expires is freed by retention.
"""

from .awaited import AsyncCache
from .blocking import Cache

__all__ = ["AsyncCache", "Cache"]
