"""What stores of agent programs have to do, as cases for any implementation, other projects' own included.

Each case is a coroutine function. A session case takes a function from a session's id to a session over one store; the
other cases take the store itself. With pytest::

    @pytest.mark.parametrize("case", SESSION_CASES, ids=lambda case: case.__name__)
    def test_sessions(case, tmp_path):
        asyncio.run(case(lambda id: MySession(id, tmp_path / "sessions.db")))
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["CHECKPOINT_CASES", "EVENT_CASES", "SESSION_CASES", "TASK_CASES"]

Case = Callable[[Any], Coroutine[Any, Any, None]]

NAMES = ("plain", "a/b", "späße 猫", "x" * 400, "x" * 400 + "y", " ", "../up", "a%2Fb")
"""Ids that programs use, each another one's neighbour under some careless escape."""


def message(text: str) -> dict[str, Any]:
    """Make an item of a conversation."""
    return {"role": "user", "content": text}


async def items_come_in_order(make: Any) -> None:
    """Give a session's items as they were added, those of one call side by side."""
    session = make("s")
    assert await session.get_items() == []
    items = [message(str(number)) for number in range(25)]
    await session.add_items(items[:10])
    await session.add_items([])
    await session.add_items(items[10:])
    assert await session.get_items() == items
    assert await make("s").get_items() == items


async def a_limit_gives_the_last(make: Any) -> None:
    """Give the last so many items, oldest first; more than there are gives all."""
    session = make("s")
    items = [message(str(number)) for number in range(5)]
    await session.add_items(items)
    assert await session.get_items(limit=2) == items[-2:]
    assert await session.get_items(limit=50) == items
    assert await session.get_items(limit=0) == []


async def pop_takes_the_last(make: Any) -> None:
    """Take items from the end, and add after those that stay."""
    session = make("s")
    assert await session.pop_item() is None
    await session.add_items([message("1"), message("2")])
    assert await session.pop_item() == message("2")
    await session.add_items([message("3")])
    assert await session.get_items() == [message("1"), message("3")]
    assert [await session.pop_item() for _ in range(3)] == [message("3"), message("1"), None]


async def clear_leaves_nothing(make: Any) -> None:
    """Clear one session, and no other."""
    session, other = make("s"), make("t")
    await session.add_items([message("1")])
    await other.add_items([message("2")])
    await session.clear_session()
    await session.clear_session()
    assert await session.get_items() == []
    assert await other.get_items() == [message("2")]
    await session.add_items([message("3")])
    assert await session.get_items() == [message("3")]


async def any_text_names_a_session(make: Any) -> None:
    """Keep sessions apart whose ids are long, Unicode, or look like paths and escapes."""
    for name in NAMES:
        await make(name).add_items([message(name)])
    for name in NAMES:
        assert await make(name).get_items() == [message(name)]


async def large_items_are_kept(make: Any) -> None:
    """Keep an item of a megabyte, and nested values as they are."""
    items = [message("ä" * 500_000), {"deep": [{"n": 1, "f": 1.5, "none": None, "yes": True, "text": "\u0000\n"}]}]
    await make("s").add_items(items)
    assert await make("s").get_items() == items


async def two_writers_lose_nothing(make: Any) -> None:
    """Keep what two sessions of one id add at the same time, each in its order."""
    writers = [make("s"), make("s")]

    async def write(writer: int) -> None:
        for number in range(8):
            await writers[writer].add_items([message(f"{writer} {number}"), message(f"{writer} {number}b")])

    await asyncio.gather(write(0), write(1))
    texts = [item["content"] for item in await make("s").get_items()]
    assert len(texts) == 32
    for writer in "01":
        mine = [text for text in texts if text.startswith(writer)]
        assert mine == [f"{writer} {number}{b}" for number in range(8) for b in ("", "b")]
    assert all(texts[at + 1] == f"{texts[at]}b" for at in range(0, 32, 2))


SESSION_CASES: tuple[Case, ...] = (
    items_come_in_order,
    a_limit_gives_the_last,
    pop_takes_the_last,
    clear_leaves_nothing,
    any_text_names_a_session,
    large_items_are_kept,
    two_writers_lose_nothing,
)
"""For `Session` of the OpenAI Agents SDK."""


def _task(id: str, seconds: int | None = None, state: int = 2, context: str = "c", text: str = "") -> Any:
    from a2a.types import Task, TaskStatus
    from google.protobuf.timestamp_pb2 import Timestamp

    status = TaskStatus(state=state)  # type: ignore[arg-type, unused-ignore]
    if seconds is not None:
        status.timestamp.CopyFrom(Timestamp(seconds=seconds, nanos=123_456_789))
    task = Task(id=id, context_id=context, status=status)
    task.metadata.update({"text": text, "n": 1.5})
    return task


