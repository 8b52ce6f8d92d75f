"""The count of references to every chunk, compared with what refers to it: for `check`."""

from collections import Counter
from collections.abc import AsyncIterator

from .. import keys
from ..clock import to_micros
from ..codec import unseal
from ..core.namespace import Reader
from ..engine import Row, read_counter
from ..errors import Damaged
from ..records.audit import Problem
from ..records.kind import wrapper_in
from ..values import objects, wrapper
from .breathing import breathe

_CONTENTS = 16  # read in one scan: each may have 512 KiB
_COUNTS = 1000


async def audit(reader: Reader, part: int, expected: Counter[bytes], complete: bool) -> list[Problem]:
    """Compare counts with what refers to chunks: `expected` by records and changes, other rows, uploads, and nodes.

    `complete`: all that refers was readable; otherwise a count that is too high proves nothing.
    """
    problems: list[Problem] = []
    complete = await _add_holders(reader, part, expected) and complete
    await _add_uploads(reader, part, expected, problems)
    present = await _add_nodes(reader, part, expected, problems)
    prefix = reader.scope.key(keys.CHUNK_COUNT)
    counts: dict[bytes, int] = {}
    async for row in _rows(reader, part, prefix, _COUNTS):
        try:
            counts[row.key[len(prefix) :]] = read_counter(unseal(row.key, row.value))
        except Damaged as error:
            problems.append(_problem("damaged", row.key[len(prefix) :], f"its count: {error.message}", part))
            return problems
    complete = complete and not any(problem.code == "damaged" for problem in problems)
    for ref in expected.keys() | present | counts.keys():
        count, references = counts.get(ref, 0), expected[ref]
        if ref not in present and (references or count):
            problems.append(_problem("chunk-missing", ref, f"is not there, and {references} refer to it", part))
        elif count < references or (complete and count > references > 0):
            problems.append(_problem("chunk-count", ref, f"counts {count} references; there are {references}", part))
        elif complete and not references:
            problems.append(_problem("chunk-leaked", ref, f"is referred to by nothing; its count is {count}", part))
    return problems


def _problem(code: str, ref: bytes, text: str, part: int) -> Problem:
    return Problem(code, f"chunk {ref.hex()} {text}", "chunks", ref.hex(), part)


async def _add_holders(reader: Reader, part: int, expected: Counter[bytes]) -> bool:
    """Say whether all of them could be read; those that could not their families report."""
    readable = True
    for tag in (tag for tag, kind in keys.ROWS.items() if kind.value_at is not None):
        async for row in _rows(reader, part, reader.scope.key(tag), _COUNTS):
            try:
                ref = wrapper.reference(wrapper_in(reader.scope, row) or b"")
            except Damaged:
                readable = False
            else:
                expected.update(() if ref is None else (ref,))
    return readable


async def _add_uploads(reader: Reader, part: int, expected: Counter[bytes], problems: list[Problem]) -> None:
    now = to_micros(reader.scope.clock.now())
    prefix = reader.scope.key(keys.UPLOAD)
    async for row in _rows(reader, part, prefix, _CONTENTS):
        id = row.key[len(prefix) :].hex()
        try:
            expires, _, refs = objects.read_upload(row.key, row.value)
        except Damaged as error:
            problems.append(Problem("damaged", f"upload {id}: {error.message}", "chunks", id, part))
            continue
        expected.update(refs)
        if 0 < expires <= now:
            message = f"upload {id} has ended and holds {len(refs)} chunks; retention frees them"
            problems.append(Problem("upload-expired", message, "chunks", id, part))


async def _add_nodes(reader: Reader, part: int, expected: Counter[bytes], problems: list[Problem]) -> set[bytes]:
    """Every content's reference; what is refused as damaged is there as well."""
    present: set[bytes] = set()
    prefix = reader.scope.key(keys.CHUNK)
    async for row in _rows(reader, part, prefix, _CONTENTS):
        ref = row.key[len(prefix) :]
        present.add(ref)
        try:
            content = objects.opened(reader.scope, ref, row.value)
            if ref[:1] == objects.NODE:
                expected.update(objects.split(content)[0])
        except Damaged as error:
            problems.append(_problem("damaged", ref, error.message, part))
    return present


async def _rows(reader: Reader, part: int, prefix: bytes, size: int) -> AsyncIterator[Row]:
    start, stop = prefix, prefix + keys.END * 40  # behind every tail: digests are any bytes
    while True:
        rows = await reader.in_part(part).scan(start, stop, limit=size)
        for row in rows:
            yield row
        await breathe(reader.scope)
        if len(rows) < size:
            return
        start = rows[-1].key + b"\0"
