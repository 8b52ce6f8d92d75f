"""Tasks of the Agent2Agent protocol."""

from collections.abc import Callable
from typing import Any, Self

from a2a.server.context import ServerCallContext
from a2a.server.owner_resolver import resolve_user_scope
from a2a.server.tasks.task_store import TaskStore
from a2a.types import ListTasksRequest, ListTasksResponse, Task, TaskState
from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE
from a2a.utils.errors import InvalidParamsError
from a2a.utils.task import ListTasksCursor, decode_list_tasks_cursor, encode_list_tasks_cursor

from stateroom import Snapshot

from .faces import Access, Face
from .listing import every_snapshot
from .names import stored_key
from .snapshots import StoreLike

TASK = "task"


class StateroomTaskStore(TaskStore):
    """The SDK's `TaskStore` over a url, a `Store` or an `AsyncStore`.

    A task is a result, and a snapshot of the machine `a2a:OWNER` whose state is the task's; both are written in one
    commit, and the machine's history is the task's. `owner_resolver` says whose task it is; owners see their own alone.
    """

    def __init__(
        self,
        store: StoreLike = None,
        *,
        owner_resolver: Callable[[ServerCallContext], str] = resolve_user_scope,
        **options: Any,
    ) -> None:
        self._access = Access(store, **options)
        self._owner = owner_resolver

    async def save(self, task: Task, context: ServerCallContext) -> None:
        """Store a task, in place of one of the same id."""
        owner, name = stored_key(self._owner(context), 120), _name(task.id)
        payload = {"id": task.id, "context": task.context_id, "nanoseconds": _nanoseconds(task)}
        state, data = TaskState.Name(task.status.state), task.SerializeToString()

        async def work(face: Face) -> None:
            async def body(tx: Any) -> None:
                await face.done(tx.results.put(f"{name}/{owner}", TASK, data))
                await face.done(tx.machines.save(f"a2a:{owner}", name, state, payload))

            await face.transact(body)

        await self._access.arun(work)

    async def get(self, task_id: str, context: ServerCallContext) -> Task | None:
        """Return a task, or None."""
        owner = stored_key(self._owner(context), 120)
        return await self._access.arun(lambda face: _find(face, f"{_name(task_id)}/{owner}"))

    async def list(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """Return a page of the owner's tasks, those with the newest status first.

        A page token that was not given out here raises `InvalidParamsError`.
        """
        owner = stored_key(self._owner(context), 120)
        size = params.page_size or DEFAULT_LIST_TASKS_PAGE_SIZE
        after = None
        if params.page_token:
            cursor = decode_list_tasks_cursor(params.page_token)
            if cursor is None:
                raise InvalidParamsError(f"Invalid page token: {params.page_token}")
            after = cursor.sort_key()

        async def work(face: Face) -> ListTasksResponse:
            state = TaskState.Name(params.status) if params.status else None
            rows = [row for row in await every_snapshot(face, f"a2a:{owner}", state) if _is_meant(row, params)]
            rows.sort(key=_sort_key, reverse=True)
            later = rows if after is None else [row for row in rows if _sort_key(row) < after]
            page = later[:size]
            tasks = [await _find(face, f"{row.name}/{owner}") for row in page]
            token = encode_list_tasks_cursor(_cursor(page[-1])) if len(later) > size else None
            return ListTasksResponse(
                tasks=[task for task in tasks if task is not None],
                next_page_token=token,
                total_size=len(rows),
                page_size=size,
            )

        return await self._access.arun(work)

    async def delete(self, task_id: str, context: ServerCallContext) -> None:
        """Remove a task; nothing is left of it."""
        owner, name = stored_key(self._owner(context), 120), _name(task_id)

        async def work(face: Face) -> None:
            async def body(tx: Any) -> None:
                await face.done(tx.results.clear(f"{name}/{owner}"))
                await face.done(tx.machines.purge(f"a2a:{owner}", name))

            await face.transact(body)

        await self._access.arun(work)

    def close(self) -> None:
        """Close what was opened here."""
        self._access.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _name(task_id: str) -> str:
    return "task:" + stored_key(task_id, 120)


def _nanoseconds(task: Task) -> int | None:
    if task.HasField("status") and task.status.HasField("timestamp"):
        return int(task.status.timestamp.ToNanoseconds())
    return None


def _cursor(row: Snapshot) -> ListTasksCursor:
    return ListTasksCursor(timestamp_ns=row.payload["nanoseconds"], task_id=row.payload["id"])


def _sort_key(row: Snapshot) -> tuple[bool, int, str]:
    key: tuple[bool, int, str] = _cursor(row).sort_key()
    return key


def _is_meant(row: Snapshot, params: ListTasksRequest) -> bool:
    if params.context_id and row.payload["context"] != params.context_id:
        return False
    if not params.HasField("status_timestamp_after"):
        return True
    at = row.payload["nanoseconds"]
    return at is not None and at >= params.status_timestamp_after.ToNanoseconds()


async def _find(face: Face, dag: str) -> Task | None:
    result = await face.done(face.store.results.find(dag, TASK))
    return None if result is None else Task.FromString(result.value)
