"""Every limit of the store, with its reason."""

KEY_BYTES = 1023
"""A key of an engine. Fits an index entry of every B-tree we may sit on."""

VALUE_BYTES = 1 << 20
"""A value of an engine; larger ones are chunked above it."""

BATCH_KEYS = 10_000
"""Keys one batch may touch: bounds the time a part is held."""

BATCH_BYTES = 8 << 20
"""Keys and values of one batch together: bounds what a commit sends and logs."""

INLINE_BYTES = 64 << 10
"""An encoded value up to this stays in its row; a larger one is kept in chunks."""

UPLOAD_BYTES = 4 << 20
"""Chunks are stored in batches of at most this, so that other writers get their turn."""

SWEEP_ROWS = 1000
"""Rows removed in one batch when a record with much hanging on it goes."""

NAME_BYTES = 256
"""An id and every other name, in UTF-8. Two of them and a namespace fit into a key."""

BUSINESS_KEY_BYTES = 200
"""A business key; shorter than a name, for an id is made from it."""

PARTS = 65536
"""Parts of one database; an engine may allow fewer."""

NAMESPACE_BYTES = 64
"""A namespace; part of every key."""

PAGE_ITEMS = 1000
"""Items of a page, and of one read of the feed."""

TRIES = 20
"""Times `transact` runs a function before its `Conflict` is shown, unless the caller says otherwise."""

RETRY_SECONDS = 30.0
"""How long a single operation goes on after conflicts: longer than any queue of writers that still moves."""

INT64_MAX = (1 << 63) - 1
"""Counters, versions and timestamps are signed 64-bit integers."""
