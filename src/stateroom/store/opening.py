"""The two front doors: `Store` blocks, `AsyncStore` is awaited; both do the same on any engine."""

import inspect
import os
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any

from .. import arguments, keys
from ..clock import Clock, SystemClock
from ..codec import Codec, KeyRing
from ..codec import default as default_codec
from ..core.bridge import Inline, bridged, run_now
from ..database import views
from ..database.keyrings import fitting_codec
from ..engine import Describing, Durability, Engine
from ..engines import urls
from ..engines.read_only import AsyncReadOnlyEngine, ReadOnlyEngine
from ..errors import InvalidArgument
from ..limits import PARTS
from .store import AsyncStore, Store


def _prepare(durability: str, codec: Codec | None, key_ring: Any, parts: int | None) -> Codec:
    if durability not in ("full", "normal"):
        raise InvalidArgument(
            f"durability is {durability!r}; full (survives power loss) or normal (process death only)",
            what="durability",
            value=durability,
        )
    if parts is not None:
        parts = arguments.number(parts, "parts", least=1, most=PARTS)
    chosen = default_codec if codec is None else codec
    if not isinstance(chosen, Codec):
        raise InvalidArgument(f"codec must be a Codec, not {type(codec).__name__}", what="codec", value=codec)
    if key_ring is not None and not isinstance(key_ring, KeyRing):
        raise InvalidArgument(
            f"key_ring must be a codec.KeyRing, not {type(key_ring).__name__}; KeyRing.from_file(path) reads one",
            what="key_ring",
        )
    return chosen if key_ring is None else chosen.with_key_ring(key_ring)


def _options(
    connect: urls.Connect, durability: str, create: bool, parts: int | None, read_only: bool
) -> dict[str, Any]:
    """Return what an engine is opened with; one that knows nothing of `read_only` makes nothing, and is not written
    to.
    """
    options: dict[str, Any] = {"durability": durability, "create": create, "parts": parts}
    if not read_only:
        return options
    if "read_only" in inspect.signature(connect).parameters:
        return {**options, "read_only": True}
    return {**options, "create": False}


def _shown(url: str) -> str:
    """A url without its password."""
    head, at, tail = url.rpartition("@")
    if not at or "://" not in head:
        return url
    start, _, user = head.partition("://")
    return f"{start}://{user.partition(':')[0]}@{tail}"


def open(
    url: "str | os.PathLike[str] | None" = None,
    *,
    namespace: str = "default",
    durability: Durability = "full",
    codec: Codec | None = None,
    clock: Clock | None = None,
    key_ring: Any = None,
    parts: int | None = None,
    create: bool = True,
    read_only: bool = False,
) -> Store:
    """Open a store, and make it where there is none unless `create` is False (`NotFound`).

    `url`: a path, "sqlite:///rel.db", "sqlite:////abs.db", "memory:", "postgresql://...", or a scheme of an installed
    engine; None: $STATEROOM_URL, else ``stateroom.db`` here. `durability`: "full" survives power loss, "normal" process
    death only. `parts`: only when a database is made. `read_only`: open what is there, which this user may be allowed
    to read only; every change raises `ReadOnly`, and opening makes and changes nothing. Raises `InvalidArgument`,
    `UnsupportedFormat`, `Unavailable`.
    """
    where = urls.resolve(url)
    chosen = _prepare(durability, codec, key_ring, parts)
    keys.namespace(namespace)
    connect = urls.connect(where)
    engine: Any = connect(where, **_options(connect, durability, create, parts, read_only))
    if read_only:
        engine = ReadOnlyEngine(engine)
    try:
        chosen = run_now(fitting_codec(Inline(engine), chosen, writable=not read_only))
        _describe(engine)
    except BaseException:
        engine.close()
        raise
    return Store(engine, _shown(where), namespace=namespace, codec=chosen, clock=clock or SystemClock())


def _describe(engine: object) -> Any:
    """Have an engine that offers views make them; gives what is to be awaited where it is one for event loops."""
    return engine.describe(views.NUMBER, views.views()) if isinstance(engine, Describing) else None


def open_async(
    url: "str | os.PathLike[str] | None" = None,
    *,
    namespace: str = "default",
    durability: Durability = "full",
    codec: Codec | None = None,
    clock: Clock | None = None,
    key_ring: Any = None,
    parts: int | None = None,
    create: bool = True,
    read_only: bool = False,
) -> "Opening":
    """As `open`, for an event loop: ``await`` it for a store that you close, or use ``async with``, which closes it."""
    return Opening(_open_async(url, namespace, durability, codec, clock, key_ring, parts, create, read_only))


class Opening(Coroutine[Any, Any, AsyncStore]):
    """A store that is being opened: a coroutine, and a context manager that closes what it opened."""

    def __init__(self, work: Coroutine[Any, Any, AsyncStore]) -> None:
        self._work = work
        self._store: AsyncStore | None = None

    def __await__(self) -> Generator[Any, Any, AsyncStore]:
        return self._work.__await__()

    def send(self, value: Any) -> Any:
        return self._work.send(value)

    def throw(self, *error: Any) -> Any:
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()

    async def __aenter__(self) -> AsyncStore:
        self._store = await self._work
        return self._store

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            await self._store.close()


async def _open_async(
    url: "str | os.PathLike[str] | None",
    namespace: str,
    durability: str,
    codec: Codec | None,
    clock: Clock | None,
    key_ring: Any,
    parts: int | None,
    create: bool,
    read_only: bool,
) -> AsyncStore:
    where = urls.resolve(url)
    chosen = _prepare(durability, codec, key_ring, parts)
    keys.namespace(namespace)
    native = urls.connect_async(where)
    now = clock or SystemClock()
    if native is not None:
        engine: Any = await native(where, **_options(native, durability, create, parts, read_only))
        if read_only:
            engine = AsyncReadOnlyEngine(engine)
        try:
            chosen = await fitting_codec(engine, chosen, writable=not read_only)
            described = _describe(engine)
            if described is not None:
                await described
        except BaseException:
            await engine.close()
            raise
        return AsyncStore(engine, None, _shown(where), namespace=namespace, codec=chosen, clock=now)
    connect = urls.connect(where)
    blocking: Engine = connect(where, **_options(connect, durability, create, parts, read_only))
    if read_only:
        blocking = ReadOnlyEngine(blocking)
    waiting, direct = bridged(blocking)
    try:
        chosen = await fitting_codec(waiting, chosen, writable=not read_only)
    except BaseException:
        blocking.close()
        raise
    return AsyncStore(waiting, direct, _shown(where), namespace=namespace, codec=chosen, clock=now)
