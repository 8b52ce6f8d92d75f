"""A file system in memory that knows what a disk would still hold if the power went now.

Every file has its live bytes, which programs see, and its durable bytes, which are what the last fsync left; the writes
in between are remembered one by one. A name is durable once its folder was flushed, as POSIX has it: stricter than the
usual file systems, which flush a new file's name with the file.

``python powerloss.py FOLDER`` mounts it there through FUSE, prints ``mounted``, and unmounts when its standard input
ends. It is steered by extended attributes of its root:

``user.cut`` = ``SEED:FOLDER``
    Writes what survives a power cut at this moment into FOLDER, elsewhere; nobody on the disk notices. Without SEED
    that is what was flushed and nothing else. With it, a disk that wrote some of the rest by itself and in any order:
    each 512-byte sector, truncation and change of a name since the last flush is there or not, drawn by SEED.
``user.capacity`` = bytes
    How much fits, 0 for no limit. What would not fit is refused with ENOSPC, and nothing of it is written.
"""

import errno
import os
import random
import stat
import subprocess
import sys
import threading
import time
from typing import Any

import mfusepy

SECTOR = 512
"""Bytes that a disk writes together or not at all."""


class Node:
    """A file or folder, whatever its names are."""

    __slots__ = ("durable", "live", "mode", "pending")

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.live = bytearray()
        self.durable = bytearray()
        self.pending: list[tuple[int, bytes | None]] = []
        """Since the last flush, in order: bytes at an offset, or (None) a new length."""

    def change(self, at: int, data: bytes | None) -> None:
        apply(self.live, at, data)
        self.pending.append((at, data))

    def flush(self) -> None:
        for at, data in self.pending:
            apply(self.durable, at, data)
        self.pending.clear()

    def after_cut(self, dice: random.Random | None) -> bytes:
        content = bytearray(self.durable)
        if dice is not None:
            share = dice.choice((0.1, 0.5, 0.9, 1.0))
            for at, data in self.pending:
                for start, part in [(at, None)] if data is None else sectors(at, data):
                    if dice.random() < share:
                        apply(content, start, part)
        return bytes(content)


def apply(content: bytearray, at: int, data: bytes | None) -> None:
    """Write `data` at an offset, with zeros before it where the file ends sooner; None: cut or extend to `at`."""
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    if data is None:
        del content[at:]
    else:
        content[at : at + len(data)] = data


def sectors(at: int, data: bytes) -> list[tuple[int, bytes]]:
    """`data` in pieces that end where sectors do."""
    found = []
    start = 0
    while start < len(data):
        stop = start + SECTOR - (at + start) % SECTOR
        found.append((at + start, data[start:stop]))
        start = stop
    return found


class PowerLoss(mfusepy.Operations):  # type: ignore[misc]  # the library is not typed
    """The operations; FUSE calls them one at a time. Their names and arguments are the library's."""

    use_ns = True

    def __init__(self) -> None:
        self._names = {"/": Node(stat.S_IFDIR | 0o755)}
        self._durable_names = dict(self._names)
        self._open: dict[int, Node] = {}
        self._last = 0
        self._capacity = 0

    def init(self, path: str) -> None:
        print("mounted", flush=True)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        node = self._node(path, fh)
        now = time.time_ns()
        return {
            "st_mode": node.mode,
            "st_nlink": 2 if stat.S_ISDIR(node.mode) else 1,
            "st_size": len(node.live),
            **dict.fromkeys(("st_ctime", "st_mtime", "st_atime"), now),
            "st_uid": os.getuid(),
            "st_gid": os.getgid(),
        }

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *(name.rpartition("/")[2] for name in self._names if inside(path, name))]

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self._names[path] = Node(stat.S_IFREG | (mode & 0o777))
        return self.open(path, 0)

    def open(self, path: str, flags: int) -> int:
        node = self._node(path)
        self._last += 1
        self._open[self._last] = node
        return self._last

    def release(self, path: str, fh: int) -> int:
        self._open.pop(fh, None)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return bytes(self._open[fh].live[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        node = self._open[fh]
        self._reserve(offset + len(data) - len(node.live))
        node.change(offset, bytes(data))
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        node = self._node(path, fh)
        self._reserve(length - len(node.live))
        node.change(length, None)
        return 0

    def unlink(self, path: str) -> int:
        self._node(path)
        del self._names[path]
        return 0

    rmdir = unlink

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        self._node(old)
        self._names[new] = self._names.pop(old)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        self._names[path] = Node(stat.S_IFDIR | mode)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._open[fh].flush()
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        kept = {name: node for name, node in self._durable_names.items() if not inside(path, name)}
        self._durable_names = kept | {name: node for name, node in self._names.items() if inside(path, name)}
        return 0

    def chmod(self, path: str, mode: int) -> int:
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        blocks = {"f_blocks": 1 << 20, "f_bavail": 1 << 19, "f_bfree": 1 << 19}
        return {"f_bsize": 4096, "f_frsize": 4096, "f_namemax": 255, **blocks}

    def setxattr(self, path: str, name: str, value: bytes, options: int, position: int = 0) -> int:
        match name:
            case "user.cut":
                seed, _, target = value.decode().partition(":")
                self._cut(target, random.Random(int(seed)) if seed else None)
            case "user.capacity":
                self._capacity = int(value)
            case _:
                raise mfusepy.FuseOSError(errno.ENOTSUP)
        return 0

    def _node(self, path: str, fh: int | None = None) -> Node:
        node = self._open.get(fh) if fh is not None else None
        node = node or self._names.get(path)
        if node is None:
            raise mfusepy.FuseOSError(errno.ENOENT)
        return node

    def _reserve(self, more: int) -> None:
        used = sum(len(node.live) for node in self._names.values())
        if self._capacity and more > 0 and used + more > self._capacity:
            raise mfusepy.FuseOSError(errno.ENOSPC)

    def _cut(self, target: str, dice: random.Random | None) -> None:
        names = dict(self._durable_names)
        if dice is not None:
            for name in sorted(self._names.keys() ^ names.keys()):
                if dice.random() < 0.5:
                    if name in names:
                        del names[name]
                    else:
                        names[name] = self._names[name]
        for name in sorted(names):
            node = names[name]
            parent = os.path.dirname(name)
            if stat.S_ISDIR(node.mode):
                os.makedirs(target + name, exist_ok=True)
            elif parent in names:
                with open(target + name, "wb") as file:
                    file.write(node.after_cut(dice))


def inside(folder: str, name: str) -> bool:
    """Whether `name` is directly in `folder`."""
    return name != "/" and os.path.dirname(name) == folder


def unmount(folder: str) -> None:
    """Let go of it, whoever still has files open there."""
    subprocess.run(["fusermount3", "-u", "-z", folder], check=False, stderr=subprocess.DEVNULL)


def unmount_at_the_end(folder: str) -> None:
    """Whoever started this has ended when its end of the pipe is closed, even if it was killed."""
    sys.stdin.buffer.read()
    unmount(folder)
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=unmount_at_the_end, args=(sys.argv[1],), daemon=True).start()
    mfusepy.FUSE(PowerLoss(), sys.argv[1], foreground=True, nothreads=True)