def _caller(name: str = "ann") -> Any:
    from a2a.auth.user import User
    from a2a.server.context import ServerCallContext

    class Named(User):
        @property
        def is_authenticated(self) -> bool:
            return True

        @property
        def user_name(self) -> str:
            return name

    return ServerCallContext(user=Named())


async def _listed(store: Any, caller: Any = None, **filters: Any) -> list[str]:
    """Page through a list, and return the ids."""
    from a2a.types import ListTasksRequest

    ids: list[str] = []
    token = ""
    while True:
        page = await store.list(ListTasksRequest(page_token=token, **filters), caller or _caller())
        ids += [task.id for task in page.tasks]
        token = page.next_page_token
        if not token:
            assert page.total_size == len(ids)
            return ids


async def a_task_is_kept_whole(store: Any) -> None:
    """Give a task as it was saved last, to its owner alone."""
    for name in NAMES:
        await store.save(_task(name, 5, text=name), _caller())
    await store.save(_task("plain", 6, state=3, text="x" * 300_000), _caller())
    for name in NAMES[1:]:
        assert await store.get(name, _caller()) == _task(name, 5, text=name)
    assert await store.get("plain", _caller()) == _task("plain", 6, state=3, text="x" * 300_000)
    assert await store.get("plain", _caller("bob")) is None
    assert await store.get("other", _caller()) is None


async def tasks_are_listed_newest_first(store: Any) -> None:
    """List by the time of the status, equal times by id, those without a time at the end, whatever the page size."""
    for id, seconds in (("a", 1), ("c", 2), ("b", 2), ("d", None), ("e", 3)):
        await store.save(_task(id, seconds), _caller())
    await store.save(_task("z", 9), _caller("bob"))
    for size in (1, 2, 50):
        assert await _listed(store, page_size=size) == ["e", "c", "b", "a", "d"]
    assert await _listed(store, _caller("bob")) == ["z"]


async def task_filters_are_anded(store: Any) -> None:
    """Filter by context, state and time."""
    from google.protobuf.timestamp_pb2 import Timestamp

    for id, seconds, state, context in (("a", 1, 2, "c"), ("b", 2, 3, "c"), ("d", 3, 2, "other"), ("e", 4, 2, "c")):
        await store.save(_task(id, seconds, state, context), _caller())
    assert await _listed(store, context_id="c") == ["e", "b", "a"]
    assert await _listed(store, status=2) == ["e", "d", "a"]
    assert await _listed(store, status=2, context_id="c", page_size=1) == ["e", "a"]
    assert await _listed(store, status_timestamp_after=Timestamp(seconds=3)) == ["e", "d"]
    assert await _listed(store, context_id="nobody") == []


async def deleted_tasks_are_gone(store: Any) -> None:
    """Delete one owner's task, and say nothing of one that is not there."""
    await store.save(_task("a", 1), _caller())
    await store.save(_task("a", 2), _caller("bob"))
    await store.delete("a", _caller())
    await store.delete("a", _caller())
    assert await store.get("a", _caller()) is None
    assert await _listed(store) == []
    assert await store.get("a", _caller("bob")) == _task("a", 2)


TASK_CASES: tuple[Case, ...] = (
    a_task_is_kept_whole,
    tasks_are_listed_newest_first,
    task_filters_are_anded,
    deleted_tasks_are_gone,
)
"""For `TaskStore` of the A2A SDK."""


def _checkpoint(id: str, second: int = 0, workflow: str = "w", **state: Any) -> Any:
    from agent_framework import WorkflowCheckpoint

    return WorkflowCheckpoint(
        workflow_name=workflow,
        graph_signature_hash="h",
        checkpoint_id=id,
        timestamp=f"2026-01-01T00:00:{second:02}+00:00",
        state=state,
    )


async def a_checkpoint_is_kept_whole(storage: Any) -> None:
    """Give a checkpoint as it was saved, also where ids are Unicode, and a copy each time."""
    from datetime import UTC, datetime

    for name in ("plain", "späße 猫", "x" * 120):
        saved = _checkpoint(name, at=datetime(2026, 1, 1, tzinfo=UTC), pair=(1, {2}), big="x" * 300_000, n=2**70)
        assert await storage.save(saved) == name
        assert await storage.load(name) == saved
        (await storage.load(name)).state.clear()
        assert await storage.load(name) == saved


