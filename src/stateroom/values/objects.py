"""Content-addressed objects in a part, with reference counts: what large values and savepoints are made of.

An object is a *leaf* (bytes) or a *node* (references to other objects, and bytes of its own). Its reference is a byte
of kind and the 32-byte digest of its content; a content's row is never rewritten, so whoever reads it finds this
content or nothing. The count of references is a row of its own, so that sharing costs 8 bytes and not a chunk.

A node holds one reference on a child for each time it names it. An object whose count falls to 0 goes in the same
batch, and with it what only it referred to; beyond `FREED_OBJECTS` of them a row of `uploads` holds the references
until they are freed bit by bit.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import ormsgpack

from .. import keys
from ..codec import seal, unseal
from ..codec.malformed import parsing
from ..core.namespace import Rows, Scope
from ..core.transaction import Transaction, TransactionRows, transact
from ..engine import read_counter, write_counter
from ..errors import Damaged, UnsupportedFormat

CHUNK_BYTES = 256 << 10
"""Bytes of a leaf of a large value: larger ones gain nothing, smaller ones make more rows to count."""

READ_BYTES = 4 << 20
"""Bytes of leaves that one read asks for: what a reader holds in memory at a time."""

FANOUT = 1024
"""References in one node of a value's tree: 33 KiB for 256 MiB of value."""

FREED_OBJECTS = 1000
"""Objects that one transaction removes at most; each is three keys of its batch."""

LEAF, NODE = b"\x00", b"\x01"
REF_BYTES = 33
_FORMAT = b"\x01"  # before a content; the digest in the key is its checksum
_ASKED = 500  # keys of one read
_MOVED = 12  # objects of one batch between databases: each may have 512 KiB


class Object(NamedTuple):
    """An object to be stored: its reference, its content, and what a node refers to."""

    ref: bytes
    content: bytes
    children: tuple[bytes, ...] = ()


def leaf(scope: Scope, content: bytes) -> Object:
    """Bytes as an object."""
    return Object(LEAF + scope.codec.digest(content), content)


def node(scope: Scope, children: Sequence[bytes], body: bytes = b"") -> Object:
    """References, and bytes that go with them, as an object."""
    content = len(children).to_bytes(4, "big") + b"".join(children) + body
    return Object(NODE + scope.codec.digest(content), content, tuple(children))


