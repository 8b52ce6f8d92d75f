"""Celery's results in a store: `result_backend = "stateroom+sqlite:///results.db"`, or `stateroom+postgresql://...`."""

from typing import Any

from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import ImproperlyConfigured
from kombu.utils.encoding import bytes_to_str, ensure_bytes

from stateroom.errors import StoreError, Unavailable

from .faces import Access, Face
from .names import stored_key
from .snapshots import StoreLike

VALUE = "value"


class StateroomBackend(KeyValueStoreBackend):
    """Celery's result backend over a url, a `Store` or an `AsyncStore`; each result is one in a DAG of its own.

    Results live for `result_expires`, then retention removes them; until it has run, they are not given any more.
    Groups and chords are counted in the store, each part once.
    """

    implements_incr = True
    persistent = True
    supports_autoexpire = True
    supports_result_compression = True

    def __init__(self, url: StoreLike = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not url:
            raise ImproperlyConfigured("say which store, as in stateroom+sqlite:///results.db")
        self.url = url
        self._access = Access(url)

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        return super().__reduce__(args, {**(kwargs or {}), "url": self.url})

    def exception_safe_to_retry(self, exc: Any) -> Any:
        """Say whether `result_backend_always_retry` may make the call again."""
        return isinstance(exc, Unavailable) or (isinstance(exc, StoreError) and exc.retry)

    def get(self, key: Any) -> Any:
        """Return what is stored under a key, or None."""

        async def work(face: Face) -> Any:
            result = await face.done(face.store.results.find(_dag(key), VALUE))
            return None if result is None else result.value

        return self._access.run(work)

    def mget(self, keys: Any) -> list[Any]:
        """Return what is stored under several keys, in their order."""
        return [self.get(key) for key in keys]

    def set(self, key: Any, value: Any) -> None:
        """Store a value for as long as results live."""
        ttl = self.expires or None

        async def work(face: Face) -> None:
            await face.done(face.store.results.put(_dag(key), VALUE, ensure_bytes(value), ttl=ttl))

        self._access.run(work)

    def delete(self, key: Any) -> None:
        """Remove a key."""

        async def work(face: Face) -> None:
            await face.done(face.store.results.clear(_dag(key)))

        self._access.run(work)

    def incr(self, key: Any) -> int:
        """Count up, from 1; two callers never get the same number."""

        async def work(face: Face) -> int:
            async def body(tx: Any) -> int:
                result = await face.done(tx.results.find(_dag(key), VALUE))
                number = 1 if result is None else int(result.value) + 1
                await face.done(tx.results.put(_dag(key), VALUE, number, ttl=self.expires or None))
                return number

            return await face.transact(body)

        return self._access.run(work)

    def expire(self, key: Any, value: Any) -> None:
        """Let what is stored under a key live so many seconds from now; 0 or None: for ever."""

        async def work(face: Face) -> None:
            async def body(tx: Any) -> None:
                result = await face.done(tx.results.find(_dag(key), VALUE))
                if result is not None:
                    await face.done(tx.results.put(_dag(key), VALUE, result.value, ttl=value or None))

            await face.transact(body)

        self._access.run(work)


def _dag(key: Any) -> str:
    return "celery:" + stored_key(bytes_to_str(key), 200)
