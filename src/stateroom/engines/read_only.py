"""Engines over engines that are only to be read: every batch that would change something is refused."""

from collections.abc import Sequence
from typing import Any

from ..engine import AsyncEngine, Batch, Row
from ..errors import Conflict, ReadOnly
from .wrap import Done, Wrapper

__all__ = ["AsyncReadOnlyEngine", "ReadOnlyEngine"]


def refusal() -> ReadOnly:
    return ReadOnly("this store was opened with read_only=True; open it without to change something")


def _changes(batch: Batch) -> bool:
    return bool(batch.write or batch.add or batch.append or batch.clear)


def _checked(batch: Batch, rows: Sequence[Row | None]) -> int:
    """The part's version, where a batch that changes nothing finds what it expects. Raises `Conflict`."""
    versions = [0 if row is None else row.version for row in rows]
    for (key, expected), actual in zip(batch.expect.items(), versions, strict=False):
        if actual != expected:
            raise Conflict("what was read has changed; read it again", key=key, expected=expected, actual=actual)
    return versions[-1]


class ReadOnlyEngine(Wrapper):
    """A blocking engine that refuses to change anything. What makes copies or examines is handed through."""

    read_only = True

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        for name in ("describe", "compact", "submit"):
            self.__dict__.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        if name in ("describe", "compact"):
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        return super().__getattr__(name)

    def commit(self, part: int, batch: Batch, /) -> int:
        if _changes(batch):
            raise refusal()
        return _checked(batch, self.engine.read(part, [*batch.expect, b""]))

    def _submit(self, part: int, batch: Batch, done: Done, /) -> None:
        done(refusal())


class AsyncReadOnlyEngine:
    """The same over an asynchronous one."""

    read_only = True

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        """The engine underneath."""
        self.parts = engine.parts
        for name in ("distant", "read_many", "scan_many", "passed", "snapshot", "size", "about"):
            if hasattr(engine, name):
                setattr(self, name, getattr(engine, name))

    async def read(self, part: int, keys: Sequence[bytes], /) -> list[Row | None]:
        return await self.engine.read(part, keys)

    async def scan(
        self, part: int | None, start: bytes, stop: bytes, /, *, limit: int, reverse: bool = False
    ) -> list[Row]:
        return await self.engine.scan(part, start, stop, limit=limit, reverse=reverse)

    async def commit(self, part: int, batch: Batch, /) -> int:
        if _changes(batch):
            raise refusal()
        return _checked(batch, await self.engine.read(part, [*batch.expect, b""]))

    async def wait(self, part: int | None, version: int, timeout: float, /) -> None:
        await self.engine.wait(part, version, timeout)

    async def close(self) -> None:
        await self.engine.close()