def split(content: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """The references and the own bytes in a node's content."""
    end = 4 + REF_BYTES * int.from_bytes(content[:4], "big")
    return split_refs(content[4:end]), content[end:]


def split_refs(joined: bytes) -> tuple[bytes, ...]:
    """References that were joined."""
    return tuple(joined[at : at + REF_BYTES] for at in range(0, len(joined), REF_BYTES))


def content_key(scope: Scope, ref: bytes) -> bytes:
    """Return the key of an object's content."""
    return scope.key(keys.CHUNK, ref)


def count_key(scope: Scope, ref: bytes) -> bytes:
    """Return the key of the count of references to an object."""
    return scope.key(keys.CHUNK_COUNT, ref)


def opened(scope: Scope, ref: bytes, stored: bytes) -> bytes:
    """The content in a row. Raises `Damaged` when it is not what the reference says."""
    key = content_key(scope, ref)
    if stored[:1] != _FORMAT:
        raise UnsupportedFormat(
            f"a chunk of format {stored[:1].hex()}; this version reads {_FORMAT.hex()}",
            found=stored[:1],
            supported=_FORMAT,
        )
    content = scope.codec.reveal(key, stored[1:])
    if not scope.codec.named(ref[1:], content):
        raise Damaged("a chunk is not what its digest says; restore it from a backup", kind="chunk", key=key)
    return content


async def contents(rows: Rows, refs: Sequence[bytes]) -> list[bytes]:
    """The contents of some objects, in their order, verified.

    Raises `Damaged`; with ``missing=True`` where there is none, which a racing removal explains as well as damage.
    """
    scope = rows.scope
    content_keys = [content_key(scope, ref) for ref in refs]
    stored = await rows.peek(content_keys) if content_keys else []
    results = []
    for ref, key, row in zip(refs, content_keys, stored, strict=True):
        if row is None:
            raise Damaged("a chunk is missing; `check` lists what refers to it", kind="chunk", key=key, missing=True)
        results.append(opened(scope, ref, row.value))
    return results


async def count(rows: Rows, ref: bytes) -> int:
    """How often an object is referred to; 0: it is not there. Not remembered."""
    key = count_key(rows.scope, ref)
    (row,) = await rows.peek([key])
    return 0 if row is None else read_counter(unseal(key, row.value))


async def _counts(tx: TransactionRows, refs: Iterable[bytes]) -> dict[bytes, int]:
    """Counts of some objects, which must be the same at commit."""
    scope = tx.scope
    refs_by_key = {count_key(scope, ref): ref for ref in refs}
    count_keys = list(refs_by_key)
    counts: dict[bytes, int] = {}
    for at in range(0, len(count_keys), _ASKED):
        batch = count_keys[at : at + _ASKED]
        for key, row in zip(batch, await tx.peek(batch), strict=True):
            tx.expect(key, row)
            counts[refs_by_key[key]] = 0 if row is None else read_counter(unseal(key, row.value))
    return counts


def _set_count(tx: TransactionRows, ref: bytes, number: int) -> None:
    key = count_key(tx.scope, ref)
    if number > 0:
        tx.put(key, seal(key, write_counter(number)))
    else:
        tx.delete(key)
        tx.delete(content_key(tx.scope, ref))


async def store(tx: TransactionRows, objects: Sequence[Object]) -> None:
    """Hold each object once more for each time it is named, and write those that are not there.

    A new node takes over the references that the caller holds on its children; where it is there already they are
    given up. So children come before their node.
    """
    scope = tx.scope
    counts = await _counts(tx, (item.ref for item in objects))
    surplus: Counter[bytes] = Counter()
    for item in objects:
        if not counts[item.ref]:
            key = content_key(scope, item.ref)
            value = _FORMAT + scope.codec.protect(key, item.content)
            tx.put(key, value)
            tx.chunk_bytes += len(value)
        else:
            surplus.update(item.children)
        counts[item.ref] += 1
    for ref, number in counts.items():
        _set_count(tx, ref, number)
    if surplus:
        await release(tx, surplus)


async def hold(tx: TransactionRows, ref: bytes, number: int) -> None:
    """Add references to an object that is there."""
    counts = await _counts(tx, (ref,))
    _set_count(tx, ref, counts[ref] + number)


async def release(tx: TransactionRows, refs: Mapping[bytes, int]) -> None:
    """Give up references, and remove what nobody refers to any more.

    The caller expects the row that it held them by. So where counts do not fit, either somebody else was faster and
    the commit is refused, or `check` has reported it: there is nothing to say here.
    """
    scope = tx.scope
    pending = Counter(refs)
    while pending:
        if tx.chunks_freed + len(pending) > FREED_OBJECTS:
            leave(tx, pending)
            return
        counts = await _counts(tx, pending)
        nodes = [ref for ref, number in pending.items() if ref[:1] == NODE and 0 < counts[ref] <= number]
        rows = await tx.peek([content_key(scope, ref) for ref in nodes]) if nodes else []
        below: Counter[bytes] = Counter()
        for ref, row in zip(nodes, rows, strict=True):
            if row is not None:
                below.update(split(opened(scope, ref, row.value))[0])
        for ref, number in pending.items():
            if counts[ref]:
                _set_count(tx, ref, counts[ref] - number)
                tx.chunks_freed += counts[ref] <= number
        pending = below


def upload_key(scope: Scope, id: bytes) -> bytes:
    """Return where an upload, or what is left of a removal, holds its references."""
    return scope.key(keys.UPLOAD, id)


def write_upload(tx: TransactionRows, id: bytes, expires: int, refs: Iterable[bytes]) -> None:
    """Hold references by a row: until `expires` (microseconds); 0: it is only there to be freed."""
    key = upload_key(tx.scope, id)
    tx.put(key, seal(key, ormsgpack.packb([expires, tx.root, b"".join(refs)])))


_UPLOAD = msgspec.msgpack.Decoder(tuple[int, str, bytes])


def read_upload(key: bytes, stored: bytes) -> tuple[int, str, tuple[bytes, ...]]:
    """When an upload ends, its root, and the references it holds. Raises `Damaged`."""
    with parsing("an upload", key=key):
        expires, root, joined = _UPLOAD.decode(unseal(key, stored))
        return expires, root, split_refs(joined)


def leave(tx: TransactionRows, refs: "Counter[bytes]") -> None:
    """Leave references to be freed later: too many for one batch."""
    remaining = list(refs.elements())
    for at in range(0, len(remaining), FANOUT):
        write_upload(tx, os.urandom(16), 0, remaining[at : at + FANOUT])


async def transplant(rows: Rows, target: Scope, refs: Mapping[bytes, int]) -> None:
    """Bring objects into another database as they are stored, with all they refer to, and hold each there."""
    theirs = target.reader.at(rows.root)
    ordered = list(refs)
    for at in range(0, len(ordered), _MOVED):
        group = ordered[at : at + _MOVED]
        counts = await theirs.peek([count_key(target, ref) for ref in group])
        new = [ref for ref, row in zip(group, counts, strict=True) if row is None]
        stored = await rows.peek([content_key(rows.scope, ref) for ref in new])
        values: dict[bytes, bytes] = {}
        for ref, row in zip(new, stored, strict=True):
            if row is None:
                raise Damaged(
                    "a chunk is missing; `check` lists what refers to it", kind="chunk", key=ref, missing=True
                )
            content = opened(rows.scope, ref, row.value)
            values[ref] = row.value
            if ref[:1] == NODE:
                await transplant(rows, target, Counter(split(content)[0]))

        async def body(
            transaction: Transaction, group: list[bytes] = group, values: Mapping[bytes, bytes] = values
        ) -> None:
            tx = transaction.at(rows.root)
            for ref, number in (await _counts(tx, group)).items():
                if not number:
                    tx.put(content_key(target, ref), values[ref])
                _set_count(tx, ref, number + refs[ref])

        await transact(target, body)
