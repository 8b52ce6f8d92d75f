"""A source of bytes that is hashed as it is read."""

from collections.abc import Iterable
from inspect import isawaitable
from typing import Any

from .record import Digest


class Observed:
    """Stands for a source; `digest` is that of what was read of it so far."""

    def __init__(self, source: Any) -> None:
        self.digest = Digest()
        self._inner = source
        self.source: Any = source
        if hasattr(source, "read"):
            self.source = self
        elif hasattr(source, "__aiter__"):
            self.source = self._later()
        elif isinstance(source, Iterable) and not isinstance(source, str | bytes | bytearray | memoryview):
            self.source = self._now()

    def read(self, size: int) -> Any:
        block = self._inner.read(size)
        return self._awaited(block) if isawaitable(block) else self._observe(block)

    async def _awaited(self, block: Any) -> Any:
        return self._observe(await block)

    def _observe(self, block: Any) -> Any:
        if isinstance(block, bytes | bytearray | memoryview):
            self.digest.update(block if isinstance(block, bytes) else bytes(block))
        return block

    def _now(self) -> Any:
        for block in self._inner:
            yield self._observe(block)

    async def _later(self) -> Any:
        async for block in self._inner:
            yield self._observe(block)
