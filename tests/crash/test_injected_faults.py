"""Every call that SQLite makes to the disk fails once, or from there on: nothing acknowledged is lost, nothing refused is there.

The faults come from a VFS between SQLite and the system, so that every call has a number: the same run, with another
number each time, meets all of them. After the fault the engine goes on, or says why it does not; the files as they are at
that moment, and at the end, are opened by a fresh engine.
"""

import contextlib
import itertools
import secrets
import shutil
from pathlib import Path

import apsw
import pytest

from stateroom.engine import Batch, read_counter
from stateroom.engines.sqlite import Connections, SqliteEngine, opening, prepare
from stateroom.errors import Closed, Damaged, OutcomeUnknown, StoreError, Unavailable

FAULTS = {
    "write": ("xWrite", apsw.SQLITE_IOERR_WRITE),
    "full": ("xWrite", apsw.SQLITE_FULL),
    "short": ("xWrite", apsw.SQLITE_IOERR_WRITE),
    "sync": ("xSync", apsw.SQLITE_IOERR_FSYNC),
    "truncate": ("xTruncate", apsw.SQLITE_IOERR_TRUNCATE),
    "read": ("xRead", apsw.SQLITE_IOERR_READ),
    "open": ("xOpen", apsw.SQLITE_CANTOPEN),
}
"""Which call fails, and how; "short" writes a half before it fails."""


class Plan:
    """Which call is to fail."""

    def __init__(self, fault, number, once, at_fault):
        self.call, self.code = FAULTS[fault]
        self.short = fault == "short"
        self.number, self.once, self.at_fault = number, once, at_fault
        self.count = 0
        self.armed = False
        self.hit = False

    def fails(self, call):
        """Raise, if it is this one's turn."""
        if not self.armed or call != self.call:
            return False
        self.count += 1
        if self.count == self.number or (self.count > self.number and not self.once):
            if not self.hit:
                self.hit = True
                self.at_fault()
            return True
        return False


class File(apsw.VFSFile):
    def __init__(self, plan, name, flags):
        self.plan = plan
        super().__init__(opening._checksums(), name, flags)

    def excepthook(self, *_):
        """Say nothing: SQLite hears of it."""

    def _check(self, call):
        if self.plan.fails(call):
            raise apsw.exception_for(self.plan.code)

    def xWrite(self, data, offset):
        if self.plan.fails("xWrite"):
            if self.plan.short:
                super().xWrite(data[: len(data) // 2], offset)
            raise apsw.exception_for(self.plan.code)
        super().xWrite(data, offset)

    def xSync(self, flags):
        self._check("xSync")
        super().xSync(flags)

    def xTruncate(self, size):
        self._check("xTruncate")
        super().xTruncate(size)

    def xRead(self, amount, offset):
        self._check("xRead")
        return super().xRead(amount, offset)


class Disk(apsw.VFS):
    def __init__(self, name, plan):
        self.plan = plan
        super().__init__(name, opening._checksums())

    def excepthook(self, *_):
        """Say nothing: SQLite hears of it."""

    def xOpen(self, name, flags):
        if self.plan.fails("xOpen"):
            raise apsw.exception_for(self.plan.code)
        return File(self.plan, name, flags)


NAMES = itertools.count()


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """A checkpoint that fails says so, hundreds of times."""
    caplog.set_level("CRITICAL", logger="stateroom.sqlite")


def opened(path, vfs=""):
    options = {"create": True, "parts": None, "patience": 1.0, "vfs": vfs, "mounts": list}
    parts = prepare(path, **options)
    return SqliteEngine(Connections(path, durability="full", patience=1.0, vfs=vfs), parts)


class Book:
    """What was acknowledged, what was refused, and what may be either."""

    def __init__(self):
        self.acknowledged, self.refused, self.unknown = set(), set(), set()

    def commit(self, engine, number):
        key = b"k%04d" % number
        batch = Batch(write={key: bytes(3000)}, add={b"n": 1}, append=[(b"log", key)])
        try:
            engine.commit(0, batch)
        except (Unavailable, Damaged, Closed):
            self.refused.add(key)
        except OutcomeUnknown:
            self.unknown.add(key)
        else:
            self.acknowledged.add(key)

    def check(self, path):
        """Open the files as they are: what was acknowledged is there, what was refused is not, and all of it whole."""
        engine = opened(str(path))
        keys = {row.key for row in engine.scan(0, b"k", b"l", limit=10_000)}
        assert self.acknowledged <= keys <= self.acknowledged | self.unknown
        row = engine.read(0, [b"n"])[0]
        assert read_counter(row and row.value) == len(keys)
        assert len(engine.scan(0, b"log", b"log\xff", limit=10_000)) == len(keys)
        assert engine.verify() == []
        engine.close()


def meet(folder, fault, number, once):
    """One run with one fault; False where the run made fewer calls of the kind."""
    path, image, book, disks = folder / "a.db", folder / "image", Book(), []
    name = f"faults{next(NAMES)}"

    def at_fault():
        image.mkdir()
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", image / f"a.db{suffix}")
        disks.append(set(book.acknowledged))

    plan = Plan(fault, number, once, at_fault)
    disk = Disk(name, plan)
    engine = opened(str(path), name)
    plan.armed = True
    for step in range(12):
        book.commit(engine, step)
        with contextlib.suppress(StoreError):
            engine.read(0, [b"n", b"k0001"])
        if step % 5 == 4:
            engine._checkpoints.run()
        if step == 6:
            with contextlib.suppress(StoreError):
                engine.backup(str(folder / "copy.db"))
    plan.armed = False
    closed = False
    for step in range(12, 15):  # the disk is sound again
        before = len(book.acknowledged)
        book.commit(engine, step)
        closed = closed or len(book.acknowledged) == before
    if fault not in ("sync",):
        assert not closed, "only a failed flush closes an engine"
    engine.close()
    disk.unregister()
    book.check(path)
    if plan.hit:
        early = Book()
        early.acknowledged, early.unknown = disks[0], book.acknowledged | book.refused | book.unknown
        early.check(image / "a.db")
    return plan.hit


@pytest.mark.parametrize("once", [True, False], ids=["once", "from there on"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_that_fails(tmp_path, fault, once):
    """Another one at each run; `make torture` meets all."""
    number = 1 + secrets.randbelow(10)
    while number and not meet_in(tmp_path, fault, number, once):
        number //= 2
    assert number, "no call was met"


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("once", [True, False], ids=["once", "from there on"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_call_that_fails(tmp_path, fault, once):
    number = 1
    while meet_in(tmp_path, fault, number, once):
        number += 1
    assert number > 1
    print(f"{fault}, {'once' if once else 'from there on'}: {number - 1} faults")


def meet_in(tmp_path, fault, number, once):
    folder = Path(tmp_path) / f"{number}"
    folder.mkdir()
    try:
        return meet(folder, fault, number, once)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
