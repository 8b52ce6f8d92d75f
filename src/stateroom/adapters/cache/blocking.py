"""`Cache`: the face for plain code."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import msgspec

from stateroom import AsyncStore, Store
from stateroom.errors import InvalidArgument, LostLease

from ..faces import Access, BlockingFace, Face, run_now
from .calls import Calls
from .entries import Entries, id_of

SIZE_LIMIT = 1 << 30
POLICIES = ("least-recently-stored", "none")
_MISSING: Any = object()
_LOCKED = 60.0
"""Seconds a `transact` block may take before another may begin."""


class Base:
    """The part that both faces share: the store, the settings, the counts of hits and misses."""

    def __init__(
        self,
        store: "str | os.PathLike[str] | Store | AsyncStore | None" = None,
        *,
        name: str = "cache",
        size_limit: int | None = SIZE_LIMIT,
        eviction_policy: str = "least-recently-stored",
        cull_limit: int = 10,
        **options: Any,
    ) -> None:
        """Open `store` (with the `options` of `stateroom.open`), or use one that is open, which stays its owner's.

        A path that is a folder means a file in it. `durability` is "normal" where nothing else is said: a cache may
        lose its last entries with the power. `name` keeps caches in one store apart. `size_limit`: bytes; with
        `cull_limit` 0 it is kept by `cull` alone.
        """
        if eviction_policy not in POLICIES:
            raise InvalidArgument(
                f"eviction_policy is {eviction_policy!r}; one of {', '.join(POLICIES)}", what="eviction_policy"
            )
        limited = size_limit is not None and eviction_policy != "none"
        _check_limit(size_limit)
        if isinstance(store, str | os.PathLike) and os.path.isdir(store):
            store = os.path.join(store, "cache.db")
        if not isinstance(store, Store | AsyncStore):
            options = {"durability": "normal", **options}
        self._opening = store, options
        self._access = Access(store, **options)
        self._entries = Entries(name, size_limit if limited else None, culls=cull_limit > 0)
        self._hits = self._misses = 0
        self.statistics = False
        """Whether hits and misses are counted."""
        self._counting = threading.Lock()

    @property
    def size_limit(self) -> int | None:
        """Bytes that are not exceeded; None: as many as come."""
        return self._entries.size_limit

    @property
    def directory(self) -> Any:
        """Return what was opened: another `Cache` of it shares the entries."""
        return self._opening[0] if self._opening[0] is not None else self._access.url

    def reset(self, key: str, value: Any) -> Any:
        """Change `size_limit`, `cull_limit` or `statistics` of this object; gives the value."""
        if key == "size_limit":
            _check_limit(value)
            self._entries.size_limit = value
        elif key == "cull_limit":
            self._entries.culls = value > 0
        elif key == "statistics":
            self.statistics = bool(value)
        else:
            raise InvalidArgument(f"no setting {key!r}; size_limit, cull_limit or statistics", what="key", value=key)
        return value

    def _note(self, hit: bool) -> None:
        if self.statistics:
            with self._counting:
                self._hits += hit
                self._misses += not hit

    def _counts(self, enable: bool, reset: bool) -> tuple[int, int]:
        with self._counting:
            self.statistics = enable
            counts = self._hits, self._misses
            if reset:
                self._hits = self._misses = 0
            return counts


def _check_limit(size_limit: Any) -> None:
    if size_limit is not None and (isinstance(size_limit, bool) or not isinstance(size_limit, int) or size_limit < 1):
        raise InvalidArgument(f"size_limit is {size_limit!r}; use bytes, or None", what="size_limit", value=size_limit)


def shaped(result: Any, default: Any, expire_time: bool, tag: bool) -> Any:
    """A value, or a tuple of it with the time it expires (seconds since 1970) and its tag."""
    value = default if result is None else result.value
    if not (expire_time or tag):
        return value
    parts = [value]
    if expire_time:
        parts.append(None if result is None or result.expires_at is None else result.expires_at.timestamp())
    if tag:
        parts.append(None if result is None else result.producer)
    return tuple(parts)


class Cache(Base):
    """A cache in a store, for threads and processes: diskcache's methods and mapping protocol, and no pickle.

    Keys and values are what the store's codec knows: what JSON has, bytes, dates, tuples, sets, dataclasses and types
    that are registered. Anything else is `InvalidArgument`. `AsyncCache` has the same methods as coroutines.
    """

    def __init__(self, store: Any = None, **settings: Any) -> None:
        super().__init__(store, **settings)
        self._open = threading.local()
        self._calls = Calls(self._entries, self._run, self._arun, self._note)

    __init__.__doc__ = Base.__init__.__doc__

    def _run(self, work: Callable[[Face], Any]) -> Any:
        face = getattr(self._open, "face", None)
        if face is not None:
            return run_now(work(face))
        if self._access.closed and not isinstance(self._opening[0], Store | AsyncStore):
            self._access = Access(self._opening[0], **self._opening[1])
        return self._access.run(work)

    async def _arun(self, work: Callable[[Face], Any]) -> Any:
        return await self._access.arun(work)

    def _write(self, work: Callable[[Face], Any]) -> Any:
        """Run an operation that may store something, then look at the size limit."""
        result = self._run(work)
        if getattr(self._open, "face", None) is None:
            self._access.run(self._entries.settle)
        return result

    def _find(self, key: Any) -> Any:
        store = self._access.store
        if store is not None and not self._access.closed and getattr(self._open, "face", None) is None:
            return store.results.find(self._entries.dag, id_of(key))  # the shortest way: a read is what a cache is for
        return self._run(lambda face: self._entries.find(face, key))

    # --- one entry

    def set(
        self, key: Any, value: Any, expire: Any = None, read: bool = False, tag: Any = None, retry: bool = False
    ) -> bool:
        """Store a value for `expire` seconds (None: for ever). `read`: it is a file, whose bytes are stored."""
        return bool(self._write(lambda face: self._entries.set(face, key, value, expire, tag, read)))

    def get(
        self,
        key: Any,
        default: Any = None,
        read: bool = False,
        expire_time: bool = False,
        tag: bool = False,
        retry: bool = False,
    ) -> Any:
        """A value, or `default`; with `expire_time` and `tag` a tuple. `read`: bytes come as a file."""
        result = self._find(key)
        self._note(result is not None)
        if read and result is not None:
            return shaped(msgspec.structs.replace(result, value=self.read(key)), default, expire_time, tag)
        return shaped(result, default, expire_time, tag)

    def read(self, key: Any, retry: bool = False) -> Any:
        """Bytes as a file. Raises `KeyError`."""
        return self._run(lambda face: self._entries.open(face, key))

    def add(
        self, key: Any, value: Any, expire: Any = None, read: bool = False, tag: Any = None, retry: bool = False
    ) -> bool:
        """Store a value where there is none; False where there is one. Of several callers one succeeds."""
        return bool(self._write(lambda face: self._entries.add(face, key, value, expire, tag, read)))

    def incr(self, key: Any, delta: Any = 1, default: Any = 0, retry: bool = False) -> Any:
        """Add to a number in one step; gives the sum. `default` None: `KeyError` where there is no number."""
        return self._write(lambda face: self._entries.change(face, key, delta, default))

    def decr(self, key: Any, delta: Any = 1, default: Any = 0, retry: bool = False) -> Any:
        """As `incr`, the other way."""
        return self.incr(key, -delta, default)

    def touch(self, key: Any, expire: Any = None, retry: bool = False) -> bool:
        """Let an entry live so many seconds from now (None: for ever); False where there is none."""
        return bool(self._run(lambda face: self._entries.touch(face, key, expire)))

    def pop(
        self, key: Any, default: Any = None, expire_time: bool = False, tag: bool = False, retry: bool = False
    ) -> Any:
        """Remove an entry and give what `get` would; of several callers one gets it."""
        return shaped(self._run(lambda face: self._entries.pop(face, key)), default, expire_time, tag)

    def delete(self, key: Any, retry: bool = False) -> bool:
        """Remove an entry; False where there is none."""
        return bool(self._run(lambda face: self._entries.delete(face, key)))

    def __getitem__(self, key: Any) -> Any:
        value = self.get(key, default=_MISSING)
        if value is _MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: Any) -> None:
        if not self.delete(key):
            raise KeyError(key)

    def __contains__(self, key: Any) -> bool:
        return bool(self._run(lambda face: self._entries.has(face, key)))

    # --- queues

    def push(
        self,
        value: Any,
        prefix: str | None = None,
        side: str = "back",
        expire: Any = None,
        read: bool = False,
        tag: Any = None,
        retry: bool = False,
    ) -> Any:
        """Add to an end of the queue with a prefix; gives the entry's key."""
        return self._write(lambda face: self._entries.push(face, value, prefix, side, expire, tag))

    def pull(
        self,
        prefix: str | None = None,
        default: Any = (None, None),
        side: str = "front",
        expire_time: bool = False,
        tag: bool = False,
        retry: bool = False,
    ) -> Any:
        """Take key and value from an end of a queue, or give `default`; of several callers each gets another."""
        return self._end(prefix, default, side, expire_time, tag, remove=True)

    def peek(
        self,
        prefix: str | None = None,
        default: Any = (None, None),
        side: str = "front",
        expire_time: bool = False,
        tag: bool = False,
        retry: bool = False,
    ) -> Any:
        """Key and value at an end of a queue, or `default`."""
        return self._end(prefix, default, side, expire_time, tag, remove=False)

    def _end(self, prefix: Any, default: Any, side: str, expire_time: bool, tag: bool, *, remove: bool) -> Any:
        pair = self._run(lambda face: self._entries.next(face, prefix, side, remove))
        if pair is None:
            return default
        return pair_of(pair[0], pair[1], expire_time, tag)

    def peekitem(self, last: bool = True, expire_time: bool = False, tag: bool = False, retry: bool = False) -> Any:
        """Key and value of the entry that came last (or first). Raises `KeyError` where there is none."""
        for key in self.iterkeys(reverse=last):
            result = self._find(key)
            if result is not None:
                return pair_of(key, result, expire_time, tag)
        raise KeyError("the cache is empty")

    # --- all entries

    def __len__(self) -> int:
        return int(self._run(self._entries.count))

    def __iter__(self) -> Iterator[Any]:
        return self.iterkeys()

    def __reversed__(self) -> Iterator[Any]:
        return self.iterkeys(reverse=True)

    def iterkeys(self, reverse: bool = False) -> Iterator[Any]:
        """The keys in the order in which they first came."""
        entries = self._run(self._entries.every)
        return (entry.key for entry in (reversed(entries) if reverse else entries))

    def clear(self, retry: bool = False) -> int:
        """Remove everything; gives how many entries that were."""
        return int(self._run(self._entries.clear))

    def evict(self, tag: Any, retry: bool = False) -> int:
        """Remove the entries with a tag; gives how many."""
        return int(self._run(lambda face: self._entries.evict(face, tag)))

    def expire(self, now: float | None = None, retry: bool = False) -> int:
        """Free what has expired, in the whole store, by running its retention; gives how much that was."""
        return int(self._access.run(self._entries.expire))

    def cull(self, retry: bool = False) -> int:
        """Free what has expired, and keep three quarters of the size limit; gives how many entries went."""
        return self.expire() + int(self._access.run(self._entries.cull))

    def volume(self) -> int:
        """Bytes of all entries; looks at each."""
        return int(self._run(self._entries.volume))

    def stats(self, enable: bool = True, reset: bool = False) -> tuple[int, int]:
        """Hits and misses of this object while they were counted; `enable`: count from now on; `reset`: from 0."""
        return self._counts(enable, reset)

    def check(self, fix: bool = False, retry: bool = False) -> list[Any]:
        """Problems of the store; none: an empty list."""
        return list(self._access.run(_check))

    # --- functions and transactions

    def memoize(
        self,
        name: str | None = None,
        typed: bool = False,
        expire: Any = None,
        tag: Any = None,
        ignore: Collection[int | str] = (),
    ) -> Callable[[Any], Any]:
        """Decorate a function, plain or coroutine: each value is computed once, by one caller in all processes.

        The others wait for it. What it raises comes through, and the next caller computes.
        """
        if callable(name):
            raise TypeError("name cannot be callable: write @cache.memoize(), with parentheses")
        return lambda function: self._calls.decorate(function, name, typed, expire, tag, ignore)

    @contextmanager
    def transact(self, retry: bool = False) -> Iterator[None]:
        """Let everything in the block happen together, or nothing where it raises. A block in a block joins it.

        Blocks wait for each other, in all processes. Raises `Conflict` where somebody outside of such a block changed
        what was read here.
        """
        if getattr(self._open, "face", None) is not None:
            yield
            return
        store = self._access.store
        if store is None:
            raise InvalidArgument("transact needs a Store; over an AsyncStore use AsyncCache", what="store")
        lease = _locked(store, f"{self._entries.root}/transact")
        try:
            with store.transaction(lease=lease) as tx:
                self._open.face = BlockingFace(store).inside(tx)
                try:
                    yield
                finally:
                    self._open.face = None
        finally:
            with suppress(LostLease):  # it took longer than a minute; the commit has said so
                store.leases.release(lease)
        self._access.run(self._entries.settle)

    def close(self) -> None:
        """Close what was opened here; it opens again when it is used."""
        self._access.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


async def _check(face: Face) -> Any:
    return await face.done(face.store.check())


def pair_of(key: Any, result: Any, expire_time: bool, tag: bool) -> Any:
    """A key with its value; with more, a tuple of that pair, the time it expires and its tag."""
    value = shaped(result, None, expire_time, tag)
    if not (expire_time or tag):
        return key, value
    return ((key, value[0]), *value[1:])


def _locked(store: Store, key: str) -> Any:
    owner = f"cache-{uuid.uuid4().hex}"
    pause = 0.001
    while True:
        try:
            return store.leases.acquire(key, owner, _LOCKED)
        except LostLease:
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
