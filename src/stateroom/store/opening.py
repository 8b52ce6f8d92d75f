"""The two front doors: `Store` blocks, `AsyncStore` is awaited; both do the same on any engine."""

import os
from typing import Any

from .. import arguments, keys
from ..clock import Clock, SystemClock
from ..codec import Codec
from ..codec import default as default_codec
from ..core.bridge import bridged
from ..database import views
from ..engine import Describing, Engine
from ..engines import urls
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
    return chosen if key_ring is None else chosen.with_key_ring(key_ring)


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
    durability: str = "full",
    codec: Codec | None = None,
    clock: Clock | None = None,
    key_ring: Any = None,
    parts: int | None = None,
    create: bool = True,
) -> Store:
    """Open a store, and make it where there is none unless `create` is False (`NotFound`).

    `url`: a path, "sqlite:///rel.db", "sqlite:////abs.db", "memory:", "postgresql://...", or a scheme of an installed
    engine; None: $STATEROOM_URL, else ``stateroom.db`` here. `durability`: "full" survives power loss, "normal" process
    death only. `parts`: only when a database is made. Raises `InvalidArgument`, `UnsupportedFormat`, `Unavailable`.
    """
    where = urls.resolve(url)
    chosen = _prepare(durability, codec, key_ring, parts)
    keys.namespace(namespace)
    engine = urls.connect(where)(where, durability=durability, create=create, parts=parts)
    if isinstance(engine, Describing):
        engine.describe(views.NUMBER, views.views())
    return Store(engine, _shown(where), namespace=namespace, codec=chosen, clock=clock or SystemClock())


async def open_async(
    url: "str | os.PathLike[str] | None" = None,
    *,
    namespace: str = "default",
    durability: str = "full",
    codec: Codec | None = None,
    clock: Clock | None = None,
    key_ring: Any = None,
    parts: int | None = None,
    create: bool = True,
) -> AsyncStore:
    """As `open`, for an event loop."""
    where = urls.resolve(url)
    chosen = _prepare(durability, codec, key_ring, parts)
    keys.namespace(namespace)
    options: dict[str, Any] = {"durability": durability, "create": create, "parts": parts}
    native = urls.connect_async(where)
    now = clock or SystemClock()
    if native is not None:
        engine: Any = await native(where, **options)
        if isinstance(engine, Describing):
            await engine.describe(views.NUMBER, views.views())
        return AsyncStore(engine, None, _shown(where), namespace=namespace, codec=chosen, clock=now)
    blocking: Engine = urls.connect(where)(where, **options)
    return AsyncStore(*bridged(blocking), _shown(where), namespace=namespace, codec=chosen, clock=now)
