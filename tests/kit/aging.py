"""What the tests of retention share: records that end, and engines where something happens in between."""

from datetime import timedelta

from stateroom import Instance, Store, codec

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def instance(id, status="completed", **fields):
    return Instance(id, fields.pop("workflow", "w"), status=status, **fields)


def ids(page):
    return [one.id for one in page]


def blocking(database):
    """A plain client, for what happens inside an engine's calls."""
    options = {"namespace": database.namespace, "clock": database.clock, "codec": codec.default}
    return Store(database.raw(), "memory:", owner=False, **options)


def keys_left(database, *tags):
    """Keys of one namespace, of all parts, with one of some tags."""
    engine, prefix = database.raw(), database.namespace.encode() + b"\0"
    rows = [row for part in range(engine.parts) for row in engine.scan(part, prefix, prefix + b"\xff", limit=100_000)]
    return [row.key[len(prefix) :] for row in rows if row.key[len(prefix) :].startswith(tags)]


class Over:
    """An engine over another; whoever commits does so in its own thread."""

    def __getattr__(self, name):
        if name in ("submit", "read_many", "scan_many"):
            raise AttributeError(name)
        return getattr(self._inner, name)


class Interfering(Over):
    """An engine where somebody else does something just before the first batch that deletes a record commits."""

    def __init__(self, inner, act):
        self._inner = inner
        self._act = act
        self.armed = self.done = False

    def commit(self, part, batch):
        if self.armed and not self.done and None in batch.write.values():
            self.done = True
            self._act()
        return self._inner.commit(part, batch)


class Sizes(Over):
    """An engine that notes how many rows each batch touches."""

    def __init__(self, inner):
        self._inner = inner
        self.sizes = []

    def commit(self, part, batch):
        cleared = [row for start, stop in batch.clear for row in self._inner.scan(part, start, stop, limit=100_000)]
        self.sizes.append(len(batch.write) + len(batch.append) + len(batch.add) + len(cleared))
        return self._inner.commit(part, batch)


class BeforeScan(Over):
    """An engine where something happens just before the first scan."""

    def __init__(self, inner, act):
        self._inner = inner
        self._act = act
        self.armed = self.done = False

    def scan(self, *args, **kwargs):
        if self.armed and not self.done:
            self.done = True
            self._act()
        return self._inner.scan(*args, **kwargs)
