"""Stores of agent programs against one suite, beside the other projects' own."""

import asyncio

import pytest

pytest.importorskip("agents")
pytest.importorskip("a2a")
pytest.importorskip("mcp.server.streamable_http")
pytest.importorskip("agent_framework")

from a2a.server.tasks import InMemoryTaskStore
from a2a.types import ListTasksRequest
from a2a.utils.errors import InvalidParamsError
from agent_framework import InMemoryCheckpointStorage, WorkflowCheckpoint, WorkflowCheckpointException
from agents.memory import Session, SessionSettings, SQLiteSession

import stateroom
from stateroom import AsyncStore
from stateroom.adapters.a2a import StateroomTaskStore
from stateroom.adapters.agent_framework import StateroomCheckpointStorage
from stateroom.adapters.faces import Access
from stateroom.adapters.mcp import StateroomEventStore
from stateroom.adapters.openai_agents import StateroomSession
from stateroom.testing import adapters as suites

from .conftest import ENGINES, opened

OURS = tuple(f"{face} {engine}" for face in ("plain", "awaited") for engine in ENGINES)


def cases(suite):
    return pytest.mark.parametrize("case", suite, ids=lambda case: case.__name__)


@pytest.fixture(params=["reference", *OURS])
def kind(request):
    """A store on every engine and face, or None for the other project's own."""
    if request.param == "reference":
        yield None
        return
    face, engine = request.param.split()
    with opened(engine, request) as store:
        yield store if face == "plain" else AsyncStore.over(store)


@cases(suites.SESSION_CASES)
def test_sessions(case, kind, tmp_path):
    if kind is None:
        asyncio.run(case(lambda name: SQLiteSession(name, tmp_path / "sessions.db")))
    else:
        asyncio.run(case(lambda name: StateroomSession(name, kind)))


@cases(suites.TASK_CASES)
def test_task_stores(case, kind):
    asyncio.run(case(InMemoryTaskStore() if kind is None else StateroomTaskStore(kind)))


@cases(suites.CHECKPOINT_CASES)
def test_checkpoint_storages(case, kind):
    asyncio.run(case(InMemoryCheckpointStorage() if kind is None else StateroomCheckpointStorage(kind)))


@cases(suites.EVENT_CASES)
@pytest.mark.parametrize("kind", OURS, indirect=True)
def test_event_stores(case, kind):
    asyncio.run(case(StateroomEventStore(kind)))


def test_delete_leaves_nothing(store):
    async def run():
        session = StateroomSession("s", store)
        await session.add_items([{"n": number} for number in range(3)])
        await session.clear_session()
        tasks = StateroomTaskStore(store)
        await tasks.save(suites._task("a", 1), suites._caller())
        await tasks.delete("a", suites._caller())
        storage = StateroomCheckpointStorage(store)
        await storage.save(suites._checkpoint("a"))
        await storage.delete("a")
        events = StateroomEventStore(store)
        await events.store_event("s", None)
        await events.clear("s")

    asyncio.run(run())
    assert list(store.results.scan()) == []
    assert list(store.machines.scan()) == []


def test_what_is_stored_is_seen_through_the_families(store):
    async def run():
        await StateroomSession("s", store).add_items([{"role": "user"}])
        await StateroomTaskStore(store).save(suites._task("a", 1), suites._caller())

    asyncio.run(run())
    assert store.results.get("session:s/items", "000000000000") == {"role": "user"}
    assert store.machines.query(machine="a2a:ann")[0].state == "TASK_STATE_WORKING"
    assert {change.family for change in store.feed.read().items} == {"results", "machines"}


def test_a_session_is_the_sdks_and_follows_its_settings(tmp_path):
    with StateroomSession("s", str(tmp_path / "s.db"), session_settings=SessionSettings(limit=1)) as session:
        assert isinstance(session, Session)
        asyncio.run(session.add_items([{"n": 1}, {"n": 2}]))
        assert asyncio.run(session.get_items()) == [{"n": 2}]
        with pytest.raises(TypeError):
            asyncio.run(session.add_items([{"n": 3}, {"n": object()}]))
        assert asyncio.run(session.get_items(limit=9)) == [{"n": 1}, {"n": 2}]


def test_a_token_that_was_not_given_out_is_refused(store):
    with pytest.raises(InvalidParamsError):
        asyncio.run(StateroomTaskStore(store).list(ListTasksRequest(page_token="bm9wZQ"), suites._caller()))


class Foreign:
    pass


def test_a_checkpoint_with_a_type_that_is_not_allowed_is_refused(store):
    checkpoint = WorkflowCheckpoint("w", "h", checkpoint_id="a", state={"own": Foreign()})
    with pytest.raises(WorkflowCheckpointException):
        asyncio.run(StateroomCheckpointStorage(store).save(checkpoint))
    assert list(store.results.scan()) == []


def test_sessions_of_one_stream_name_are_kept_apart_and_old_streams_go(store):
    async def run():
        first, second = (StateroomEventStore(store, session=name) for name in "ab")
        event = await first.store_event("1", None)
        await second.store_event("1", suites._notice(2))
        assert await suites._replayed(first, event) == ("1", [])
        assert await suites._replayed(second, event) == (None, [])

    asyncio.run(run())
    assert all(result.expires_at is not None for result in store.results.scan())


def test_ten_thousand_events_are_replayed():
    with stateroom.open("memory:") as store:
        events = StateroomEventStore(store)

        async def run():
            first = await events.store_event("s", None)
            values = [suites._notice(n).model_dump(mode="json", exclude_unset=True) for n in range(10_000)]
            await Access(store).arun(lambda face: events._log("s").append(face, values))
            return await suites._replayed(events, first)

        stream, replayed = asyncio.run(run())
    assert stream == "s"
    assert [number for number, _ in replayed] == list(range(10_000))
