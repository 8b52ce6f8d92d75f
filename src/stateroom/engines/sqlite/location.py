"""The place of a database: the url in each of its forms, and whether that disk can be trusted with locks."""

import os
import re
import subprocess
import sys
from collections.abc import Callable

from ...errors import InvalidArgument

__all__ = ["Mounts", "checks_pages", "local_path", "mounts", "refuse_network"]

Mounts = Callable[[], list[tuple[str, str]]]

# fmt: off
_NETWORK = frozenset(
    [
        "9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs",
        "nfs", "nfs3", "nfs4", "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "webdav", "fuse.ceph",
        "fuse.davfs", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
    ]
)
# fmt: on


_SECRET = re.compile(r"(:)[^:/@]*@")
"""A password in a url that was meant for something else."""

_UNCHECKED = "?page_checksums=ignore"


def checks_pages(url: str) -> bool:
    """Say whether the checksums of pages are looked at: False for ``sqlite:///runs.db?page_checksums=ignore``."""
    return not (url.startswith("sqlite:///") and url.endswith(_UNCHECKED))


def local_path(url: str) -> str:
    """The absolute path, links resolved, of ``runs.db``, ``sqlite:///rel.db`` or ``sqlite:////abs.db``.

    Two urls of one file give one path. Raises `InvalidArgument` for anything else.
    """
    path = url
    if url.startswith("sqlite:"):
        if not url.startswith("sqlite:///"):
            raise _bad(url, "write sqlite:///relative.db or sqlite:////absolute/path.db")
        path = url.removeprefix("sqlite:///").removesuffix(_UNCHECKED)
        if "?" in path or "#" in path:
            raise _bad(url, f"a SQLite url takes no option but {_UNCHECKED}")
    elif "://" in url:
        raise _bad(url, "this is not a SQLite url")
    if not path or "\0" in path:
        raise _bad(url, "it names no file")
    if path == ":memory:":
        raise _bad(url, "for a store in memory open 'memory:'")
    return os.path.realpath(path)


def refuse_network(path: str, mounts: Mounts) -> None:
    """Raise `InvalidArgument` when `path` is on a network file system.

    The write-ahead log is shared through memory, which two machines do not have in common, and file locks over a
    network have lost data often enough.
    """
    best, kind = "", ""
    for point, filesystem in mounts():
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, filesystem
    if kind in _NETWORK:
        raise InvalidArgument(
            f"{path} is on a network file system ({kind} at {best}), where SQLite's locks cannot be trusted; "
            "use a local disk, or PostgreSQL for several machines",
            what="url",
            value=path,
        )


def mounts() -> list[tuple[str, str]]:
    """(mount point, type) of every mounted file system; empty where the system does not tell."""
    if sys.platform == "darwin":
        return _mount_command()
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            return [_mountinfo(line) for line in lines]
    except FileNotFoundError:
        return []


def _mountinfo(line: str) -> tuple[str, str]:
    before, _, after = line.partition(" - ")
    point = before.split(" ")[4]
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(code, char)
    return point, after.split(" ", 1)[0]


def _mount_command() -> list[tuple[str, str]]:
    lines = subprocess.run(["/sbin/mount"], capture_output=True, text=True, check=False).stdout.splitlines()
    mounts = []
    for line in lines:
        point, _, options = line.partition(" on ")[2].rpartition(" (")
        mounts.append((point, options.split(",")[0].rstrip(")")))
    return mounts


def _bad(url: str, why: str) -> InvalidArgument:
    public_url = _SECRET.sub(r"\1...@", url)
    return InvalidArgument(f"cannot open {public_url!r}: {why}", what="url", value=public_url)
