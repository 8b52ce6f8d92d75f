"""Files of exported records: JSON lines, or Parquet."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from hashlib import sha256
from typing import Any

from .. import arguments
from ..core.namespace import Scope
from ..errors import Damaged, InvalidArgument, NotFound
from .backup import check_path
from .export_items import FAMILIES, FORMAT, Item, items
from .import_items import write_item
from .sql_file import SqlFile

FORMATS = ("jsonl", "parquet", "sqlite")
_ROWS = 1000
_TOLD = 100
_MAGIC = b"PAR1"


Progress = Callable[[int], object]
"""Told now and then how many items are done."""


async def export(
    scope: Scope,
    path: "str | os.PathLike[str]",
    form: str,
    families: Collection[str] | None,
    progress: Progress | None,
) -> int:
    """Write what a namespace holds to a new file; gives how many items. See `Store.export`."""
    form = arguments.choice(form, "format", FORMATS)
    chosen = FAMILIES if families is None else tuple(arguments.choices(families, "families", FAMILIES, "families"))
    ordered = tuple(family for family in FAMILIES if family in chosen)
    where = os.path.abspath(check_path(path))
    if os.path.lexists(where):
        raise InvalidArgument(f"{where} exists; name a file that does not", what="path", value=where)
    folder, name = os.path.split(where)
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{name[:100]}.", suffix=".partial", dir=folder)
    except OSError as error:
        raise InvalidArgument(f"{where} cannot be written: {error.strerror}", what="path", value=where) from error
    os.close(handle)
    try:
        count = await _write(scope, partial, form, ordered, progress)
        os.link(partial, where)  # whole or not at all, and never over somebody's file
    except FileExistsError as error:
        raise InvalidArgument(f"{where} exists; name a file that does not", what="path", value=where) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(partial)
    return count


async def _write(scope: Scope, path: str, form: str, families: tuple[str, ...], progress: Progress | None) -> int:
    make = {"parquet": _ParquetFile, "sqlite": SqlFile, "jsonl": _Lines}[form]
    file: Any = make(path, scope.namespace)
    count, digest = 0, sha256()
    try:
        async for item in items(scope, families):
            file.add(item)
            digest.update(bytes.fromhex(item.digest))
            count += 1
            if progress is not None and count % _TOLD == 0:
                progress(count)
        file.end(count, digest.hexdigest())
    finally:
        file.close()
    return count


class _Lines:
    def __init__(self, path: str, namespace: str) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 - closed by `close`
        self._line({"stateroom": "export", "format": FORMAT, "namespace": namespace})

    def _line(self, value: dict[str, Any]) -> None:
        self._file.write(json.dumps(value).encode() + b"\n")

    def add(self, item: Item) -> None:
        self._file.write(item.to_line() + b"\n")

    def end(self, count: int, digest: str) -> None:
        self._line({"end": True, "items": count, "sha256": digest})
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InvalidArgument(
            "Parquet needs the package pyarrow: pip install 'stateroom[parquet]'", what="format"
        ) from error
    return pyarrow


class _ParquetFile:
    """Columns: family, id, key and record (JSON), revision, created_at, updated_at, data, sha256."""

    def __init__(self, path: str, namespace: str) -> None:
        self._arrow = arrow = _pyarrow()
        moment = arrow.timestamp("us", tz="UTC")
        self._schema = arrow.schema(
            [
                ("family", arrow.string()), ("id", arrow.string()), ("key", arrow.string()), ("record", arrow.string()),
                ("status", arrow.string()), ("revision", arrow.int64()), ("created_at", moment), ("updated_at", moment),
                ("data", arrow.binary()), ("sha256", arrow.string()),
            ],
            metadata={"stateroom": "export", "format": str(FORMAT), "namespace": namespace},
        )  # fmt: skip
        self._writer = arrow.parquet.ParquetWriter(path, self._schema)
        self._rows: list[dict[str, Any]] = []

    def add(self, item: Item) -> None:
        from datetime import datetime

        record = item.record if isinstance(item.record, dict) else {}
        times = {name: record.get(name) for name in ("created_at", "updated_at")}
        self._rows.append(
            {
                "family": item.family, "id": "/".join(map(str, item.key)), "key": json.dumps(item.key),
                "record": json.dumps(item.record), "status": record.get("status", record.get("state")),
                "revision": record.get("revision"), "data": item.data, "sha256": item.digest,
                **{name: None if at is None else datetime.fromisoformat(at) for name, at in times.items()},
            }
        )  # fmt: skip
        if len(self._rows) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
            self._rows.clear()

    def end(self, count: int, digest: str) -> None:
        self._flush()
        self._writer.add_key_value_metadata({"items": str(count), "sha256": digest})

    def close(self) -> None:
        self._writer.close()


async def import_(
    scope: Scope, path: "str | os.PathLike[str]", families: Collection[str] | None, progress: Progress | None
) -> int:
    """Write what a file of `export` holds; gives how many items were not there before. See `Store.import_`."""
    chosen = FAMILIES if families is None else arguments.choices(families, "families", FAMILIES, "families")
    where = check_path(path)
    if not os.path.isfile(where):
        raise NotFound(f"no export at {where}", kind="export", id=where)
    for item in _read(where):  # all of it once before anything is written: a damaged file changes nothing
        if item.family not in FAMILIES:
            raise Damaged(f"the export has a {item.family!r}, which this version does not know", kind="export")
    written = 0
    for count, item in enumerate(_read(where), 1):
        if item.family in chosen:
            written += await write_item(scope, item)
        if progress is not None and count % _TOLD == 0:
            progress(count)
    return written


def _read(path: str) -> Iterator[Item]:
    """The items of a file, whose digests fit. Raises `Damaged`, also for a file that was cut off."""
    with open(path, "rb") as file:
        form = "parquet" if file.read(4) == _MAGIC else "jsonl"
    rows = _parquet_rows(path) if form == "parquet" else _line_rows(path)
    count, digest, ended = 0, sha256(), False
    for row in rows:
        if "end" in row:
            if (row.get("items"), row.get("sha256")) != (count, digest.hexdigest()):
                raise Damaged(f"{path} lacks items, or has others than were exported", kind="export")
            ended = True
            continue
        item = Item.from_row(row)
        digest.update(bytes.fromhex(item.digest))
        count += 1
        yield item
    if not ended:
        raise Damaged(f"{path} ends before its end: export it again", kind="export")


def _line_rows(path: str) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as file:
        try:
            head = json.loads(file.readline())
            if head["stateroom"] != "export" or head["format"] != FORMAT:
                raise ValueError(head)
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{path} is no export of Stateroom that this version reads", kind="export") from error
        for number, line in enumerate(file, 2):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise Damaged(f"line {number} of {path} cannot be read", kind="export") from error
            if not isinstance(row, dict):
                raise Damaged(f"line {number} of {path} is no item", kind="export")
            yield row


def _parquet_rows(path: str) -> Iterator[dict[str, Any]]:
    import base64

    arrow = _pyarrow()
    try:
        file = arrow.parquet.ParquetFile(path)
    except (arrow.ArrowException, OSError) as error:
        raise Damaged(f"{path} is no Parquet file that can be read", kind="export") from error
    with file:
        facts = {
            name.decode(): value.decode()
            for name, value in (file.metadata.metadata or {}).items()
            if name != b"ARROW:schema"
        }
        if facts.get("stateroom") != "export" or facts.get("format") != str(FORMAT):
            raise Damaged(f"{path} is no export of Stateroom that this version reads", kind="export")
        try:
            for batch in file.iter_batches(_ROWS, columns=["family", "key", "data", "sha256"]):
                for row in batch.to_pylist():
                    yield {**row, "key": json.loads(row["key"]), "data": base64.b64encode(row["data"])}
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise Damaged(f"{path} cannot be read: {error}", kind="export") from error
        yield {"end": True, "items": int(facts["items"] or -1), "sha256": facts.get("sha256")}
