"""The smallest family: named boxes, each a row with one value of any size. For tests of large values."""

import random
from collections import Counter

from stateroom import codec, keys
from stateroom.core.bridge import Inline, run_now
from stateroom.core.namespace import Scope
from stateroom.core.transaction import transact
from stateroom.database import references
from stateroom.values import objects, streams, uploads, wrapper

ROOT = "r"
HOURS = 2 * 3600
"""Longer than an upload lasts, in seconds."""


def block(seed, size):
    return random.Random(seed).randbytes(size)


def shrink(patch):
    """Sizes at which a few KiB make deep trees and several batches."""
    for module in (wrapper, objects, streams):
        patch.setattr(module, "CHUNK_BYTES", 1024)
    for module in (wrapper, objects):
        patch.setattr(module, "FANOUT", 3)
    for module in (wrapper, streams):
        patch.setattr(module, "INLINE_BYTES", 512)
    patch.setattr(wrapper, "UPLOAD_BYTES", 4096)
    patch.setattr(uploads, "UPLOAD_BYTES", 4096)


class Boxes:
    """Boxes in an engine; all calls block."""

    def __init__(self, engine, clock, using=codec.default, namespace="default"):
        self.scope = Scope(Inline(engine), engine, namespace, using, clock)
        self.engine = engine
        self.part = self.scope.part(ROOT)

    def key(self, name):
        return self.scope.key(b"T", name.encode())

    def put(self, name, data, fail=None):
        async def body(tx):
            await self._replace(tx, name, lambda rows, key: wrapper.keep(rows, key, data, 1))
            if fail is not None:
                raise fail

        run_now(transact(self.scope, body))

    def put_stream(self, name, source):
        streamed = run_now(streams.upload_stream(self.scope, ROOT, source))
        run_now(transact(self.scope, lambda tx: self._replace(tx, name, lambda rows, key: streamed.keep(rows, key, 1))))
        return streamed

    async def _replace(self, tx, name, make):
        key, rows = self.key(name), tx.at(ROOT)
        old = await rows.get(key)
        if make is None:
            rows.delete(key)
        else:
            rows.put(key, await make(rows, key))
        if old is not None:
            await wrapper.drop(rows, old.value)

    def delete(self, name):
        run_now(transact(self.scope, lambda tx: self._replace(tx, name, None)))

    def wrapped(self, name):
        row = run_now(self.scope.reader.at(ROOT).get(self.key(name)))
        return None if row is None else row.value

    def get(self, name):
        wrapped = self.wrapped(name)
        if wrapped is None:
            return None
        return run_now(wrapper.fetch(self.scope.reader.at(ROOT), self.key(name), wrapped))

    def open(self, name):
        return run_now(streams.open_stream(self.scope.reader.at(ROOT), self.key(name), self.wrapped(name)))

    def problems(self):
        start = self.scope.key(b"T")
        rows = self.engine.scan(self.part, start, start + keys.END * 300, limit=1000)
        wanted = Counter(ref for row in rows if (ref := wrapper.reference(row.value)) is not None)
        return run_now(references.audit(self.scope.reader, self.part, wanted, complete=True))

    def expire(self, max_rows=1_000_000):
        return run_now(wrapper.expire_uploads(self.scope, self.scope.clock.now(), max_rows))

    def rows(self, tag):
        start = self.scope.key(tag)
        return self.engine.scan(self.part, start, start + keys.END * 300, limit=100_000)

    @property
    def chunks(self):
        return len(self.rows(keys.CHUNK))