async def checkpoints_are_listed_by_workflow(storage: Any) -> None:
    """List the checkpoints of one workflow; the latest is that with the latest timestamp."""
    assert await storage.get_latest(workflow_name="w") is None
    for number in range(5):
        await storage.save(_checkpoint(f"{number}", number))
    await storage.save(_checkpoint("other", 50, workflow="v"))
    assert sorted(await storage.list_checkpoint_ids(workflow_name="w")) == list("01234")
    listed = await storage.list_checkpoints(workflow_name="w")
    assert sorted(checkpoint.checkpoint_id for checkpoint in listed) == list("01234")
    assert (await storage.get_latest(workflow_name="w")).checkpoint_id == "4"
    assert await storage.list_checkpoints(workflow_name="nobody") == []


async def a_checkpoint_is_replaced(storage: Any) -> None:
    """Replace a checkpoint of the same id, also by one of another workflow."""
    await storage.save(_checkpoint("a", n=1))
    await storage.save(_checkpoint("a", n=2, workflow="v"))
    assert (await storage.load("a")).state == {"n": 2}
    assert await storage.list_checkpoint_ids(workflow_name="w") == []
    assert await storage.list_checkpoint_ids(workflow_name="v") == ["a"]


async def equal_timestamps_lose_none(storage: Any) -> None:
    """List all of several checkpoints of one moment, saved side by side."""
    await asyncio.gather(*(storage.save(_checkpoint(str(number))) for number in range(10)))
    assert sorted(await storage.list_checkpoint_ids(workflow_name="w")) == sorted(map(str, range(10)))
    assert (await storage.get_latest(workflow_name="w")).workflow_name == "w"


async def deleted_checkpoints_are_gone(storage: Any) -> None:
    """Delete a checkpoint, and say whether it was there."""
    from agent_framework.exceptions import WorkflowCheckpointException

    await storage.save(_checkpoint("a"))
    assert await storage.delete("a") is True
    assert await storage.delete("a") is False
    assert await storage.list_checkpoints(workflow_name="w") == []
    try:
        await storage.load("a")
    except WorkflowCheckpointException:
        return
    raise AssertionError("a deleted checkpoint was loaded")


CHECKPOINT_CASES: tuple[Case, ...] = (
    a_checkpoint_is_kept_whole,
    checkpoints_are_listed_by_workflow,
    a_checkpoint_is_replaced,
    equal_timestamps_lose_none,
    deleted_checkpoints_are_gone,
)
"""For `CheckpointStorage` of the Agent Framework."""


def _notice(number: int) -> Any:
    from mcp.types import JSONRPCNotification

    return JSONRPCNotification(jsonrpc="2.0", method="n", params={"number": number})


async def _replayed(store: Any, after: str) -> tuple[Any, list[tuple[int, str]]]:
    events: list[tuple[int, str]] = []

    async def send(event: Any) -> None:
        events.append((event.message.params["number"], event.event_id))

    return await store.replay_events_after(after, send), events


async def events_are_replayed_in_order(store: Any) -> None:
    """Replay what came after an event in its stream, with the ids that the events were given."""
    ids = []
    for number in range(30):
        ids.append(await store.store_event("a", _notice(number)))
        await store.store_event("b", _notice(1000 + number))
    assert len(set(ids)) == 30
    for place in (0, 13, 29):
        stream, events = await _replayed(store, ids[place])
        assert stream == "a"
        assert events == [(number, ids[number]) for number in range(place + 1, 30)]


async def priming_events_are_not_sent(store: Any) -> None:
    """Replay from an event without a message, and send none."""
    first = await store.store_event("späße 猫/1", None)
    await store.store_event("späße 猫/1", _notice(1))
    await store.store_event("späße 猫/1", None)
    last = await store.store_event("späße 猫/1", _notice(2))
    stream, events = await _replayed(store, first)
    assert stream == "späße 猫/1"
    assert [number for number, _ in events] == [1, 2]
    assert await _replayed(store, last) == ("späße 猫/1", [])


async def unknown_events_replay_nothing(store: Any) -> None:
    """Replay nothing after an event that nobody was given."""
    id = await store.store_event("a", _notice(1))
    for unknown in ("", "1", "no-such-event", id + "x", "9" + id):
        assert await _replayed(store, unknown) == (None, [])


EVENT_CASES: tuple[Case, ...] = (
    events_are_replayed_in_order,
    priming_events_are_not_sent,
    unknown_events_replay_nothing,
)
"""For `EventStore` of the Model Context Protocol's SDK."""
