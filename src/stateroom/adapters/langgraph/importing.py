"""Taking over a database of LangGraph's own savers: read through them, stored here, and compared tuple by tuple."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
from langgraph.checkpoint.base import CheckpointTuple

from ...errors import AlreadyExists, Damaged, InvalidArgument, NotFound, Unavailable
from ..faces import Face
from .names import Place, config_of
from .threads import Operations


class Imported(msgspec.Struct, frozen=True):
    """How much was taken over, and compared."""

    threads: int
    checkpoints: int
    writes: int


async def import_from(face: Face, operations: Operations, url: str) -> Imported:
    """Take over what is at `url`; see `StateroomSaver.import_from`."""
    with ExitStack() as stack:
        source = _open(stack, url)
        source.saver.serde = operations.serde
        threads: set[str] = set()
        checkpoints = writes = 0
        for item in source.tuples():
            place = Place(item.config)
            indexed = source.writes_of(place)
            await _take(face, operations, item, indexed)
            threads.add(place.thread)
            checkpoints += 1
            writes += len(indexed)
        for item in source.tuples():
            await _compare(face, operations, item)
    return Imported(len(threads), checkpoints, writes)


def _open(stack: ExitStack, url: str) -> "_Source":
    """LangGraph's saver for a url, behind what the two have in common."""
    if url.startswith(("postgresql://", "postgres://")):
        try:
            from langgraph.checkpoint.postgres import PostgresSaver
        except ImportError as error:
            raise _lacking("postgres") from error
        try:
            saver = stack.enter_context(PostgresSaver.from_conn_string(url))
        except Exception as error:
            raise Unavailable(f"cannot read {url.rpartition('@')[2]}: {error}") from error
        return _Postgres(saver, url)
    path = url.removeprefix("sqlite:///")
    if not os.path.isfile(path):
        raise NotFound(f"no LangGraph database at {path}", kind="langgraph", id=path)
    try:
        from langgraph.checkpoint.sqlite import SqliteSaver
    except ImportError as error:
        raise _lacking("sqlite") from error
    return _Sqlite(stack.enter_context(SqliteSaver.from_conn_string(path)), path)


def _lacking(what: str) -> InvalidArgument:
    return InvalidArgument(
        f"reading this database needs LangGraph's own saver: pip install langgraph-checkpoint-{what}", what="url"
    )


class _Source:
    """A saver of LangGraph's, read and never written."""

    writes = "checkpoint_writes"
    value = "blob"

    def __init__(self, saver: Any, url: str) -> None:
        self.saver = saver
        if not self.columns("checkpoints"):
            raise InvalidArgument(f"{url} has no checkpoints of LangGraph's saver", what="url", value=url)

    def rows(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        """Return what a statement gives; values stand for question marks."""
        cursor = self.saver.conn.execute(statement.replace("?", "%s"), values)
        return [tuple(row.values()) for row in cursor.fetchall()]

    def columns(self, table: str) -> set[str]:
        """The columns of a table; none where there is no such table."""
        statement = "SELECT column_name FROM information_schema.columns WHERE table_name = ?"
        return {name for (name,) in self.rows(statement, table)}

    def tuples(self) -> Iterator[CheckpointTuple]:
        """Every tuple, the oldest of each namespace first."""
        statement = "SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints ORDER BY 1, 2, 3"
        for thread, namespace, id in self.rows(statement):
            item = self.saver.get_tuple(config_of(thread, namespace, id))
            if item is not None:
                yield item

    def writes_of(self, place: Place) -> list[tuple[str, str, int, str, Any]]:
        """Writes of a checkpoint with what a tuple leaves out: their paths and indexes."""
        assert place.id is not None
        path = "task_path" if "task_path" in self.columns(self.writes) else "''"
        rows = self.rows(
            f"SELECT {path}, task_id, idx, channel, type, {self.value} FROM {self.writes}"
            " WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ? ORDER BY 1, 2, 3",
            *(place.thread, place.namespace, place.id),
        )
        load = self.saver.serde.loads_typed
        return [(path or "", task, at, channel, load((type, data))) for path, task, at, channel, type, data in rows]


class _Postgres(_Source):
    pass


class _Sqlite(_Source):
    writes = "writes"
    value = "value"

    def __init__(self, saver: Any, url: str) -> None:
        super().__init__(saver, url)
        saver.is_setup = True  # its set-up would change the source
        saver._has_task_path = "task_path" in self.columns(self.writes)

    def rows(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        return self.saver.conn.execute(statement, values).fetchall()

    def columns(self, table: str) -> set[str]:
        try:
            return {row[1] for row in self.rows(f"PRAGMA table_info({table})")}
        except self.saver.conn.DatabaseError:
            return set()


async def _take(
    face: Face, operations: Operations, item: CheckpointTuple, writes: list[tuple[str, str, int, str, Any]]
) -> None:
    place = Place(item.config)
    if await operations.get_tuple(face, place) is not None:
        await _compare(face, operations, item)
        return
    for path, task, index, channel, value in writes:
        await operations.put_indexed(face, place, [(index, channel, value)], task, path)
    parent = None if item.parent_config is None else Place(item.parent_config).id
    before = Place(config_of(place.thread, place.namespace, ""))
    before.id, before.forks = parent, True
    await operations.put(face, before, item.checkpoint, item.metadata, item.checkpoint["channel_versions"])


async def _compare(face: Face, operations: Operations, item: CheckpointTuple) -> None:
    """Raise where a tuple is not here as it is there."""
    place = Place(item.config)
    stored = await operations.get_tuple(face, place)
    if stored is None:
        raise Damaged(f"checkpoint {place.id} of thread {place.thread!r} did not arrive", kind="langgraph", id=place.id)
    for what, expected, now in (
        ("checkpoint", item.checkpoint, stored.checkpoint),
        ("metadata", item.metadata, stored.metadata),
        ("parent", item.parent_config, stored.parent_config),
        (
            "writes",
            [list(write) for write in item.pending_writes or []],
            [list(w) for w in stored.pending_writes or []],
        ),
    ):
        if expected != now:
            raise AlreadyExists(
                f"checkpoint {place.id} of thread {place.thread!r} is here with another {what}",
                kind="langgraph",
                id=place.id,
            )
