"""The memory engine for an event loop, to try the asynchronous suite and what stands on such engines."""

import asyncio

from stateroom.engines.memory import MemoryEngine


class AsyncMemory:
    def __init__(self, parts=1):
        self._engine = MemoryEngine(parts)
        self.parts = parts

    async def read(self, part, keys, /):
        return self._engine.read(part, keys)

    async def scan(self, part, start, stop, /, *, limit, reverse=False):
        return self._engine.scan(part, start, stop, limit=limit, reverse=reverse)

    async def commit(self, part, batch, /):
        return self._engine.commit(part, batch)

    async def wait(self, part, version, timeout, /):
        # In short turns, so that a cancelled one leaves no thread behind for as long as it was asked to wait.
        while True:
            turn = min(max(timeout, 0), 0.02)
            await asyncio.to_thread(self._engine.wait, part, version, turn)
            timeout -= turn
            held = range(self.parts) if part is None else [part]
            if timeout <= 0 or sum(self._engine.read(each, [b""])[0].version for each in held) > version:
                return

    async def close(self):
        self._engine.close()
